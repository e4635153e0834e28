"""The only way out of a sandbox: a proxy on the host that accepts on a listener inside the sandbox and lets through what was granted.

Each connection asks once (`CONNECT` or an absolute `http://` address). It is parsed by one strict parser, matched against the allow-list,
resolved once, refused when it is not a public place, told to `on_decision`, and only then dialled, at the resolved address. A tunnel has to
open with a TLS ClientHello that names the host it was asked for. What passes, up and down together, is counted against one budget,
and paid for in slices before it passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from cohort.kernel.sandbox.egress_addresses import look_up, resolve_public
from cohort.kernel.sandbox.egress_connection import serve
from cohort.kernel.sandbox.egress_door import Door, own_listener
from cohort.kernel.sandbox.egress_names import AllowList, Target, hosts_of, origin_allowed
from cohort.kernel.sandbox.egress_request import HEAD_BYTES_MAX
from cohort.kernel.sandbox.egress_verdict import Grant, OnDecision, Reason, Times, Verdict
from cohort.kernel.sandbox.ways_out import UNLIMITED, Fund

__all__ = ["PORT", "Listener", "OnDecision", "Proxy", "Reason", "Times", "Verdict", "hosts_of", "origin_allowed", "resolve_public"]

PORT = 3128
RESOLVERS_MAX = 16
RECORDERS_MAX = 4
CLOSE_WAIT_S = 10.0
ACCEPT_PAUSE_S = 0.05

_log = logging.getLogger(__name__)


class Proxy:
    """All of an installation's listeners, served by one long-lived thread. `private`: `host:port` that may be at an address that is not public.

    Errors of the constructor: FIELD_INVALID, a pattern in `private`.
    """

    def __init__(self, private: Sequence[str] = (), times: Times | None = None) -> None:
        self._private = AllowList.of(private)
        self._times = times or Times()
        self._door = Door()
        self._lock = threading.Lock()
        self._engine: _Engine | None = None
        self._listeners: set[Listener] = set()

    def listen(self, pid: int, hosts: Sequence[str], budget_bytes: int, on_decision: OnDecision, fund: Fund = UNLIMITED) -> Listener:
        """Serve 127.0.0.1:3128 inside the network namespace of `pid`, which must be another than ours.

        Raises:
            CohortError SANDBOX_UNAVAILABLE: nothing listens. FIELD_INVALID: a host pattern.
        """
        allowed = AllowList.of(hosts)
        return self._serve(self._door.open(pid, PORT), allowed, budget_bytes, on_decision, fund)

    def listen_here(self, hosts: Sequence[str], budget_bytes: int, on_decision: OnDecision, fund: Fund = UNLIMITED) -> Listener:
        """Serve a free port of this machine's own loopback address, which everything on this machine can reach. Errors: FIELD_INVALID."""
        allowed = AllowList.of(hosts)
        return self._serve(own_listener(), allowed, budget_bytes, on_decision, fund)

    def close(self) -> None:
        """End every listener, connection, thread and process of the proxy."""
        with self._lock:
            listeners, engine = tuple(self._listeners), self._engine
            self._engine = None
        for listener in listeners:
            listener.close()
        self._door.close()
        if engine is not None:
            engine.close()

    def _serve(self, sock: socket.socket, allowed: AllowList, budget_bytes: int, on_decision: OnDecision, fund: Fund) -> Listener:
        sock.setblocking(False)
        with self._lock:
            if self._engine is None:
                self._engine = _Engine()
            engine = self._engine
            told, drawn = engine.teller(on_decision), engine.drawer(fund)
            grant = Grant(allowed, self._private, self._times, budget_bytes, engine.resolve, told, drawn)
            listener = Listener(engine, sock, grant, fund, self._forget)
            self._listeners.add(listener)
        listener.open()
        return listener

    def _forget(self, listener: Listener) -> None:
        with self._lock:
            self._listeners.discard(listener)


class _Engine:
    """The thread of the event loop, and threads for what blocks: look-ups apart from records, so that a slow resolver delays no record."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._resolvers = ThreadPoolExecutor(RESOLVERS_MAX, "cohort-egress-resolve")
        self._recorders = ThreadPoolExecutor(RECORDERS_MAX, "cohort-egress-record")
        self._thread = threading.Thread(target=self._run, name="cohort-egress", daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in the loop and wait for it; never from the loop's own thread."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(CLOSE_WAIT_S)

    async def resolve(self, target: Target) -> tuple[str, ...]:
        if target.literal:
            return look_up(target)
        return await self._loop.run_in_executor(self._resolvers, look_up, target)

    def teller(self, on_decision: OnDecision) -> Callable[[Verdict], Awaitable[None]]:
        async def tell(verdict: Verdict) -> None:
            await self._loop.run_in_executor(self._recorders, on_decision, verdict)

        return tell

    def drawer(self, fund: Fund) -> Callable[[int], Awaitable[int]]:
        async def draw(wanted_bytes: int) -> int:
            return await self._loop.run_in_executor(self._recorders, fund.draw, wanted_bytes)

        return draw

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_WAIT_S)
        for pool in (self._resolvers, self._recorders):
            pool.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()


class Listener:
    """One sandbox's way out, until `close`."""

    def __init__(self, engine: _Engine, sock: socket.socket, grant: Grant, fund: Fund, on_close: Callable[[Listener], None]) -> None:
        self.port: int = sock.getsockname()[1]
        self._engine = engine
        self._sock = sock
        self._grant = grant
        self._fund = fund
        self._on_close = on_close
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def bytes_used(self) -> int:
        """Passed so far, up and down together; never more than the budget."""
        return self._grant.used_bytes

    @property
    def decisions(self) -> tuple[Verdict, ...]:
        """The newest `DECISIONS_KEPT_MAX`."""
        return tuple(self._grant.kept)

    def open(self) -> None:
        self._engine.do(self._open())

    def close(self) -> None:
        """End the listener and its connections, and give back what was drawn for them; a second time does nothing."""
        if not self._closed:
            self._closed = True
            self._engine.do(self._close())
            self._fund.give_back(self._grant.left_bytes)
            self._on_close(self)

    async def _open(self) -> None:
        self._listen()

    async def _close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sock.fileno())
        self._sock.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _listen(self) -> None:
        if not self._closed:
            asyncio.get_running_loop().add_reader(self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        """Ours and not asyncio's server, which may lose what it has accepted while it is being closed."""
        loop = asyncio.get_running_loop()
        try:
            client, _ = self._sock.accept()
        except (BlockingIOError, ConnectionError):
            return  # it is gone already
        except OSError:  # no descriptors or no memory left
            loop.remove_reader(self._sock.fileno())
            loop.call_later(ACCEPT_PAUSE_S, self._listen)
            return
        client.setblocking(False)
        task = loop.create_task(self._serve(client))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, client))

    def _ended(self, client: socket.socket, task: asyncio.Task[None]) -> None:
        client.close()
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a connection out of a sandbox ended in an error nobody expected", exc_info=error)

    async def _serve(self, client: socket.socket) -> None:
        self._grant.connections += 1
        try:
            reader, writer = await asyncio.open_connection(sock=client, limit=HEAD_BYTES_MAX)
            try:
                await serve(self._grant, (reader, writer))
                await self._flush(writer)
            finally:
                writer.transport.abort()
        except OSError:
            pass  # one side went away
        finally:
            self._grant.connections -= 1

    async def _flush(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grant.times.close_s):
                await writer.wait_closed()
