"""Addresses on the network in one canonical form, so that scope, allow-list, policy and client speak of the same place."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import idna

from cohort.base.errors import CohortError

PORTS = {"http": 80, "https": 443}
URL_CHARS_MAX = 4096
PORT_MAX = 65_535

_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\[\]:@/?#\\]+)(?::(?P<port>[0-9]{1,5}))?")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")


@dataclass(frozen=True, slots=True)
class Address:
    """One canonical address. `origin`: `scheme://host:port`, the port always written. `target`: path and query as sent."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def url(self) -> str:
        return self.origin + self.target


def parse(url: str, field: str = "arguments.url") -> Address:
    """The canonical address of `url`: scheme and host in lower case, IDNA 2008 as ASCII, the port written, no fragment.

    Raises:
        CohortError ARGUMENT_INVALID: it is none, or has a user, a control byte, a backslash or a space.
    """
    scheme, authority, target = _split(url, field)
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise _invalid(field, url, "its host and port cannot be read; a user name is refused")
    port = int(found["port"]) if found["port"] else PORTS[scheme]
    if not 0 < port <= PORT_MAX:
        raise _invalid(field, url, f"port {port}")
    return Address(scheme, _host(found["host"], url, field), port, target)


def _split(url: str, field: str) -> tuple[str, str, str]:
    if len(url) > URL_CHARS_MAX:
        raise _invalid(field, url, f"{len(url)} characters")
    if any(ord(letter) <= 0x20 or ord(letter) == 0x7F for letter in url) or "\\" in url:
        raise _invalid(field, url, "it holds a space, a backslash or a control byte")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _invalid(field, url, str(error)) from error
    scheme = parts.scheme.lower()
    if scheme not in PORTS:
        raise _invalid(field, url, "only http and https are spoken")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _PRINTABLE.fullmatch(target) or not target.startswith("/"):
        raise _invalid(field, url, "letters outside ASCII in its path have to be percent-encoded")
    return scheme, parts.netloc, target


def _host(text: str, url: str, field: str) -> str:
    if text.startswith("["):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError as error:
            raise _invalid(field, url, str(error)) from error
    if "%" in text or text.endswith("."):
        raise _invalid(field, url, "a host with a percent sign, or a dot at its end")
    if _NUMERIC_LABEL.fullmatch(text.rpartition(".")[2]):
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError as error:
            raise _invalid(field, url, "an address that is not written as four decimal numbers") from error
    try:
        return idna.encode(text.lower(), uts46=not text.isascii()).decode().lower()
    except (idna.IDNAError, UnicodeError) as error:
        raise _invalid(field, url, f"not a host name: {error}") from error


def _invalid(field: str, url: str, why: str) -> CohortError:
    return CohortError("ARGUMENT_INVALID", f"{field}: {url[:200]!r}: {why}", field=field, hint="Write `https://host[:port]/path?query`.")
