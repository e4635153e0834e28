"""`http.request` and `network.webhook`: requests from the host, to the address that was looked up and to no other.

The name is resolved once and has to be on the public internet; the connection goes to that address while TLS proves the name. No redirect
is followed: where it leads is another action. Time and bytes have an end, and the answer is read as it was sent, not unpacked.
"""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2

from cohort.base.errors import CohortError, Retry
from cohort.kernel.actions import origins
from cohort.kernel.actions.clearance import Cleared, Executed, Executor
from cohort.kernel.actions.display import neutral
from cohort.kernel.actions.origins import Address
from cohort.kernel.actions.quotas import RESPONSE_BYTES_MAX

TIME_MAX_S = 30.0
CONNECT_MAX_S = 10.0
READ_MAX_S = 10.0
SHOWN_BYTES_MAX = 1 << 20
HEADERS_SHOWN_MAX = 64
HEADER_CHARS_MAX = 2000
ADDRESSES_TRIED_MAX = 3
NO_COOKIES = DefaultCookiePolicy(allowed_domains=())
"""Every agent's requests go out by one client: what a server sets for one of them must never be sent for another."""

Resolve = Callable[[str, int], tuple[str, ...]]
"""The public addresses of a host and port. Errors: EGRESS_REFUSED, EGRESS_FAILED."""


class Requests:
    """Sends requests. Errors: EGRESS_REFUSED (not a public place), EGRESS_FAILED (no answer); OUTCOME_UNKNOWN when a request that changes
    something was sent and its answer lost.
    """

    def __init__(self, resolve: Resolve, monotonic_s: Callable[[], float] = time.monotonic, trust: ssl.SSLContext | None = None) -> None:
        """`trust`: whom TLS believes; None for the system's authorities."""
        self._resolve = resolve
        self._monotonic_s = monotonic_s
        self._client = httpx2.Client(
            trust_env=False,
            cookies=CookieJar(NO_COOKIES),
            verify=trust if trust is not None else True,
            follow_redirects=False,
            timeout=httpx2.Timeout(READ_MAX_S, connect=CONNECT_MAX_S),
            limits=httpx2.Limits(max_connections=64, max_keepalive_connections=0),
        )

    def executors(self) -> Mapping[str, Executor]:
        return {"http.request": self.request, "network.webhook": self.webhook}

    def close(self) -> None:
        self._client.close()

    def request(self, cleared: Cleared) -> Executed:
        arguments = cleared.action.arguments
        body = arguments["body"].encode()
        return self._send(arguments["method"], arguments["url"], dict(arguments["headers"]), body)

    def webhook(self, cleared: Cleared) -> Executed:
        body = json.dumps(cleared.action.arguments["payload"], ensure_ascii=False, separators=(",", ":")).encode()
        return self._send("POST", cleared.action.arguments["url"], {"content-type": "application/json"}, body)

    def _send(self, method: str, url: str, headers: dict[str, str], body: bytes) -> Executed:
        address = origins.parse(url)
        places = self._resolve(address.host, address.port)
        fields = {"accept-encoding": "identity", "user-agent": "cohort", **headers, "host": _host_field(address)}
        error: Exception | None = None
        for place in places[:ADDRESSES_TRIED_MAX]:
            try:
                return self._send_to(place, address, method, fields, body)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as refused:  # nothing was sent, so the next address may be tried
                error = refused
            except (httpx2.HTTPError, httpx2.InvalidURL) as lost:
                raise _lost(method, address, lost) from lost
        raise CohortError("EGRESS_FAILED", f"{address.origin} cannot be reached: {error}", retry=Retry.SAFE, hint="Try again later.")

    def _send_to(self, place: str, address: Address, method: str, fields: dict[str, str], body: bytes) -> Executed:
        host = f"[{place}]" if ":" in place else place
        url = f"{address.scheme}://{host}:{address.port}{address.target}"
        until_s = self._monotonic_s() + TIME_MAX_S
        named = {"sni_hostname": address.host}
        with self._client.stream(method, url, headers=fields, content=body or None, extensions=named) as response:
            data, more = self._read(response, until_s)
        return _executed(response, data, more, sent_bytes=len(body), place=place)

    def _read(self, response: httpx2.Response, until_s: float) -> tuple[bytes, bool]:
        """Up to the limit, and whether there was more."""
        data = bytearray()
        for piece in response.iter_raw():
            data += piece
            if len(data) > RESPONSE_BYTES_MAX:
                return bytes(data[:RESPONSE_BYTES_MAX]), True
            if self._monotonic_s() > until_s:
                raise httpx2.ReadTimeout(f"no end after {TIME_MAX_S:g} s")
        return bytes(data), False


def _executed(response: httpx2.Response, data: bytes, more: bool, sent_bytes: int, place: str) -> Executed:
    shown = data[:SHOWN_BYTES_MAX]
    result = {
        "status": response.status_code,
        "headers": _headers(response),
        **_body(shown),
        "bytes": len(data),
        "truncated": more or len(data) > SHOWN_BYTES_MAX,
    }
    if response.has_redirect_location:
        result["redirect"] = neutral(response.headers["location"])[:HEADER_CHARS_MAX]
    digest = sha256(data).hexdigest()
    return Executed(result, egress_bytes=sent_bytes + len(data), output_digest=digest, usage={"address": place})


def _body(data: bytes) -> dict[str, Any]:
    try:
        return {"body": neutral(data.decode()), "encoding": "utf-8"}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(data).decode(), "encoding": "base64"}


def _headers(response: httpx2.Response) -> dict[str, str]:
    found = list(response.headers.items())[:HEADERS_SHOWN_MAX]
    return {name: neutral(value)[:HEADER_CHARS_MAX] for name, value in found if name != "set-cookie"}


def _host_field(address: Address) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return host if address.port == origins.PORTS[address.scheme] else f"{host}:{address.port}"


def _lost(method: str, address: Address, error: Exception) -> CohortError:
    what = f"{method} {address.origin}: {error or type(error).__name__}"
    if method in ("GET", "HEAD"):
        return CohortError("EGRESS_FAILED", what, retry=Retry.SAFE, hint="Try again later.")
    return CohortError("OUTCOME_UNKNOWN", what, retry=Retry.CHECK_FIRST, hint="Look whether it arrived before sending it again.")
