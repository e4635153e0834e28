"""Idempotency keys: the same key does a thing once."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohort.base.clock import ManualClock
from cohort.kernel.actions.clearance import Cleared, Executed
from cohort.kernel.face import Request
from cohort.kernel.model import ActionResult, Outcome
from cohort.storage.database import Database
from support_gate import TOKEN, GateHouse


@pytest.fixture
def gates(database: Database, clock: ManualClock, tmp_path: Path) -> GateHouse:
    return GateHouse(database, clock, tmp_path)


def perform(gates: GateHouse, path: str, key: str | None = "k", operation: str = "files.read") -> ActionResult:
    return gates.gate.perform(TOKEN, Request(operation, {"path": path}, idempotency_key=key))


def test_the_same_key_gives_the_former_result_and_runs_nothing(gates: GateHouse) -> None:
    first = perform(gates, "a")
    assert perform(gates, "a") == first
    assert (len(gates.ran), gates.log.kinds()) == (1, ["intent", "outcome"])


def test_the_same_key_for_something_else_is_refused(gates: GateHouse) -> None:
    perform(gates, "a")
    refused = perform(gates, "b")
    assert (refused.outcome, refused.code, len(gates.ran)) == (Outcome.REFUSED, "IDEMPOTENCY_MISMATCH", 1)


def test_a_key_whose_action_began_and_did_not_end_is_unknown(gates: GateHouse) -> None:
    inner: list[ActionResult] = []

    def ask_meanwhile(_cleared: Cleared) -> Executed:
        inner.append(perform(gates, "a"))
        return Executed({})

    gates.replace_executor("files.read", ask_meanwhile)
    perform(gates, "a")
    assert (inner[0].outcome, inner[0].code) == (Outcome.UNKNOWN, "OUTCOME_UNKNOWN")


def test_a_key_that_waits_for_a_person_is_free_until_the_action_runs(gates: GateHouse) -> None:
    asked = perform(gates, "a", operation="files.delete")
    assert asked.outcome is Outcome.DONE
    gates.as_agent(egress=())
    waiting = gates.gate.perform(TOKEN, Request("terminal.run", {"argv": ["ls"]}, idempotency_key="w"))
    gates.approve(waiting)
    done = gates.gate.perform(TOKEN, Request("terminal.run", {"argv": ["ls"]}, idempotency_key="w"))
    assert (waiting.outcome, done.outcome) == (Outcome.WAITING, Outcome.DONE)


def test_a_large_result_is_not_kept_for_its_key(gates: GateHouse) -> None:
    gates.answers = {"text": "x" * 100_000}
    assert len(perform(gates, "a").result["text"]) == 100_000
    assert set(perform(gates, "a").result) == {"omitted"}


def test_what_is_given_once_is_not_kept(gates: GateHouse) -> None:
    def give(_cleared: Cleared) -> Executed:
        return Executed({"token": "jwt", "session": "s"}, secrets=frozenset({"token"}))

    gates.replace_executor("files.read", give)
    assert perform(gates, "a").result == {"token": "jwt", "session": "s"}
    assert perform(gates, "a").result == {"session": "s"}
    assert "jwt" not in repr([entry.body for entry in gates.log.entries])


def test_old_keys_are_forgotten(gates: GateHouse) -> None:
    perform(gates, "a")
    gates.change_caller(expires_us=gates.clock.now_us() + 10**12)
    gates.clock.advance(25 * 3600)
    perform(gates, "b", "another")
    assert perform(gates, "c").outcome is Outcome.DONE
