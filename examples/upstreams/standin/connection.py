"""One HTTP/1.1 connection: requests in, timed bytes out. Timers instead of tasks keep it cheap."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import deque
from typing import cast

import httptools

from standin.protocol import Step, error_body, json_response
from standin.vendor import Vendor

BODY_BYTES_MAX = 16 << 20
HEADER_BYTES_MAX = 64 << 10
PIPELINE_MAX = 64


class Connection(asyncio.Protocol):
    """One keep-alive connection: reads requests, plays their steps one after the other. A client that leaves stops the play."""

    def __init__(self, vendor: Vendor, loop: asyncio.AbstractEventLoop, open_connections: set[Connection]) -> None:
        self._vendor = vendor
        self._loop = loop
        self._open = open_connections
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[tuple[Step, ...], bool]] = deque()
        self._timer: asyncio.Handle | None = None
        self._busy = False
        self._new_message()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._local = peer is not None and ipaddress.ip_address(peer[0]).is_loopback
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        self._open.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._transport.close()
        except httptools.HttpParserError as error:
            body = error_body(f"not an HTTP request this server takes: {error}", "invalid_request_error")
            self._transport.write(json_response(400, body, self._vendor.name, {"connection": "close"}))
            self._transport.close()

    # --- called by the parser ---

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADER_BYTES_MAX:
            raise ValueError(f"headers over {HEADER_BYTES_MAX} bytes")
        if name.lower() == b"expect" and value.lower() == b"100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= BODY_BYTES_MAX:
            self._body.append(body)

    def on_message_complete(self) -> None:
        method, path = self._parser.get_method().decode(), self._url.decode("latin-1").partition("?")[0]
        if self._size > BODY_BYTES_MAX:
            body = error_body(f"The body is over {BODY_BYTES_MAX} bytes.", "invalid_request_error")
            steps: tuple[Step, ...] = (Step(0.0, json_response(413, body, self._vendor.name)),)
        else:
            steps = self._vendor.route(method, path, b"".join(self._body), self._local)
        keep = self._parser.should_keep_alive()
        self._new_message()
        if len(self._waiting) >= PIPELINE_MAX:
            self._transport.abort()
            return
        self._waiting.append((steps, keep))
        if not self._busy:
            self._play_next()

    def _new_message(self) -> None:
        self._url = b""
        self._body: list[bytes] = []
        self._size = self._header_bytes = 0

    # --- playing ---

    def _play_next(self) -> None:
        if not self._waiting:
            self._busy = False
            return
        self._busy = True
        steps, keep = self._waiting.popleft()
        self._play(steps, 0, self._loop.time(), keep)

    def _play(self, steps: tuple[Step, ...], index: int, began: float, keep: bool) -> None:
        """Send every step that is due, then wait for the next."""
        now = self._loop.time()
        while index < len(steps):
            step = steps[index]
            if step.at_s > now - began:
                self._timer = self._loop.call_at(began + step.at_s, self._play, steps, index, began, keep)
                return
            self._transport.write(step.data)
            index += 1
        self._timer = None
        if not keep:
            self._transport.close()
            return
        self._play_next()
