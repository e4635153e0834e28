"""Answers that are not HTTP, not quite, or more than was asked for: one clear error, and nothing of them reaches a client as if it were an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cohort.gateway.contract import Result
from support_gateway import GatewayProcess, release, table
from support_upstream import Exchange, Upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
INVALID, STATUS = "upstream_invalid_response", "answered with status"
ANSWERS = {
    "folded header": (OK + b"X-A: a\r\n b: c\r\nContent-Length: 2\r\n\r\n{}", "not valid HTTP"),
    "zero byte": (OK + b"X-A: a\x00b\r\nContent-Length: 2\r\n\r\n{}", "not valid HTTP"),
    "bare CR": (OK + b"X-A: a\rSet-Cookie: x=1\r\nContent-Length: 2\r\n\r\n{}", "not valid HTTP"),
    "bare LF": (OK + b"X-A: a\nContent-Length: 2\r\n\r\n{}", "not valid HTTP"),
    "two lengths": (OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x", "not valid HTTP"),
    "length and chunks": (OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "not valid HTTP"),
    "a length that is none": (OK + b"Content-Length: -1\r\n\r\n{}", "not valid HTTP"),
    "a length beyond numbers": (OK + b"Content-Length: 99999999999999999999999\r\n\r\n{}", "not valid HTTP"),
    "a chunk beyond numbers": (OK + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n{}", "not valid HTTP"),
    "another coding of the transfer": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "was not asked for"),
    "compressed": (OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", "was not asked for"),
    "another protocol": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc", "another protocol"),
    "no HTTP": (b"{}", "not valid HTTP"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "not valid HTTP"),
    "a status beyond statuses": (b"HTTP/1.1 999 Odd\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", STATUS),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\n\r\n", STATUS),
    "a redirect to where credentials are": (
        b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
        STATUS,
    ),
}


SECOND = {
    "whole": b'HTTP/1.1 500 Oops\r\nX-Second: 1\r\nContent-Length: 12\r\n\r\n{"second": 2}',
    "begun": b"HTTP/1.1 200 OK\r\nX-Second: 1\r\n",
    "a byte": b"H",
}


async def odd(exchange: Exchange) -> None:
    if exchange.seen.fields["model"] in SECOND:
        stream = exchange.seen.fields.get("stream")
        body = b'data: {"choices":[]}\n\ndata: [DONE]\n\n' if stream else b'{"first": 1}'
        kind = b"text/event-stream" if stream else b"application/json"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, len(body))
        exchange.writer.write(head + body + SECOND[exchange.seen.fields["model"]])
        await exchange.writer.drain()
        return
    said = ANSWERS[exchange.seen.fields["model"]][0]
    if exchange.seen.fields.get("stream") and said.startswith(OK):
        said = said.replace(b"application/json", b"text/event-stream")
    exchange.writer.write(said)
    await exchange.writer.drain()
    exchange.writer.close()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream(behave=odd)
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"))
    process.push(table(1, [release(name, upstream.base_url, f"rel_{at}", timeout_s=5) for at, name in enumerate([*ANSWERS, *SECOND])]))
    yield process
    process.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_odd_answer_is_one_clear_error(gateway: GatewayProcess, upstream: Upstream, name: str, stream: bool) -> None:
    asked = len(upstream.seen)
    status, headers, body = gateway.chat(name, stream=stream)
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (502, INVALID)
    assert ANSWERS[name][1] in error["message"]
    assert not {"location", "set-cookie", "x-a", "content-encoding", "refresh"} & set(headers)
    assert gateway.all_records()[-1].result is Result.UPSTREAM_ERROR
    assert len(upstream.seen) == asked + 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", SECOND)
def test_an_answer_that_nobody_asked_for_is_in_nobody_s_answer(gateway: GatewayProcess, name: str, stream: bool) -> None:
    for _ in range(3):
        status, headers, body = gateway.chat(name, stream=stream)
        assert (status, b"second" in body, "x-second" in headers) == (200, False, False)
        assert body.endswith(b"[DONE]\n\n" if stream else b'{"first": 1}')
