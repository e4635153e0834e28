"""The fields of a release manifest and the rules for each. Reference: docs/reference/release-manifest.md."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from cohort.base.documents import HIDDEN_INPUT
from cohort.gateway.contract_cache import FALSE_HIT_MAX_DEFAULT, SAMPLE_SHARE_DEFAULT, THRESHOLD_DEFAULT, TTL_S_DEFAULT, TTL_S_MAX
from cohort.gateway.contract_content import CONTENT_BYTES_DEFAULT, CONTENT_BYTES_MAX
from cohort.gateway.contract_personal import KINDS as PERSONAL_KINDS
from cohort.gateway.contract_price import TIER_FACTOR_MAX
from cohort.gateway.contract_reliability import DEFAULT as RELIABILITY
from cohort.gateway.contract_reliability import RETRIES_MAX
from cohort.gateway.contract_routing import WEIGHTS
from cohort.gateway.providers import HEADERS_MAX, header_problem
from cohort.gateway.providers import PROVIDERS as KNOWN

PROVIDERS = tuple(KNOWN)
"""What a route may be. `openai`: any server with OpenAI's chat completions; `openai-responses`: one that also has OpenAI's Responses.
`azure`: a deployment. `anthropic`: Anthropic's messages."""
KINDS = ("model", "agent", "http")
STABLE = "stable"
"""The tag of the release that a service serves."""
ROUTES_MAX = 16
ENTRIES_MAX = 256  # of parameters, tools or flags
TIMEOUT_S_DEFAULT = 60.0
TIERS_MAX = 16  # of a price
TIMEOUT_S_MAX = 3600.0
CALL_PATHS = ("/chat/completions", "/completions", "/responses", "/messages", "/embeddings")
NOT_PARAMETERS = {"model": "the route's `model`", "messages": "the client", "stream": "the client", "stream_options": "the client"}

_SERVICE = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_KEY_REFERENCE = re.compile(
    r"env:[A-Za-z_][A-Za-z0-9_]*|file:/\S+|credential:[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}|keyring:[^\s/][^\n]{0,200}/[^\s/][^\n/]{0,200}"
)
_SECRET_NAME = re.compile(r"(?i)(api[_-]?key|authorization|password|secret|access[_-]?token|credentials?)")


def _wrong(message: str, hint: str, kind: str = "rule") -> PydanticCustomError:
    return PydanticCustomError(kind, "{message}", {"message": message, "hint": hint})


def _service_name(value: str) -> str:
    if not _SERVICE.fullmatch(value):
        raise _wrong(
            "not a service name", "Use 1 to 63 lower-case letters, digits, `.`, `_` or `-`, beginning and ending with a letter or digit."
        )
    return value


def _version_label(value: str) -> str:
    if value == STABLE:
        raise _wrong("not a version: it is the tag of what serves", "Choose another word.")
    if not _VERSION.fullmatch(value):
        raise _wrong("not a version", "Use 1 to 63 letters, digits, `.`, `_`, `+` or `-`, beginning with a letter or digit.")
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise _wrong("not a name", "Use 1 to 128 letters, digits, `.`, `_`, `:` or `-`, beginning with a letter or digit.")
    return value


