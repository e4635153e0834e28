"""The little of Redis's protocol (RESP 2) that a shared cache needs: pipelined commands on one connection."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

REPLY_BYTES_MAX = 64 << 20
DEPTH_MAX = 4

Reply = bytes | int | None | list["Reply"]


class RespError(Exception):
    """The server refused a command (the connection goes on), or what it says is not RESP, or it left (the connection is over)."""


class RespConnection(asyncio.Protocol):
    """One connection. Replies come in the order of the commands."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.closed = True
        while self._waiting:
            _settle(self._waiting.popleft(), RespError("the connection closed"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            while self._waiting and (found := _reply(self._buffer, 0, 0)) is not None:
                value, end = found
                del self._buffer[:end]
                _settle(self._waiting.popleft(), value)
            if len(self._buffer) > REPLY_BYTES_MAX or (self._buffer and not self._waiting):
                raise RespError("more was said than was asked")
        except (RespError, ValueError, RecursionError):
            self.close()

    def command(self, *parts: bytes) -> asyncio.Future[Reply]:
        """Send a command; the future has its reply, or RespError."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_seen)
        if self.closed or self._transport is None:
            future.set_exception(RespError("the connection is closed"))
            return future
        self._waiting.append(future)
        self._transport.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        return future

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()


def _settle(future: asyncio.Future[Reply], value: Reply | RespError) -> None:
    if future.done():
        return  # whoever asked gave up
    if isinstance(value, RespError):
        future.set_exception(value)
    else:
        future.set_result(value)


def _seen(future: asyncio.Future[Reply]) -> None:
    """Whoever asked may have given up: then an error is nobody's, and not worth a line on stderr."""
    if not future.cancelled():
        future.exception()


def _reply(data: bytearray, at: int, depth: int) -> tuple[Reply | RespError, int] | None:
    """The reply that begins at `at` and where it ends; None when it is not all there. Raises RespError, ValueError: not RESP."""
    line_end = data.find(b"\r\n", at)
    if line_end < 0:
        return None
    kind, rest, after = data[at : at + 1], bytes(data[at + 1 : line_end]), line_end + 2
    match bytes(kind):
        case b"+":
            return rest, after
        case b"-":
            return RespError(rest.decode("utf-8", "replace")[:200]), after
        case b":":
            return int(rest), after
        case b"$":
            return _bulk(data, int(rest), after)
        case b"*" if depth < DEPTH_MAX:
            return _array(data, int(rest), after, depth)
    raise RespError("not RESP")


def _bulk(data: bytearray, size: int, at: int) -> tuple[Reply, int] | None:
    if size < 0:
        return None, at
    if size > REPLY_BYTES_MAX:
        raise RespError("a reply larger than REPLY_BYTES_MAX")
    end = at + size
    return (bytes(data[at:end]), end + 2) if len(data) >= end + 2 else None


def _array(data: bytearray, count: int, at: int, depth: int) -> tuple[Reply, int] | None:
    if count < 0:
        return None, at
    values: list[Reply] = []
    for _ in range(count):
        found = _reply(data, at, depth + 1)
        if found is None:
            return None
        value, at = found
        values.append(None if isinstance(value, RespError) else value)
    return values, at
