"""HTTP/1.1 to upstreams: pooled connections over httptools, TLS included. An answer is read as it comes or thrown away whole."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from typing import cast

import httptools

from cohort.gateway.settings import Limits
from cohort.gateway.table import Origin

INFORMATIONAL_MAX = 8


class UpstreamError(Exception):
    """An upstream did not answer as HTTP should. Says why; never holds what was sent."""


class Unreachable(UpstreamError):
    """No connection, twice: nothing was sent."""


class Overloaded(UpstreamError):
    """No connection was free and too many requests wait already: nothing was sent."""


class NoAnswer(UpstreamError):
    """The connection closed before a byte of the answer came."""


class Broken(UpstreamError):
    """The answer broke off after it had begun."""


class Invalid(UpstreamError):
    """What came is not HTTP, or more than may come."""


class UpstreamConnection(asyncio.Protocol):
    """One connection: one exchange at a time."""

    __slots__ = (
        "_buffered", "_chunks", "_delimited", "_error", "_head_bytes", "_informational", "_limits", "_loop", "_parser", "_paused",
        "_waiter", "answered", "complete", "headers", "idle_since_s", "in_use", "lost", "origin", "reusable", "status", "touched",
        "transport",
    )  # fmt: skip

    def __init__(self, origin: Origin, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.origin = origin
        self._limits = limits
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport | None = None
        self.lost = self.in_use = False
        self.idle_since_s = 0.0
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._chunks: deque[bytes] = deque()
        self._buffered = self._head_bytes = self._informational = 0
        self.answered = self.complete = self.reusable = self.touched = self._delimited = self._paused = False
        self._error: UpstreamError | None = None

    # --- one exchange ----------------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Begin an exchange with a whole request."""
        self._reset()
        self.in_use = True
        if self.transport is not None:
            self.transport.write(data)

    async def head(self) -> None:
        """Returns when status and headers are there; raises NoAnswer, Broken or Invalid."""
        while not self.answered:
            self._raise()
            await self._wait()

    async def chunk(self) -> bytes:
        """The next bytes of the body, as they come; empty at its end. Raises Broken or Invalid."""
        while not self._chunks:
            if self.complete:
                return b""
            self._raise()
            await self._wait()
        data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        if self._paused and self.transport is not None and not self.lost:
            self._paused = False
            self.transport.resume_reading()
        return data

    def abort(self) -> None:
        """Close at once; what was on its way is dropped."""
        self.lost = True
        if self.transport is not None:
            self.transport.abort()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

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
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(Invalid(f"the answer is not valid HTTP: {error}"))
        if not self.answered:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.upstream_head_bytes_max:
                self._fail(Invalid(f"the headers of the answer are larger than {self._limits.upstream_head_bytes_max} bytes"))
        if self._buffered > self._limits.read_ahead_bytes and not self._paused and not self.complete and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.reusable = False
        if self.in_use and not self.complete and self._error is None:
            if self.answered and self._delimited and exc is None:
                self.complete = True
            else:
                self._error = Broken("the answer broke off") if self.touched else NoAnswer("the connection closed before an answer came")
        self._wake()

    def _fail(self, error: UpstreamError) -> None:
        self.reusable = False
        if not self.complete:
            self._error = error
        if self.transport is not None:
            self.transport.abort()

    # --- httptools -------------------------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            return
        self.answered = True
        names = {name for name, _ in self.headers}
        self._delimited = b"content-length" not in names and b"transfer-encoding" not in names and self.status not in (204, 304)

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
    def delimited_by_close(self) -> bool:
        """The body has neither length nor chunks: only the end of the connection ends it."""
        return self._delimited


class _Pool:
    """Connections to one origin."""

    __slots__ = ("idle", "open", "waiters")

    def __init__(self) -> None:
        self.idle: list[UpstreamConnection] = []
        self.open = 0
        self.waiters: deque[asyncio.Future[None]] = deque()


