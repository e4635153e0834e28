"""What control and the gateway say to each other: the routing table down, outcomes up. Versioned; both sides use this module.

Control pushes a whole `RoutingTable` (`PUT /-/routing`); the gateway keeps the newest on disk and serves from it without control.
The gateway appends `Call` records to its spool; control reads them from a `Cursor` on (`GET /-/outcomes`), commits cursor and records in
one transaction, and then acknowledges (`POST /-/outcomes/ack`), upon which the gateway may delete. Reading is repeatable, so every
record is taken exactly once.

Only the standard library and orjson: the gateway imports this.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from cohort.gateway.contract_cache import CachePolicy, decode_cache
from cohort.gateway.contract_content import CONTENT_FLAG, ContentPolicy, decode_content
from cohort.gateway.contract_personal import PersonalPolicy, decode_personal
from cohort.gateway.contract_price import Price, decode_price
from cohort.gateway.contract_reliability import Reliability, RouteTrouble, decode_reliability
from cohort.gateway.contract_routing import RoutingPolicy, RoutingState, routing_of
from cohort.gateway.contract_spend import Budget, ClientKey, decode_budgets, decode_keys
from cohort.gateway.contract_trace import Attempt, Step, decode_steps, decode_tries

CONTRACT_VERSION = 1
BUCKET_BITS = 53
GATEWAY_FLAGS = {
    "cache.exact": "answers kept and given again for the same request",
    "cache.semantic": "answers given again for requests that mean the same",
    "routing.adapt": "what moves the boundary between a strong and a weak model; the approved boundary holds",
    "routing.adaptive": "the choice between a strong and a weak model for each conversation",
    "shadow": "copies of calls to a candidate",
    CONTENT_FLAG: "samples of what calls asked and were answered",
}
"""What the gateway can be told to stop by the kill list, whatever a release says."""


class Arm(StrEnum):
    """Which release answered. `SHADOW`: the candidate answered a copy and nobody saw it."""

    STABLE = "stable"
    CANDIDATE = "candidate"
    SHADOW = "shadow"


class Result(StrEnum):
    """How one call ended, as the client met it. Everything but OK and CLIENT_GONE is a failure."""

    OK = "ok"
    UPSTREAM_ERROR = "upstream_error"  # the upstream answered with an error status
    UNREACHABLE = "unreachable"  # no connection, twice
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"  # broke off after the first byte
    CLIENT_GONE = "client_gone"  # the client left; the latency is a lower bound
    LOST = "lost"  # the gateway died with the call in flight; written by control


def failed(result: Result) -> bool:
    return result not in (Result.OK, Result.CLIENT_GONE)


@dataclass(frozen=True, slots=True)
class Route:
    """One upstream. `api_key` is a reference (`env:NAME`, `file:/path`, `credential:NAME`, `keyring:SERVICE/USER`), never the key."""

    name: str
    provider: str
    base_url: str
    model: str
    api_key: str | None = None
    price: Price | None = None
    api_version: str | None = None  # azure
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReleaseRoute:
    """What the gateway needs of a release. `routes` are asked in their order; `parameters` are set where the client set none."""

    digest: str
    version: str
    routes: tuple[Route, ...]
    prompt: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 60.0
    routing: RoutingPolicy | None = None
    cache: CachePolicy | None = None
    reliability: Reliability | None = None
    personal: PersonalPolicy | None = None
    budget_usd_micro_per_day: int | None = None
    content: ContentPolicy | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """How a service's units are shared while a rollout runs.

    `share` is the candidate's part of the units, 0 to 1; `shadow_share` the part of the units whose calls are copied to the
    candidate. `stage_run` counts entries into stages, so that a repeated stage has evidence of its own. `salt` is hexadecimal.
    `bypass_caches`: no call is answered from a cache, which would hold more of the older release; what is answered is still kept.
    """

    rollout_id: str
    salt: str
    stage_run: int
    candidate: str
    share: float = 0.0
    shadow_share: float = 0.0
    bypass_caches: bool = False


@dataclass(frozen=True, slots=True)
class ServiceRoute:
    """`strong_share`: the part of conversations that outcomes say the stable release's strong model should get; None: what the release says."""

    name: str
    stable: str
    split: Split | None = None
    strong_share: float | None = None


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Everything a gateway serves from. A gateway takes a table only if its `version` is higher than the one it has.

    `keys`: those in force. `keys_required`: refuse who shows none of them, also when there is none left.
    `killed`: flags that people turned off everywhere; `name*` is every flag that begins so.
    """

    version: int
    issued_us: int
    services: Mapping[str, ServiceRoute]
    releases: Mapping[str, ReleaseRoute]
    killed: tuple[str, ...] = ()
    contract: int = CONTRACT_VERSION
    keys: tuple[ClientKey, ...] = ()
    keys_required: bool = False
    budgets: tuple[Budget, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in one gateway's spool: everything before it has been taken."""

    segment: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """One record of the spool.

    kind: `assigned` when a unit under a rollout was given an arm (written before the upstream is called), `call` when a call ended,
    `feedback` when a client judged one. A shadow copy is a `call` with arm SHADOW and the `seq` of the call it copies.
    (gateway, epoch, seq, kind, arm) is unique. `epoch` is the start of the gateway process; `seq` counts within it.
    `at_us` is the moment of assignment for `assigned` and `call`, of arrival for `feedback`: evidence is taken in its order.
    `unit` is the pseudonym; `share` the probability that was in force for this arm's candidate at assignment.
    """

    kind: str
    gateway: str
    epoch: int
    seq: int
    at_us: int
    service: str
    release: str  # digest of the release that answered
    unit: str
    arm: Arm = Arm.STABLE
    rollout_id: str | None = None
    stage_run: int = 0
    share: float = 0.0
    result: Result = Result.OK
    status: int = 0  # what the client saw; 0 where nothing was sent
    first_us: int | None = None  # assignment to first byte of the body
    total_us: int | None = None  # assignment to last byte
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd_micro: int | None = None  # millionths of a dollar; None where the price or the usage is unknown
    stream: bool = False
    route: str = ""
    key: str = ""  # id of the client's key; empty where none was needed
    estimated: bool = False  # the cost is: the upstream did not say its usage, and a budget had to be told
    score: float | None = None  # feedback: 0 to 1
    negative: bool = False  # feedback: the client says it failed
    strong: bool = False  # a routing policy chose the strong model to be asked first
    bucket: str = ""  # of the routing: control or adaptive; "": no policy chose
    difficulty: float | None = None  # 0 to 1
    boundary: float | None = None  # what it was compared with
    features: str = ""  # what the difficulty was made of: contract_routing.FEATURES, one hexadecimal digit each
    cache: str = ""  # the tier that answered: l1, l2, l3, l4; "none" when the client wanted a kept answer and none was there
    saved_usd_micro: int | None = None  # what the answer cost when the model gave it; a cached answer costs 0
    attempts: int = 1  # asked of upstreams for this call, each try counted
    degraded: bool = False  # another route than the release's first answered
    tries: tuple[Attempt, ...] = ()  # of a call whose one attempt answered: nothing, as the call's own times say it
    steps: tuple[Step, ...] = ()  # of what took part in the call
    looked: str = ""  # `miss`: the caches had no answer; `bypass`: they took no part in a call that could have been kept
    held_usd_micro: int | None = None  # reserved on each of `budgets` while the call ran; `cost_usd_micro` was settled
    budgets: tuple[str, ...] = ()  # that it counted in: `SCOPE:NAME`, or `all`
    code: str = ""  # of the gateway's own error that the client got
    run: str = ""  # as the caller named it
    agent: str = ""  # of the caller's key, or else as the caller named it
    operation: str = ""  # empty: a turn of a conversation
    content: bool = False  # the gateway was to keep a sample of what was asked and answered
    parent: str = ""  # the caller's span: TRACE-SPAN-FLAGS

    @property
    def answered_from_cache(self) -> bool:
        """It says what an earlier answer was like, and nothing of what the release would say now."""
        return self.cache not in ("", "none")


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one gateway, in the order they were written. `next` is where to go on; `behind` how many bytes remain.

    `damaged` names what could not be read and was set aside, for people; a batch goes on behind it. `formerly`: other names under which this
    spool was written, the last one first; their processes are no more.
    """

    gateway: str
    epoch: int
    records: tuple[Call, ...]
    next: Cursor
    behind: int = 0
    damaged: tuple[str, ...] = ()
    formerly: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayState:
    """What a gateway says of itself (`GET /-/state`): the table in force and, per service, who was assigned last."""

    gateway: str
    epoch: int
    table_version: int
    services: Mapping[str, str]  # service -> digest of its stable release
    splits: Mapping[str, str]  # service -> rollout id, for those with a candidate taking traffic or shadow
    last_candidate_us: Mapping[str, int]  # rollout id -> when a unit was last given the candidate (not shadow)
    in_flight: int = 0
    spool_bytes: int = 0
    routing: Mapping[str, RoutingState] = field(default_factory=dict)  # service -> how its stable release chooses between two models
    troubles: tuple[RouteTrouble, ...] = ()  # routes whose last call failed


def bucket(salt: bytes, unit: str) -> float:
    """Where a unit falls in [0, 1): the first 53 bits of HMAC-SHA256(salt, unit) / 2**53. Candidate when below the share."""
    digest = hmac.digest(salt, unit.encode(), hashlib.sha256)
    return (int.from_bytes(digest[:8], "big") >> (64 - BUCKET_BITS)) / (1 << BUCKET_BITS)


def pseudonym(key: bytes, raw_unit: str) -> str:
    """The stored name of a unit: 32 hexadecimal digits of HMAC-SHA256 with the installation's key. The raw name is never stored."""
    return hmac.digest(key, raw_unit.encode(), hashlib.sha256)[:16].hex()


