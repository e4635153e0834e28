"""Which names callers may use for this gateway: a page whose name is made to lead to this machine carries that name.

A browser lets a page read what comes from the page's own host, wherever that name leads by now (DNS rebinding), and sends no Origin with
what it reads so. The Host header is then the one thing that tells such a page from a program of this machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address

NAME = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\]")
"""A host as it stands in a Host header, in lower case and without a port."""
KNOWN_MAX = 256
_PORT = re.compile(r":[0-9]{1,5}")


class Hosts:
    """`names` besides those of loopback; an address of version 6 in brackets. `anybody`: other machines are meant to come, by any name.

    `known`: headers that were answered before, so that most calls need one look.
    """

    def __init__(self, names: Iterable[str], anybody: bool) -> None:
        self._names = frozenset({"localhost", "[::1]", *(name.lower() for name in names)})
        self._anybody = anybody
        self.known: set[bytes | None] = set()

    def answer(self, host: bytes | None) -> bool:
        """Whether requests with this Host header are answered. None: there was none, which no browser sends."""
        if self._anybody or host in self.known:
            return True
        if host is not None and not self._is_ours(host.decode("latin-1").lower()):
            return False
        if len(self.known) < KNOWN_MAX:
            self.known.add(host)
        return True

    def _is_ours(self, host: str) -> bool:
        end = host.rfind(":", host.rfind("]") + 1)
        name = host if end < 0 else host[:end]
        known = name.removesuffix(".") in self._names or _is_loopback(name)  # with the dot that ends a name in full
        return known and (end < 0 or _PORT.fullmatch(host[end:]) is not None)


def _is_loopback(name: str) -> bool:
    try:
        return IPv4Address(name).is_loopback
    except ValueError:
        return False


def bracketed(address: str) -> str:
    """An address as it stands in a Host header."""
    return f"[{address}]" if ":" in address else address
