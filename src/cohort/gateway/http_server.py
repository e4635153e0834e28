"""Accepts clients, watches their deadlines, drains."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

from cohort.gateway.http_connection import Connection
from cohort.gateway.http_messages import Handler
from cohort.gateway.log import Log
from cohort.gateway.settings import Limits
from cohort.gateway.turns import Turn

SWEEP_S = 0.25
BACKLOG = 1024
LAST_LOOK_S = 0.02


class Server:
    """Accepts clients, watches their deadlines, drains. `table_authorization`: of control, whose routing tables may be larger than `body_bytes_max`."""

    def __init__(self, handler: Handler, limits: Limits, log: Log, turn: Turn, refused: Callable[[str], None]) -> None:
        self.handler = handler
        self.limits = limits
        self.log = log
        self.turn = turn
        self.loop = asyncio.get_running_loop()
        self.draining = False
        self.requests = 0
        self.table_authorization: bytes | None = None
        self.refused = refused
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._listeners: list[asyncio.Server] = []
        self._timer: asyncio.TimerHandle | None = None

    async def listen(self, host: str, port: int) -> int:
        """Accept on `host` and `port` (0: any); returns the port. Raises OSError when it cannot be had."""
        return self._begun(await self.loop.create_server(lambda: Connection(self), host, port, backlog=BACKLOG))

    async def listen_on(self, inherited: socket.socket) -> int:
        """Accept on a socket that another process bound and may share with more of us; returns its port."""
        return self._begun(await self.loop.create_server(lambda: Connection(self), sock=inherited, backlog=BACKLOG))

    async def listen_beside(self, path: Path) -> None:
        """Accept on a socket of the file system as well; one that a former process left is replaced. Raises OSError when it cannot be had."""
        self._listeners.append(await self.loop.create_unix_server(lambda: Connection(self), str(path)))

    def _begun(self, listener: asyncio.Server) -> int:
        self._listeners.append(listener)
        self._timer = self.loop.call_later(SWEEP_S, self._sweep)
        return int(listener.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def take_no_more(self) -> None:
        """Accept no more, and return when no further request can begin here, after `drain_s` at the latest.

        A connection without a request is kept for `drain_idle_s`: a request that is on its way is answered, and told to come back elsewhere.
        """
        self.draining = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.close_soon()
        for _ in range(int(self.limits.drain_s / LAST_LOOK_S)):
            if not any(connection.may_begin for connection in self._connections):
                return
            await asyncio.sleep(LAST_LOOK_S)

    async def drain(self) -> None:
        """Behind `take_no_more`: let requests in flight end for `drain_s`, then end them."""
        if not await self._emptied(self.limits.drain_s):
            for connection in list(self._connections):
                connection.cancel()
            await self._emptied(self.limits.linger_s)
        if self._timer is not None:
            self._timer.cancel()

    def admit(self, connection: Connection) -> bool:
        self._connections.add(connection)
        return len(self._connections) <= self.limits.connections_max

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    async def _emptied(self, wait_s: float) -> bool:
        if self._connections:
            self._empty.clear()
            waiter = asyncio.ensure_future(self._empty.wait())
            await asyncio.wait((waiter,), timeout=wait_s)
            waiter.cancel()
        return not self._connections

    def _sweep(self) -> None:
        now_s = self.loop.time()
        for connection in list(self._connections):
            connection.sweep(now_s)
        self._timer = self.loop.call_later(SWEEP_S, self._sweep)
