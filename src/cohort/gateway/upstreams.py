"""Connections to upstreams, pooled by address, TLS included; who may have one, who waits, and what is tried again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

from cohort.base.clock import Clock
from cohort.gateway.addresses import AddressGuard
from cohort.gateway.origins import Origin
from cohort.gateway.settings import Limits
from cohort.gateway.upstream_connection import Forbidden, NoAnswer, Overloaded, Pool, Send, Unreachable, UpstreamConnection


class Upstreams:
    """Every pool. One connection is tried again once: when it cannot be had, or when a reused one proves to have been closed."""

    def __init__(self, limits: Limits, send: Send, guard: AddressGuard, clock: Clock) -> None:
        self._monotonic_s = clock.monotonic_s
        self._guard = guard
        self._limits = limits
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._pools: dict[Origin, Pool] = {}
        self._tls: ssl.SSLContext | None = None
        self.retries = 0
        self.shed = 0

    async def exchange(self, origin: Origin, request: bytes, *, patient: bool = True) -> UpstreamConnection:
        """Send `request` and wait for the head of its answer. Hand the connection back with `finish`, whatever happens.

        `patient` false: do not wait for a free connection. The caller bounds the time.

        Raises:
            Unreachable, Forbidden, Overloaded: nothing was sent. NoAnswer, Broken, Invalid: the upstream may have begun to work.
        """
        connection = self._idle(origin)
        reused, waited_s = connection is not None, 0.0
        if connection is None:
            began_s = self._monotonic_s()
            connection, reused = await self._acquire(origin, patient)
            waited_s = self._monotonic_s() - began_s
        try:
            connection.send(request)
            connection.waited_s = waited_s
            while not connection.answered:
                await connection.news()
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
        pool = connection.pool
        if connection.complete and connection.reusable and not connection.lost:
            connection.in_use = False
            connection.idle_since_s = self._loop.time()
            pool.idle.append(connection)
        else:
            connection.abort()
            pool.open -= 1
        if pool.waiters:
            _wake_one(pool)

    def has_room(self, origin: Origin) -> bool:
        """A request to `origin` would not have to wait for a connection."""
        pool = self._pools.get(origin)
        return pool is None or (not pool.waiters and (bool(pool.idle) or pool.open < self._limits.upstream_connections_max))

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
        pool = self._pools.setdefault(origin, Pool())
        pool.open += 1
        connection = await self._connect(origin, pool)
        try:
            connection.send(request)
            while not connection.answered:
                await connection.news()
        except BaseException:
            self.finish(connection)
            raise
        return connection

    def _idle(self, origin: Origin) -> UpstreamConnection | None:
        """A pooled connection that is whole, if there is one."""
        pool = self._pools.get(origin)
        while pool is not None and pool.idle:
            connection = pool.idle.pop()
            if not connection.lost and connection.transport is not None and not connection.transport.is_closing():
                return connection
            pool.open -= 1
        return None

    async def _acquire(self, origin: Origin, patient: bool) -> tuple[UpstreamConnection, bool]:
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = Pool()
        while True:
            connection = self._idle(origin)
            if connection is not None:
                return connection, True
            if pool.open < self._limits.upstream_connections_max:
                pool.open += 1
                return await self._connect(origin, pool), False
            await self._wait_for_one(origin, pool, patient)

    async def _wait_for_one(self, origin: Origin, pool: Pool, patient: bool) -> None:
        now_s = self._loop.time()
        late = bool(pool.waiters) and now_s - pool.waiters[0][0] > self._limits.queue_age_s_max
        if late or not patient or len(pool.waiters) >= self._limits.upstream_waiters_max:
            words = f"and calls already wait longer than {self._limits.queue_age_s_max:g} s (queue_age_s_max)" if late else ""
            self.shed += patient
            raise Overloaded(f"{origin}: all {self._limits.upstream_connections_max} connections are busy {words}".rstrip())
        waiter: asyncio.Future[None] = self._loop.create_future()
        place = (now_s, waiter)
        pool.waiters.append(place)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                _wake_one(pool)
            raise
        finally:
            if place in pool.waiters:
                pool.waiters.remove(place)

    async def _connect(self, origin: Origin, pool: Pool) -> UpstreamConnection:
        """A new connection, tried twice. The pool has counted it already."""
        try:
            try:
                connection = await self._connect_once(origin)
            except OSError:
                self.retries += 1
                await asyncio.sleep(self._limits.connect_retry_wait_s)
                connection = await self._connect_once(origin)
            connection.pool = pool
            return connection
        except OSError as error:
            self._lose(pool)
            raise Unreachable(f"{origin}: {_reason(error)}") from error
        except BaseException:
            self._lose(pool)
            raise

    async def _connect_once(self, origin: Origin) -> UpstreamConnection:
        connecting = self._loop.create_task(self._connect_in_time(origin))  # a task, for `asyncio.timeout`: calls have none
        try:
            return await connecting
        except asyncio.CancelledError:
            if connecting.done() and not connecting.cancelled() and connecting.exception() is None:
                connecting.result().abort()  # it came when its call was being cancelled: nobody has it
            raise

    async def _connect_in_time(self, origin: Origin) -> UpstreamConnection:
        async with asyncio.timeout(self._limits.connect_s):
            found = await self._loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
            allowed = [address for address in addresses if self._guard.permits(address)]
            if not allowed:
                raise Forbidden(f"{origin} is at {', '.join(addresses)}, which is not public (`gateway.private_upstreams` allows more)")
            for address in allowed[:-1]:
                with contextlib.suppress(OSError):
                    return await self._dial(origin, address)
            return await self._dial(origin, allowed[-1])

    async def _dial(self, origin: Origin, address: str) -> UpstreamConnection:
        """Connect to the very address that was checked: a literal is not looked up again."""
        context = self._tls_context() if origin.scheme == "https" else None
        _, protocol = await self._loop.create_connection(
            lambda: UpstreamConnection(origin, self._limits, self._send),
            address,
            origin.port,
            ssl=context,
            server_hostname=origin.host if context else None,
        )
        return protocol

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _lose(self, pool: Pool) -> None:
        pool.open -= 1
        _wake_one(pool)


def _wake_one(pool: Pool) -> None:
    while pool.waiters:
        _, waiter = pool.waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)
            return


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no connection in time (connect_s)"
    return error.strerror or str(error) or type(error).__name__