def is_killed(flag: str, killed: Iterable[str]) -> bool:
    """Whether a kill list (`RoutingTable.killed`) turns this flag off."""
    return any(flag.startswith(entry[:-1]) if entry.endswith("*") else flag == entry for entry in killed)


def encode(value: Any) -> bytes:
    """Any value of this module as JSON."""
    return orjson.dumps(value)


def decode_table(data: bytes) -> RoutingTable:
    """The table in `data`.

    Raises:
        ValueError: not a table of this contract version; the message says what is wrong.
    """
    try:
        body = orjson.loads(data)
        if body["contract"] != CONTRACT_VERSION:
            raise ValueError(f"routing table of contract version {body['contract']}, this side speaks {CONTRACT_VERSION}")
        return RoutingTable(
            version=int(body["version"]),
            issued_us=int(body["issued_us"]),
            services={name: _service(entry) for name, entry in body["services"].items()},
            releases={digest: _release(entry) for digest, entry in body["releases"].items()},
            keys=decode_keys(body.get("keys", ())),
            keys_required=bool(body.get("keys_required", False)),
            budgets=decode_budgets(body.get("budgets", ())),
            killed=tuple(body.get("killed", ())),
        )
    except (KeyError, TypeError, orjson.JSONDecodeError) as error:
        raise ValueError(f"not a routing table: {error!r}") from error


