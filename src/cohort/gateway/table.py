"""The routing table in force: compiled once when it arrives, replaced whole, kept on disk."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

from cohort.base.errors import CohortError, Retry
from cohort.gateway.assignment import Salts, salts
from cohort.gateway.contract import (
    CONTRACT_VERSION,
    GATEWAY_FLAGS,
    Arm,
    ReleaseRoute,
    Route,
    RoutingTable,
    ServiceRoute,
    Split,
    decode_table,
    is_killed,
)
from cohort.gateway.contract_cache import CachePolicy
from cohort.gateway.contract_content import ContentPolicy
from cohort.gateway.contract_personal import PersonalPolicy
from cohort.gateway.contract_price import Price, check_price
from cohort.gateway.contract_reliability import DEFAULT, Reliability
from cohort.gateway.contract_routing import RoutingPolicy
from cohort.gateway.dialects.repeated import repeated_name
from cohort.gateway.log import Log
from cohort.gateway.personal.guard import PersonalGuard, guard_of
from cohort.gateway.providers import header_lines, paths, provider_of
from cohort.gateway.reliability.breakers import Breaker, Breakers
from cohort.gateway.rewriting import Rewriting, rewriting
from cohort.gateway.spend.callers import Callers, compile_keys
from cohort.gateway.spend.rules import Rules, compile_rules
from cohort.gateway.spool import sync_directory

RESERVE_BYTES = 1 << 20
GATEWAY = "cohort"
Warm = Callable[[Sequence[str]], None]
"""Makes the keys that a table refers to ready, in a thread, before the table is in force."""
_STABLE = Arm.STABLE  # a member of an enum takes 60 ns to look up in its class, 3 ns in the module


class Origin(NamedTuple):
    """Where connections go. A tuple: every call looks its pool up, and a data class is hashed in Python."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """One route of a release as it is called: everything that is the same for each request, encoded once.

    `provider`: the protocol that it speaks. `heads`: of requests, by path behind the base URL.
    `others`: the routes to ask after this one, in order. `record`: its part of a record.
    """

    digest: str
    version: str
    route: str
    provider: str
    key_line: str
    origin: Origin
    heads: Mapping[bytes, bytes]
    api_key: str | None
    rewriting: Rewriting
    price: Price | None
    timeout_s: float
    reply_headers: bytes
    parameters: Mapping[str, Any]
    cache: CachePolicy | None
    record: str
    reliability: Reliability
    breaker: Breaker
    others: tuple[Target, ...] = ()
    routing: RoutingPolicy | None = None
    content: ContentPolicy | None = None  # samples of what this release is asked and answers
    guard: PersonalGuard | None = None  # what happens to personal data in what this release is asked
    by_strength: tuple[Target, ...] = ()  # with `routing`: the weak route first, the strong route first


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """A service of one table; equal only to itself, so that the next table's is another."""

    name: str
    stable: Target
    candidate: Target | None = None
    split: Split | None = None
    salts: Salts | None = None
    shadow_guard: PersonalGuard | None = None  # of copies for the candidate
    limited: bool = False  # something limits what may be spent
    looked_into: bool = False  # the gateway decides by what is asked: a limit, a cache, or what is looked for in it

    def target(self, arm: Arm) -> Target:
        """The release that answers for an arm."""
        return self.stable if arm is _STABLE or self.candidate is None else self.candidate


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A table, compiled. Immutable: a request uses one from beginning to end."""

    table: RoutingTable
    services: Mapping[str, Service]
    splits: Mapping[str, str]
    stable: Mapping[str, str]
    strong_shares: Mapping[tuple[str, str], float]  # by service and release: what outcomes say the strong model should get
    keys: tuple[Callers, bool]  # by their hash, and whether one is required
    killed: frozenset[str] = frozenset()  # those of GATEWAY_FLAGS that are off everywhere
    breakers: tuple[Breaker, ...] = ()
    rules: Rules | None = None  # what calls may spend; None: nothing is limited

    @property
    def references(self) -> list[str]:
        """Of the keys of its routes."""
        return sorted({route.api_key for release in self.table.releases.values() for route in release.routes if route.api_key})


class Table:
    """Holds the snapshot in force. `take` is the only way to another one."""

    def __init__(
        self, directory: Path, epoch: int, log: Log, breakers: Breakers | None = None, gateway: str = GATEWAY, warm: Warm = lambda _: None
    ) -> None:
        self._path = directory / "routing.json"
        self._reserve = directory / "reserve"
        self._epoch = epoch
        self._log = log
        self._lock = asyncio.Lock()
        self.breakers = breakers or Breakers()
        self._gateway = gateway
        self._warm = warm
        self.snapshot: Snapshot | None = None

    def keys(self) -> tuple[Callers, bool] | None:
        """The clients' keys in force, and whether one is required; None without a table."""
        return self.snapshot.keys if self.snapshot is not None else None

    def rules(self) -> Rules | None:
        """What calls may spend; None where nothing is limited."""
        return self.snapshot.rules if self.snapshot is not None else None

    def kills(self, flag: str) -> bool:
        """Whether a kill switch is thrown; without a table every one is."""
        return self.snapshot is None or flag in self.snapshot.killed

    @property
    def version(self) -> int:
        return self.snapshot.table.version if self.snapshot else 0

    def load(self) -> None:
        """Serve from the table of an earlier process. One that cannot be read is set aside, and there is none until control pushes."""
        self._keep_reserve()
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        try:
            self.snapshot = self._compiled(data)
            self.breakers.keep(self.snapshot.breakers)
            self._warm(self.snapshot.references)
            self._log.write("table_loaded", version=self.version)
        except (ValueError, TypeError, AttributeError) as error:
            aside = self._path.with_name(f"routing.json.damaged-{self._epoch}")
            self._path.rename(aside)
            self._log.write("table_damaged", reason=str(error), kept_as=aside.name)

    async def take(self, data: bytes) -> bool:
        """Put the table in `data` in force; False when it is no newer than the present one.

        Raises:
            CohortError DOCUMENT_INVALID, CONTRACT_VERSION: not a table of this version. DISK_FULL: could not be kept.
                The old one stays in force.
        """
        snapshot = self._parse(data)
        async with self._lock:
            if snapshot.table.version <= self.version:
                return False
            try:
                await asyncio.get_running_loop().run_in_executor(None, self._persist, data, snapshot.references)
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                raise CohortError(
                    "DISK_FULL",
                    f"the routing table could not be kept: {reason}",
                    retry=Retry.SAFE,
                    hint="Free space for the gateway's data directory.",
                ) from error
            # Commit point. The table is on disk; from here on every new request uses it.
            self.snapshot = snapshot
            self.breakers.keep(snapshot.breakers)
        self._log.write("table_in_force", version=self.version, services=len(snapshot.services), splits=len(snapshot.splits))
        return True

    def _compiled(self, data: bytes) -> Snapshot:
        table = decode_table(data)
        twice = repeated_name(data)
        if twice is not None:
            raise ValueError(f"{twice!r} stands twice in one object of the table")
        return compile_table(table, self.breakers, self._gateway)

    def _parse(self, data: bytes) -> Snapshot:
        try:
            return self._compiled(data)
        except (ValueError, TypeError, AttributeError) as error:
            code = "CONTRACT_VERSION" if _other_contract(data) else "DOCUMENT_INVALID"
            raise CohortError(
                code, f"routing table refused: {error}", hint="Push a table of this version; the old one is still in force."
            ) from error

    def _persist(self, data: bytes, references: Sequence[str]) -> None:
        self._warm(references)
        try:
            self._write(data)
        except OSError:
            self._reserve.unlink(missing_ok=True)  # a full disk must not stand in the way of a rollback
            self._write(data)
        self._keep_reserve()

    def _write(self, data: bytes) -> None:
        fresh = self._path.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # it holds the salts of rollouts
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        sync_directory(self._path.parent)

    def _keep_reserve(self) -> None:
        if self._reserve.exists():
            return
        try:
            with open(os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(bytes(RESERVE_BYTES))
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            self._log.seldom("reserve_not_kept", reason=os.strerror(error.errno or 0))


def compile_table(table: RoutingTable, breakers: Breakers | None = None, gateway: str = GATEWAY) -> Snapshot:
    """The table with every release ready to be called; routes keep their circuits from `breakers`, requests upstream name `gateway`.

    Raises:
        ValueError: it names a release it does not hold, an unknown provider, or an address that is none; the message names the place.
    """
    _check_names(table)
    known = breakers or Breakers()
    targets = {digest: _first_target(release, known, gateway) for digest, release in table.releases.items()}
    rules = compile_rules(table)
    made = {name: _service(name, route, targets, table.releases) for name, route in table.services.items()}
    services = made if rules is None else {name: replace(service, limited=True, looked_into=True) for name, service in made.items()}
    splits = {name: s.split.rollout_id for name, s in services.items() if s.split and (s.split.share > 0 or s.split.shadow_share > 0)}
    keys = (compile_keys(table.keys), table.keys_required or bool(table.keys))
    killed = frozenset(flag for flag in GATEWAY_FLAGS if is_killed(flag, table.killed))
    used = tuple(target.breaker for first in targets.values() for target in (first, *first.others))
    shares = {
        (name, r.stable): _number(r.strong_share, f"services.{name}.strong_share") for name, r in table.services.items() if r.strong_share
    }
    stable = {name: s.stable.digest for name, s in services.items()}
    return Snapshot(table, services, splits, stable, shares, keys, killed, used, rules)


def _check_names(table: RoutingTable) -> None:
    for name, route in table.services.items():
        if route.name != name:
            raise ValueError(f"services.{name}: it is called {route.name!r}; each service has one name, and each name one service")
    for digest, release in table.releases.items():
        if release.digest != digest:
            raise ValueError(f"releases.{digest}: its digest is {release.digest!r}")


def _other_contract(data: bytes) -> bool:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return isinstance(body, dict) and isinstance(body.get("contract"), int) and body["contract"] != CONTRACT_VERSION


def _service(name: str, route: ServiceRoute, targets: Mapping[str, Target], releases: Mapping[str, ReleaseRoute]) -> Service:
    for digest in (route.stable, route.split.candidate if route.split else route.stable):
        if digest not in targets:
            raise ValueError(f"services.{name}: release {digest} is not in the table")
    stable = targets[route.stable]
    if route.split is None:
        return Service(name, stable, looked_into=_looks_into(stable))
    _number(route.split.share, f"services.{name}.split.share")
    _number(route.split.shadow_share, f"services.{name}.split.shadow_share")
    if not (0 <= route.split.share <= 1 and 0 <= route.split.shadow_share <= 1):
        raise ValueError(f"services.{name}.split: shares must be from 0 to 1")
    policy = releases[route.split.candidate].personal or PersonalPolicy()
    guard = guard_of(policy.shadow, policy.kinds) if route.split.shadow_share > 0 else None
    candidate = targets[route.split.candidate]
    looked_into = guard is not None or _looks_into(stable) or _looks_into(candidate)
    return Service(name, stable, candidate, route.split, salts(route.split), guard, looked_into=looked_into)


def _looks_into(target: Target) -> bool:
    return target.guard is not None or target.cache is not None


def _first_target(release: ReleaseRoute, breakers: Breakers, gateway: str) -> Target:
    if not release.routes:
        raise ValueError(f"releases.{release.digest}: no route")
    names = [route.name for route in release.routes]
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise ValueError(f"releases.{release.digest}: two routes are called {twice!r}")
    routes = {route.name: _target(release, route, breakers, gateway) for route in release.routes}
    first, *others = routes.values()
    first = replace(
        first, guard=guard_of(release.personal.upstream, release.personal.kinds) if release.personal else None, content=release.content
    )
    if release.routing is None:
        return replace(first, others=tuple(others))
    by_strength = tuple(_led_by(name, release.routing, routes) for name in (release.routing.weak, release.routing.strong))
    return replace(first, others=tuple(others), routing=release.routing, by_strength=by_strength)


def _led_by(name: str, policy: RoutingPolicy, routes: Mapping[str, Target]) -> Target:
    """One of the two routes first, then the other, then the rest as they are written."""
    for known in (policy.strong, policy.weak):
        if known not in routes:
            raise ValueError(f"releases.{routes[next(iter(routes))].digest}.routing: there is no route {known!r}")
    other = policy.weak if name == policy.strong else policy.strong
    rest = [target for place, target in routes.items() if place not in (name, other)]
    return replace(routes[name], others=(routes[other], *rest))


def _target(release: ReleaseRoute, route: Route, breakers: Breakers, gateway: str) -> Target:
    place = f"releases.{release.digest}.routes.{route.name}"
    provider = provider_of(route, place)
    origin, path = parse_base_url(route.base_url, f"{place}.base_url")
    _check_release(release, route, place)
    own = header_lines(route.headers, place)
    reliability = release.reliability or DEFAULT
    return Target(
        digest=release.digest,
        version=release.version,
        route=route.name,
        provider=provider.protocol,
        key_line=provider.key_line,
        origin=origin,
        heads={end: request_head(origin, whole, gateway) + own for end, whole in paths(route, provider, path).items()},
        api_key=route.api_key,
        rewriting=rewriting(route.model, release.prompt, release.parameters),
        price=route.price,
        timeout_s=release.timeout_s,
        reply_headers=_reply_headers(release, route),
        parameters=release.parameters,
        cache=release.cache,
        record=f',"route":{orjson.dumps(route.name).decode()}',
        reliability=reliability,
        breaker=breakers.of(release.digest, release.version, route.name, reliability),
    )


def _check_release(release: ReleaseRoute, route: Route, place: str) -> None:
    for name, text in (("version", release.version), ("digest", release.digest), ("route", route.name)):
        if not (isinstance(text, str) and text.isascii() and text.isprintable()):
            raise ValueError(f"{place}: {name} must be text that can stand in a header, found {text!r}")
    for name, text in (
        ("model", route.model),
        ("prompt", release.prompt or ""),
        ("api_key", route.api_key or ""),
        ("api_version", route.api_version or ""),
    ):
        if not isinstance(text, str):
            raise ValueError(f"{place}: {name} must be text, found {type(text).__name__}")
    if not isinstance(release.parameters, dict):
        raise ValueError(f"{place}: parameters must be an object")
    if _number(release.timeout_s, f"{place}: timeout_s") <= 0:
        raise ValueError(f"{place}: timeout_s must be above 0")
    if release.budget_usd_micro_per_day is not None and _number(release.budget_usd_micro_per_day, f"{place}: budget") < 0:
        raise ValueError(f"{place}: the budget must be from 0")
    _check_embeddings(release, place)
    if route.price is not None:
        check_price(route.price, f"{place}.price")


def _check_embeddings(release: ReleaseRoute, place: str) -> None:
    semantic = release.cache.semantic if release.cache is not None else None
    if semantic is None or semantic.embeddings is None:
        return
    route = semantic.embeddings
    parse_base_url(route.base_url, f"{place}: cache.semantic.embeddings.base_url")
    if not isinstance(route.model, str) or not isinstance(route.api_key, str | None):
        raise ValueError(f"{place}: cache.semantic.embeddings: model and api_key must be text")


def _number(value: object, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{place} must be a number, found {value!r}")
    return float(value)


def _reply_headers(release: ReleaseRoute, route: Route) -> bytes:
    lines = (f"x-cohort-release: {release.version}", f"x-cohort-release-digest: {release.digest}", f"x-cohort-route: {route.name}")
    return "".join(f"{line}\r\n" for line in lines).encode()


def parse_base_url(text: str, place: str) -> tuple[Origin, str]:
    """The origin and path of an upstream; raises ValueError naming `place`."""
    parts = urlsplit(text)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.username
        or not (text.isascii() and text.isprintable())
        or " " in text
    ):
        raise ValueError(f"{place}: {text!r} is not an http or https address")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Origin(parts.scheme, parts.hostname, port), parts.path.rstrip("/")


def request_head(origin: Origin, path: bytes, gateway: str) -> bytes:
    """`cdn-loop` (RFC 8586) names this gateway: one that meets its own name again has been made its own upstream."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    default = 443 if origin.scheme == "https" else 80
    authority = host if origin.port == default else f"{host}:{origin.port}"
    return (
        b"POST %s HTTP/1.1\r\nhost: %s\r\nuser-agent: cohort\r\n"
        b"accept-encoding: identity\r\ncontent-type: application/json\r\n"
        b"accept: text/event-stream, application/json\r\ncdn-loop: %s\r\n"
    ) % (path, authority.encode(), gateway.encode())
