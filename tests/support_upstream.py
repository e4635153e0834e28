"""An upstream that misbehaves on request: an asyncio server in a thread of its own, told how to answer by the `model` it is asked for."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import ssl
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "big",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
    "usage": USAGE,
}
WAIT_S = 10.0
_numbers = itertools.count(1)


def numbered_count() -> int:
    return next(_numbers)


@dataclass
class Seen:
    """One request as the upstream met it."""

    headers: dict[str, str]
    body: bytes
    path: str = ""
    gone: threading.Event = field(default_factory=threading.Event)

    @property
    def fields(self) -> dict[str, Any]:
        return json.loads(self.body)


Behaviour = Callable[["Exchange"], Coroutine[Any, Any, None]]


@dataclass
class Exchange:
    seen: Seen
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def head(self, *lines: str, status: str = "200 OK") -> None:
        self.writer.write(("\r\n".join([f"HTTP/1.1 {status}", *lines]) + "\r\n\r\n").encode())

    def whole(self, body: bytes, *lines: str, status: str = "200 OK", kind: str = "application/json") -> None:
        self.head(f"Content-Type: {kind}", f"Content-Length: {len(body)}", *lines, status=status)
        self.writer.write(body)

    def chunk(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))

    def stream(self) -> None:
        self.head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")

    async def until_gone(self) -> None:
        """Wait until the gateway closes the connection."""
        await asyncio.wait_for(self.reader.read(1), WAIT_S)
        self.seen.gone.set()


def event(content: str, **extra: Any) -> bytes:
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "big", "choices": [], **extra}
    if content:
        body["choices"] = [{"index": 0, "delta": {"role": "assistant", "content": content}, "finish_reason": None}]
    return b"data: " + json.dumps(body).encode() + b"\n\n"


STREAM = [event("Hel"), event("lo."), b": a comment\r\n\r\n", event("", usage=USAGE), b"data: [DONE]\n\n"]


async def well(exchange: Exchange) -> None:
    if exchange.seen.fields.get("stream"):
        exchange.stream()
        for piece in STREAM:
            exchange.chunk(piece)
            await exchange.writer.drain()
        exchange.chunk(b"")
    else:
        exchange.whole(json.dumps(ANSWER).encode(), "X-Request-Id: up-1", "Set-Cookie: a=b", "Access-Control-Allow-Origin: *")


async def tools(exchange: Exchange) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bern"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    exchange.whole(json.dumps({**ANSWER, "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}).encode())


EMBEDDING = {"dimension": 8}
"""How long the vectors of `embed` are; a test may change it, as a vendor may."""


async def embed(exchange: Exchange) -> None:
    """Texts about money point one way, all others the other; those about paying a little off the first."""
    vector = [0.01] * EMBEDDING["dimension"]
    if re.search("paid", exchange.seen.fields["input"]):
        vector[1] = 0.75
    vector[0 if re.search("money|refund|dinero", exchange.seen.fields["input"]) else 1] = 1.0
    exchange.whole(json.dumps({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": vector}]}).encode())


async def cut_off(exchange: Exchange) -> None:
    """An answer that the token limit ended."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hel"}, "finish_reason": "length"}
    exchange.whole(json.dumps({**ANSWER, "choices": [choice]}).encode())