def _service(entry: dict[str, Any]) -> ServiceRoute:
    split = entry.get("split")
    return ServiceRoute(entry["name"], entry["stable"], Split(**split) if split else None, entry.get("strong_share"))


def _release(entry: dict[str, Any]) -> ReleaseRoute:
    routes = tuple(Route(**{**route, "price": decode_price(route.get("price"))}) for route in entry["routes"])
    routing = routing_of(entry["routing"]) if entry.get("routing") else None
    cache, reliability = decode_cache(entry.get("cache")), decode_reliability(entry.get("reliability"))
    personal, content = decode_personal(entry.get("personal")), decode_content(entry.get("content"))
    return ReleaseRoute(
        **{
            **entry,
            "routes": routes,
            "routing": routing,
            "cache": cache,
            "reliability": reliability,
            "personal": personal,
            "content": content,
        }
    )


_CALL_DEFAULTS: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(Call) if f.default is not dataclasses.MISSING}
_ROWS = frozenset({"tries", "steps"})
"""Fields whose entries are written as rows, without names."""
_CALL_FIELDS = tuple(f.name for f in dataclasses.fields(Call))


def encode_call(call: Call) -> bytes:
    """One record as compact JSON: fields at their default are left out."""
    body = {}
    for name in _CALL_FIELDS:
        value = getattr(call, name)
        if name not in _CALL_DEFAULTS or value != _CALL_DEFAULTS[name]:
            body[name] = [dataclasses.astuple(entry) for entry in value] if name in _ROWS else value
    return orjson.dumps(body)


def decode_call(data: bytes | dict[str, Any]) -> Call:
    """The record in `data`.

    Raises:
        ValueError: not a record.
    """
    try:
        body = orjson.loads(data) if isinstance(data, (bytes, bytearray)) else data
        if "arm" in body:
            body["arm"] = Arm(body["arm"])
        if "result" in body:
            body["result"] = Result(body["result"])
        if "tries" in body:
            body["tries"] = decode_tries(body["tries"])
        if "steps" in body:
            body["steps"] = decode_steps(body["steps"])
        if "budgets" in body:
            body["budgets"] = tuple(body["budgets"])
        return Call(**body)
    except (TypeError, orjson.JSONDecodeError) as error:
        raise ValueError(f"not an outcome record: {error}") from error


def decode_batch(data: bytes) -> Batch:
    """The batch in `data`; raises ValueError when it is not one."""
    try:
        body = orjson.loads(data)
        return Batch(
            gateway=body["gateway"],
            epoch=body["epoch"],
            records=tuple(decode_call(record) for record in body["records"]),
            next=Cursor(**body["next"]),
            behind=body.get("behind", 0),
            damaged=tuple(body.get("damaged", ())),
            formerly=tuple(body.get("formerly", ())),
        )
    except (KeyError, TypeError, orjson.JSONDecodeError) as error:
        raise ValueError(f"not a batch of outcomes: {error!r}") from error


def decode_state(data: bytes) -> GatewayState:
    try:
        body = orjson.loads(data)
        routing = {name: RoutingState(**entry) for name, entry in body.pop("routing", {}).items()}
        troubles = tuple(RouteTrouble(**entry) for entry in body.pop("troubles", ()))
        return GatewayState(**body, routing=routing, troubles=troubles)
    except (TypeError, orjson.JSONDecodeError) as error:
        raise ValueError(f"not a gateway state: {error!r}") from error
