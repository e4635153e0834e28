"""What the record of a call says of its attempts and steps, after faults of every kind, through a real gateway."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cohort.delivery.otlp_spans import spans_of
from cohort.gateway.contract import Call, Result
from cohort.gateway.contract_trace import Attempt
from support_faulty import faulty_upstream, two_routes
from support_gateway import GatewayProcess, release, table, until
from support_upstream import Upstream

RETRIES = {"backoff_s": 0.02, "first_byte_s": 0.3}
QUICK = {"timeout_s": 3, "reliability": {**RETRIES, "breaker_failures": 3, "breaker_open_s": 60}}
PATIENT = {"timeout_s": 3, "reliability": {**RETRIES, "breaker_failures": 100}}
HEDGED = {"timeout_s": 3, "reliability": {"hedge_after_s": 0.1, "retries": 0}}
PRICE = {"price": {"input_usd_per_mtok": 1000, "output_usd_per_mtok": 1000}}
KEY = {"id": "cgk_1", "name": "shop", "agent": "clerk of shop", "sha256": hashlib.sha256(b"cgk_a").hexdigest()}
PARENT = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def faulty() -> Iterator[str]:
    with faulty_upstream() as base_url:
        yield base_url


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(faulty: str, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"))
    releases = [two_routes(fault, faulty, faulty, **PATIENT) for fault in ("overloaded", "key-refused", "first-error-event")]
    releases += [two_routes("stall", faulty, faulty, **QUICK)]
    hedged = {**two_routes("slow-first-byte", faulty, faulty, **HEDGED), "digest": "rel_hedged"}
    plain = release("well", upstream.base_url, "rel_plain", route=PRICE)
    cached = release("well", upstream.base_url, "rel_cached", route=PRICE, cache={"ttl_s": 60})
    services = {body["routes"][0]["model"]: body["digest"] for body in releases}
    services |= {"hedged": "rel_hedged", "plain": "rel_plain", "cached": "rel_cached"}
    process.push(table(1, [*releases, hedged, plain, cached], services))
    yield process
    process.close()


def record(gateway: GatewayProcess, unit: str) -> Call:
    """The record of the call whose answer had this pseudonym."""
    return until(lambda: next((c for c in gateway.all_records() if c.unit == unit and c.kind == "call"), None), "the record")


def asked(gateway: GatewayProcess, service: str, **more: Any) -> Call:
    _, headers, _ = gateway.chat(service, **more)
    return record(gateway, headers["x-cohort-unit"])


def ways(call: Call) -> list[tuple[int, str, str, int]]:
    return [(attempt.number, attempt.route, attempt.ended, attempt.status) for attempt in call.tries]


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_was_tried_again_and_then_elsewhere_says_each_attempt_with_its_times(gateway: GatewayProcess, stream: bool) -> None:
    call = asked(gateway, "overloaded", stream=stream)
    assert ways(call) == [(1, "main", "status", 529), (2, "main", "status", 529), (3, "backup", "ok", 200)]
    first, second, third = call.tries
    assert (first.wait_us, third.wait_us) == (0, 0)
    assert second.wait_us > 0
    assert second.start_us >= first.start_us + (first.total_us or 0) + second.wait_us
    assert third.start_us >= second.start_us + (second.total_us or 0)
    assert (third.total_us is None) is stream
    assert call.first_us is not None
    assert third.first_us is not None
    assert third.start_us + third.first_us <= call.first_us <= (call.total_us or 0)
    assert (call.attempts, call.degraded, call.result) == (3, True, Result.OK)
    assert not any(attempt.hedged for attempt in call.tries)


def test_every_way_an_attempt_ends_has_a_name_and_an_open_circuit_is_said(gateway: GatewayProcess) -> None:
    assert ways(asked(gateway, "key-refused"))[0] == (1, "main", "status", 401)
    assert ways(asked(gateway, "first-error-event", stream=True))[0] == (1, "main", "event", 200)
    stalled = [asked(gateway, "stall") for _ in range(4)]
    assert ways(stalled[0]) == [(1, "main", "timeout", 0), (2, "backup", "ok", 200)]
    assert 300_000 <= (stalled[0].tries[0].total_us or 0) < 2_000_000
    assert ways(stalled[3]) == [(0, "main", "circuit_open", 0), (1, "backup", "ok", 200)]


def test_of_a_hedged_call_both_attempts_are_told_and_which_was_given_up(gateway: GatewayProcess) -> None:
    call = asked(gateway, "hedged")
    by_route = {attempt.route: attempt for attempt in call.tries}
    assert {route: attempt.ended for route, attempt in by_route.items()} == {"main": "given_up", "backup": "ok"}
    assert all(attempt.hedged for attempt in call.tries)
    assert by_route["backup"].start_us - by_route["main"].start_us > 50_000


def test_the_one_attempt_of_an_ordinary_call_takes_no_room_in_the_record(gateway: GatewayProcess) -> None:
    asked(gateway, "plain")
    call = asked(gateway, "plain")  # over the connection of the one before
    assert (call.attempts, call.tries, call.steps, call.looked, call.run, call.parent) == (1, (), (), "", "", "")
    line = next(line for line in (gateway.data_dir / "spool").glob("*.log") if call.unit.encode() in line.read_bytes()).read_bytes()
    row = next(row for row in line.splitlines() if call.unit.encode() in row)
    assert len(row) < 420


def test_what_took_part_in_a_call_is_told_with_its_times(gateway: GatewayProcess) -> None:
    missed, hit = asked(gateway, "cached", temperature=0), asked(gateway, "cached", temperature=0)
    assert (missed.looked, missed.cache, hit.cache, hit.saved_usd_micro) == ("miss", "", "l1", 18_000)
    (step,) = hit.steps
    assert step.name == "cache"
    assert 0 <= step.start_us + step.total_us <= (hit.total_us or 0)
    status, headers, _ = gateway.chat("cached", temperature=0)
    assert (status, headers["x-cohort-cost-usd"], headers["x-cohort-saved-usd"]) == (200, "0.000000", "0.018000")


def test_run_agent_and_the_callers_trace_are_in_the_record(gateway: GatewayProcess) -> None:
    labels = {"X_Cohort_Run": "run-7", "X_Cohort_Agent": "clerk", "traceparent": f"00-{PARENT}"}
    call = asked(gateway, "plain", headers=labels)
    assert (call.run, call.agent, call.parent) == ("run-7", "clerk", PARENT)
    odd = {"traceparent": "00-" + "0" * 32 + "-b7ad6b7169203331-01"}
    assert asked(gateway, "plain", headers=odd).parent == ""
    status, _, body = gateway.chat("plain", headers={"X_Cohort_Run": 'run"7'})
    assert (status, json.loads(body)["error"]["code"]) == (400, "label_invalid")


def test_an_upstream_gets_the_attempts_span_as_its_parent_or_nothing_as_configured(
    gateway: GatewayProcess, upstream: Upstream, tmp_path: Path
) -> None:
    header = {"traceparent": f"00-{PARENT}", "tracestate": "vendor=1"}
    asked(gateway, "plain", headers=header)
    assert (upstream.seen[-1].headers["traceparent"], upstream.seen[-1].headers["tracestate"]) == (f"00-{PARENT}", "vendor=1")
    body = table(1, [release("well", upstream.base_url), {**two_routes("fail", upstream.base_url, upstream.base_url), "digest": "rel_2"}])
    for mode in ("continue", "drop"):
        process = GatewayProcess(tmp_path / mode, traceparent=mode)
        try:
            process.push({**body, "services": {name: {"name": name, "stable": f"rel_{name}"} for name in ("well", "2")}})
            before = len(upstream.seen)
            call = asked(process, "2", headers=header)
            got = [seen.headers.get("traceparent") for seen in upstream.seen[before:]]
            attempts = [span["spanId"] for span in spans_of(call)[1:]]
            assert got == ([f"00-{PARENT[:32]}-{own}-01" for own in attempts] if mode == "continue" else [None, None])
            assert ("tracestate" in upstream.seen[-1].headers) is (mode == "continue")
            asked(process, "well", headers={"traceparent": "nonsense"})
            assert "traceparent" not in upstream.seen[-1].headers
        finally:
            process.close()


def test_the_agent_of_a_key_stands_before_the_one_a_caller_names_and_budgets_say_what_they_held(
    gateway: GatewayProcess, upstream: Upstream, tmp_path: Path
) -> None:
    process = GatewayProcess(tmp_path)
    try:
        body = table(1, [release("well", upstream.base_url, "rel_well", route=PRICE)], {"well": "rel_well"})
        budgets = [{"scope": "agent", "name": "*", "usd_micro": 150_000}, {"scope": "all", "name": "", "usd_micro": 10**9}]
        process.push({**body, "keys": [KEY], "keys_required": True, "budgets": budgets})
        labels = {"Authorization": "Bearer cgk_a", "X_Cohort_Agent": "other"}
        call = asked(process, "well", headers=labels, max_tokens=10)
        assert (call.agent, call.budgets, call.cost_usd_micro) == ("clerk of shop", ("agent:clerk of shop", "all"), 18_000)
        assert 18_000 < (call.held_usd_micro or 0) <= 150_000
        assert [step.name for step in call.steps] == ["budget"]
        statuses = [process.chat("well", headers=labels, max_tokens=10)[0] for _ in range(8)]
        assert 402 in statuses
        refused = process.records(9)[-1]
        assert (refused.code, refused.held_usd_micro, refused.attempts) == ("budget_exceeded", None, 0)
    finally:
        process.close()


def test_the_cost_of_a_stream_follows_it_as_a_trailer_for_who_takes_one(gateway: GatewayProcess) -> None:
    head, body = raw_stream(gateway, "TE: gzip, Trailers\r\n")
    assert b"trailer: x-cohort-cost-usd" in head
    assert body.endswith(b"data: [DONE]\n\n\r\n0\r\nx-cohort-cost-usd: 0.018000\r\n\r\n")
    head, body = raw_stream(gateway, "")
    assert b"trailer" not in head
    assert body.endswith(b"\r\n0\r\n\r\n")
    head, body = raw_stream(gateway, "TE: trailers\r\n", "1.0")
    assert b"trailer" not in head
    assert b"x-cohort-cost-usd" not in head + body


def raw_stream(gateway: GatewayProcess, lines: str, version: str = "1.1") -> tuple[bytes, bytes]:
    """Head and body of a streamed answer, as they are on the wire."""
    body = json.dumps({"model": "plain", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}).encode()
    head = f"POST /v1/chat/completions HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n{lines}"
    with gateway.connect() as sock:
        sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        said = b"".join(iter(lambda: sock.recv(65536), b""))
    answered, _, rest = said.partition(b"\r\n\r\n")
    return answered, rest


def test_attempts_beyond_what_a_record_describes_leave_the_first_and_the_last(gateway: GatewayProcess, faulty: str, tmp_path: Path) -> None:
    routes = [{"name": f"r{number}", "provider": "openai", "base_url": faulty, "model": "key-refused"} for number in range(40)]
    process = GatewayProcess(tmp_path)
    try:
        process.push(table(1, [{"digest": "rel_long", "version": "v", "routes": routes, "timeout_s": 10}], {"s": "rel_long"}))
        call = asked(process, "s")
        assert (call.attempts, len(call.tries)) == (40, 32)
        assert [attempt.route for attempt in (call.tries[0], call.tries[30], call.tries[31])] == ["r0", "r30", "r39"]
        assert all(isinstance(attempt, Attempt) for attempt in call.tries)
    finally:
        process.close()
