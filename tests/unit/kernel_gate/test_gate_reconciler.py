"""What ran against what was allowed: every kind of breach is found, and a clean run has none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.kernel.actions.clearance import Cleared, Executed
from cohort.kernel.actions.executions import Cursor, Executions
from cohort.kernel.actions.reconciler import Reconciler, ReconcilerThread
from cohort.kernel.face import Entry, SafetyCounts
from cohort.kernel.model import ActionResult, Autonomy, Level, Outcome, Record, RecordKind
from cohort.kernel.sandbox.probe import LABEL as PROBE
from cohort.kernel.sandbox.spawner import Spawn
from cohort.storage.database import Database
from support_gate import OTHER, OWN, GateHouse


class Watched:
    """A gate whose executors write the journal, and the reconciler that reads it."""

    def __init__(self, gates: GateHouse, folder: Path) -> None:
        self.gates = gates
        self.journal = Executions(folder, gates.clock)
        self.usage: dict[str, Any] = {}
        observed = self.journal.observed({"files.read": gates._execute, "files.move": gates._execute, "files.write": gates._execute})
        for operation, executor in observed.items():
            gates.replace_executor(operation, executor)
        for operation in ("terminal.run", "python.run", "process.start"):
            gates.replace_executor(operation, self.command)
        self.reconciler = self.fresh()

    def fresh(self, entries: Callable[[Any], Sequence[Entry]] | None = None) -> Reconciler:
        def owner(workspace: str) -> str | None:
            return {OWN: "ag_" + "a" * 16, OTHER: "ag_" + "b" * 16}.get(workspace)

        return Reconciler(self.journal, entries or self.gates.log.of, owner, self.gates.clock)

    def command(self, cleared: Cleared) -> Executed:
        arguments = cleared.action.arguments
        argv = ("python3", "-") if cleared.action.operation == "python.run" else tuple(arguments["argv"])
        self.spawn(cleared.action.id, *argv)
        return Executed({"exit_code": 0}, level=Level.FULL, usage=self.usage)

    def spawn(self, action: str, *argv: str, workspace: str = OWN) -> None:
        self.journal.spawned(Spawn(workspace, argv, action, self.gates.clock.now_us(), "bubblewrap"))


@pytest.fixture
def watched(sqlite_database: Database, clock: ManualClock, tmp_path: Path) -> Watched:
    gates = GateHouse(sqlite_database, clock, tmp_path)
    gates.as_agent(autonomy=Autonomy.AGGRESSIVE)
    return Watched(gates, tmp_path / "journal")


def breaches(counts: SafetyCounts) -> tuple[int | None, int | None, int | None]:
    """Bypasses, containment violations, unauthorised actions."""
    return counts.bypasses, counts.containment_violations, counts.unauthorised


def test_before_the_first_comparison_nothing_is_known(watched: Watched) -> None:
    assert breaches(watched.reconciler.counts()) == (None, None, None)


def test_what_the_gate_allowed_is_no_breach(watched: Watched) -> None:
    watched.gates.ask("files.read", path="a")
    watched.gates.ask("files.move", path="a", to="b")
    watched.gates.ask("terminal.run", argv=["ls", "-l"])
    watched.gates.ask("python.run", code="print(1)")
    asked = watched.gates.ask("files.write", path="a", content="x", workspace=OTHER)
    watched.gates.approve(asked)
    assert watched.gates.ask("files.write", path="a", content="x", workspace=OTHER).outcome is Outcome.DONE
    counts = watched.reconciler.compare()
    assert (counts.executions, breaches(counts), counts.findings) == (5, (0, 0, 0), ())


def test_a_program_without_an_action_is_a_bypass(watched: Watched) -> None:
    watched.spawn("", "sh")
    watched.spawn("act_" + "z" * 16, "sh")
    counts = watched.reconciler.compare()
    assert breaches(counts) == (2, 0, 0)
    assert "no intent" in counts.findings[0]


def test_the_start_up_probe_is_nobodys_action_but_only_in_a_place_of_its_own(watched: Watched) -> None:
    watched.spawn(PROBE, "python3", workspace="ws_" + "p" * 16)
    assert watched.reconciler.compare().executions == 0
    watched.spawn(PROBE, "python3")
    assert breaches(watched.reconciler.compare()) == (1, 0, 0)


def test_a_program_other_than_the_one_allowed_is_a_bypass(watched: Watched) -> None:
    for argv in (("rm", "-l"), ("ls", "-R")):
        watched.gates.replace_executor(
            "terminal.run", lambda cleared, argv=argv: watched.spawn(cleared.action.id, *argv) or Executed({}, level=Level.FULL)
        )
        watched.gates.ask("terminal.run", argv=["ls", "-l"])
    assert breaches(watched.reconciler.compare()) == (2, 0, 0)


def test_a_program_started_for_a_file_operation_is_a_bypass(watched: Watched) -> None:
    result = watched.gates.ask("files.read", path="a")
    watched.spawn(result.action_id, "cat", "a")
    assert breaches(watched.reconciler.compare()) == (1, 0, 0)


def test_an_action_executed_twice_is_a_bypass(watched: Watched) -> None:
    result = watched.gates.ask("terminal.run", argv=["ls"])
    watched.spawn(result.action_id, "ls")
    assert breaches(watched.reconciler.compare()) == (1, 0, 0)


def test_a_program_in_another_agents_workspace_is_a_containment_violation(watched: Watched) -> None:
    def astray(cleared: Cleared) -> Executed:
        watched.spawn(cleared.action.id, "ls", workspace=OTHER)
        return Executed({}, level=Level.FULL)

    watched.gates.replace_executor("terminal.run", astray)
    watched.gates.ask("terminal.run", argv=["ls"])
    assert breaches(watched.reconciler.compare()) == (0, 1, 0)


@pytest.mark.parametrize(
    ("network", "host", "violations"),
    [(False, "known.example:443", 1), (True, "known.example:443", 0), (True, "evil.example:443", 1), (True, "known.example:80", 1)],
)
def test_a_host_that_was_not_allowed_is_a_containment_violation(watched: Watched, network: bool, host: str, violations: int) -> None:
    asked = watched.gates.ask("terminal.run", argv=["curl"], network=network)
    if asked.outcome is Outcome.WAITING:
        watched.gates.approve(asked)
        asked = watched.gates.ask("terminal.run", argv=["curl"], network=network)
    assert asked.outcome is Outcome.DONE
    watched.journal.reached(asked.action_id, host)
    assert breaches(watched.reconciler.compare()) == (0, violations, 0)


@pytest.mark.parametrize("usage", [{"memory_bytes": 600 << 20}, {"ran_us": 200_000_000}])
def test_using_more_than_the_limits_is_a_containment_violation(watched: Watched, usage: dict[str, int]) -> None:
    watched.usage = usage
    watched.gates.ask("terminal.run", argv=["ls"])
    assert breaches(watched.reconciler.compare()) == (0, 1, 0)


@pytest.mark.parametrize(
    ("level", "usage"),
    [(Level.NAMESPACES, {"memory_bytes": 600 << 20}), (Level.FULL, {"memory_bytes": 600 << 20, "stopped_by": "memory"})],
)
def test_a_soft_limit_passed_a_little_and_one_that_stopped_the_command_are_no_violations(
    watched: Watched, level: Level, usage: dict[str, Any]
) -> None:
    def command(cleared: Cleared) -> Executed:
        watched.spawn(cleared.action.id, "ls")
        return Executed({}, level=level, usage=usage)

    watched.gates.level = level
    watched.gates.replace_executor("terminal.run", command)
    watched.gates.ask("terminal.run", argv=["ls"])
    assert breaches(watched.reconciler.compare()) == (0, 0, 0)


def test_running_at_a_lower_level_than_promised_is_a_containment_violation(watched: Watched) -> None:
    def weaker(cleared: Cleared) -> Executed:
        watched.spawn(cleared.action.id, "ls")
        return Executed({}, level=Level.LIMITS)

    watched.gates.replace_executor("terminal.run", weaker)
    watched.gates.ask("terminal.run", argv=["ls"])
    assert breaches(watched.reconciler.compare()) == (0, 1, 0)


def forged(watched: Watched, result: ActionResult, **changes: Any) -> str:
    """A second intent like that of `result`, under another id and changed: what a broken gate would have written."""
    body = {**watched.gates.log.of(result.action_id)[-2].body["body"], **changes}
    action = "act_" + "f" * 16
    entry = watched.gates.log.of(result.action_id)[-2].body
    watched.gates.log.append(Record(RecordKind.INTENT, body, entry["agent"], entry["session"], action))
    return action


@pytest.mark.parametrize(
    "changes",
    [
        {"scopes": []},
        {"scopes": ["system.execute:other"]},
        {"scopes": ["files.read"]},
        {"asked": True},
        {"asked": True, "grant": "ap_" + "q" * 16},
    ],
)
def test_an_intent_without_its_scope_or_its_approval_is_an_unauthorised_action(watched: Watched, changes: dict[str, Any]) -> None:
    watched.spawn(forged(watched, watched.gates.ask("terminal.run", argv=["ls"]), **changes), "ls")
    assert breaches(watched.reconciler.compare()) == (0, 0, 1)


def test_an_intent_that_allows_nothing_is_a_bypass(watched: Watched) -> None:
    watched.spawn(forged(watched, watched.gates.ask("terminal.run", argv=["ls"]), answer="deny"), "ls")
    assert breaches(watched.reconciler.compare()) == (1, 0, 0)


def test_one_approval_for_two_actions_is_an_unauthorised_action(watched: Watched) -> None:
    asked = watched.gates.ask("files.write", path="a", content="x", workspace=OTHER)
    watched.gates.approve(asked)
    done = watched.gates.ask("files.write", path="a", content="x", workspace=OTHER)
    used = next(entry for entry in watched.gates.log.of(done.action_id) if entry.body["body"].get("event") == "consumed")
    second = forged(watched, replace(done, action_id=done.action_id))
    watched.gates.log.append(Record(RecordKind.APPROVAL, used.body["body"], action=second))
    watched.journal.observed({"files.write": lambda _cleared: Executed({})})
    line = Executions.read(watched.journal, Cursor())[0][-1]
    watched.journal._append(replace(line, action=second))
    assert breaches(watched.reconciler.compare()) == (0, 0, 1)


def test_only_what_is_new_is_compared(watched: Watched) -> None:
    watched.gates.ask("files.read", path="a")
    watched.reconciler.compare()
    watched.gates.ask("files.read", path="b")
    assert watched.reconciler.compare().executions == 2


def test_a_restart_goes_on_where_it_was_and_counts_nothing_twice(watched: Watched) -> None:
    watched.gates.ask("files.read", path="a")
    watched.spawn("", "sh")
    watched.reconciler.compare()
    again = watched.fresh()
    assert breaches(again.counts()) == (None, None, None)
    watched.gates.ask("files.read", path="b")
    counts = again.compare()
    assert (counts.executions, breaches(counts), len(counts.findings)) == (3, (1, 0, 0), 1)


@pytest.mark.parametrize("spoilt", ["", "{", "[]", '{"segment":99,"offset":0}', '{"segment":1,"offset":0}'])
def test_what_cannot_be_remembered_is_compared_again(watched: Watched, tmp_path: Path, spoilt: str) -> None:
    watched.spawn("", "sh")
    watched.reconciler.compare()
    (tmp_path / "journal" / "compared.json").write_text(spoilt)
    counts = watched.fresh().compare()
    assert (counts.executions, breaches(counts)) == (1, (1, 0, 0))


def test_a_store_that_fails_loses_no_line_and_counts_none_twice(watched: Watched) -> None:
    failing: list[bool] = []

    def entries(action: Any) -> Sequence[Entry]:
        if failing and failing.pop(0):
            raise CohortError("DATABASE_UNAVAILABLE", "away")
        return watched.gates.log.of(action)

    reconciler = watched.fresh(entries)
    watched.spawn("", "sh")
    watched.gates.ask("files.read", path="a")
    watched.spawn("act_" + "z" * 16, "sh")
    failing[:] = [True]
    with pytest.raises(CohortError):
        reconciler.compare()
    counts = reconciler.compare()
    assert (counts.executions, breaches(counts)) == (3, (2, 0, 0))


def test_segments_that_were_dropped_unread_are_a_finding(tmp_path: Path, clock: ManualClock) -> None:
    journal = Executions(tmp_path, clock, segment_bytes_max=300, segments_max=2)
    reconciler = Reconciler(journal, lambda _action: [], lambda _workspace: None, clock)
    journal.spawned(Spawn(OWN, ("ls",), "", 1, "b"))
    reconciler.compare()
    for _ in range(8):
        journal.spawned(Spawn(OWN, ("ls",), "", 1, "b"))
    counts = reconciler.compare()
    assert any("segments" in finding for finding in counts.findings)
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_a_line_torn_by_a_crash_is_left_out_and_the_next_start_goes_on(tmp_path: Path, clock: ManualClock) -> None:
    journal = Executions(tmp_path, clock)
    journal.spawned(Spawn(OWN, ("ls",), "a", 1, "b"))
    (segment,) = tmp_path.iterdir()
    segment.write_bytes(segment.read_bytes() + b'{"at_us":1')
    again = Executions(tmp_path, clock)
    again.spawned(Spawn(OWN, ("cat",), "b", 2, "b"))
    first, cursor, _ = again.read(Cursor())
    second, _, _ = again.read(replace(cursor, segment=cursor.segment + 1, offset=0))
    assert [line.name for line in (*first, *second)] == ["ls", "cat"]
    reconciler = Reconciler(again, lambda _action: [], lambda _workspace: None, clock)
    assert reconciler.compare().executions == 2


def test_a_journal_that_cannot_be_written_lets_nothing_run(watched: Watched) -> None:
    watched.journal.close()
    result = watched.gates.ask("files.read", path="a")
    assert (result.outcome, result.code, watched.gates.ran) == (Outcome.FAILED, "DISK_FULL", [])


def test_the_thread_compares_until_it_is_stopped(watched: Watched) -> None:
    thread = ReconcilerThread(watched.reconciler, period_s=3600)
    thread.start()
    thread.stop()
    assert watched.reconciler.counts().compared_us is not None
