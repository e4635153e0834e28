"""The HTTP parser on any bytes in any pieces: what is taken for a request never depends on how it arrived, and poison ends the connection.

`CORPUS` holds what request smuggling, desynchronisation and header injection are made of: each case with the requests that may be taken from it and
the refusal that must follow. `GET /next` behind a case is what an attacker wants to have taken for a request of its own.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.base.clock import ManualClock
from cohort.gateway.http_connection import Connection
from cohort.gateway.http_messages import Reply, Request
from cohort.gateway.log import Log
from cohort.gateway.settings import Limits

HOST = b"Host: x\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
LIMITS = Limits(head_bytes_max=2048, body_bytes_max=4096, pipelined_max=8)


class Wire(asyncio.Transport):
    """What a connection writes, and whether it closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.reading = True

    def write(self, data: Any) -> None:
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write_eof(self) -> None:
        assert not self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


class Turns:
    """Writes at once."""

    def send(self, transport: asyncio.Transport, data: bytes) -> None:
        transport.write(data)

    def flush(self) -> None:
        return


class Server:
    """Takes every request and answers it; the connection's host."""

    def __init__(self) -> None:
        self.limits = LIMITS
        self.log = Log("gw", ManualClock(), io.StringIO())
        self.turn: Any = Turns()
        self.loop = asyncio.new_event_loop()
        self.draining = False
        self.requests = 0
        self.taken: list[tuple[bytes, bytes, bytes]] = []
        self.codes: list[str] = []

    def handler(self, request: Request, reply: Reply) -> None:
        self.taken.append((request.method, request.target, request.body))
        reply.send(200, b"{}")

    table_authorization = None

    def admit(self, _connection: Connection) -> bool:
        return True

    def forget(self, _connection: Connection) -> None:
        return

    def refused(self, code: str) -> None:
        self.codes.append(code)


def fed(pieces: Sequence[bytes]) -> tuple[list[tuple[bytes, bytes, bytes]], list[str], bool]:
    """The requests taken, the refusals, and whether the connection takes more."""
    server, wire = Server(), Wire()
    try:
        connection = Connection(server)
        connection.connection_made(wire)
        for piece in pieces:
            if wire.closed:
                break
            connection.data_received(piece)
        assert server.log.lost == 0
        assert "request_failed" not in server.log._out.getvalue()  # type: ignore[attr-defined]
        return server.taken, server.codes, not wire.closed and not server.codes
    finally:
        server.loop.close()


def post(headers: bytes, body: bytes = b"", target: bytes = b"/a", host: bytes = HOST) -> bytes:
    return b"POST " + target + b" HTTP/1.1\r\n" + host + headers + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked\r\n"
