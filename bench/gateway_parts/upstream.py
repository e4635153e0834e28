"""The upstream behind every target: answers every request with the same bytes."""

from __future__ import annotations

import asyncio

from gateway_parts.cases import ANSWER, BODY_BYTES, CHUNK_EVERY_S, CHUNKS, DONE, WORDS, chunk


def wants_stream(body: bytes) -> bool:
    """Looked for at both ends only, where every target puts it: a prompt of 256 KB lies between."""
    ends = body[:BODY_BYTES] + body[-BODY_BYTES:]
    return b'"stream": true' in ends or b'"stream":true' in ends


def in_chunks(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class UpstreamProtocol(asyncio.Protocol):
    """Answers every request with the same bytes; knows just enough HTTP to find where one ends."""

    HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
    STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    FRAMES = tuple(in_chunks(chunk(number)) for number in range(len(WORDS)))
    END = in_chunks(DONE) + b"0\r\n\r\n"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._data) < end + 4 + length:
                return
            body, self._data = self._data[end + 4 : end + 4 + length], self._data[end + 4 + length :]
            if wants_stream(body):
                self._transport.write(self.STREAM_HEAD)  # type: ignore[attr-defined]
                self._next_chunk(CHUNKS)
            else:
                self._transport.write(self.HEAD + ANSWER)  # type: ignore[attr-defined]

    def _next_chunk(self, left: int) -> None:
        self._transport.write(self.FRAMES[(CHUNKS - left) % len(WORDS)] if left else self.END)  # type: ignore[attr-defined]
        if left:
            asyncio.get_running_loop().call_later(CHUNK_EVERY_S, self._next_chunk, left - 1)


def serve_upstream(port: int) -> None:
    import uvloop

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(UpstreamProtocol, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(serve())
