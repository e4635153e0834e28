"""One client's connection: what was read (`http_reading`) is answered, one request after the other, within deadlines."""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from typing import Protocol, cast

import httptools

from cohort.gateway.dialects.operations import voice_of
from cohort.gateway.http_messages import STATUS_LINES, Handler, Reply, Request
from cohort.gateway.http_reading import BODY, HEAD, IDLE, REFUSED, Reading, RequestReading
from cohort.gateway.log import Log
from cohort.gateway.settings import Limits
from cohort.gateway.strands import Strand
from cohort.gateway.turns import Turn

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Host(Protocol):
    """The server a connection belongs to."""

    handler: Handler
    limits: Limits
    log: Log
    turn: Turn
    loop: asyncio.AbstractEventLoop
    draining: bool
    requests: int
    table_authorization: bytes | None

    def admit(self, connection: Connection) -> bool: ...

    def forget(self, connection: Connection) -> None: ...

    def refused(self, code: str, /) -> None: ...


class Connection(RequestReading):
    """One client. Requests are answered one at a time; pipelined ones wait, bounded, also for the client to take the answers before."""

    __slots__ = (
        "_advancing", "_busy", "_completed", "_deadline_s", "_drained", "_handler", "_loop", "_paused", "_peer", "_pending", "_reply",
        "_server", "_strand", "_transport", "_turn", "congested", "draining", "gone",
    )  # fmt: skip

    def __init__(self, server: Host) -> None:
        super().__init__(server.limits, server.table_authorization)
        self._server = server
        self.draining = server.draining
        self._handler = server.handler
        self._turn = server.turn
        self._loop = server.loop
        self._transport: asyncio.Transport | None = None
        self._pending: deque[tuple[Request, Reply]] = deque()
        self._advancing = self._busy = self._completed = self.congested = self.gone = self._paused = False
        self._strand: Strand | None = None
        self._reply: Reply | None = None
        self._drained: asyncio.Future[None] | None = None
        self._peer: str | None = None
        self._deadline_s = self._loop.time() + self._limits.head_read_s

    @property
    def peer(self) -> str:
        """The client's address, asked for once."""
        if self._peer is None:
            name = self._transport.get_extra_info("peername") if self._transport is not None else None
            self._peer = str(name[0]) if isinstance(name, tuple) and name else ""
        return self._peer

    # --- asyncio ---------------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._limits.write_high_bytes)
        if not self._server.admit(self):
            self._refuse(503, "too_many_connections", "the gateway has as many connections as it may (connections_max); try again")

    def connection_lost(self, _exc: Exception | None) -> None:
        self.gone = True
        del self._parser  # it holds this connection, which would hold memory until the collector looks for cycles
        self._server.forget(self)
        self._pending.clear()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if self._strand is not None:
            self._strand.cancel()

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        before, body_bytes, self._completed = self._reading, self._body_bytes, False
        self._fed_bytes = len(data) if before is IDLE else self._fed_bytes + len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._refusal = self._refusal or (400, "invalid_http", f"not a valid HTTP/1.1 request: {error}")
        if self._refusal is None and (
            self._reading is HEAD or (before is BODY and self._reading is BODY and self._body_bytes == body_bytes)
        ):
            self._raw_head_bytes += 0 if self._completed else len(data)  # behind the head: extensions of chunks, trailers
            if self._raw_head_bytes > self._limits.head_bytes_max:
                self._refusal = self._head_too_large()
        if self._refusal is not None:
            self._refuse(*self._refusal)
        elif self._reading is not IDLE:
            self._watch(before)

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if self._pending:
            self._next()

    # --- httptools -------------------------------------------------------------------------------------------------------------

    def on_message_complete(self) -> None:
        if self._refusal is not None:
            return
        if self._odd_bytes and self._head_bytes() > self._limits.head_bytes_max:
            self._refusal = self._head_too_large()
            return
        self._reading = IDLE
        self._completed = True
        self._continue = False
        body, self._body = self._body, []
        method, modern = self._parser.get_method(), self._modern
        request = Request(method, self._target, self._headers, body[0] if len(body) == 1 else b"".join(body))
        reply = Reply(self, modern and self._parser.should_keep_alive(), modern, method != b"HEAD")
        if not self._busy and self._strand is None and not self.congested:
            self._begin(request, reply)
        elif len(self._pending) < self._limits.pipelined_max:
            self._pending.append((request, reply))
            self._pause(True)
        else:
            self._refusal = (400, "too_many_pipelined", "too many requests sent ahead on one connection; wait for answers")

    # --- answering -------------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self.gone:
            self._turn.send(self._transport, data)

    async def drain(self) -> None:
        while self.congested and not self.gone:
            self._drained = self._loop.create_future()
            await self._drained

    def answered(self, keep_alive: bool) -> None:
        """A reply is complete: take the next request, or close."""
        self._busy = False
        if self.gone:
            return
        if not keep_alive and self._transport is not None:
            self._pending.clear()
            self._deadline_s = self._loop.time() + self._limits.keep_alive_s  # for a client that is slow to take the rest
            self._close(self._transport)
        elif self._strand is None:
            self._next()

    def _begin(self, request: Request, reply: Reply) -> None:
        self._busy = True
        self._server.requests += 1
        try:
            coroutine = self._handler(request, reply)
        except Exception as error:  # the supervisor of one request
            self._crashed(reply, error)
            return
        if coroutine is not None:
            self._reply = reply
            self._strand = Strand(coroutine, self._over)
            self._strand.step()

    def _over(self, _strand: Strand, error: BaseException | None) -> None:
        """The supervisor of one request: nothing a request does may end the process."""
        reply, self._strand, self._reply = self._reply, None, None
        if error is not None:
            if isinstance(error, Exception) and reply is not None:
                self._crashed(reply, error)
            else:
                self._abort()
        if not (self._busy or self.gone) and self._transport is not None and not self._transport.is_closing():
            self._next()

    def _crashed(self, reply: Reply, error: Exception) -> None:
        where = "".join(traceback.format_tb(error.__traceback__)[-3:])  # not the error's words, which may repeat the request's
        self._server.log.write("request_failed", error=type(error).__name__, where=where[-2000:])
        if reply.started:
            self._abort()
        else:
            words = "the gateway failed on this request; its log says why"
            reply.send(500, voice_of(self._target).error(500, words, "internal_error", kind="server_error"))

    def _next(self) -> None:
        """Begin what was sent ahead; with nothing left, read on. Requests answered at once are a loop here, not a recursion."""
        if self._advancing:
            return
        if self._pending:
            self._advancing = True
            while self._pending and not self._busy and self._strand is None and not self.congested:
                self._begin(*self._pending.popleft())
            self._advancing = False
        if not self._busy and self._strand is None and not self.gone:
            self._rest()

    def _rest(self) -> None:
        wait_s = self._limits.keep_alive_s if self._reading is IDLE else self._limits.head_read_s
        self._deadline_s = self._loop.time() + wait_s
        if self._refusal is not None:
            self._refuse(*self._refusal)
        elif self._paused and not self._pending:
            self._pause(False)
        if self.draining and not self._pending:
            self.close_soon()

    # --- limits ----------------------------------------------------------------------------------------------------------------

    def sweep(self, now_s: float) -> None:
        """Enforce the deadline of whatever the connection is doing."""
        if now_s < self._deadline_s or self._transport is None or (self._busy and self._refusal is not None):
            return
        if self.congested and not self._busy:
            self._abort()
        elif self._reading is HEAD or self._reading is BODY:
            part = "head" if self._reading is HEAD else "body"
            self._refuse(408, "request_timeout", f"the {part} of the request did not arrive in time ({part}_read_s)")
        elif self._reading is REFUSED or (not self._busy and self._transport.get_write_buffer_size()):
            self._abort()
        elif not self._busy:
            self._close(self._transport)

    @property
    def may_begin(self) -> bool:
        """Another request than the one that is being answered may begin on it."""
        return not self._busy or bool(self._pending)

    def close_soon(self) -> None:
        """The process drains: a connection without a request is closed by a later `sweep`, one with a request when that is answered."""
        self.draining = True
        if not self._busy and self._reading is IDLE:
            self._deadline_s = min(self._deadline_s, self._loop.time() + self._limits.drain_idle_s)

    def cancel(self) -> None:
        """End the request in flight, as at the end of a drain."""
        if self._strand is not None:
            self._strand.cancel()
        else:
            self._abort()

    def _watch(self, before: Reading) -> None:
        if self._continue:
            self._continue = False
            if not self._busy:
                self.write(CONTINUE)
        if self._reading is before:
            return
        if self._reading is HEAD:
            self._deadline_s = self._loop.time() + self._limits.head_read_s
        elif self._reading is BODY:
            self._deadline_s = self._loop.time() + self._limits.body_read_s

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error and close, once the answers before it are out."""
        self._refusal = (status, code, message)
        if self._busy or self._strand is not None or self._pending or self._reading is REFUSED:
            return
        self._reading = REFUSED
        body = voice_of(self._target).error(status, message, code)
        head = b"%scontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (STATUS_LINES[status], len(body))
        self.write(head + body)
        self._server.refused(code)
        self._deadline_s = self._loop.time() + self._limits.linger_s
        if self._transport is not None and not self._transport.is_closing():
            self._pause(False)
            self._turn.flush()
            self._transport.write_eof()

    def _pause(self, paused: bool) -> None:
        if self._transport is None or self._transport.is_closing() or self._transport.is_reading() is not paused:
            return
        self._paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _close(self, transport: asyncio.Transport) -> None:
        self._turn.flush()
        transport.close()

    def _abort(self) -> None:
        if self._transport is not None:
            self._turn.flush()
            self._transport.abort()