CORPUS: dict[str, bytes] = {
    "length and chunks": post(b"Content-Length: 6\r\n" + CHUNKED, b"0\r\n\r\n"),
    "chunks and length": post(CHUNKED + b"Content-Length: 6\r\n", b"0\r\n\r\n"),
    "two lengths": post(b"Content-Length: 3\r\nContent-Length: 0\r\n", b"abc"),
    "two equal lengths": post(b"Content-Length: 3\r\nContent-Length: 3\r\n", b"abc"),
    "lengths in a list": post(b"Content-Length: 3, 3\r\n", b"abc"),
    "a length with a sign": post(b"Content-Length: +3\r\n", b"abc"),
    "a negative length": post(b"Content-Length: -1\r\n"),
    "a length in hexadecimal": post(b"Content-Length: 0x3\r\n", b"abc"),
    "a length with a space inside": post(b"Content-Length: 3 0\r\n", b"abc"),
    "a length beyond 64 bits": post(b"Content-Length: 18446744073709551617\r\n", b"a"),
    "an empty length": post(b"Content-Length: \r\n"),
    "chunked twice": post(CHUNKED + CHUNKED, b"0\r\n\r\n"),
    "chunked not last": post(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
    "gzip before chunked": post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "a coding that is nearly chunked": post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "chunked with a vertical tab": post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"),
    "chunked in quotes": post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"),
    "a space before the colon": post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
    "a tab before the colon": post(b"Content-Length\t: 3\r\n", b"abc"),
    "a folded header": post(b"X: a\r\n Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "a header line that begins with a space": b"POST /a HTTP/1.1\r\n Host: x\r\n\r\n",
    "a bare line feed in the head": b"POST /a HTTP/1.1\nHost: x\n\n",
    "a bare carriage return in a value": post(b"X: a\rTransfer-Encoding: chunked\r\n"),
    "a zero byte in a value": post(b"X: a\x00b\r\n"),
    "a zero byte in a name": post(b"X\x00: a\r\n"),
    "a name with a bracket": post(b"X(: a\r\n"),
    "no name": post(b": a\r\n"),
    "no colon": post(b"Nothing\r\n"),
    "a chunk size with a sign": post(CHUNKED, b"+3\r\nabc\r\n0\r\n\r\n"),
    "a chunk size with 0x": post(CHUNKED, b"0x3\r\nabc\r\n0\r\n\r\n"),
    "a negative chunk size": post(CHUNKED, b"-1\r\n\r\n"),
    "a chunk size beyond 64 bits": post(CHUNKED, b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
    "a chunk size that is none": post(CHUNKED, b"zz\r\nabc\r\n0\r\n\r\n"),
    "a chunk longer than its size": post(CHUNKED, b"3\r\nabcd\r\n0\r\n\r\n"),
    "a chunk size ended by a bare line feed": post(CHUNKED, b"3\nabc\r\n0\r\n\r\n"),
    "a chunk ended by a bare line feed": post(CHUNKED, b"3\r\nabc\n0\r\n\r\n"),
    "no host": post(b"", host=b""),
    "two hosts": post(b"Host: y\r\n"),
    "an upgrade": post(b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a tunnel": b"CONNECT a:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/0.9": b"GET /a\r\n\r\n",
    "HTTP/1.2": b"GET /a HTTP/1.2\r\nHost: x\r\n\r\n",
    "an unknown method": b"SMUGGLE /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a zero byte in the target": b"GET /a\x00b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a head over its limit": post(b"X: " + b"a" * 3000 + b"\r\n"),
    "many small headers": post(b"".join(b"X-%d: a\r\n" % number for number in range(400))),
    "a target over the limit": post(b"", target=b"/" + b"a" * 3000),
    "a body over its limit": post(b"Content-Length: 5000\r\n"),
    "chunks over the limit": post(CHUNKED, b"1388\r\n" + b"a" * 5000 + b"\r\n0\r\n\r\n"),
    "a trailer over the limit": post(CHUNKED, b"0\r\nX: " + b"a" * 3000 + b"\r\n\r\n"),
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("name", CORPUS)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_poison_is_refused_once_and_nothing_behind_it_is_taken(name: str, size: int) -> None:
    data = CORPUS[name] + NEXT
    taken, codes, goes_on = fed([data[at : at + size] for at in range(0, len(data), size)])
    assert taken == []
    assert len(codes) == 1
    assert not goes_on


@pytest.mark.parametrize("name", CORPUS)
def test_requests_before_poison_are_taken_and_answered(name: str) -> None:
    taken, codes, _ = fed([NEXT + CORPUS[name] + NEXT])
    assert taken == [(b"GET", b"/next", b"")]
    assert len(codes) == 1


WELL = [
    NEXT,
    post(b"Content-Length: 3\r\n", b"abc"),
    post(CHUNKED, b"3\r\nabc\r\n2;name=value\r\nde\r\n0\r\nTrailer: x\r\n\r\n"),
    post(b"Content-Length: 0\r\nX: \xc3\xa9\r\n"),
    post(b"Content-Length: %d\r\n" % len(NEXT), NEXT),
    b"GET http://x/absolute HTTP/1.1\r\nHost: x\r\n\r\n",
]


@st.composite
def in_pieces(draw: Callable[..., Any], source: st.SearchStrategy[bytes]) -> tuple[bytes, list[bytes]]:
    data = draw(source)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return data, [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


@given(in_pieces(st.lists(st.sampled_from(WELL), min_size=1, max_size=4).map(b"".join)))
def test_whole_requests_are_taken_alike_however_they_arrive(arrival: tuple[bytes, list[bytes]]) -> None:
    data, pieces = arrival
    assert fed(pieces) == fed([data])
    assert fed(pieces)[1] == []


damage = st.tuples(
    st.lists(st.sampled_from([*WELL, *CORPUS.values()]), min_size=1, max_size=3).map(b"".join),
    st.lists(
        st.tuples(
            st.integers(0, 1 << 16), st.integers(0, 4), st.sampled_from([b"", b"\r", b"\n", b"\0", b" ", b":", b"0", b"\xff", CHUNKED])
        ),
        max_size=4,
    ),
)


def damaged(case: tuple[bytes, list[tuple[int, int, bytes]]]) -> bytes:
    data = bytearray(case[0])
    for at, length, new in case[1]:
        start = at % (len(data) + 1)
        data[start : start + length] = new
    return bytes(data)


@given(in_pieces(damage.map(damaged)))
def test_damaged_requests_are_taken_alike_however_they_arrive(arrival: tuple[bytes, list[bytes]]) -> None:
    data, pieces = arrival
    whole, cut = fed([data]), fed(pieces)
    assert cut[0] == whole[0]
    assert bool(cut[1]) == bool(whole[1])


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_any_bytes_at_all_leave_the_connection_answered_or_waiting(pieces: list[bytes]) -> None:
    taken, codes, _ = fed(pieces)
    assert len(codes) <= 1
    assert all(method.decode().isupper() for method, _, _ in taken)
