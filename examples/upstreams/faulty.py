"""An upstream that fails on request: each fault that a model provider is known for, chosen by the `model` of the request.

    python examples/upstreams/faulty.py --port 9109            # --certificate FILE --key FILE: behind TLS
    curl localhost:9109/v1/chat/completions -d '{"model": "stall-stream", "stream": true}'

`docs/reference/reliability.md` says what a client of the gateway meets for each. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

GIGABYTE = 1 << 30
PIECE_BYTES = 1 << 16
SLOW_S = 5.0
SLOW_STREAM_S = 0.5
HEAD_BYTES_MAX = 1 << 16
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "faulty",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
    "usage": USAGE,
}


def event(content: str, **extra: Any) -> bytes:
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "faulty", "choices": [], **extra}
    if content:
        body["choices"] = [{"index": 0, "delta": {"role": "assistant", "content": content}, "finish_reason": None}]
    return b"data: " + json.dumps(body).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
ERROR_EVENT = b'data: {"error":{"message":"overloaded","type":"server_error","code":"overloaded"}}\n\n'


class Exchange:
    """One request and how it is answered. `nth` counts requests of this connection, `seen` those for this model."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fields: dict[str, Any], nth: int, seen: int) -> None:
        self._reader = reader
        self._writer = writer
        self.fields = fields
        self.stream = bool(fields.get("stream"))
        self.nth = nth
        self.seen = seen

    def raw(self, data: bytes) -> None:
        self._writer.write(data)

    def whole(self, status: str, body: bytes, *headers: str, kind: str = "application/json", length: int | None = None) -> None:
        size = len(body) if length is None else length
        lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {size}", *headers]
        self.raw(("\r\n".join(lines) + "\r\n\r\n").encode() + body)

    def error(self, status: str, code: str, *headers: str) -> None:
        body = {"error": {"message": f"{code}, on request", "type": "server_error", "param": None, "code": code}}
        self.whole(status, json.dumps(body).encode(), *headers)

    def begin(self) -> None:
        self.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

    async def pieces(self, *pieces: bytes) -> None:
        """Chunks of a body, each sent by itself."""
        for piece in pieces:
            self.raw(b"%x\r\n%s\r\n" % (len(piece), piece))
            await self._writer.drain()

    async def well(self) -> None:
        if not self.stream:
            self.whole("200 OK", json.dumps(ANSWER).encode())
            return
        self.begin()
        await self.pieces(event("Hel"), event("lo."), event("", usage=USAGE), DONE, b"")

    async def half(self) -> None:
        """The first half of an answer, streamed or not."""
        if self.stream:
            self.begin()
            await self.pieces(event("Hel"))
        else:
            body = json.dumps(ANSWER).encode()
            self.whole("200 OK", body[: len(body) // 2], length=len(body))
            await self._writer.drain()

    def cut(self) -> None:
        """Close as a crash does: without a word."""
        self._writer.transport.abort()

    def close(self) -> None:
        """Close in good order, whatever was promised."""
        self._writer.close()

    async def until_gone(self) -> None:
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(PIECE_BYTES):
                continue

    async def flood(self, count: int) -> None:
        piece = b" " * PIECE_BYTES
        for _ in range(count // PIECE_BYTES):
            self.raw(piece)
            await self._writer.drain()


async def cut(exchange: Exchange) -> None:
    await exchange.half()
    exchange.cut()


async def stall(exchange: Exchange) -> None:
    await exchange.until_gone()


async def stall_stream(exchange: Exchange) -> None:
    await exchange.half()
    await exchange.until_gone()


async def slow_first_byte(exchange: Exchange) -> None:
    await asyncio.sleep(SLOW_S)
    await exchange.well()


async def slow_stream(exchange: Exchange) -> None:
    """No fault: a stream that takes half a second."""
    if not exchange.stream:
        await exchange.well()
        return
    exchange.begin()
    for _ in range(10):
        await exchange.pieces(event("Hello. "))
        await asyncio.sleep(SLOW_STREAM_S / 10)
    await exchange.pieces(DONE, b"")


async def malformed_event(exchange: Exchange) -> None:
    exchange.begin()
    await exchange.pieces(event("Hel"), b"data: {not json\n\n", event("lo."), DONE, b"")


async def malformed_first_event(exchange: Exchange) -> None:
    if not exchange.stream:
        exchange.whole("200 OK", b"{not json")
        return
    exchange.begin()
    await exchange.pieces(b"data: {not json\n\n", DONE, b"")


async def error_event(exchange: Exchange) -> None:
    exchange.begin()
    await exchange.pieces(event("Hel"), ERROR_EVENT, b"")


async def first_error_event(exchange: Exchange) -> None:
    exchange.begin()
    await exchange.pieces(ERROR_EVENT, b"")


async def rate_limited(exchange: Exchange) -> None:
    exchange.error("429 Too Many Requests", "rate_limit_exceeded", "Retry-After: 7")


async def rate_limited_once(exchange: Exchange) -> None:
    if exchange.seen % 2:
        exchange.error("429 Too Many Requests", "rate_limit_exceeded", "Retry-After: 0")
    else:
        await exchange.well()


async def overloaded(exchange: Exchange) -> None:
    exchange.error("529 Overloaded", "overloaded")


async def server_error(exchange: Exchange) -> None:
    exchange.whole("500 Internal Server Error", b"<h1>oops</h1>", kind="text/html")


async def key_refused(exchange: Exchange) -> None:
    exchange.error("401 Unauthorized", "invalid_api_key")


async def request_refused(exchange: Exchange) -> None:
    exchange.error("400 Bad Request", "context_length_exceeded")


async def half_open(exchange: Exchange) -> None:
    """Answers the first request of a connection; then the connection stays, and nobody is there."""
    if exchange.nth == 1:
        await exchange.well()
    else:
        await exchange.until_gone()


async def length_too_long(exchange: Exchange) -> None:
    body = event("Hel") if exchange.stream else json.dumps(ANSWER).encode()
    exchange.whole("200 OK", body, kind="text/event-stream" if exchange.stream else "application/json", length=len(body) + 100)
    exchange.close()


async def length_too_short(exchange: Exchange) -> None:
    body = json.dumps(ANSWER).encode()
    exchange.whole("200 OK", body, length=len(body) - 100)


async def gigabyte(exchange: Exchange) -> None:
    """With its length written in front of it, or, every other time, without."""
    if exchange.seen % 2:
        exchange.whole("200 OK", b"", length=GIGABYTE)
    else:
        exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
    await exchange.flood(GIGABYTE)


async def not_http(exchange: Exchange) -> None:
    exchange.raw(b"220 mail.example.com ESMTP ready\r\n\r\n")


async def closed(exchange: Exchange) -> None:
    exchange.cut()


async def well(exchange: Exchange) -> None:
    await exchange.well()


FAULTS: dict[str, Callable[[Exchange], Awaitable[None]]] = {
    fault.__name__.replace("_", "-"): fault
    for fault in (
        *(
            well,
            cut,
            stall,
            stall_stream,
            slow_first_byte,
            slow_stream,
            malformed_event,
            malformed_first_event,
            error_event,
            first_error_event,
        ),
        *(rate_limited, rate_limited_once, overloaded, server_error, key_refused, request_refused, half_open),
        *(length_too_long, length_too_short, gigabyte, not_http, closed),
    )
}


class FaultyUpstream:
    """The server. `seen` counts requests by model."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nth = 0
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                fields = await _fields(reader)
                name = str(fields.get("model"))
                nth += 1
                self.seen[name] = self.seen.get(name, 0) + 1
                exchange = Exchange(reader, writer, fields, nth, self.seen[name])
                if name in FAULTS:
                    await FAULTS[name](exchange)
                else:
                    exchange.error("404 Not Found", "model_not_found")
                await writer.drain()
        writer.close()


async def _fields(reader: asyncio.StreamReader) -> dict[str, Any]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    body = json.loads(await reader.readexactly(length))
    return body if isinstance(body, dict) else {}


async def main(port: int, context: ssl.SSLContext | None) -> None:
    server = await asyncio.start_server(FaultyUpstream().serve, "127.0.0.1", port, ssl=context, limit=HEAD_BYTES_MAX)
    print(f"http{'s' if context else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", *FAULTS, sep="\n  ", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An upstream that fails on request.")
    parser.add_argument("--port", type=int, default=9109)
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    given = parser.parse_args()
    tls = None
    if given.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(given.certificate, given.key)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(given.port, tls))