def _base_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, usable = None, False
    if parts is None or not usable or re.search(r"[\s\x00-\x1f\x7f]", value):
        raise _wrong("not the address of a server", "Write it like `https://host:port/v1`.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        hint = "Leave out user, password, query and fragment; a key belongs in `api_key`."
        raise _wrong("holds more than scheme, host, port and path", hint, HIDDEN_INPUT)
    return value.rstrip("/")


def _model_url(value: str) -> str:
    """Paths of calls are the gateway's to add."""
    found = next((path for path in CALL_PATHS if value.endswith(path)), None)
    if found is not None:
        raise _wrong(f"holds the path of a call, `{found}`, which the gateway adds", f"Write it like `{value.removesuffix(found)[:200]}`.")
    return value


def _key_reference(value: str) -> str:
    """Where the key is. A key itself is refused, and not shown."""
    if not _KEY_REFERENCE.fullmatch(value):
        hint = "Write `env:NAME`, `file:/path`, `credential:NAME` or `keyring:SERVICE/USER`, and put the key there. If it was shared with this file, replace it."
        raise _wrong("must say where the key is, not the key itself", hint, HIDDEN_INPUT)
    if value.startswith("env:COHORT_"):
        raise _wrong("names a variable of Cohort itself, which is never sent to an upstream", "Put the upstream's key in another variable.")
    return value


def _no_secrets(value: dict[str, Any]) -> dict[str, Any]:
    found = next((name for name in _names_within(value) if _SECRET_NAME.fullmatch(name)), None)
    if found is not None:
        raise _wrong(f"`{found}` looks like a secret", "Name the key in the route: `api_key: env:NAME`.", HIDDEN_INPUT)
    return value


def _names_within(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(name for inner in value.values() for name in _names_within(inner))]
    return [name for inner in value for name in _names_within(inner)] if isinstance(value, list) else []


def _parameters(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        if name in NOT_PARAMETERS:
            raise _wrong(f"`{name}` is not a parameter; it comes from {NOT_PARAMETERS[name]}", f"Remove `{name}` from `parameters`.")
    return _no_secrets(value)


def _flag_value(value: Any) -> Any:
    if not isinstance(value, (bool, int, float, str, dict)):
        raise _wrong("not the value of a flag", "Write true, false, a number, a text or an object.")
    return value


def _relative_file(value: str) -> str:
    if not value or value.startswith(("/", "\\", "~")) or "\x00" in value or "\n" in value:
        raise _wrong("not the relative path of a file", "Write the path from the manifest's folder, such as `prompts/support.md`.")
    return value


def _unique(value: list[str]) -> list[str]:
    twice = next((name for index, name in enumerate(value) if name in value[:index]), None)
    if twice is not None:
        raise _wrong(f"`{twice}` is given twice", "Keep one of the two.")
    return value


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Name = Annotated[str, AfterValidator(_name)]
Tier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Dollars = Annotated[float, Field(ge=0, le=1e6)]
FlagValue = Annotated[Any, AfterValidator(_flag_value)]


class TokenPrices(_Entry):
    input_usd_per_mtok: Dollars
    output_usd_per_mtok: Dollars
    cached_usd_per_mtok: Dollars | None = None
    cache_write_usd_per_mtok: Dollars | None = None
    cache_write_long_usd_per_mtok: Dollars | None = None


class LongPrices(TokenPrices):
    above_tokens: Annotated[int, Field(ge=1, le=1_000_000_000)]


class PriceEntry(TokenPrices):
    long: LongPrices | None = None
    tiers: Annotated[dict[Tier, Annotated[float, Field(ge=0, le=TIER_FACTOR_MAX)]], Field(max_length=TIERS_MAX)] | None = None


class HttpRouteEntry(_Entry):
    base_url: Annotated[str, AfterValidator(_base_url)]


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if problem := header_problem(name, text):
            raise _wrong(f"`{name[:60]}` {problem}", "Remove it, or write an ordinary header.", HIDDEN_INPUT)
    return value


class ModelServerEntry(_Entry):
    base_url: Annotated[str, AfterValidator(_base_url), AfterValidator(_model_url)]


class RouteEntry(ModelServerEntry):
    provider: str
    api_version: Annotated[str, Field(pattern=r"^[0-9a-z][0-9a-z.-]{0,39}$")] | None = None
    headers: Annotated[dict[str, str], Field(max_length=HEADERS_MAX), AfterValidator(_headers)] | None = None
    model: Annotated[str, Field(min_length=1, max_length=200)]
    api_key: Annotated[str, AfterValidator(_key_reference)] | None = None
    price: PriceEntry | None = None


class EmbeddingsEntry(ModelServerEntry):
    model: Annotated[str, Field(min_length=1, max_length=200)]
    api_key: Annotated[str, AfterValidator(_key_reference)] | None = None


JUDGE_CHARS_MAX = 100


class SemanticEntry(_Entry):
    threshold: Annotated[float, Field(ge=0.5, le=1)] = THRESHOLD_DEFAULT
    false_hit_max: Annotated[float, Field(gt=0, le=0.5)] = FALSE_HIT_MAX_DEFAULT
    sample_share: Annotated[float, Field(gt=0, le=1)] = SAMPLE_SHARE_DEFAULT
    embeddings: EmbeddingsEntry | None = None
    judge: Annotated[str, Field(min_length=1, max_length=JUDGE_CHARS_MAX)] | None = None


class CacheEntry(_Entry):
    exact: bool = True
    ttl_s: Annotated[float, Field(gt=0, le=TTL_S_MAX)] = TTL_S_DEFAULT
    sampled: bool = False
    shared: bool = False
    disk: bool = False
    semantic: SemanticEntry | None = None


def _kinds(value: list[str]) -> list[str]:
    wrong = next((kind for kind in value if kind not in PERSONAL_KINDS), None)
    if wrong is not None:
        raise _wrong(f"`{wrong}` cannot be looked for", f"Use: {', '.join(PERSONAL_KINDS)}.")
    return _unique(value)


class PersonalEntry(_Entry):
    """What happens to personal data and secrets in requests."""

    upstream: Literal["pass", "redact", "refuse"] = "pass"
    shadow: Literal["pass", "redact"] = "redact"
    kinds: Annotated[list[str], Field(min_length=1), AfterValidator(_kinds)] = list(PERSONAL_KINDS)


class ContentEntry(_Entry):
    """Samples of what calls ask and are answered."""

    share: Annotated[float, Field(ge=0, le=1)]
    bytes_max: Annotated[int, Field(ge=1, le=CONTENT_BYTES_MAX)] = CONTENT_BYTES_DEFAULT


class AutonomyEntry(_Entry):
    risk_max_auto: Annotated[float, Field(ge=0, le=1)]


Share = Annotated[float, Field(ge=0, le=1)]


def _weights(value: dict[str, float]) -> dict[str, float]:
    for name, weight in value.items():
        if name not in WEIGHTS:
            raise _wrong(f"`{name}` is no feature", f"Use: {', '.join(WEIGHTS)}.")
        if name != "bias" and weight < 0:
            raise _wrong(f"`{name}` is below 0", "A conversation may only become harder as it goes on; use 0 to leave a feature out.")
    return value


class RoutingEntry(_Entry):
    """Which of two routes answers a conversation. Defaults are those of RoutingPolicy."""

    strong: Name
    weak: Name
    strong_share: Share = 0.6
    strong_share_min: Share | None = None
    strong_share_max: Share | None = None
    boundary: Share = 0.5
    drift_max: Share = 0.08
    control_bucket_pct: Annotated[float, Field(ge=0, le=100)] = 10.0
    adapt: bool = True
    override: Name | None = None
    weights: Annotated[dict[str, Annotated[float, Field(ge=-30, le=30)]], AfterValidator(_weights)] = {}


class LimitsEntry(_Entry):
    timeout_s: Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX)] = TIMEOUT_S_DEFAULT
    budget_usd_per_day: Dollars | None = None