async def refusing(exchange: Exchange) -> None:
    message = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
    exchange.whole(json.dumps({**ANSWER, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode())


async def numbered(exchange: Exchange) -> None:
    """A different answer each time, whole or as a stream with usage only where it was asked for."""
    said = f"Answer {numbered_count()}."
    if not exchange.seen.fields.get("stream"):
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        exchange.whole(json.dumps({**ANSWER, "choices": [choice]}).encode())
        return
    exchange.stream()
    exchange.chunk(event(said[:4]) + event(said[4:]))
    exchange.chunk(event("", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]))
    if exchange.seen.fields.get("stream_options", {}).get("include_usage"):
        exchange.chunk(event("", usage=USAGE))
    exchange.chunk(b"data: [DONE]\n\n")
    exchange.chunk(b"")


REPHRASED = ("Sure, you can have that at any time of the day.", "Certainly it may be had whenever wanted by anybody.")


async def rephrased(exchange: Exchange) -> None:
    """The same in other words each time."""
    await _said(exchange, REPHRASED[numbered_count() % 2])


async def judge(exchange: Exchange) -> None:
    """A judge of two answers, who finds them the same where the question does not ask otherwise."""
    asked = json.loads(exchange.seen.fields["messages"][-1]["content"])
    await _said(exchange, " same" if "mumble" in asked["question"] else "**OTHER**." if "strictly" in asked["question"] else "SAME")


async def _said(exchange: Exchange, words: str) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": "stop"}
    exchange.whole(json.dumps({**ANSWER, "choices": [choice]}).encode())


async def cut_stream(exchange: Exchange) -> None:
    exchange.stream()
    exchange.chunk(event("Hel"))
    await exchange.writer.drain()
    exchange.writer.transport.abort()


async def stall_stream(exchange: Exchange) -> None:
    exchange.stream()
    exchange.chunk(event("Hel"))
    await exchange.until_gone()


async def stall(exchange: Exchange) -> None:
    await exchange.until_gone()


async def fail(exchange: Exchange) -> None:
    exchange.whole(b"<h1>oops</h1>", status="500 Internal Server Error", kind="text/html")


async def limited(exchange: Exchange) -> None:
    body = {"error": {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
    exchange.whole(json.dumps(body).encode(), "Retry-After: 7", status="429 Too Many Requests")


async def unauthorised(exchange: Exchange) -> None:
    exchange.whole(b'{"error":{"message":"bad key sk-secret"}}', status="401 Unauthorized")


async def short_length(exchange: Exchange) -> None:
    exchange.head("Content-Type: application/json", "Content-Length: 500")
    exchange.writer.write(b'{"id":')
    await exchange.writer.drain()
    exchange.writer.close()


async def garbage(exchange: Exchange) -> None:
    exchange.writer.write(b"not http at all\r\n\r\n")


async def silent_close(exchange: Exchange) -> None:
    exchange.writer.close()


async def once(exchange: Exchange) -> None:
    """Answer, promise to keep the connection, and close it all the same."""
    exchange.whole(json.dumps(ANSWER).encode())
    await exchange.writer.drain()
    exchange.writer.close()


async def huge(exchange: Exchange) -> None:
    exchange.head("Content-Type: application/json", "Transfer-Encoding: chunked")
    for _ in range(64):
        exchange.chunk(b" " * (64 << 10))
        await exchange.writer.drain()
    exchange.chunk(b"")


async def flood(exchange: Exchange) -> None:
    """A stream of 64 MiB, as fast as it is taken."""
    exchange.stream()
    for _ in range(1024):
        exchange.chunk(b'data: {"x":"' + b"x" * (64 << 10) + b'"}\n\n')
        await exchange.writer.drain()
    exchange.chunk(b"data: [DONE]\n\n")
    exchange.chunk(b"")


async def error_event(exchange: Exchange) -> None:
    exchange.stream()
    exchange.chunk(event("Hel"))
    exchange.chunk(b'data: {"error":{"message":"overloaded"}}\n\n')
    exchange.chunk(b"")


async def until_closed(exchange: Exchange) -> None:
    """A stream whose end is the end of the connection, without `[DONE]`."""
    exchange.head("Content-Type: text/event-stream", "Connection: close")
    exchange.writer.write(event("Hel"))
    await exchange.writer.drain()
    exchange.writer.close()


BEHAVIOURS: dict[str, Behaviour] = {
    name: globals()[name]
    for name in (
        *("well", "tools", "cut_stream", "stall_stream", "stall", "fail", "limited", "unauthorised", "short_length", "garbage"),
        *(
            "numbered",
            "rephrased",
            "judge",
            "embed",
            "cut_off",
            "refusing",
            "silent_close",
            "once",
            "huge",
            "flood",
            "error_event",
            "until_closed",
        ),
    )
}


class Upstream:
    """`base_url` to put into a release; `seen` is what came, in order."""

    def __init__(self, tls: ssl.SSLContext | None = None, behave: Behaviour | None = None) -> None:
        self._tls = tls
        self._behave = behave
        self.seen: list[Seen] = []
        self.connections = 0
        self._arrived = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(WAIT_S)
        scheme = "https" if tls else "http"
        self.base_url = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    def wait_for(self, count: int) -> list[Seen]:
        """The requests seen, once there are `count`."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.seen) >= count, WAIT_S), f"only {len(self.seen)} of {count} requests came"
            return list(self.seen)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(WAIT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()

    async def _start(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)

    async def _stop(self) -> None:
        self._server.close()
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (seen := await _read(reader)) is not None:
                with self._arrived:
                    self.seen.append(seen)
                    self._arrived.notify_all()
                behave = self._behave or BEHAVIOURS[seen.fields["model"]]
                await behave(Exchange(seen, reader, writer))
                await writer.drain()
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            if "seen" in locals() and seen is not None:
                seen.gone.set()
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Seen | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode().split("\r\n")[:-2]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Seen(headers, await reader.readexactly(int(headers["content-length"])), first.split()[1])
