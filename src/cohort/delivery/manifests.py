"""The release manifest: text from a person in, a frozen value with its identity out. Reference: docs/reference/release-manifest.md."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from cohort.base.canonical import canonical_json, sha256_hex
from cohort.base.documents import HIDDEN_INPUT, Document, load_document, parse_document
from cohort.base.errors import CohortError
from cohort.base.ids import ReleaseDigest
from cohort.delivery.face import Bundle
from cohort.delivery.model import Release
from cohort.gateway.contract import Price, ReleaseRoute, Route

PROVIDERS = ("openai",)
"""Protocols the gateway speaks to a route. `openai`: any server with OpenAI's chat completions."""
KINDS = ("model", "agent", "http")
STABLE = "stable"
"""The tag of the release that a service serves."""
PROMPT_BYTES_MAX = 1 << 20
ROUTES_MAX = 16
ENTRIES_MAX = 256  # of parameters, tools or flags
TIMEOUT_S_DEFAULT = 60.0
TIMEOUT_S_MAX = 3600.0
NOT_PARAMETERS = {"model": "the route's `model`", "messages": "the client", "stream": "the client", "stream_options": "the client"}
FILE_DIGEST_PREFIX = "sha256:"
"""What stands in a frozen manifest where a file was named: this and 64 hexadecimal digits."""

_SERVICE = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_KEY_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:/\S+")
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


def _key_reference(value: str) -> str:
    """Where the key is. A key itself is refused, and not shown."""
    if not _KEY_REFERENCE.fullmatch(value):
        hint = "Write `env:NAME` or `file:/path`, and put the key there. If the key was shared with this file, replace it."
        raise _wrong("must say where the key is, not the key itself", hint, HIDDEN_INPUT)
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
Dollars = Annotated[float, Field(ge=0, le=1e6)]
FlagValue = Annotated[Any, AfterValidator(_flag_value)]


class PriceEntry(_Entry):
    input_usd_per_mtok: Dollars = 0.0
    output_usd_per_mtok: Dollars = 0.0


class HttpRouteEntry(_Entry):
    base_url: Annotated[str, AfterValidator(_base_url)]


class RouteEntry(HttpRouteEntry):
    provider: str
    model: Annotated[str, Field(min_length=1, max_length=200)]
    api_key: Annotated[str, AfterValidator(_key_reference)] | None = None
    price: PriceEntry | None = None


class AutonomyEntry(_Entry):
    risk_max_auto: Annotated[float, Field(ge=0, le=1)]