class Upstreams:
    """Every pool. One connection is tried again once: when it cannot be had, or when a reused one proves to have been closed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._pools: dict[Origin, _Pool] = {}
        self._tls: ssl.SSLContext | None = None
        self.retries = 0

    async def exchange(self, origin: Origin, request: bytes, *, patient: bool = True) -> UpstreamConnection:
        """Send `request` and wait for the head of its answer. Hand the connection back with `finish`, whatever happens.

        `patient` false: do not wait for a free connection. The caller bounds the time.

        Raises:
            Unreachable, Overloaded: nothing was sent. NoAnswer, Broken, Invalid: the upstream may have begun to work.
        """
        connection, reused = await self._acquire(origin, patient)
        try:
            connection.send(request)
            await connection.head()
            return connection
        except NoAnswer:
            self.finish(connection)
            if not reused:
                raise
        except BaseException:
            self.finish(connection)
            raise
        self.retries += 1
        return await self._again(origin, request)

    def finish(self, connection: UpstreamConnection) -> None:
        """The exchange is over: keep the connection if the answer was read whole, else close it at once."""
        pool = self._pools[connection.origin]
        if connection.complete and connection.reusable and not connection.lost:
            connection.in_use = False
            connection.idle_since_s = self._loop.time()
            pool.idle.append(connection)
        else:
            connection.abort()
            pool.open -= 1
        _wake_one(pool)

    @property
    def open(self) -> int:
        return sum(pool.open for pool in self._pools.values())

    def sweep(self) -> None:
        """Close connections that were idle too long, and forget pools that are empty."""
        oldest_s = self._loop.time() - self._limits.upstream_idle_s
        for origin, pool in list(self._pools.items()):
            stale = [c for c in pool.idle if c.lost or c.idle_since_s < oldest_s]
            for connection in stale:
                pool.idle.remove(connection)
                pool.open -= 1
                connection.abort()
            if not pool.open and not pool.waiters:
                del self._pools[origin]

    def close(self) -> None:
        for pool in self._pools.values():
            for connection in pool.idle:
                connection.abort()

    async def _again(self, origin: Origin, request: bytes) -> UpstreamConnection:
        pool = self._pools.setdefault(origin, _Pool())
        pool.open += 1
        connection = await self._connect(origin, pool)
        try:
            connection.send(request)
            await connection.head()
        except BaseException:
            self.finish(connection)
            raise
        return connection

    async def _acquire(self, origin: Origin, patient: bool) -> tuple[UpstreamConnection, bool]:
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = _Pool()
        while True:
            while pool.idle:
                connection = pool.idle.pop()
                if not connection.lost:
                    return connection, True
                pool.open -= 1
            if pool.open < self._limits.upstream_connections_max:
                pool.open += 1
                return await self._connect(origin, pool), False
            await self._wait_for_one(origin, pool, patient)

    async def _wait_for_one(self, origin: Origin, pool: _Pool, patient: bool) -> None:
        if not patient or len(pool.waiters) >= self._limits.upstream_waiters_max:
            raise Overloaded(f"{origin}: all {self._limits.upstream_connections_max} connections are busy")
        waiter: asyncio.Future[None] = self._loop.create_future()
        pool.waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                _wake_one(pool)
            raise
        finally:
            if waiter in pool.waiters:
                pool.waiters.remove(waiter)

    async def _connect(self, origin: Origin, pool: _Pool) -> UpstreamConnection:
        """A new connection, tried twice. The pool has counted it already."""
        try:
            try:
                return await self._connect_once(origin)
            except OSError:
                self.retries += 1
                await asyncio.sleep(self._limits.connect_retry_wait_s)
                return await self._connect_once(origin)
        except OSError as error:
            self._lose(pool)
            raise Unreachable(f"{origin}: {_reason(error)}") from error
        except BaseException:
            self._lose(pool)
            raise

    async def _connect_once(self, origin: Origin) -> UpstreamConnection:
        context = self._tls_context() if origin.scheme == "https" else None
        async with asyncio.timeout(self._limits.connect_s):
            _, protocol = await self._loop.create_connection(
                lambda: UpstreamConnection(origin, self._limits, self._loop), origin.host, origin.port, ssl=context
            )
        return protocol

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _lose(self, pool: _Pool) -> None:
        pool.open -= 1
        _wake_one(pool)


def _wake_one(pool: _Pool) -> None:
    while pool.waiters:
        waiter = pool.waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)
            return


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no connection in time (connect_s)"
    return error.strerror or str(error) or type(error).__name__
