"""One connection to an upstream: HTTP/1.1 over httptools, one exchange at a time, its answer read as it comes."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

from cohort.gateway.origins import Origin
from cohort.gateway.settings import Limits
from cohort.gateway.strands import Pause

INFORMATIONAL_MAX = 8
Send = Callable[[asyncio.Transport, bytes], None]
"""Writes to a transport, at the latest at the end of this turn of the loop."""


class UpstreamError(Exception):
    """An upstream did not answer as HTTP should. Says why; never holds what was sent."""


class Unreachable(UpstreamError):
    """No connection, twice: nothing was sent."""


class Forbidden(UpstreamError):
    """The upstream is at an address that this installation does not allow: nothing was sent."""


class Overloaded(UpstreamError):
    """No connection was free and too many requests wait already: nothing was sent."""


class NoAnswer(UpstreamError):
    """The connection closed before a byte of the answer came."""


class Broken(UpstreamError):
    """The answer broke off after it had begun."""


class Invalid(UpstreamError):
    """What came is not HTTP, or more than may come."""


class Pool:
    """Connections to one origin."""

    __slots__ = ("idle", "open", "waiters")

    def __init__(self) -> None:
        self.idle: list[UpstreamConnection] = []
        self.open = 0
        self.waiters: deque[tuple[float, asyncio.Future[None]]] = deque()  # since when, in order


class UpstreamConnection(asyncio.Protocol):
    """One connection: one exchange at a time, read by one strand."""

    __slots__ = (
        "_buffered", "_chunks", "_error", "_head_bytes", "_informational", "_limits", "_news", "_parser", "_paused", "_resting", "_send",
        "_sink", "answered", "complete", "headers", "idle_since_s", "in_use", "lost", "origin", "pool", "reusable", "status", "touched",
        "transport", "waited_s",
    )  # fmt: skip

    def __init__(self, origin: Origin, limits: Limits, send: Send) -> None:
        self.origin = origin
        self.pool = Pool()  # its own until it has a place in one
        self._limits = limits
        self._send = send
        self._parser = httptools.HttpResponseParser(self)
        self._news = Pause()
        self._sink: Callable[[bytes], bool] | None = None
        self.transport: asyncio.Transport | None = None
        self.lost = self.in_use = False
        self.idle_since_s = 0.0
        self.waited_s = 0.0  # before the exchange could begin
        self._reset()

    def _reset(self) -> None:
        self.status = self._buffered = self._head_bytes = self._informational = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._chunks: list[bytes] = []
        self.answered = self.complete = self.reusable = self.touched = self._paused = self._resting = False
        self._error: UpstreamError | None = None

    # --- one exchange ----------------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Begin an exchange with a whole request."""
        self._reset()
        self.in_use = True
        if self.transport is not None:
            self._send(self.transport, data)

    def news(self) -> Pause:
        """To be waited for: something came, or the connection was lost. Raises NoAnswer, Broken or Invalid where nothing can come any more."""
        if self._error is not None:
            raise self._error
        return self._news

    async def chunk(self) -> bytes:
        """The next bytes of the body, as they come; empty at its end. Raises Broken or Invalid."""
        while not self._chunks:
            if self.complete:
                return b""
            await self.news()
        return self.taken()

    async def flow(self, sink: Callable[[bytes], bool]) -> bool:
        """Give `sink` the bytes of the body as they come: True at its end, False when `sink` returned True, which asks for a rest.

        Waking the strand for each chunk took two fifths of a chunk's time in the interpreter. Raises Broken or Invalid.
        """
        while True:
            if self._chunks and sink(self.taken()):
                return False
            if self.complete:
                return True
            news = self.news()
            self._sink, self._resting = sink, False
            try:
                await news
            finally:
                self._sink = None
            if self._resting:
                return False

    def taken(self) -> bytes:
        """The bytes of the body that are here already."""
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._buffered = 0
        if self._paused and self.transport is not None and not self.lost:
            self._paused = False
            self.transport.resume_reading()
        return data

    def abort(self) -> None:
        """Close at once; what was on its way is dropped."""
        self.lost = True
        self._error = None  # one that was raised holds in its traceback the frames that hold this connection
        if self.transport is not None:
            self.transport.abort()

    # --- asyncio ---------------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if not self.in_use:
            self.abort()
            return
        self.touched = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(Invalid(f"the answer is not valid HTTP: {error}"))
        except httptools.HttpParserUpgrade:
            self._fail(Invalid("the answer changes to another protocol, which was not asked for"))
        if not self.answered:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.upstream_head_bytes_max:
                self._fail(Invalid(f"the headers of the answer are larger than {self._limits.upstream_head_bytes_max} bytes"))
        elif self._chunks:
            self._head_bytes = 0
        elif not self.complete:  # extensions of chunks, trailers
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.upstream_head_bytes_max:
                self._fail(Invalid(f"the framing of the answer is larger than {self._limits.upstream_head_bytes_max} bytes"))
        if self._buffered > self._limits.read_ahead_bytes and not self._paused and not self.complete and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()
        if self._sink is not None and self._chunks:
            self._resting = self._sink(self.taken())
            if not (self._resting or self.complete or self._error is not None):
                return
        self._news.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.reusable = False
        del self._parser  # it holds this connection, which would hold memory until the collector looks for cycles
        if self.in_use and not self.complete and self._error is None:
            if self.answered and self.delimited_by_close and exc is None:
                self.complete = True
            else:
                self._error = Broken("the answer broke off") if self.touched else NoAnswer("the connection closed before an answer came")
        self._news.wake()

    def _fail(self, error: UpstreamError) -> None:
        self.reusable = False
        if not self.complete:
            self._error = error
        if self.transport is not None:
            self.transport.abort()

    # --- httptools -------------------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:  # nobody asked for a second answer: the parser stops here, and the connection is not used again
            raise Invalid("an answer came that was not asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.answered:  # a trailer is none (RFC 9110, section 6.5.1)
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            return
        self.answered = True

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._buffered += len(body)

    def on_message_complete(self) -> None:
        if self.status < 200:
            self._informational += 1
            if self.status == 101 or self._informational > INFORMATIONAL_MAX:
                self._error = Invalid(f"unexpected status {self.status}")
            self.headers = []
            return
        self.complete = True
        self.reusable = self._parser.should_keep_alive()

    @property
    def promised_bytes(self) -> int:
        """The length that the answer says it has; 0 where it says none."""
        return next((int(value) for name, value in self.headers if name == b"content-length"), 0)

    @property
    def delimited_by_close(self) -> bool:
        """The body has neither length nor chunks: only the end of the connection ends it."""
        framed = any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)
        return not framed and self.status not in (204, 304)
