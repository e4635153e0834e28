"""The listening socket and the server's life."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from urllib.parse import urlsplit

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from cohort.base.errors import CohortError, Retry
from cohort.surfaces.http.ports import LOOPBACK_NAMES

GRACEFUL_S = 10
CONNECTIONS_MAX = 512
KEEP_ALIVE_S = 15
HEADER_BYTES_MAX = 64 << 10
HEAD_READ_S = 10.0
BACKLOG = 256


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 lets the system choose.

    Raises:
        CohortError PORT_IN_USE, BIND_REFUSED: nothing listens.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _bind_failed(host, port, error) from error
    listener.listen(BACKLOG)
    listener.set_inheritable(False)
    return listener


def hosts_for(host: str, public_url: str | None = None) -> frozenset[str] | None:
    """The Host names to answer for when listening at `host`: on loopback only its own names and that of `public_url`, else any."""
    loopback = host in ("localhost", "::1") or host.startswith("127.")
    public = {str(urlsplit(public_url).hostname)} if public_url is not None else set()
    return LOOPBACK_NAMES | {host} | public if loopback else None


class Http(H11Protocol):
    """uvicorn's HTTP, and a limit that it has not: the request line and the headers arrive within `head_read_s`, however they drip in."""

    head_read_s: ClassVar[float] = HEAD_READ_S
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._late = self.loop.call_later(self.head_read_s, self._too_late)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._on_time()
        elif self._late is None:
            self._late = self.loop.call_later(self.head_read_s, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_time()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._on_time()
        super().on_response_complete()

    def _on_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
        self._late = None

    def _too_late(self) -> None:
        if self.conn.our_state is h11.IDLE and not self.transport.is_closing():
            head = h11.Response(status_code=408, headers=[(b"connection", b"close"), (b"content-length", b"0")], reason=b"Request Timeout")
            self.transport.write(self.conn.send(head) or b"")
        self.transport.close()


class _Server(uvicorn.Server):
    """Ends the live streams first, so that shutting down does not wait for pages that stay open."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, on_ready: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._app = app
        self._on_ready = on_ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT begin the shutdown; `run` then returns, so that its caller can close what it opened."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_ready is not None and self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.feed.close()
        if self._app.state.mcp is not None:
            self._app.state.mcp.close()
        await super().shutdown(sockets)


def server_for(app: FastAPI, on_ready: Callable[[], None] | None = None, http: type[Http] = Http) -> uvicorn.Server:
    """A server for `app`; `run(sockets=[bind(...)])` serves until `should_exit` is set or SIGTERM or SIGINT comes."""
    config = uvicorn.Config(
        app,
        http=http,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACEFUL_S,
        h11_max_incomplete_event_size=HEADER_BYTES_MAX,
    )
    return _Server(config, app, on_ready)


def serve(app: FastAPI, host: str, port: int, on_ready: Callable[[], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight get `GRACEFUL_S`. `on_ready` is called once it answers.

    Raises:
        CohortError PORT_IN_USE, BIND_REFUSED: before anything was served.
    """
    server_for(app, on_ready).run(sockets=[bind(host, port)])


def _bind_failed(host: str, port: int, error: OSError) -> CohortError:
    if error.errno == errno.EADDRINUSE:
        return CohortError(
            "PORT_IN_USE", f"port {port} on {host} is in use by another process", retry=Retry.SAFE, hint="Stop it, or choose another port."
        )
    reason = error.strerror or str(error)
    return CohortError(
        "BIND_REFUSED", f"cannot listen on {host}:{port}: {reason}", hint="Choose an address of this machine and a port you may use."
    )