class ReliabilityEntry(_Entry):
    """How the routes are tried; every value that is left out has the gateway's default, which is then written into the release."""

    retries: Annotated[int, Field(ge=0, le=RETRIES_MAX)] = RELIABILITY.retries
    backoff_s: Annotated[float, Field(gt=0, le=60)] = RELIABILITY.backoff_s
    retry_wait_s_max: Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX)] = RELIABILITY.retry_wait_s_max
    first_byte_s: Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX)] | None = None
    idle_s: Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX)] = RELIABILITY.idle_s
    hedge_after_s: Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX)] | None = None
    breaker_failures: Annotated[int, Field(ge=1, le=1000)] = RELIABILITY.breaker_failures
    breaker_open_s: Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX)] = RELIABILITY.breaker_open_s


class _Manifest(_Entry):
    service: Annotated[str, AfterValidator(_service_name)]
    version: Annotated[str, AfterValidator(_version_label)]
    flags: Annotated[dict[Name, FlagValue], Field(max_length=ENTRIES_MAX), AfterValidator(_no_secrets)] = {}
    limits: LimitsEntry = LimitsEntry()


class HttpManifest(_Manifest):
    """kind: http. Stored and shown; the gateway does not serve it."""

    kind: Literal["http"]
    routes: Annotated[dict[Name, HttpRouteEntry], Field(min_length=1, max_length=ROUTES_MAX)]


class ModelManifest(_Manifest):
    """kind: model or agent."""

    kind: Literal["model", "agent"]
    routes: Annotated[dict[Name, RouteEntry], Field(min_length=1, max_length=ROUTES_MAX)]
    prompt: Annotated[str, AfterValidator(_relative_file)] | None = None
    parameters: Annotated[dict[Name, Any], Field(max_length=ENTRIES_MAX), AfterValidator(_parameters)] = {}
    tools: Annotated[list[Name], Field(max_length=ENTRIES_MAX), AfterValidator(_unique)] = []
    autonomy: AutonomyEntry | None = None
    routing: RoutingEntry | None = None
    cache: CacheEntry | None = None
    reliability: ReliabilityEntry | None = None
    personal_data: PersonalEntry | None = None
    content_samples: ContentEntry | None = None
