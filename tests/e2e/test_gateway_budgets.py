"""Budgets and rates at a real gateway: what fits, what is refused, and that nothing stays held."""

from __future__ import annotations

import hashlib
import json
import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from cohort.base.clock import SystemClock
from cohort.gateway.contract import Result
from cohort.gateway.spend.ledger import Ledger
from cohort.gateway.spend.rules import account
from support_gateway import GatewayProcess, release, table, until
from support_upstream import Upstream

PRICED = {"price": {"input_usd_per_mtok": 1000, "output_usd_per_mtok": 1000}}
COST_USD_MICRO = 18_000  # 11 and 7 tokens
MESSAGES: Any = [{"role": "user", "content": "Hi"}]
KEYS = {
    "poor": {"budget_usd_micro_per_day": 100_000},
    "broke": {"budget_usd_micro_per_day": 0},
    "slow": {"requests_per_minute": 2},
    "terse": {"tokens_per_minute": 100},
    "web": {"team": "web"},
    "free": {},
}
BUDGETS = [
    {"scope": "team", "name": "web", "usd_micro": 100_000},
    {"scope": "run", "name": "*", "usd_micro": 100_000},
    {"scope": "service", "name": "stall", "usd_micro": 10_000_000},
    {"scope": "all", "name": "", "usd_micro": 10**12},
]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def gateway(upstream: Upstream, tmp_path: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path)
    process.push(limited(upstream, 1))
    yield process
    process.close()


def limited(upstream: Upstream, version: int, **more: Any) -> dict[str, Any]:
    releases = [release(name, upstream.base_url, route=PRICED) for name in ("well", "stall", "stall_stream", "fail")]
    releases += [
        release("well", upstream.base_url, "rel_capped", route=PRICED, budget_usd_micro_per_day=0),
        release("well", upstream.base_url, "rel_unpriced"),
    ]
    names = {name: f"rel_{name}" for name in ("well", "stall", "stall_stream", "fail", "capped", "unpriced")}
    keys = [
        {"id": name, "name": name, "sha256": hashlib.sha256(f"cgk_{name}".encode()).hexdigest(), **terms} for name, terms in KEYS.items()
    ]
    return {**table(version, releases, names), "keys": keys, "keys_required": True, "budgets": BUDGETS, **more}


def client(gateway: GatewayProcess, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key=f"cgk_{key}", max_retries=0)


def ask(gateway: GatewayProcess, key: str, service: str = "well", **more: Any) -> tuple[int, str, dict[str, str]]:
    headers = {"Authorization": f"Bearer cgk_{key}", **more.pop("headers", {})}
    status, said, body = gateway.chat(service, headers=headers, max_tokens=10, **more)
    return status, json.loads(body).get("error", {}).get("code", ""), said


def balances(gateway: GatewayProcess) -> dict[tuple[str, str], tuple[int, int]]:
    _, body = gateway.link("GET", "/-/spending")
    return {(row["scope"], row["name"]): (row["spent"], row["held"]) for row in json.loads(body)["items"]}


def test_a_key_spends_its_budget_and_no_more_and_the_records_say_what(gateway: GatewayProcess) -> None:
    with client(gateway, "poor") as poor:
        answer = poor.chat.completions.with_raw_response.create(model="well", messages=MESSAGES, max_tokens=10)
        assert answer.headers["x-cohort-cost-usd"] == "0.018000"
        while ask(gateway, "poor")[0] == 200:
            pass
        with pytest.raises(openai.APIStatusError) as caught:
            poor.chat.completions.create(model="well", messages=MESSAGES, max_tokens=10)
    assert (caught.value.status_code, caught.value.code, caught.value.type) == (402, "budget_exceeded", "insufficient_quota")
    calls = gateway.all_records()
    spent = sum(call.cost_usd_micro or 0 for call in calls if call.key == "poor")
    assert spent >= 2 * COST_USD_MICRO
    assert balances(gateway)[("key", "poor")] == (spent, 0)
    assert balances(gateway)[("all", "")] == (spent, 0)
    refused = calls[-1]
    assert (refused.status, refused.result) == (402, Result.CLIENT_GONE)


def test_a_budget_of_zero_refuses_all(gateway: GatewayProcess) -> None:
    assert ask(gateway, "broke")[:2] == (402, "budget_exceeded")


def test_the_budget_of_a_team_and_of_a_run_hold(gateway: GatewayProcess) -> None:
    for headers in ({}, {"X-Cohort-Run": "run-1"}):
        statuses = [ask(gateway, "web" if not headers else "free", headers=headers)[0] for _ in range(7)]
        assert statuses == sorted(statuses)
        assert set(statuses) == {200, 402}
    assert ask(gateway, "free", headers={"X-Cohort-Run": "run-2"})[0] == 200
    assert ask(gateway, "free", headers={"X-Cohort-Run": "run 2\t"})[:2] == (400, "label_invalid")


def test_what_a_client_has_the_answer_of_is_settled_for_every_worker_and_after_a_kill(gateway: GatewayProcess) -> None:
    other, run = Ledger(gateway.data_dir / "spend", SystemClock()), account("run", "run-7", 0)
    for number in range(1, 4):
        assert ask(gateway, "free", headers={"X-Cohort-Run": "run-7"})[0] == 200
        assert other.balance(run) == (number * COST_USD_MICRO, 0)
    gateway.kill()
    other.sweep()
    assert (other.balance(run), other.orphaned) == ((3 * COST_USD_MICRO, 0), 0)
    other.close()


