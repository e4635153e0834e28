"""One POST to one configured address, and nowhere else: resolved once, its address checked, and that very address dialled.

No redirects, no proxies of the environment, no more than a little of the answer, and an end to it all after `WHOLE_S`.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from cohort.base.errors import CohortError, Retry

STEP_S = 5.0
WHOLE_S = 15.0
ANSWER_BYTES_MAX = 4096
URL_CHARS_MAX = 2000
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Resolve = Callable[[str, int], Iterable[str]]
"""The addresses of a host, as text."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to post."""

    tls: bool
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, url: str, allow_private: bool) -> Address:
        """`https://host[:port]/path`; plain `http` only where private addresses are allowed.

        Raises:
            CohortError CONFIG_INVALID: says why; a password in it is not repeated.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise _wrong("it is not a URL") from error
        if len(url) > URL_CHARS_MAX or not url.isascii() or not url.isprintable() or " " in url or not host:
            raise _wrong("it is not a URL")
        if parts.scheme not in (("https", "http") if allow_private else ("https",)):
            raise _wrong("it does not begin with https")
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise _wrong("it holds a user, a password or a fragment")
        tls = parts.scheme == "https"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(tls, host, port or (443 if tls else 80), target)


def resolve(host: str, port: int) -> Iterable[str]:
    """Asks the system's resolver."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def post(address: Address, headers: Mapping[str, str], body: bytes, allow_private: bool, ask: Resolve = resolve) -> int:
    """Send it and return the answer's status.

    Raises:
        CohortError EGRESS_REFUSED: the name leads to an address that is not public.
        CohortError EGRESS_FAILED: no answer; it may have arrived.
    """
    try:
        place = _public(address, ask(address.host, address.port), allow_private)
        return _exchange(address, place, headers, body)
    except (OSError, http.client.HTTPException) as error:
        what = f"no answer from {address.host}:{address.port}: {error or type(error).__name__}"
        raise CohortError("EGRESS_FAILED", what, retry=Retry.SAFE, hint="It is tried again; look whether the receiver runs.") from error


def is_public(text: str) -> bool:
    """Whether this address belongs to the open internet, whichever way it is written."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        if address.sixtofour is not None or address.teredo is not None or address in _NAT64:
            return False
    return address.is_global and not address.is_multicast


def _public(address: Address, found: Iterable[str], allow_private: bool) -> str:
    places = list(found)
    if not places:
        raise OSError(f"{address.host} has no address")
    refused = [place for place in places if not allow_private and not is_public(place)]
    if refused:
        what = f"{address.host} leads to {refused[0]}, which is not a public address"
        raise CohortError("EGRESS_REFUSED", what, hint="Correct the URL, or set `allow_private` for a receiver of your own.")
    return places[0]


def _exchange(address: Address, place: str, headers: Mapping[str, str], body: bytes) -> int:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=STEP_S)
    connection.sock = _open(address, place)
    end = threading.Timer(WHOLE_S, _cut, [connection.sock])
    end.daemon = True
    end.start()
    try:
        if isinstance(connection.sock, ssl.SSLSocket):
            connection.sock.do_handshake()
        connection.request("POST", address.target, body, dict(headers))
        answer = connection.getresponse()
        answer.read(ANSWER_BYTES_MAX)
        return answer.status
    finally:
        end.cancel()
        connection.close()


def _open(address: Address, place: str) -> socket.socket:
    """Connected to `place` and no other; with TLS for the host's name, its handshake still to come."""
    plain = socket.create_connection((place, address.port), STEP_S)
    if not address.tls:
        return plain
    return ssl.create_default_context().wrap_socket(plain, server_hostname=address.host, do_handshake_on_connect=False)


def _cut(sock: socket.socket) -> None:
    """End whatever waits on it, encrypted or not."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return  # it has ended already


def _wrong(why: str) -> CohortError:
    return CohortError(
        "CONFIG_INVALID", f"kernel.approval_webhook.url: {why}", field="kernel.approval_webhook.url", hint="Write `https://host/path`."
    )
