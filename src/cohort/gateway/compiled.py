"""A routing table as calls use it: every release checked, and all that does not depend on a call made ready."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from cohort.gateway.assignment import Salts, salts
from cohort.gateway.contract import (
    GATEWAY_FLAGS,
    Arm,
    ReleaseRoute,
    Route,
    RoutingTable,
    ServiceRoute,
    Split,
    is_killed,
)
from cohort.gateway.contract_cache import CachePolicy
from cohort.gateway.contract_content import ContentPolicy
from cohort.gateway.contract_personal import PersonalPolicy
from cohort.gateway.contract_price import Price, check_price
from cohort.gateway.contract_reliability import DEFAULT, Reliability
from cohort.gateway.contract_routing import RoutingPolicy
from cohort.gateway.origins import Origin, parse_base_url, request_head
from cohort.gateway.personal.guard import PersonalGuard, guard_of
from cohort.gateway.providers import header_lines, paths, provider_of
from cohort.gateway.reliability.breakers import Breaker, Breakers
from cohort.gateway.rewriting import Rewriting, rewriting
from cohort.gateway.spend.callers import Callers, compile_keys
from cohort.gateway.spend.rules import Rules, compile_rules

GATEWAY = "cohort"
_STABLE = Arm.STABLE  # a member of an enum takes 60 ns to look up in its class, 3 ns in the module


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One route of a release as it is called: everything that is the same for each request, encoded once. Equal only to itself.

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
    routes_like: str | None = None  # the release whose routing boundary a candidate has while it is compared with it

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


def compile_table(table: RoutingTable, breakers: Breakers | None = None, gateway: str = GATEWAY) -> Snapshot:
    """The table with every release ready to be called; routes keep their circuits from `breakers`, requests upstream name `gateway`.

    Raises:
        ValueError: it names a release it does not hold, an unknown provider, or an address that is none; the message names the place.
    """
    _check_names(table)
    known = breakers or Breakers()
    owners = _owners(table.services.values())
    targets = {digest: _first_target(release, known, gateway, owners.get(digest, "")) for digest, release in table.releases.items()}
    rules = compile_rules(table)
    made = {name: _service(name, route, targets, table.releases) for name, route in table.services.items()}
    services = made if rules is None else {name: replace(service, limited=True, looked_into=True) for name, service in made.items()}
    splits = {name: s.split.rollout_id for name, s in services.items() if s.split and (s.split.share > 0 or s.split.shadow_share > 0)}
    keys = (compile_keys(table.keys), table.keys_required or bool(table.keys))
    killed = frozenset(flag for flag in GATEWAY_FLAGS if is_killed(flag, table.killed))
    used = tuple(target.breaker for first in targets.values() for target in (first, *first.others))
    shares = _strong_shares(table)
    stable = {name: s.stable.digest for name, s in services.items()}
    return Snapshot(table, services, splits, stable, shares, keys, killed, used, rules)


def _strong_shares(table: RoutingTable) -> dict[tuple[str, str], float]:
    """What outcomes of the stable release say, for its candidate as well where that routes alike: what is compared is the releases."""
    shares = {}
    for name, route in table.services.items():
        if not route.strong_share:
            continue
        shares[(name, route.stable)] = share = _number(route.strong_share, f"services.{name}.strong_share")
        if route.split is not None and table.releases[route.split.candidate].routing == table.releases[route.stable].routing:
            shares[(name, route.split.candidate)] = share
    return shares


def _check_names(table: RoutingTable) -> None:
    for name, route in table.services.items():
        if route.name != name:
            raise ValueError(f"services.{name}: it is called {route.name!r}; each service has one name, and each name one service")
    for digest, release in table.releases.items():
        if release.digest != digest:
            raise ValueError(f"releases.{digest}: its digest is {release.digest!r}")


def _owners(routes: Iterable[ServiceRoute]) -> dict[str, str]:
    """The service of each release in use: what of its routes is told to people names it."""
    return {digest: route.name for route in routes for digest in (route.stable, route.split.candidate if route.split else route.stable)}


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
    like = stable.digest if route.split.share < 1 else None  # else nobody would move the boundary any more
    return Service(name, stable, candidate, route.split, salts(route.split), guard, looked_into=looked_into, routes_like=like)


def _looks_into(target: Target) -> bool:
    return target.guard is not None or target.cache is not None


def _first_target(release: ReleaseRoute, breakers: Breakers, gateway: str, service: str) -> Target:
    if not release.routes:
        raise ValueError(f"releases.{release.digest}: no route")
    names = [route.name for route in release.routes]
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise ValueError(f"releases.{release.digest}: two routes are called {twice!r}")
    routes = {route.name: _target(release, route, breakers, gateway, service) for route in release.routes}
    first, *others = routes.values()
    guard = guard_of(release.personal.upstream, release.personal.kinds) if release.personal else None
    first = replace(first, guard=guard, content=release.content)
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


def _target(release: ReleaseRoute, route: Route, breakers: Breakers, gateway: str, service: str) -> Target:
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
        breaker=breakers.of(release.digest, release.version, route.name, reliability, service),
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
