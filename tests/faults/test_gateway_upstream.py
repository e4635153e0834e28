"""Everything an upstream can do wrong: the client gets the right answer at once, the record says what happened, the gateway goes on."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.gateway.contract import Arm, Call, Result
from support_gateway import GatewayProcess, release, split, table, until
from support_upstream import BEHAVIOURS, Upstream, event


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def nobody() -> Iterator[str]:
    """An address where nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1"


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, nobody: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"), limits={"answer_bytes_max": 1 << 20, "shadow_in_flight_max": 2})
    releases = [release(name, upstream.base_url, timeout_s=0.4 if name.startswith("stall") else 20) for name in BEHAVIOURS]
    services = {name: f"rel_{name}" for name in BEHAVIOURS}
    slow = release("stall", upstream.base_url, "rel_slow", timeout_s=20)
    slow_stream = release("stall_stream", upstream.base_url, "rel_slow_stream", timeout_s=20)
    services |= {"gone": "rel_gone", "slow": "rel_slow", "slow_stream": "rel_slow_stream"}
    shadowed = {"shadowed": {"stable": "rel_well", "split": split("rel_slow", shadow_share=1.0)}}
    shadow_gone = {"shadow_gone": {"stable": "rel_well", "split": split("rel_gone", shadow_share=1.0)}}
    all_releases = [*releases, release("x", nobody, "rel_gone"), slow, slow_stream]
    process.push(table(1, all_releases, {**services, **shadowed, **shadow_gone}))
    yield process
    process.close()


def newest(gateway: GatewayProcess, service: str) -> Call:
    """The last call of a service."""
    return until(lambda: next((r for r in reversed(gateway.all_records()) if r.service == service and r.kind == "call"), None), service)


@pytest.mark.parametrize(
    ("service", "status", "code", "result"),
    [
        ("gone", 502, "upstream_unreachable", Result.UNREACHABLE),
        ("stall", 504, "upstream_timeout", Result.TIMEOUT),
        ("fail", 500, "upstream_error", Result.UPSTREAM_ERROR),
        ("limited", 429, "rate_limit_exceeded", Result.UPSTREAM_ERROR),
        ("unauthorised", 502, "upstream_key_refused", Result.UPSTREAM_ERROR),
        ("short_length", 502, "upstream_response_interrupted", Result.INTERRUPTED),
        ("garbage", 502, "upstream_invalid_response", Result.UPSTREAM_ERROR),
        ("silent_close", 502, "upstream_no_answer", Result.UPSTREAM_ERROR),
        ("huge", 502, "upstream_invalid_response", Result.UPSTREAM_ERROR),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failing_upstream_becomes_one_clear_error(
    gateway: GatewayProcess, service: str, status: int, code: str, result: Result, stream: bool
) -> None:
    if stream and service == "short_length":
        result, code = Result.UPSTREAM_ERROR, "upstream_invalid_response"  # what came is no event, and nothing was passed on
    answered, headers, body = gateway.chat(service, stream=stream)
    error = json.loads(body.split(b"data: ")[-1])["error"]
    assert error["code"] == code
    assert "sk-secret" not in body.decode()
    assert headers["x-cohort-release"]
    assert (answered, headers["content-type"]) == (status, "application/json")
    record = newest(gateway, service)
    assert (record.result, record.status) == (result, answered)
    assert gateway.chat("well")[0] == 200


@pytest.mark.parametrize(
    ("service", "result"), [("cut_stream", Result.INTERRUPTED), ("stall_stream", Result.TIMEOUT), ("until_closed", Result.INTERRUPTED)]
)
def test_an_interrupted_stream_ends_with_an_error_event_and_without_done(gateway: GatewayProcess, service: str, result: Result) -> None:
    status, _, body = gateway.chat(service, stream=True)
    assert status == 200
    assert body.startswith(event("Hel"))
    assert b"[DONE]" not in body
    assert json.loads(body.strip().split(b"data: ")[-1])["error"]["code"] == "upstream_stream_interrupted"
    record = newest(gateway, service)
    assert (record.result, record.status) == (result, 200)
    assert record.first_us is not None


def test_an_error_reported_as_an_event_is_a_failure(gateway: GatewayProcess) -> None:
    gateway.chat("error_event", stream=True)
    assert newest(gateway, "error_event").result is Result.UPSTREAM_ERROR


def test_a_pooled_connection_that_was_closed_meanwhile_is_replaced(gateway: GatewayProcess) -> None:
    for _ in range(5):
        assert gateway.chat("once")[0] == 200


@pytest.mark.parametrize("service", ["slow", "slow_stream"])
def test_a_client_that_leaves_ends_the_upstream_request_at_once(gateway: GatewayProcess, upstream: Upstream, service: str) -> None:
    before = len(upstream.seen)
    body = json.dumps({"model": service, "messages": [{"role": "user", "content": "Hi"}], "stream": service == "slow_stream"}).encode()
    sock = gateway.connect()
    sock.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body
    )
    seen = upstream.wait_for(before + 1)[-1]
    if service == "slow_stream":
        assert sock.recv(1)
    sock.close()
    assert seen.gone.wait(2)
    record = newest(gateway, service)
    assert record.result is Result.CLIENT_GONE
    assert record.total_us > 0


def test_a_client_that_reads_slowly_slows_the_upstream_and_not_the_memory(gateway: GatewayProcess) -> None:
    body = json.dumps({"model": "flood", "messages": [{"role": "user", "content": "Hi"}], "stream": True}).encode()
    sock = gateway.connect()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    before_kb = memory_kb(gateway)
    sock.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body
    )
    taken = 0
    while b"[DONE]" not in (data := sock.recv(1 << 16)):
        taken += len(data)
        assert memory_kb(gateway) - before_kb < 16 << 10
        assert data
    sock.close()
    assert taken > 60 << 20


