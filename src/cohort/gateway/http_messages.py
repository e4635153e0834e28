"""A request as it was read, and the answer to it as it is written: HTTP/1.1 framing, whole or streamed."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Protocol

JSON = b"application/json"
CLOSING = b"connection: close\r\n"
STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}


class Channel(Protocol):
    """The connection under a reply."""

    gone: bool
    congested: bool
    draining: bool

    @property
    def peer(self) -> str: ...

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def answered(self, keep_alive: bool) -> None:
        """The reply is complete."""
        ...


class Request:
    """One request. Header names are in lower case; of a repeated header the values are joined with a comma."""

    __slots__ = ("body", "headers", "method", "target")

    def __init__(self, method: bytes, target: bytes, headers: dict[bytes, bytes], body: bytes) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body


class Reply:
    """The answer to one request. `headers` arguments are ready lines, each ending in CRLF. Writing after the client left does nothing."""

    __slots__ = ("_chunked", "_connection", "_has_body", "_keep_alive", "started")

    def __init__(self, connection: Channel, keep_alive: bool, chunked: bool, has_body: bool) -> None:
        self._connection = connection
        self._keep_alive = keep_alive
        self._chunked = chunked
        self._has_body = has_body
        self.started = False

    @property
    def gone(self) -> bool:
        """The client left."""
        return self._connection.gone

    @property
    def peer(self) -> str:
        """The client's address; empty where it has none."""
        return self._connection.peer

    def be_last(self) -> None:
        """The connection ends with this answer."""
        self._keep_alive = False

    def send(self, status: int, body: bytes, headers: bytes = b"", content_type: bytes = JSON) -> None:
        """A whole answer."""
        connection = self._connection
        if self._keep_alive and connection.draining:
            self._keep_alive = False
        connection.write(
            b"%scontent-type: %s\r\ncontent-length: %d\r\n%s%s\r\n%s"
            % (
                STATUS_LINES.get(status) or status_line(status),
                content_type,
                len(body),
                headers,
                b"" if self._keep_alive else CLOSING,
                body if self._has_body else b"",
            )
        )
        self.started = True
        connection.answered(self._keep_alive)

    def start(self, status: int, headers: bytes) -> None:
        """The head of a streamed answer."""
        coding = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        self._keep_alive = self._keep_alive and self._chunked
        self._connection.write((STATUS_LINES.get(status) or status_line(status)) + coding + headers + self._closing() + b"\r\n")
        self.started = True

    def write(self, data: bytes) -> None:
        self._connection.write(b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data)

    async def drain(self) -> None:
        """Returns when the client has taken enough of what was written."""
        await self._connection.drain()

    @property
    def congested(self) -> bool:
        return self._connection.congested

    def takes_trailers(self, request: Request) -> bool:
        """Header lines may follow the body of a streamed answer: it is chunked, and the client said `TE: trailers` (RFC 9110, 6.5.1)."""
        return self._chunked and any(coding.strip().lower() == b"trailers" for coding in request.headers.get(b"te", b"").split(b","))

    def finish(self, trailers: bytes = b"") -> None:
        """The end of a streamed answer. `trailers`: ready lines, of which the head has told."""
        if self._chunked:
            self._connection.write(b"0\r\n%s\r\n" % trailers)
        self._end()

    def break_off(self, data: bytes, trailers: bytes = b"") -> None:
        """Last words of a streamed answer that cannot go on; the connection closes behind them."""
        self._keep_alive = False
        self.write(data)
        self.finish(trailers)

    def _closing(self) -> bytes:
        self._keep_alive = self._keep_alive and not self._connection.draining
        return b"" if self._keep_alive else CLOSING

    def _end(self) -> None:
        self.started = True
        self._connection.answered(self._keep_alive)


Handler = Callable[[Request, Reply], "Coroutine[None, None, None] | None"]
"""Answers at once and returns None, or returns what will answer. It may be cancelled at any wait: the client left, or the process ends."""


def status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d Unknown\r\n" % status
