"""The release manifest: text from a person in, a frozen value with its identity out. Its fields are in `manifest_fields.py`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from cohort.base.canonical import canonical_json, sha256_hex
from cohort.base.documents import Document, load_document, parse_document
from cohort.base.errors import CohortError
from cohort.base.ids import ReleaseDigest
from cohort.delivery.face import Bundle
from cohort.delivery.manifest_fields import KINDS, PROVIDERS, TIMEOUT_S_DEFAULT, HttpManifest, ModelManifest, RouteEntry
from cohort.delivery.manifest_routing import check_routing, routing_policy
from cohort.delivery.model import Release
from cohort.gateway.contract import ReleaseRoute, Route
from cohort.gateway.contract_cache import decode_cache
from cohort.gateway.contract_content import decode_content
from cohort.gateway.contract_personal import decode_personal
from cohort.gateway.contract_price import decode_price
from cohort.gateway.contract_reliability import decode_reliability
from cohort.gateway.providers import PROVIDERS as KNOWN

PROMPT_BYTES_MAX = 1 << 20
FILE_DIGEST_PREFIX = "sha256:"
"""What stands in a frozen manifest where a file was named: this and 64 hexadecimal digits."""


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
    budget_usd = body.get("limits", {}).get("budget_usd_per_day")
    return ReleaseRoute(
        digest=release.digest,
        version=release.version,
        routes=tuple(_route(name, entry) for name, entry in body["routes"].items()),
        prompt=release.prompt,
        parameters=body.get("parameters", {}),
        timeout_s=float(body.get("limits", {}).get("timeout_s", TIMEOUT_S_DEFAULT)),
        routing=routing_policy(body["routing"]) if "routing" in body else None,
        cache=decode_cache(body.get("cache")),
        reliability=decode_reliability(body.get("reliability")),
        personal=decode_personal(body.get("personal_data")),
        content=decode_content(body.get("content_samples")),
        budget_usd_micro_per_day=None if budget_usd is None else round(budget_usd * 1_000_000),
    )


def _price(entry: Mapping[str, Any]) -> dict[str, Any]:
    """In the words of the contract: the threshold stands beside the prices it is for."""
    long = dict(entry.get("long", {}))
    above = long.pop("above_tokens", None)
    return {**entry, **({"long": long, "long_above_tokens": above} if long else {})}


def _route(name: str, entry: Mapping[str, Any]) -> Route:
    price = decode_price(_price(entry["price"])) if "price" in entry else None
    return Route(
        name,
        entry.get("provider", "http"),
        entry["base_url"],
        entry.get("model", ""),
        entry.get("api_key"),
        price,
        entry.get("api_version"),
        entry.get("headers") or {},
    )


def _parse(document: Document) -> ModelManifest | HttpManifest:
    kind = document.value.get("kind")
    if kind not in KINDS:
        place, known = document.place(("kind",)), ", ".join(KINDS)
        what = "missing" if kind is None else f"unknown kind, found {str(kind)[:60]!r}"
        for near in difflib.get_close_matches("kind", [str(field) for field in document.value if field != "kind"], n=1):
            raise CohortError(
                "DOCUMENT_INVALID", f"{document.place((near,))}: {near}: unknown field", field=near, hint="Did you mean `kind`?"
            )
        raise CohortError("DOCUMENT_INVALID", f"{place}: kind: {what}", field="kind", hint=f"Write `kind:` and one of: {known}.")
    if kind == "http":
        return parse_document(HttpManifest, document)
    _check_providers(document)
    manifest = parse_document(ModelManifest, document)
    for name, route in manifest.routes.items():
        _check_deployment(document, name, route)
    if manifest.routing is not None:
        check_routing(document, manifest.routing, manifest.routes)
    return manifest


def _check_deployment(document: Document, name: str, route: RouteEntry) -> None:
    """`api_version` belongs to providers that have deployments, and they need it."""
    by_deployment = KNOWN[route.provider].by_deployment
    if by_deployment is (route.api_version is not None):
        return
    place, field = document.place(("routes", name, "api_version")), f"routes.{name}.api_version"
    if by_deployment:
        hint = "Write `api_version:` and a version of Azure's, such as `2024-10-21`; `model` is the name of the deployment."
        raise CohortError("DOCUMENT_INVALID", f"{document.place(('routes', name))}: {field}: missing", field=field, hint=hint)
    raise CohortError("DOCUMENT_INVALID", f"{place}: {field}: {route.provider} has none", field=field, hint="Remove it.")


def _check_providers(document: Document) -> None:
    """Before all else: what the other fields of a route must be depends on its provider."""
    routes = document.value.get("routes")
    for name, route in routes.items() if isinstance(routes, dict) else ():
        provider = route.get("provider") if isinstance(route, dict) else None
        if isinstance(provider, str):
            _check_provider(document, name, provider)


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