def test_shadow_copies_beyond_their_limit_are_dropped_and_counted(gateway: GatewayProcess) -> None:
    for _ in range(5):
        assert gateway.chat("shadowed")[0] == 200
    text = gateway.request("GET", "/metrics")[2].decode()
    assert "cohort_gateway_shadow_in_flight 2" in text
    assert "cohort_gateway_shadow_dropped_total 3" in text
    assert len([r for r in gateway.all_records() if r.service == "shadowed" and r.kind == "assigned" and r.arm is Arm.SHADOW]) == 2


def test_an_unreachable_shadow_is_recorded_and_not_felt(gateway: GatewayProcess, upstream: Upstream) -> None:
    text = gateway.request("GET", "/metrics")[2].decode()
    fresh = GatewayProcess(gateway.directory / "second")
    try:
        assert "shadow" in text
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            gone = release("x", f"http://127.0.0.1:{bound.getsockname()[1]}", "rel_gone")
            services = {"s": {"stable": "rel_well", "split": split("rel_gone", shadow_share=1.0)}}
            fresh.push(table(1, [release("well", upstream.base_url), gone], services))
            assert fresh.chat("s")[0] == 200
            calls = {r.arm: r for r in fresh.records(2)}
        assert (calls[Arm.STABLE].result, calls[Arm.SHADOW].result) == (Result.OK, Result.UNREACHABLE)
    finally:
        fresh.close()


def memory_kb(gateway: GatewayProcess) -> int:
    with open(f"/proc/{gateway.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_an_upstream_behind_tls_is_verified(upstream: Upstream, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command to make a certificate")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    subprocess.run([openssl, "req", "-x509", "-nodes", *curve, *names, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    secure = Upstream(context)
    trusting = GatewayProcess(tmp_path / "trusting", environment={"SSL_CERT_FILE": str(tmp_path / "cert.pem")})
    doubting = GatewayProcess(tmp_path / "doubting")
    try:
        for gateway in (trusting, doubting):
            gateway.push(table(1, [release("well", secure.base_url)]))
        assert trusting.chat("well")[0] == 200
        assert trusting.chat("well", stream=True)[2].endswith(b"[DONE]\n\n")
        assert secure.connections == 1, "a call does not wait for a handshake where a connection is warm"
        status, _, body = doubting.chat("well")
        assert (status, json.loads(body)["error"]["code"]) == (502, "upstream_unreachable")
        assert "certificate" in json.loads(body)["error"]["message"].lower()
    finally:
        trusting.close()
        doubting.close()
        secure.close()
