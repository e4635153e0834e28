"""Many callers at once: one approval, one key and one quota are used once, on both stores."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cohort.base.clock import ManualClock
from cohort.kernel.face import Request
from cohort.kernel.model import ActionResult, Limits, Outcome
from cohort.storage.database import Database
from support_gate import TOKEN, GateHouse

CALLERS = 8


@pytest.fixture
def gates(database: Database, clock: ManualClock, tmp_path: Path) -> GateHouse:
    return GateHouse(database, clock, tmp_path)


def together(call: Callable[[], ActionResult]) -> list[ActionResult]:
    """`call` from many threads, begun at the same moment."""
    results: list[ActionResult] = []
    ready = threading.Barrier(CALLERS)

    def one() -> None:
        ready.wait(10)
        results.append(call())

    threads = [threading.Thread(target=one) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == CALLERS
    return results


def test_an_approval_that_many_race_for_executes_once(gates: GateHouse) -> None:
    gates.approve(gates.ask("terminal.run", argv=["make"]))
    results = together(lambda: gates.ask("terminal.run", argv=["make"]))
    assert [result.outcome for result in results].count(Outcome.DONE) == 1
    assert len(gates.ran) == 1
    assert {result.outcome for result in results} <= {Outcome.DONE, Outcome.WAITING, Outcome.REFUSED}


def test_a_key_that_many_use_at_once_executes_once(gates: GateHouse) -> None:
    results = together(lambda: gates.gate.perform(TOKEN, Request("files.read", {"path": "a"}, idempotency_key="k")))
    assert len(gates.ran) == 1
    assert len({result.action_id for result in results}) == 1


def test_a_quota_that_many_want_at_once_is_not_overdrawn(gates: GateHouse) -> None:
    gates.as_agent(limits=Limits(calls_per_minute=3))
    results = together(lambda: gates.ask("files.read", path="a"))
    assert [result.code for result in results].count(None) == 3
    assert len(gates.ran) == 3
