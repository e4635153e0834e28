"""Names of places on the network: parsed once, strictly, and compared label by label, never as ends of strings.

A name that is not in its one canonical form (lower case, no dot at the end, no encodings of numbers) is refused before anything is matched,
so that two readers of the same text cannot disagree about whom it means.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cohort.base.errors import CohortError

NAME_CHARS_MAX = 253
AUTHORITY_CHARS_MAX = NAME_CHARS_MAX + len(":65535")
LABELS_BELOW_WILDCARD_MIN = 2
PATTERNS_MAX = 200
PORT_MAX = 65535
DEFAULT_PORTS = {"http": 80, "https": 443}

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class Malformed(ValueError):
    """Not a name in canonical form; says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """A host and a port. `literal`: the host is an address; IPv6 is kept without brackets."""

    host: str
    port: int
    literal: bool = False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of an allow-list. `labels` from the left; with `wildcard`, one or more labels have to stand before them."""

    labels: tuple[str, ...]
    port: int
    wildcard: bool = False
    literal: bool = False

    def matches(self, target: Target) -> bool:
        if target.port != self.port or target.literal is not self.literal:
            return False
        labels = (target.host,) if target.literal else tuple(target.host.split("."))
        if not self.wildcard:
            return labels == self.labels
        return len(labels) > len(self.labels) and labels[-len(self.labels) :] == self.labels


@dataclass(frozen=True, slots=True)
class AllowList:
    patterns: tuple[Pattern, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> AllowList:
        """From `host:port`, `*.example.com:443`, `192.0.2.1:443`, `[2001:db8::1]:443`. Errors: FIELD_INVALID with the text."""
        patterns = tuple(dict.fromkeys(parse_pattern(text) for text in texts))
        if len(patterns) > PATTERNS_MAX:
            raise CohortError("FIELD_INVALID", f"{len(patterns)} hosts", field="hosts", hint=f"Give at most {PATTERNS_MAX}.")
        return cls(patterns)

    def permits(self, target: Target) -> bool:
        return any(pattern.matches(target) for pattern in self.patterns)


def parse_target(text: str) -> Target:
    """The host and port of `text`, such as `example.com:443` or `[2001:db8::1]:443`. Errors: Malformed."""
    if len(text) > AUTHORITY_CHARS_MAX:
        raise Malformed("longer than a name can be")
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]:")
        if not bracket:
            raise Malformed("no port")
        return Target(_address_v6(host), _port(port), literal=True)
    host, colon, port = text.partition(":")
    if not colon:
        raise Malformed("no port")
    return _named(host, _port(port))


def parse_pattern(text: str) -> Pattern:
    """One line of an allow-list. Errors: FIELD_INVALID."""
    wildcard = text.startswith("*.")
    try:
        target = parse_target(text.removeprefix("*.") if wildcard else text)
    except Malformed as error:
        raise _invalid(text, str(error)) from None
    labels = (target.host,) if target.literal else tuple(target.host.split("."))
    if wildcard and (target.literal or len(labels) < LABELS_BELOW_WILDCARD_MIN):
        raise _invalid(text, f"a wildcard stands before at least {LABELS_BELOW_WILDCARD_MIN} labels")
    return Pattern(labels, target.port, wildcard, target.literal)


def parse_origin(text: str) -> tuple[str, Target]:
    """The scheme and target of an origin; without a port the scheme's own. Errors: Malformed."""
    scheme, separator, authority = text.partition("://")
    if not separator or scheme not in DEFAULT_PORTS:
        raise Malformed("not http:// or https://")
    return scheme, parse_target(authority if _has_port(authority) else f"{authority}:{DEFAULT_PORTS[scheme]}")


def origin_text(scheme: str, target: Target) -> str:
    """An origin as resources are written: the port always said."""
    return f"{scheme}://{target}"


def origin_allowed(origin: str, allowed: Iterable[str]) -> bool:
    """Whether `allowed` (origins; `https://*.example.com` for whatever is below) has `origin`. A malformed `origin` is in no list.

    Raises:
        CohortError FIELD_INVALID: a line of `allowed` is no origin.
    """
    lines = [_origin_pattern(line) for line in allowed]
    try:
        scheme, target = parse_origin(origin)
    except Malformed:
        return False
    return any(line_scheme == scheme and pattern.matches(target) for line_scheme, pattern in lines)


def hosts_of(origins: Iterable[str]) -> tuple[str, ...]:
    """What the proxy lets through, `host:port`, for origins an agent may reach. Errors: FIELD_INVALID."""
    return tuple(dict.fromkeys(_host_line(line) for line in origins))


def _origin_pattern(line: str) -> tuple[str, Pattern]:
    scheme, _, _ = line.partition("://")
    if scheme not in DEFAULT_PORTS:
        raise _invalid(line, "not http:// or https://")
    return scheme, parse_pattern(_host_line(line))


def _host_line(line: str) -> str:
    scheme, _, authority = line.partition("://")
    if scheme not in DEFAULT_PORTS:
        raise _invalid(line, "not http:// or https://")
    return authority if _has_port(authority) else f"{authority}:{DEFAULT_PORTS[scheme]}"


def _has_port(authority: str) -> bool:
    return "]:" in authority if authority.startswith("[") else ":" in authority


def _named(host: str, port: int) -> Target:
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):  # a resolver may read a name that ends in a number as an address
        return Target(_address_v4(host), port, literal=True)
    if len(host) > NAME_CHARS_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        raise Malformed("not a host name in lower case letters, digits and hyphens")
    return Target(host, port)


def _address_v4(host: str) -> str:
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        raise Malformed("an address that is not written as four decimal numbers") from None
    return str(address)


def _address_v6(host: str) -> str:
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        raise Malformed("not an IPv6 address") from None
    if address.scope_id is not None or str(address) != host:
        raise Malformed("an IPv6 address that is not in its canonical form")
    return host


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > PORT_MAX:
        raise Malformed(f"a port that is not a number from 1 to {PORT_MAX}")
    return int(text)


def _invalid(text: str, why: str) -> CohortError:
    hint = "Write host:port, for instance api.example.com:443 or *.example.com:443."
    return CohortError("FIELD_INVALID", f"{text[:100]!r}: {why}", field="hosts", hint=hint)
