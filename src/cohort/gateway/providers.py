"""What differs between providers that speak the same protocol: where a path is, how the key is given. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from cohort.gateway.contract import Route
from cohort.gateway.dialects.operations import UPSTREAM_PATHS

HEADERS_MAX = 16
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
OWN_HEADERS = frozenset(
    {
        "accept", "accept-encoding", "api-key", "authorization", "cdn-loop", "connection", "content-encoding", "content-length", "content-type",
        "cookie", "expect", "host", "keep-alive", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
        "x-api-key", "x-goog-api-key",
    }
)  # fmt: skip
"""Headers that a route cannot set: the gateway's own, and those that carry keys (a key belongs in `api_key`)."""


@dataclass(frozen=True, slots=True)
class Provider:
    """`protocol`: what is spoken. `key_line`: the header that gives the key. `by_deployment`: the model is part of the path (Azure)."""

    protocol: str
    key_line: str
    by_deployment: bool = False


PROVIDERS: Mapping[str, Provider] = {
    "openai": Provider("openai", "authorization: Bearer {}\r\n"),
    "openai-responses": Provider("openai-responses", "authorization: Bearer {}\r\n"),
    "azure": Provider("openai", "api-key: {}\r\n", by_deployment=True),
    "anthropic": Provider("anthropic", "x-api-key: {}\r\n"),
}


def provider_of(route: Route, place: str) -> Provider:
    """Raises ValueError naming `place` for one that is unknown, or whose fields do not fit the route."""
    provider = PROVIDERS.get(route.provider)
    if provider is None:
        raise ValueError(f"{place}.provider: unknown provider {route.provider!r}, known: {', '.join(PROVIDERS)}")
    if provider.by_deployment and not route.api_version:
        raise ValueError(f"{place}.api_version: missing; {route.provider} needs one")
    return provider


def paths(route: Route, provider: Provider, base_path: str) -> dict[bytes, bytes]:
    """For everything that may be asked of the route's protocol (`/chat/completions`), its whole path with query."""
    if not provider.by_deployment:
        return {end: base_path.encode() + end for end in UPSTREAM_PATHS[provider.protocol]}
    query = b"?api-version=" + quote(route.api_version or "", safe="").encode()
    deployment = f"{base_path}/openai/deployments/{quote(route.model, safe='')}".encode()
    return {end: deployment + end + query for end in UPSTREAM_PATHS[provider.protocol]}


def header_lines(headers: Mapping[str, str], place: str) -> bytes:
    """A route's own headers; raises ValueError naming the one that cannot be sent."""
    if len(headers) > HEADERS_MAX:
        raise ValueError(f"{place}.headers: more than {HEADERS_MAX}")
    for name, value in headers.items():
        if problem := header_problem(name, value):
            raise ValueError(f"{place}.headers.{name[:60]}: {problem}")
    return "".join(f"{name.lower()}: {value}\r\n" for name, value in headers.items()).encode()


def header_problem(name: str, value: str) -> str | None:
    """Why a route cannot have this header; None when it can."""
    if not name or not _TOKEN.issuperset(name.lower()):
        return "not the name of a header"
    if name.lower() in OWN_HEADERS or name.lower().startswith("x-cohort-"):
        return "is set by the gateway, or carries a key; a key belongs in `api_key`"
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        return "its value must be printable ASCII"
    return None
