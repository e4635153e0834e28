"""What comes without end beside the body, and what nobody takes: memory stays, and everybody else is served."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cohort.gateway.contract import Result
from support_gateway import WAIT_S, GatewayProcess, release, table, until
from support_upstream import Exchange, Upstream, well

CHUNKED = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
METRICS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
FLOOD_BYTES = 64 << 20
GROWTH_KB_MAX = 12 << 10
FLOODS = {
    "trailer": b"0\r\nX-Flood: " + b"z" * 65_000,
    "trailers": b"0\r\n" + b"X-Flood: zzzzzzzz\r\n" * 4000,
    "extension": b"5;" + b"z" * 65_000,
    "extensions": b"5;" + b"a=b;" * 16_000,
    "informational": b"",
}
MODELS = [f"{name}-{when}" for name in FLOODS for when in ("whole", "stream") if name != "informational"] + ["informational-whole"]


async def flooding(exchange: Exchange) -> None:
    """An upstream that goes on and on with what is no body."""
    model = exchange.seen.fields["model"]
    name, _, when = model.partition("-")
    if name == "trailed":
        kind = "text/event-stream" if exchange.seen.fields.get("stream") else "application/json"
        exchange.head(f"Content-Type: {kind}", "Transfer-Encoding: chunked")
        exchange.chunk(b'{"choices": []}' if kind == "application/json" else b'data: {"choices":[]}\n\ndata: [DONE]\n\n')
        exchange.writer.write(b"0\r\nX-Late: 1\r\nContent-Type: text/html\r\n\r\n")
        return
    if not when:
        await well(exchange)
        return
    with suppress(ConnectionError):
        if name == "informational":
            while True:
                exchange.head("X-A: " + "z" * 1000, status="103 Early Hints")
                await exchange.writer.drain()
        exchange.head("Content-Type: " + ("text/event-stream" if when == "stream" else "application/json"), "Transfer-Encoding: chunked")
        exchange.chunk(b'data: {"choices":[]}\n\n' if when == "stream" else b'{"choices": []}')
        sent = 0
        piece = FLOODS[name]
        while sent < FLOOD_BYTES:
            exchange.writer.write(piece)
            await exchange.writer.drain()
            sent += len(piece)
            piece = piece if name == "trailers" and sent else FLOODS[name][-60_000:]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream(behave=flooding)
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    limits = {"keep_alive_s": 0.8, "linger_s": 0.3, "body_read_s": 5}
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"), limits=limits, access_log=True)
    process.push(
        table(
            1,
            [
                release("well", upstream.base_url),
                release("trailed", upstream.base_url),
                *(release(model, upstream.base_url, timeout_s=8) for model in MODELS),
            ],
        )
    )
    yield process
    process.close()


def memory_kb(gateway: GatewayProcess) -> int:
    text = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))


def pour(sock: socket.socket, piece: bytes) -> None:
    """As much as is taken, up to a bound."""
    sent = 0
    with suppress(ConnectionError, TimeoutError):
        while sent < FLOOD_BYTES:
            sent += sock.send(piece)


@pytest.mark.parametrize("name", [name for name in FLOODS if FLOODS[name]])
def test_a_client_that_frames_without_end_is_refused(gateway: GatewayProcess, name: str) -> None:
    before_kb = memory_kb(gateway)
    with gateway.connect() as sock:
        sock.sendall(CHUNKED)
        sock.sendall(FLOODS[name])
        pour(sock, FLOODS[name][-60_000:])
        answer = sock.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "headers_too_large"
    assert memory_kb(gateway) - before_kb < GROWTH_KB_MAX
    assert gateway.chat("well")[0] == 200


def test_trailers_of_an_ordinary_size_are_taken(gateway: GatewayProcess) -> None:
    body = json.dumps({"model": "well", "messages": [{"role": "user", "content": "Hi"}]}).encode()
    with gateway.connect() as sock:
        sock.sendall(CHUNKED + b"%x;note=1\r\n%s\r\n0\r\nX-Sum: 1\r\n\r\n" % (len(body), body))
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


def test_answers_that_a_client_does_not_take_are_not_made(gateway: GatewayProcess) -> None:
    before_kb = memory_kb(gateway)
    with gateway.connect() as sock:
        sock.settimeout(1)
        pour(sock, METRICS * 200)
        assert memory_kb(gateway) - before_kb < GROWTH_KB_MAX
        assert gateway.chat("well")[0] == 200
        until(lambda: connections(gateway) <= 1, "the connection was closed")


def test_a_client_that_takes_its_answers_late_gets_all_of_them(gateway: GatewayProcess) -> None:
    with gateway.connect() as sock:
        sock.settimeout(WAIT_S)
        for _ in range(60):
            sock.sendall(METRICS)
        got = b""
        while not holds_whole(got, 60):
            piece = sock.recv(1 << 12)
            assert piece
            got += piece
        assert got.count(b"# TYPE cohort_gateway_in_flight gauge") == 60
        sock.sendall(METRICS)
        assert sock.recv(1 << 12).startswith(b"HTTP/1.1 200 ")


def holds_whole(got: bytes, answers: int) -> bool:
    """So many answers have begun, and the last one is here to its end."""
    *_, last = got.split(b"HTTP/1.1 200 ")
    head, end, body = last.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return got.count(b"HTTP/1.1 200 ") == answers and bool(end) and len(body) == lengths[0]


def connections(gateway: GatewayProcess) -> int:
    text = gateway.request("GET", "/metrics")[2].decode()
    return int(float(next(line.split()[1] for line in text.splitlines() if line.startswith("cohort_gateway_client_connections "))))


@pytest.mark.parametrize("model", MODELS)
def test_an_upstream_that_frames_without_end_is_given_up(gateway: GatewayProcess, model: str) -> None:
    before_kb = memory_kb(gateway)
    status, _, body = gateway.chat(model, stream=model.endswith("stream"))
    code = "upstream_stream_interrupted" if model.endswith("stream") else "upstream_invalid_response"
    assert (status, code in body.decode()) == (200 if model.endswith("stream") else 502, True)
    assert memory_kb(gateway) - before_kb < GROWTH_KB_MAX
    results = {record.result for record in gateway.all_records() if record.release == f"rel_{model}"}
    assert results <= {Result.UPSTREAM_ERROR, Result.INTERRUPTED}


def test_what_an_upstream_says_behind_its_answer_is_no_header_of_it(gateway: GatewayProcess) -> None:
    for stream in (False, True):
        status, headers, _ = gateway.chat("trailed", stream=stream)
        assert (status, headers.get("x-late"), headers["content-type"]) == (
            200,
            None,
            "text/event-stream" if stream else "application/json",
        )


def test_whatever_the_process_writes_is_its_owner_s_alone(upstream: Upstream, tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path, access_log=True, prefix=("sh", "-c", 'umask 0; exec "$@"', "sh"), link_socket=str(tmp_path / "s"))
    try:
        cached = release("well", upstream.base_url, "rel_kept", cache={"ttl_s": 60, "disk": True}, budget_usd_micro_per_day=10**6)
        priced = {**cached["routes"][0], "price": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}}
        gateway.push(table(1, [{**cached, "routes": [priced]}], {"kept": "rel_kept"}))
        assert gateway.chat("kept", temperature=0)[0] == 200
        body = json.dumps({"model": "kept", "input": "Hi"}).encode()
        assert gateway.request("POST", "/v1/responses", body, Content_Type="application/json")[0] == 200
        assert gateway.terminate() == 0
        written = list((tmp_path / "data").rglob("*"))
        names = {path.name.split(".")[-1] for path in written}
        assert {"log", "json", "ndjson", "reserve", "lock"} <= names
        assert [str(path) for path in written if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077] == []
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    finally:
        gateway.close()
