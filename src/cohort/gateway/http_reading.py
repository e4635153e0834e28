"""One request as it is read: httptools' callbacks, and the limits of a head and of a body.

httptools refuses what smuggling is made of (Content-Length with Transfer-Encoding, duplicate or odd lengths, folded headers, bare LF
or CR, space before the colon); this module adds limits, and refuses every transfer coding but plain `chunked`.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from enum import IntEnum

import httptools

from cohort.gateway.settings import Limits

HEADER_MARKS_BYTES = 4  # colon, space and line end of a header
TABLE_TARGET = b"/-/routing"
TABLE_BYTES_MAX = 256 << 20
"""A routing table from control, whatever clients may send."""
SLASH = ord("/")
_AUTHORITY = re.compile(rb"([^/?#@]+)([/?][^#]*|)")


class Reading(IntEnum):
    """Where in a request the connection is."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    REFUSED = 3  # answered with an error; what still comes is thrown away


IDLE, HEAD, BODY, REFUSED = Reading  # looking a member up in its class takes 60 ns, here 3 ns


class RequestReading(asyncio.Protocol):
    """The reader's half of a connection. `table_authorization`: of control, whose routing tables may be larger than `body_bytes_max`."""

    __slots__ = (
        "_body", "_body_bytes", "_continue", "_fed_bytes", "_headers", "_limits", "_modern", "_odd_bytes", "_parser", "_raw_head_bytes",
        "_reading", "_refusal", "_table_authorization", "_target",
    )  # fmt: skip

    def __init__(self, limits: Limits, table_authorization: bytes | None) -> None:
        self._limits = limits
        self._table_authorization = table_authorization
        self._parser = httptools.HttpRequestParser(self)
        self._refusal: tuple[int, str, str] | None = None
        self._reading = IDLE
        self._modern = True  # the request is HTTP/1.1
        self._continue = False
        self._raw_head_bytes = 0
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._fed_bytes = 0  # since the message being read began; or more, where it began behind another one
        self._odd_bytes = 0  # of repeated headers and trailers
        self._body_bytes = 0

    def on_message_begin(self) -> None:
        if self._refusal is None:
            self._target, self._headers, self._body = b"", {}, []
            self._odd_bytes = self._body_bytes = 0
            self._reading = HEAD

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if self._reading is HEAD and name not in self._headers:
            self._headers[name] = value
        else:
            self._odd_header(name, value)

    def _odd_header(self, name: bytes, value: bytes) -> None:
        """A repeated header, or a trailer: that is counted, not used."""
        self._odd_bytes += len(name) + len(value) + HEADER_MARKS_BYTES
        if self._reading is HEAD:
            self._headers[name] += b", " + value
            if name == b"host":
                self._refusal = (400, "invalid_http", "the Host header is given twice")

    def on_headers_complete(self) -> None:
        self._reading = BODY
        self._raw_head_bytes = 0
        self._refusal = self._refusal or self._head_problem()
        if self._refusal is None and self._headers.get(b"expect") == b"100-continue":
            self._continue = True

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes_max and self._body_bytes > self._body_bytes_max():
            self._refusal = self._refusal or self._body_too_large()
        elif self._refusal is None:
            self._body.append(body)

    def _head_bytes(self) -> int:
        """What the head takes, line ends and all; trailers that have come count as well."""
        headers = self._headers
        named = sum(map(len, headers)) + sum(map(len, headers.values())) + HEADER_MARKS_BYTES * len(headers)
        return self._odd_bytes + len(self._target) + named

    def _head_problem(self) -> tuple[int, str, str] | None:
        if self._fed_bytes > self._limits.head_bytes_max and self._head_bytes() > self._limits.head_bytes_max:
            return self._head_too_large()
        if self._parser.should_upgrade():
            return (400, "upgrade_not_supported", "only HTTP/1.1 is spoken here; send the request without an Upgrade header")
        version, headers = self._parser.get_http_version(), self._headers
        self._modern = version == "1.1"
        if not self._modern and version != "1.0":
            return (505, "http_version", "only HTTP/1.1 and HTTP/1.0 are spoken here")
        if self._modern and b"host" not in headers:
            return (400, "invalid_http", "the Host header is missing")
        if self._target[0] != SLASH and (problem := self._take_absolute()) is not None:
            return problem
        coding = headers.get(b"transfer-encoding")
        if coding is not None and (coding.lower() != b"chunked" or not self._modern):
            return (400, "invalid_http", "Transfer-Encoding may only be `chunked`, and only in HTTP/1.1")
        length = int(headers.get(b"content-length", b"0"))
        if length > self._limits.body_bytes_max and length > self._body_bytes_max():
            return self._body_too_large()
        return None

    def _take_absolute(self) -> tuple[int, str, str] | None:
        """A target that names the host (RFC 9112, 3.2.2): its authority counts, whatever the Host header says."""
        scheme, mark, rest = self._target.partition(b"://")
        if not mark:
            return None
        parts = _AUTHORITY.fullmatch(rest)
        if scheme.lower() not in (b"http", b"https") or parts is None:
            return (400, "invalid_http", "a target that names the host is http://HOST/PATH or https://HOST/PATH, without a user")
        self._headers[b"host"], path = parts.groups()
        self._target = path if path[:1] == b"/" else b"/" + path
        return None

    def _body_bytes_max(self) -> int:
        """What this request may bring: a routing table holds the prompts of every release, so control's may be larger than a client's."""
        token = self._table_authorization
        if token is None or self._target != TABLE_TARGET or not hmac.compare_digest(self._headers.get(b"authorization", b""), token):
            return self._limits.body_bytes_max
        return max(self._limits.body_bytes_max, TABLE_BYTES_MAX)

    def _head_too_large(self) -> tuple[int, str, str]:
        return (431, "headers_too_large", f"the headers are larger than {self._limits.head_bytes_max} bytes (head_bytes_max); send fewer")

    def _body_too_large(self) -> tuple[int, str, str]:
        return (
            413,
            "request_too_large",
            f"the body is larger than {self._limits.body_bytes_max} bytes (body_bytes_max); send a smaller one",
        )
