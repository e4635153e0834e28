"""The order of the gate: what stops where, and what is in the log afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.kernel.actions.clearance import Cleared, Executed
from cohort.kernel.actions.gate import GateSettings
from cohort.kernel.actions.parsing import parse
from cohort.kernel.actions.schemas import WAIT_S_MAX
from cohort.kernel.face import Request, Sign
from cohort.kernel.model import ApprovalState, Autonomy, Level, Outcome, Position, Record, Taint
from cohort.storage.database import Database
from support_gate import OTHER, OWN, TOKEN, GateHouse, KnownWorkspaces


@pytest.fixture
def gates(sqlite_database: Database, clock: ManualClock, tmp_path: Path) -> GateHouse:
    return GateHouse(sqlite_database, clock, tmp_path)


def test_an_allowed_action_is_recorded_before_and_after_it_runs(gates: GateHouse) -> None:
    result = gates.ask("files.read", path="a/./b.txt")
    assert (result.outcome, result.decision_index, result.outcome_index) == (Outcome.DONE, 0, 1)
    assert gates.log.kinds() == ["intent", "outcome"]
    intent = gates.log.entries[0].body["body"]
    assert intent["resource"] == f"{OWN}/a/b.txt"
    assert intent["digest"] == result.digest == gates.ran[0].action.digest
    assert (intent["answer"], intent["token"], intent["scopes"]) == ("allow", "tk_" + "t" * 16, ["files.read"])
    assert intent["policy_hash"] == gates.policies.current().hash


def test_the_same_request_written_differently_is_the_same_action(gates: GateHouse) -> None:
    first = gates.ask("files.read", path="a/b")
    second = gates.ask("files.read", path="./a//b/", workspace=OWN, offset=0)
    assert first.digest == second.digest
    assert first.action_id != second.action_id


@pytest.mark.parametrize(
    ("operation", "arguments", "code", "rule"),
    [
        ("files.reed", {"path": "a"}, "OPERATION_UNKNOWN", "parse"),
        ("files.read", {}, "ARGUMENT_INVALID", "parse"),
        ("files.read", {"path": "a", "mode": "x"}, "ARGUMENT_INVALID", "parse"),
        ("files.read", {"path": "../a"}, "PATH_ESCAPES", "parse"),
        ("files.read", {"path": "a\0b"}, "PATH_INVALID", "parse"),
        ("files.read", {"path": 7}, "ARGUMENT_INVALID", "parse"),
        ("files.read", {"path": "a" * 5000}, "ARGUMENT_INVALID", "parse"),
        ("files.write", {"path": ".git/hooks/pre-commit", "content": "x"}, "PATH_PROTECTED", "invariant.path-protected"),
        ("files.move", {"path": "a", "to": ".git/hooks/x"}, "PATH_PROTECTED", "invariant.path-protected"),
        ("files.delete", {"path": ""}, "PATH_PROTECTED", "invariant.path-root"),
        ("files.read", {"path": "a", "workspace": "ws_" + "c" * 16}, "WORKSPACE_UNKNOWN", "facts"),
        ("config.change", {"key": "kernel.isolation_min", "value": 0}, "POLICY_DENIED", "invariant.own-rules"),
        ("agent.delegate", {"agent": "smoke-1", "scopes": ["files.read"]}, "SCOPE_REFUSED", "invariant.delegation-narrows"),
        ("agent.delegate", {"agent": "b", "scopes": ["files.reed"]}, "SCOPE_REFUSED", "invariant.delegation-narrows"),
        ("process.limit", {"process": "pr_" + "a" * 16}, "ARGUMENT_INVALID", "parse"),
        ("terminal.run", {}, "ARGUMENT_INVALID", "parse"),
        ("terminal.run", {"argv": ["a\0b"]}, "ARGUMENT_INVALID", "parse"),
        ("terminal.run", {"argv": []}, "ARGUMENT_INVALID", "parse"),
        ("terminal.run", {"argv": ["ls"], "shell": "ls"}, "ARGUMENT_INVALID", "parse"),
        ("terminal.run", {"argv": ["ls"], "env": {"A B": "c"}}, "ARGUMENT_INVALID", "parse"),
        ("http.request", {"url": "ftp://a.example/"}, "ARGUMENT_INVALID", "parse"),
        ("http.request", {"url": "https://u:p@a.example/"}, "ARGUMENT_INVALID", "parse"),
        ("http.request", {"url": "https://a.example/\r\nx"}, "ARGUMENT_INVALID", "parse"),
        ("http.request", {"url": "https://0x7f.1/"}, "ARGUMENT_INVALID", "parse"),
        ("http.request", {"url": "https://a.example", "headers": {"Host": "b"}}, "ARGUMENT_INVALID", "parse"),
        ("http.request", {"url": "https://a.example", "headers": {"X-A": "b\r\nX-B: c"}}, "ARGUMENT_INVALID", "parse"),
        ("http.request", {"url": "https://a.example", "headers": {"X-A\r\nX-B": "c"}}, "ARGUMENT_INVALID", "parse"),
        ("http.request", {"url": "https://a.example", "headers": {"X-A": "\u010a"}}, "ARGUMENT_INVALID", "parse"),
        ("http.request", {"url": "https://a.example", "body": "x"}, "ARGUMENT_INVALID", "parse"),
    ],
)
def test_bad_input_is_refused_with_a_code_and_a_record(
    gates: GateHouse, operation: str, arguments: dict[str, object], code: str, rule: str
) -> None:
    result = gates.ask(operation, **arguments)
    assert (result.outcome, result.code, gates.ran) == (Outcome.REFUSED, code, [])
    assert gates.log.kinds(result.action_id) == ["decision"]
    body = gates.log.of(result.action_id)[0].body["body"]
    assert (body["answer"], body["code"], body["rules"]) == ("deny", code, [rule])
    assert gates.gate.result(result.action_id).code == code


@pytest.mark.parametrize("wait_s", [-0.001, WAIT_S_MAX + 0.001, float("nan"), float("inf")])
def test_nobody_waits_longer_than_the_limit(wait_s: float) -> None:
    with pytest.raises(CohortError) as raised:
        parse(Request("files.read", {"path": "a"}, wait_s=wait_s))
    assert (raised.value.code, raised.value.field) == ("ARGUMENT_INVALID", "wait_s")


def test_nobody_who_is_not_proven_is_answered(gates: GateHouse) -> None:
    for request in (Request("files.read", {"path": "a"}), Request("nonsense", {})):
        with pytest.raises(CohortError, match="not a token") as raised:
            gates.gate.perform("forged", request)
        assert raised.value.code == "TOKEN_INVALID"
    with pytest.raises(CohortError) as raised:
        gates.gate.perform(TOKEN, Request("files.read", {"path": "a"}), bound_to="another connection")
    assert raised.value.code == "TOKEN_INVALID"
    assert (gates.log.entries, gates.ran) == ([], [])


def test_an_expired_token_ends_it(gates: GateHouse) -> None:
    gates.clock.advance(901)
    with pytest.raises(CohortError) as raised:
        gates.ask("files.read", path="a")
    assert raised.value.code == "TOKEN_EXPIRED"


def test_a_scope_is_needed_for_every_resource_of_an_action(gates: GateHouse) -> None:
    gates.as_agent([f"files.write:{OWN}/src/**"])
    assert gates.ask("files.write", path="src/a", content="x").outcome is Outcome.DONE
    assert gates.ask("files.move", path="src/a", to="src/b").outcome is Outcome.DONE
    for request in ({"path": "src/a", "to": "b"}, {"path": "b", "to": "src/a"}):
        assert gates.ask("files.move", **request).code == "SCOPE_REFUSED"
    refused = gates.ask("files.read", path="src/a")
    assert (refused.code, "cohort agent grant" in refused.hint) == ("SCOPE_REFUSED", True)


def test_another_workspace_is_a_question_to_a_person(gates: GateHouse) -> None:
    asked = gates.ask("files.write", path="a", content="x", workspace=OTHER)
    assert (asked.outcome, asked.code, gates.ran) == (Outcome.WAITING, "APPROVAL_NEEDED", [])
    gates.approve(asked)
    done = gates.ask("files.write", path="a", content="x", workspace=OTHER)
    assert (done.outcome, done.approval_id) == (Outcome.DONE, asked.approval_id)
    assert gates.log.of(done.action_id)[-2].body["body"]["grant"] == asked.approval_id
    again = gates.ask("files.write", path="a", content="x", workspace=OTHER)
    assert (again.outcome, len(gates.ran)) == (Outcome.WAITING, 1)


def test_an_approval_is_for_these_arguments_only(gates: GateHouse) -> None:
    gates.approve(gates.ask("terminal.run", argv=["make", "test"]))
    assert gates.ask("terminal.run", argv=["make", "install"]).outcome is Outcome.WAITING
    assert gates.ask("terminal.run", argv=["make", "test"], cwd="sub").outcome is Outcome.WAITING
    assert gates.ask("terminal.run", argv=["make", "test"]).outcome is Outcome.DONE


def test_an_approval_that_came_too_late_is_none(gates: GateHouse) -> None:
    asked = gates.ask("terminal.run", argv=["make"])
    gates.approve(asked)
    gates.change_caller(expires_us=gates.clock.now_us() + 10**12)
    gates.clock.advance(601)
    assert gates.ask("terminal.run", argv=["make"]).outcome is Outcome.WAITING
    assert gates.ran == []


def test_a_refused_question_refuses_the_action(gates: GateHouse) -> None:
    asked = gates.ask("terminal.run", argv=["make"])
    assert asked.approval_id is not None
    gates.approvals.deny(asked.approval_id, Sign("anna", note="not today"))
    refused = gates.ask("terminal.run", argv=["make"])
    assert (refused.outcome, refused.code) == (Outcome.REFUSED, "APPROVAL_DENIED")
    assert "not today" in refused.reason


def answering(gates: GateHouse, before: Callable[[], None]) -> threading.Thread:
    """A person who approves the next question, after `before`."""
    asked = threading.Event()
    gates.approvals.listen(lambda _approval: asked.set())

    def answer() -> None:
        assert asked.wait(10)
        before()
        (pending,) = gates.approvals.list(ApprovalState.PENDING)
        gates.approvals.approve(pending.id, Sign("anna"))

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_a_caller_can_wait_for_the_person(gates: GateHouse) -> None:
    person = answering(gates, lambda: None)
    result = gates.gate.perform(TOKEN, Request("terminal.run", {"argv": ["make"]}, wait_s=10))
    person.join()
    assert (result.outcome, len(gates.ran)) == (Outcome.DONE, 1)
    kinds = gates.log.kinds(result.action_id)
    assert (kinds[-2:], kinds.count("decision")) == (["intent", "outcome"], 1)


def test_after_waiting_for_a_person_the_caller_is_looked_at_again(gates: GateHouse) -> None:
    person = answering(gates, lambda: gates.identities.revoked.add(gates.identities.callers[TOKEN].session))
    with pytest.raises(CohortError) as raised:
        gates.gate.perform(TOKEN, Request("terminal.run", {"argv": ["make"]}, wait_s=10))
    person.join()
    assert (raised.value.code, gates.ran) == ("SESSION_REVOKED", [])


def test_after_waiting_for_a_person_the_rules_are_looked_at_again(gates: GateHouse) -> None:
    person = answering(gates, lambda: setattr(gates, "level", Level.FILES))
    result = gates.gate.perform(TOKEN, Request("terminal.run", {"argv": ["make"]}, wait_s=10))
    person.join()
    assert (result.code, gates.ran) == ("LEVEL_TOO_LOW", [])


@pytest.mark.parametrize("autonomy", list(Autonomy))
def test_the_autonomy_says_up_to_which_risk_nobody_is_asked(gates: GateHouse, autonomy: Autonomy) -> None:
    gates.as_agent(autonomy=autonomy)
    risks = {"files.read": 0.1, "files.delete": 0.5, "terminal.run": 0.7}
    arguments = {"files.read": {"path": "a"}, "files.delete": {"path": "a"}, "terminal.run": {"argv": ["ls"]}}
    asked = {name for name in risks if gates.ask(name, **arguments[name]).outcome is Outcome.WAITING}
    assert asked == {name for name, risk in risks.items() if risk > autonomy.risk_max}


def test_three_classes_ask_whatever_the_autonomy_and_the_settings_say(
    sqlite_database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    gates = GateHouse(sqlite_database, clock, tmp_path, settings=GateSettings(approval_required=False))
    gates.as_agent(autonomy=Autonomy.AGGRESSIVE)
    gates.replace_executor("database.write", lambda _cleared: Executed({}))
    assert gates.ask("config.change", key="flags.x", value=True).outcome is Outcome.WAITING
    assert gates.ask("release.propose", service="s", manifest="m").outcome is Outcome.WAITING
    assert gates.ask("database.write", database="d", statement="DELETE FROM t").outcome is Outcome.WAITING
    assert gates.ask("terminal.run", argv=["ls"]).outcome is Outcome.DONE


def test_a_command_is_refused_below_the_least_level(gates: GateHouse) -> None:
    gates.as_agent(autonomy=Autonomy.AGGRESSIVE)
    gates.level = Level.FILES
    refused = gates.ask("terminal.run", argv=["ls"])
    assert (refused.outcome, refused.code) == (Outcome.REFUSED, "LEVEL_TOO_LOW")
    assert gates.ask("files.read", path="a").outcome is Outcome.DONE


@pytest.mark.parametrize(("hard", "outcome"), [(True, Outcome.DONE), (False, Outcome.REFUSED)])
def test_a_workspace_without_a_hard_quota_is_no_full_containment(
    sqlite_database: Database, clock: ManualClock, tmp_path: Path, hard: bool, outcome: Outcome
) -> None:
    settings = GateSettings(level_min=Level.FULL)
    gates = GateHouse(sqlite_database, clock, tmp_path, settings=settings, workspaces=KnownWorkspaces(tmp_path, hard_quota=hard))
    gates.as_agent(autonomy=Autonomy.AGGRESSIVE)
    assert gates.ask("terminal.run", argv=["ls"]).outcome is outcome


def test_untrusted_and_private_reading_together_make_egress_a_question(gates: GateHouse) -> None:
    assert gates.ask("http.request", url="https://known.example/page").outcome is Outcome.DONE
    assert gates.identities.taint(gates.identities.callers[TOKEN].session) == Taint(untrusted=True)
    assert gates.ask("http.request", url="https://known.example/page").outcome is Outcome.DONE
    assert gates.ask("files.read", path="a").outcome is Outcome.DONE
    asked = gates.ask("http.request", url="https://known.example/page")
    assert asked.outcome is Outcome.WAITING
    assert gates.log.of(asked.action_id)[-1].body["body"]["rules"] == ["invariant.taint"]


def test_egress_hears_of_what_another_process_has_marked(gates: GateHouse) -> None:
    assert gates.ask("http.request", url="https://known.example/").outcome is Outcome.DONE
    gates.identities.mark(gates.identities.callers[TOKEN].session, Taint(private=True))
    assert gates.ask("http.request", url="https://known.example/").outcome is Outcome.WAITING


def test_the_mark_is_there_before_the_action_runs(gates: GateHouse) -> None:
    seen: list[Taint] = []

    def look(cleared: Cleared) -> Executed:
        seen.append(gates.identities.taint(cleared.caller.session))
        return Executed({})

    gates.replace_executor("files.read", look)
    gates.ask("files.read", path="a")
    assert seen == [Taint(private=True)]


@pytest.mark.parametrize("code", ["AUDIT_UNAVAILABLE", "OUTCOME_UNKNOWN", "RECORD_TOO_LARGE"])
def test_without_a_durable_intent_nothing_runs(gates: GateHouse, code: str) -> None:
    gates.log.failing = lambda _record: CohortError(code, "the disk is full")
    with pytest.raises(CohortError) as raised:
        gates.gate.perform(TOKEN, Request("files.read", {"path": "a"}, idempotency_key="k"))
    assert (raised.value.code, gates.ran) == ("AUDIT_UNAVAILABLE", [])
    gates.log.failing = lambda _record: None
    assert gates.gate.perform(TOKEN, Request("files.read", {"path": "a"}, idempotency_key="k")).outcome is Outcome.DONE


def test_a_refusal_that_cannot_be_recorded_is_an_error(gates: GateHouse) -> None:
    gates.log.failing = lambda _record: CohortError("AUDIT_UNAVAILABLE", "the disk is full")
    with pytest.raises(CohortError) as raised:
        gates.ask("files.read", path="../a")
    assert raised.value.code == "AUDIT_UNAVAILABLE"


def test_an_action_whose_outcome_could_not_be_recorded_is_unknown_and_gives_nothing_away(gates: GateHouse) -> None:
    gates.answers = {"secret": 1}
    gates.log.failing = lambda record: CohortError("AUDIT_UNAVAILABLE", "full") if record.kind.value == "outcome" else None
    result = gates.ask("files.read", path="a")
    assert (result.outcome, result.code, result.result) == (Outcome.UNKNOWN, "OUTCOME_UNKNOWN", {})
    assert gates.gate.result(result.action_id).outcome is Outcome.UNKNOWN


def test_an_executor_that_breaks_leaves_an_unknown_outcome_in_the_log(gates: GateHouse, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_cleared: Cleared) -> Executed:
        raise ZeroDivisionError("a bug")

    gates.replace_executor("files.read", broken)
    result = gates.ask("files.read", path="a")
    assert (result.outcome, result.code) == (Outcome.UNKNOWN, "INTERNAL")
    assert gates.log.kinds() == ["intent", "outcome"]
    assert "a bug" in caplog.text


def test_a_sandbox_that_vanished_is_a_failure_with_its_code(gates: GateHouse) -> None:
    def gone(_cleared: Cleared) -> Executed:
        raise CohortError("SANDBOX_UNAVAILABLE", "bwrap is not there", hint="Install bubblewrap.")

    gates.as_agent(autonomy=Autonomy.AGGRESSIVE)
    gates.replace_executor("terminal.run", gone)
    result = gates.ask("terminal.run", argv=["ls"])
    assert (result.outcome, result.code, result.hint) == (Outcome.FAILED, "SANDBOX_UNAVAILABLE", "Install bubblewrap.")


def test_what_nothing_here_can_execute_is_decided_recorded_and_not_executed(gates: GateHouse) -> None:
    for result in (gates.ask("memory.read", query="x"), gates.ask("database.write", database="d", statement="s")):
        assert (result.outcome, result.code) == (Outcome.REFUSED, "OPERATION_UNSUPPORTED")
        assert gates.log.kinds(result.action_id) == ["decision"]
    listed = {operation.name: operation.available for operation in gates.gate.operations()}
    assert (listed["memory.read"], listed["files.read"]) == (False, True)


def test_clearance_cannot_be_made_by_hand(gates: GateHouse) -> None:
    gates.ask("files.read", path="a")
    with pytest.raises(PermissionError):
        Cleared(object(), gates.ran[0].facts, None, Position(0, "", 0), TOKEN)


def test_payloads_are_in_the_log_as_digest_and_size_only(gates: GateHouse) -> None:
    gates.answers = {"content": "the secret answer"}
    gates.ask("files.write", path="a", content="a secret text")
    said = repr([entry.body for entry in gates.log.entries])
    assert "secret" not in said
    assert gates.log.entries[0].body["body"]["arguments"]["content"]["bytes"] == len("a secret text")


def test_payloads_go_beside_the_log_where_the_settings_keep_them(sqlite_database: Database, clock: ManualClock, tmp_path: Path) -> None:
    gates = GateHouse(sqlite_database, clock, tmp_path, settings=GateSettings(keep_payloads=True))
    kept: list[Record] = []
    gates.log.failing = lambda record: kept.append(record)  # type: ignore[func-returns-value]
    gates.ask("files.read", path="a")
    assert kept[-1].private == {"result": '{"answer":"done"}'}
    gates.answers = {"content": "x" * (2 << 20)}
    assert gates.ask("files.read", path="a").outcome is Outcome.DONE
    assert kept[-1].private == {}


def test_the_largest_request_still_fits_a_record(gates: GateHouse) -> None:
    gates.as_agent(autonomy=Autonomy.AGGRESSIVE)
    result = gates.ask("terminal.run", argv=["x" * 1000, *["é" * 30_000] * 60])
    assert result.outcome is Outcome.DONE
