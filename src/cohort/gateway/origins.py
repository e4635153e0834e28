"""Where connections to upstreams go, and how requests there begin."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit


class Origin(NamedTuple):
    """Where connections go. A tuple: every call looks its pool up, and a data class is hashed in Python."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


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