class LimitsEntry(_Entry):
    timeout_s: Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX)] = TIMEOUT_S_DEFAULT
    budget_usd_per_day: Dollars | None = None


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


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest frozen: `body` is the whole of it as plain JSON values, with two changes.

    `prompt` is its content's digest; `routes` is a list with names, as their order counts and canonical JSON sorts the keys of an object.
    """

    service: str
    version: str
    kind: str
    body: Mapping[str, Any]
    prompt: str | None
    digest: ReleaseDigest


def files_named(manifest_text: str, source: str) -> list[str]:
    """The files a manifest names, relative to its folder: what has to be sent along with it.

    Raises:
        CohortError DOCUMENT_INVALID, FILE_TOO_LARGE, PROVIDER_UNKNOWN: as `freeze`.
    """
    manifest = _parse(load_document(manifest_text, source))
    return [manifest.prompt] if isinstance(manifest, ModelManifest) and manifest.prompt is not None else []


def freeze(bundle: Bundle) -> Manifest:
    """Validate a manifest and fix its identity.

    Raises:
        CohortError DOCUMENT_INVALID: names line, field and fix. A literal key is never repeated in it.
        CohortError FILE_MISSING: a named file was not sent. FILE_TOO_LARGE: the manifest or a file is.
        CohortError PROVIDER_UNKNOWN: with the known ones.
    """
    document = load_document(bundle.manifest, bundle.source)
    parsed = _parse(document)
    body: dict[str, Any] = parsed.model_dump(mode="json", exclude_none=True)
    body = {name: value for name, value in body.items() if value not in ({}, [])}
    body["routes"] = [{"name": name, **entry} for name, entry in body["routes"].items()]
    prompt = None
    if "prompt" in body:
        prompt = _file(bundle, document, "prompt", body["prompt"])
        body["prompt"] = FILE_DIGEST_PREFIX + sha256_hex(prompt.encode())
    body = {name: _exact(document, name, value) for name, value in body.items()}
    return Manifest(parsed.service, parsed.version, parsed.kind, body, prompt, identity(body))


def identity(body: Mapping[str, Any]) -> ReleaseDigest:
    """`rel_` and the SHA-256 of the canonical JSON of a frozen manifest."""
    return ReleaseDigest("rel_" + sha256_hex(canonical_json(body)))


def shown(body: Mapping[str, Any]) -> dict[str, Any]:
    """A frozen body in the shape that people write: routes by name, in their order."""
    routes = {entry["name"]: {key: value for key, value in entry.items() if key != "name"} for entry in body["routes"]}
    return {name: routes if name == "routes" else value for name, value in body.items()}


def release_routes(release: Release) -> ReleaseRoute:
    """What the gateway needs of `release`, for the routing table."""
    body = release.manifest
    return ReleaseRoute(
        digest=release.digest,
        version=release.version,
        routes=tuple(_route(name, entry) for name, entry in body["routes"].items()),
        prompt=release.prompt,
        parameters=body.get("parameters", {}),
        timeout_s=float(body.get("limits", {}).get("timeout_s", TIMEOUT_S_DEFAULT)),
    )


def _route(name: str, entry: Mapping[str, Any]) -> Route:
    price = Price(**entry["price"]) if "price" in entry else None
    return Route(name, entry.get("provider", "http"), entry["base_url"], entry.get("model", ""), entry.get("api_key"), price)


def _parse(document: Document) -> ModelManifest | HttpManifest:
    kind = document.value.get("kind")
    if kind not in KINDS:
        place, known = document.place(("kind",)), ", ".join(KINDS)
        what = "missing" if kind is None else f"unknown kind, found {str(kind)[:60]!r}"
        raise CohortError("DOCUMENT_INVALID", f"{place}: kind: {what}", field="kind", hint=f"Write `kind:` and one of: {known}.")
    if kind == "http":
        return parse_document(HttpManifest, document)
    manifest = parse_document(ModelManifest, document)
    for name, route in manifest.routes.items():
        _check_provider(document, name, route.provider)
    return manifest


def _check_provider(document: Document, route: str, provider: str) -> None:
    if provider in PROVIDERS:
        return
    place, field = document.place(("routes", route, "provider")), f"routes.{route}.provider"
    near = difflib.get_close_matches(provider.lower(), PROVIDERS, n=1)
    hint = f"Use one of: {', '.join(PROVIDERS)}." + (f" Did you mean `{near[0]}`?" if near else "")
    raise CohortError(
        "PROVIDER_UNKNOWN", f"{place}: {field}: unknown provider {provider[:60]!r}", field=field, hint=hint, known=list(PROVIDERS)
    )


def _file(bundle: Bundle, document: Document, field: str, path: str) -> str:
    """The text of the file that `field` names, with line ends as `\\n`: a checkout on Windows is the same release."""
    place = document.place((field,))
    if path not in bundle.files:
        hint = f"Create {path} beside {bundle.source}, or correct `{field}`."
        raise CohortError("FILE_MISSING", f"{place}: {field}: {path} is not there", field=field, hint=hint, path=path)
    text = bundle.files[path].removeprefix("\ufeff").replace("\r\n", "\n")
    if len(text.encode(errors="replace")) > PROMPT_BYTES_MAX:
        hint = f"Keep it under {PROMPT_BYTES_MAX >> 20} MiB."
        raise CohortError("FILE_TOO_LARGE", f"{place}: {field}: {path} is larger than {PROMPT_BYTES_MAX} bytes", field=field, hint=hint)
    problem = "is empty" if not text.strip() else "is not text" if not _is_text(text) else None
    if problem:
        hint = f"Write {path} as UTF-8 text, or remove `{field}`."
        raise CohortError("DOCUMENT_INVALID", f"{place}: {field}: {path} {problem}", field=field, hint=hint, path=path)
    return text


def _exact(document: Document, field: str, value: Any) -> Any:
    """`value` as it comes back from canonical JSON, where it does so unchanged for good."""
    try:
        read_back = orjson.loads(canonical_json(value))
        canonical_json(read_back)  # 1e17 would come back as an integer that JSON does not keep exactly
    except CohortError as error:
        hint = "Keep numbers within 2**53, or put them in quotes."
        raise CohortError(error.code, f"{document.place((field,))}: {field}: {error.message}", field=field, hint=hint) from error
    return read_back


def _is_text(text: str) -> bool:
    """Whether `text` can be stored and hashed: no NUL, no lone surrogate."""
    return "\x00" not in text and not re.search(r"[\ud800-\udfff]", text)