def test_a_release_that_may_spend_nothing_fails_its_callers(gateway: GatewayProcess) -> None:
    assert ask(gateway, "free", "capped")[:2] == (402, "budget_exceeded")
    assert gateway.records(1)[-1].result is Result.UPSTREAM_ERROR


def test_where_a_budget_applies_a_price_must_be_known(gateway: GatewayProcess) -> None:
    assert ask(gateway, "free", "unpriced")[:2] == (402, "price_unknown")


def test_requests_and_tokens_per_minute_hold_with_the_time_to_wait(gateway: GatewayProcess) -> None:
    assert [ask(gateway, "slow")[0] for _ in range(2)] == [200, 200]
    status, code, headers = ask(gateway, "slow")
    assert (status, code) == (429, "requests_per_minute_exceeded")
    assert 0 < int(headers["retry-after"]) <= 30
    found = [ask(gateway, "terse")[:2] for _ in range(6)]
    assert found[0] == (200, "")
    assert found[-1] == (429, "tokens_per_minute_exceeded")
    status, code, headers = ask(gateway, "terse", messages=[{"role": "user", "content": "x" * 1000}])
    assert (status, code, "retry-after" in headers) == (429, "tokens_per_minute_exceeded", False)


def test_an_upstream_that_fails_costs_nothing(gateway: GatewayProcess) -> None:
    assert ask(gateway, "free", "fail")[0] >= 500
    assert balances(gateway)[("all", "")] == (0, 0)


def test_an_interrupted_stream_is_charged_by_what_came(gateway: GatewayProcess) -> None:
    with client(gateway, "free") as free:
        stream = free.chat.completions.create(model="stall_stream", messages=MESSAGES, stream=True, max_tokens=10)
        next(iter(stream))
        stream.close()
    record = gateway.records(1)[0]
    assert record.estimated
    assert record.cost_usd_micro is not None
    assert 1000 < record.cost_usd_micro < 45_000
    assert balances(gateway)[("all", "")] == (record.cost_usd_micro, 0)


def test_clients_that_leave_leave_nothing_held(gateway: GatewayProcess) -> None:
    draw = random.Random(5)
    sockets = [begin(gateway) for _ in range(60)]
    held = until(lambda: balances(gateway)[("service", "stall")][1], "reservations")
    assert 0 < held <= 10_000_000
    for sock in draw.sample(sockets, len(sockets)):
        sock.close()
    until(lambda: balances(gateway)[("service", "stall")][1] == 0, "nothing is held any more")
    calls = gateway.records(60)
    assert balances(gateway)[("all", "")] == (sum(call.cost_usd_micro or 0 for call in calls), 0)


def begin(gateway: GatewayProcess) -> socket.socket:
    body = json.dumps({"model": "stall", "messages": MESSAGES, "max_tokens": 10}).encode()
    sock = gateway.connect()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nauthorization: Bearer cgk_free\r\n"
    sock.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    return sock


def test_a_gateway_killed_with_calls_under_way_keeps_what_was_spent_and_holds_nothing(gateway: GatewayProcess) -> None:
    assert ask(gateway, "free")[0] == 200
    sockets = [begin(gateway) for _ in range(20)]
    until(lambda: balances(gateway)[("service", "stall")][1] > 0, "reservations")
    gateway.kill()
    for sock in sockets:
        sock.close()
    gateway.start()
    assert balances(gateway)[("service", "stall")] == (0, 0)
    assert balances(gateway)[("all", "")] == (COST_USD_MICRO, 0)


def test_many_at_once_do_not_pass_a_budget(gateway: GatewayProcess, upstream: Upstream) -> None:
    before = len(upstream.seen)
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: ask(gateway, "poor")[0], range(48)))
    spent, held = balances(gateway)[("key", "poor")]
    assert held == 0
    assert spent == statuses.count(200) * COST_USD_MICRO <= 100_000
    assert len(upstream.seen) - before == statuses.count(200)
    assert set(statuses) == {200, 402}


def test_without_room_for_the_ledger_calls_with_a_budget_are_refused_and_told(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "spend").write_text("in the way")
    process = GatewayProcess(tmp_path)
    try:
        process.push(limited(upstream, 1))
        status, code, headers = ask(process, "free")
        assert (status, code, headers["retry-after"]) == (503, "budget_unavailable", "1")
        problems = json.loads(process.request("GET", "/health")[2])["problems"]
        assert any("ledger" in problem for problem in problems)
        process.push(limited(upstream, 2, budgets=[]))
        assert ask(process, "free")[0] == 200
    finally:
        process.close()


def test_two_workers_share_one_budget_and_the_death_of_one_gives_back_what_it_held(upstream: Upstream, tmp_path: Path) -> None:
    workers = [GatewayProcess(tmp_path / name, shared_dir=str(tmp_path / "both")) for name in ("one", "two")]
    try:
        for worker in workers:
            worker.push(limited(upstream, 1))
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda number: ask(workers[number % 2], "poor")[0], range(24)))
        assert set(statuses) == {200, 402}
        for worker in workers:
            assert balances(worker)[("key", "poor")] == (statuses.count(200) * COST_USD_MICRO, 0)
        sockets = [begin(workers[0]) for _ in range(10)]
        until(lambda: balances(workers[1])[("service", "stall")][1] > 0, "the other worker sees the reservations")
        workers[0].kill()
        until(lambda: balances(workers[1])[("service", "stall")] == (0, 0), "what the dead worker held is given back")
        for sock in sockets:
            sock.close()
    finally:
        for worker in workers:
            worker.close()
