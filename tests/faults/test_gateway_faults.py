"""Every cell of the table of faults in the documentation, through a real gateway; then circuits, retries and recovery."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cohort.gateway.contract import Result
from support_faulty import certificate, faulty_upstream, met, table_of, two_routes
from support_gateway import GatewayProcess, release, table, until

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "reliability.md"
ROWS = {re.sub(r"`([a-z-]+)`.*", r"\1", row[0]): row[1:] for row in table_of(PAGE.read_text(), "Fault")}
LIMITS = {"timeout_s": 2, "reliability": {"first_byte_s": 0.4, "idle_s": 0.4, "backoff_s": 0.01}}


@pytest.fixture(scope="module")
def faulty() -> Iterator[str]:
    with faulty_upstream() as base_url:
        yield base_url


@pytest.fixture(scope="module")
def nobody() -> Iterator[str]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1"


@pytest.fixture(scope="module")
def untrusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    cert, key = certificate(tmp_path_factory.mktemp("tls"))
    with faulty_upstream("--certificate", str(cert), "--key", str(key)) as base_url:
        yield base_url


@pytest.fixture(scope="module")
def gateway(faulty: str, nobody: str, untrusted: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"))
    releases, services = [], {}
    for fault in ROWS:
        url = {"nobody": nobody, "untrusted": untrusted}.get(fault, faulty)
        releases += [release(fault, url, **LIMITS), two_routes(fault, url, faulty, **LIMITS)]
        services |= {fault: f"rel_{fault}", f"{fault}-2": f"rel_{fault}_2"}
    process.push(table(1, releases, services))
    yield process
    process.close()


def test_the_table_names_every_fault_of_the_upstream() -> None:
    program = (Path(__file__).parents[2] / "examples" / "upstreams" / "faulty.py").read_text()
    names = re.findall(r"^async def (\w+)\(exchange", program, re.MULTILINE)
    assert {name.replace("_", "-") for name in names} | {"nobody", "untrusted"} == set(ROWS)


@pytest.mark.parametrize("fault", ROWS)
def test_a_client_meets_what_the_table_says(gateway: GatewayProcess, fault: str) -> None:
    cells = [(service, stream) for service in (fault, f"{fault}-2") for stream in (False, True)]
    wanted = {cell: said for cell, said in zip(cells, ROWS[fault], strict=True) if said}
    with ThreadPoolExecutor(1 if fault in ("half-open", "rate-limited-once") else 4) as pool:

        def meet(cell: tuple[str, bool]) -> str:
            if fault == "half-open":
                assert met(gateway, "well", stream=False) == "200"  # there is a connection to be found half open
            return met(gateway, *cell)

        assert dict(zip(wanted, pool.map(meet, wanted), strict=True)) == wanted


def test_the_record_says_that_another_route_answered_and_how_often_was_asked(gateway: GatewayProcess) -> None:
    unit = {"X_Cohort_Unit": "degraded-1"}
    _, headers, _ = gateway.chat("server-error-2", headers=unit)
    assert (headers["x-cohort-route"], headers["x-cohort-degraded"]) == ("backup", "main")
    call = until(
        lambda: next((c for c in gateway.all_records() if c.unit == headers["x-cohort-unit"] and c.kind == "call"), None), "record"
    )
    assert (call.route, call.degraded, call.attempts, call.result) == ("backup", True, 2, Result.OK)
    assert call.release == "rel_server-error_2"


def test_a_refusal_that_asks_to_come_back_at_once_is_tried_again(gateway: GatewayProcess) -> None:
    before = counter(gateway, "cohort_gateway_retries_total")
    status, headers, _ = gateway.chat("rate-limited-once")
    assert status == 200
    assert "x-cohort-degraded" not in headers
    assert counter(gateway, "cohort_gateway_retries_total") == before + 1


def test_retry_after_reaches_the_client_when_it_is_too_long_to_wait_for(gateway: GatewayProcess) -> None:
    assert gateway.chat("rate-limited")[1]["retry-after"] == "7"


def test_an_uncertain_failure_is_tried_again_only_for_a_request_with_a_name(gateway: GatewayProcess) -> None:
    before = counter(gateway, "cohort_gateway_retries_total")
    gateway.chat("server-error")
    assert counter(gateway, "cohort_gateway_retries_total") == before
    gateway.chat("server-error", headers={"Idempotency_Key": "k-1"})
    assert counter(gateway, "cohort_gateway_retries_total") == before + 1


def test_a_gigabyte_of_answer_takes_no_more_memory_than_its_limit(gateway: GatewayProcess) -> None:
    before_kb = memory_kb(gateway)
    for _ in range(3):
        assert gateway.chat("gigabyte-2")[0] == 200
    assert memory_kb(gateway) - before_kb < 80 << 10


def counter(gateway: GatewayProcess, name: str) -> float:
    text = gateway.request("GET", "/metrics")[2].decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


def memory_kb(gateway: GatewayProcess) -> int:
    with open(f"/proc/{gateway.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


# --- circuits --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def second(tmp_path: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path)
    yield process
    process.close()


QUICK = {"timeout_s": 5, "reliability": {"first_byte_s": 0.2, "retries": 0, "breaker_failures": 2, "breaker_open_s": 0.5}}


def test_a_failing_route_is_passed_over_and_its_recovery_noticed(second: GatewayProcess, faulty: str, tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        second.push(table(1, [two_routes("well", f"http://127.0.0.1:{port}/v1", faulty, **QUICK)], {"s": "rel_well_2"}))
        for _ in range(3):
            assert second.chat("s")[1]["x-cohort-degraded"] == "main"
        (trouble,) = json.loads(second.link("GET", "/-/state")[1])["troubles"]
        assert (trouble["route"], trouble["state"], trouble["failures"]) == ("main", "open", 2)
        assert "route main" in second.request("GET", "/ready")[2].decode()
        assert second.logged("route_down")["route"] == "main"
        second.push(table(2, [two_routes("well", f"http://127.0.0.1:{port}/v1", faulty, **QUICK)], {"s": "rel_well_2"}))
        assert json.loads(second.link("GET", "/-/state")[1])["troubles"], "a new table forgets nothing"
    with faulty_upstream("--port", str(port)):
        until(lambda: "x-cohort-degraded" not in second.chat("s")[1], "the first route answers again")
        assert second.logged("route_recovered")["route"] == "main"
        assert json.loads(second.link("GET", "/-/state")[1])["troubles"] == []
    assert second.chat("s")[0] == 200


def test_without_another_route_an_upstream_that_stalls_is_refused_at_once_and_one_that_fails_is_asked(
    second: GatewayProcess, faulty: str
) -> None:
    second.push(table(1, [release(fault, faulty, **QUICK) for fault in ("stall", "server-error")]))
    for _ in range(2):
        assert second.chat("stall")[0] == 504
        assert second.chat("server-error")[0] == 500
    status, headers, body = second.chat("stall")
    assert (status, json.loads(body)["error"]["code"], headers["retry-after"]) == (503, "upstream_circuit_open", "1")
    assert second.chat("server-error")[0] == 500
    assert until(lambda: second.chat("stall")[0] == 504, "a probe")


HEDGED = {"timeout_s": 3, "reliability": {"hedge_after_s": 0.15, "retries": 0, "idle_s": 1}}


@pytest.mark.parametrize("stream", [False, True])
def test_a_slow_route_is_hedged_and_the_first_answer_is_the_clients(second: GatewayProcess, faulty: str, stream: bool) -> None:
    faults = ("slow-first-byte", "server-error", "well", "cut")
    second.push(table(1, [two_routes(f, faulty, faulty, **HEDGED) for f in faults], {f: f"rel_{f}_2" for f in faults}))
    unit = {"X_Cohort_Unit": "hedged"}
    status, headers, body = second.chat("slow-first-byte", stream=stream, headers=unit)
    assert (status, headers["x-cohort-route"], headers["x-cohort-degraded"]) == (200, "backup", "main")
    assert body.endswith(b"data: [DONE]\n\n") is stream
    call = second.records(1)[0]
    assert (call.route, call.attempts, call.degraded, call.result) == ("backup", 2, True, Result.OK)
    assert call.total_us < 3_000_000
    assert second.chat("server-error", stream=stream)[1]["x-cohort-route"] == "backup"
    assert counter(second, "cohort_gateway_hedges_total") == 1
    assert "x-cohort-degraded" not in second.chat("well", stream=stream)[1]
    assert counter(second, "cohort_gateway_hedges_total") == 1
    assert json.loads(second.link("GET", "/-/state")[1])["in_flight"] == 0
    until(lambda: "cohort_gateway_upstream_connections 2" in second.request("GET", "/metrics")[2].decode(), "the slow route was aborted")


def test_a_hedged_call_that_nobody_answers_fails_as_its_last_route_did(second: GatewayProcess, faulty: str) -> None:
    body = two_routes("stall", faulty, faulty, **{**HEDGED, "timeout_s": 0.5})
    body["routes"][1]["model"] = "stall"
    second.push(table(1, [body], {"s": body["digest"]}))
    status, _, answer = second.chat("s")
    assert (status, json.loads(answer)["error"]["code"]) == (504, "upstream_timeout")
    call = second.records(1)[0]
    assert (call.attempts, call.degraded, call.result) == (2, False, Result.TIMEOUT)
    assert "cohort_gateway_upstream_connections 0" in second.request("GET", "/metrics")[2].decode()


def test_two_routes_of_one_name_are_refused(second: GatewayProcess, faulty: str) -> None:
    body = two_routes("well", faulty, faulty)
    body["routes"][1]["name"] = "main"
    status, problem = second.link("PUT", "/-/routing", table(1, [body], {"s": body["digest"]}))
    assert (status, "two routes are called 'main'" in json.loads(problem)["detail"]) == (422, True)


def test_two_services_of_one_name_are_refused_and_the_table_before_serves_on(second: GatewayProcess, faulty: str) -> None:
    good = table(1, [release("well", faulty)])
    second.push(good)
    wrong = {
        **good,
        "version": 2,
        "services": {"well": {"name": "well", "stable": "rel_well"}, "other": {"name": "well", "stable": "rel_well"}},
    }
    twice = (
        json.dumps({**good, "version": 3})
        .replace('"services": {', '"services": {"well": {"name": "well", "stable": "rel_other"}, ')
        .encode()
    )
    swapped = {**good, "version": 4, "releases": {"rel_well": {**good["releases"]["rel_well"], "digest": "rel_other"}}}
    for body, words in (
        (wrong, "services.other: it is called 'well'"),
        (twice, "'well' stands twice"),
        (swapped, "its digest is 'rel_other'"),
    ):
        status, problem = second.link("PUT", "/-/routing", body)
        assert (status, words in json.loads(problem)["detail"]) == (422, True), problem
    assert second.chat("well")[0] == 200


@pytest.mark.parametrize("entry", [{"retries": -1}, {"idle_s": 0}, {"first_byte_s": "soon"}, {"hedge": 1}, {"breaker_failures": True}])
def test_a_wrong_value_of_reliability_is_refused_by_its_name(second: GatewayProcess, faulty: str, entry: dict[str, object]) -> None:
    status, problem = second.link("PUT", "/-/routing", table(1, [release("well", faulty, reliability=entry)]))
    assert (status, f"reliability.{next(iter(entry))}" in json.loads(problem)["detail"]) == (422, True)


def test_a_gateway_that_is_its_own_upstream_says_so_at_once(second: GatewayProcess, faulty: str) -> None:
    itself = f"http://127.0.0.1:{second.port}/v1"
    second.push(table(1, [release("again", itself), two_routes("well", itself, faulty)], {"again": "rel_again", "well": "rel_well_2"}))
    status, _, body = second.chat("again")
    assert (status, json.loads(body)["error"]["code"]) == (508, "loop_detected")
    assert second.chat("well")[1]["x-cohort-degraded"] == "main"
