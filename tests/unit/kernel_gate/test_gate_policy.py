"""Policy files: what they can say, where they are wrong, and what a broken one does."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.kernel.actions import policy_text
from cohort.kernel.actions.catalogue import ROWS
from cohort.kernel.actions.policy import Policies
from cohort.kernel.model import Autonomy, Outcome, Taint
from cohort.storage.database import Database
from support_gate import OTHER, TOKEN, GateHouse


def house(database: Database, clock: ManualClock, folder: Path, policy: str) -> GateHouse:
    file = folder / "policy.cedar"
    file.write_text(policy)
    return GateHouse(database, clock, folder, policy=file)


def test_a_forbid_refuses_and_names_itself(sqlite_database: Database, clock: ManualClock, tmp_path: Path) -> None:
    text = (
        '@id("no-data")\n@reason("data is for people")\nforbid (principal, action, resource is File) when { resource.path like "data/*" };'
    )
    gates = house(sqlite_database, clock, tmp_path, text)
    refused = gates.ask("files.read", path="data/x")
    assert (refused.outcome, refused.code, refused.reason) == (Outcome.REFUSED, "POLICY_DENIED", "data is for people")
    assert gates.log.of(refused.action_id)[0].body["body"]["rules"] == ["no-data"]
    assert gates.ask("files.move", path="a", to="data/x").code == "POLICY_DENIED"
    assert gates.ask("files.read", path="a").outcome is Outcome.DONE


def test_an_answer_ask_wants_a_person(sqlite_database: Database, clock: ManualClock, tmp_path: Path) -> None:
    gates = house(sqlite_database, clock, tmp_path, '@answer("ask") forbid (principal, action == Action::"files.delete", resource);')
    asked = gates.ask("files.delete", path="a")
    assert (asked.outcome, gates.log.of(asked.action_id)[-1].body["body"]["rules"]) == (Outcome.WAITING, ["line-1"])
    gates.approve(asked)
    assert gates.ask("files.delete", path="a").outcome is Outcome.DONE


def test_a_permit_of_ones_own_waives_what_table_and_autonomy_would_ask(
    sqlite_database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    text = '@id("pytest") permit (principal, action == Action::"terminal.run", resource) when { resource.name == "pytest" };'
    gates = house(sqlite_database, clock, tmp_path, text)
    assert gates.ask("terminal.run", argv=["pytest", "-q"]).outcome is Outcome.DONE
    assert gates.ask("terminal.run", argv=["make"]).outcome is Outcome.WAITING


@pytest.mark.parametrize(
    ("operation", "arguments", "outcome"),
    [
        ("config.change", {"key": "flags.x", "value": 1}, Outcome.WAITING),
        ("config.change", {"key": "audit.path", "value": 1}, Outcome.REFUSED),
        ("files.write", {"path": ".git/hooks/x", "content": ""}, Outcome.REFUSED),
        ("files.read", {"path": "a", "workspace": OTHER}, Outcome.DONE),
    ],
)
def test_a_policy_cannot_widen_what_the_hard_rules_hold(
    sqlite_database: Database, clock: ManualClock, tmp_path: Path, operation: str, arguments: dict[str, object], outcome: Outcome
) -> None:
    gates = house(sqlite_database, clock, tmp_path, "permit (principal, action, resource);")
    assert gates.ask(operation, **arguments).outcome is outcome


def test_a_permit_does_not_replace_a_scope(sqlite_database: Database, clock: ManualClock, tmp_path: Path) -> None:
    gates = house(sqlite_database, clock, tmp_path, "permit (principal, action, resource);")
    gates.as_agent(["files.read"])
    assert gates.ask("files.write", path="a", content="").code == "SCOPE_REFUSED"


def test_the_shipped_policy_asks_for_shells_and_networks(sqlite_database: Database, clock: ManualClock, tmp_path: Path) -> None:
    gates = GateHouse(sqlite_database, clock, tmp_path)
    gates.as_agent(autonomy=Autonomy.AGGRESSIVE)
    assert gates.ask("terminal.run", argv=["curl"], network=True).outcome is Outcome.WAITING
    assert gates.ask("terminal.run", shell="ls | wc").outcome is Outcome.DONE
    gates.as_agent(autonomy=Autonomy.STANDARD)
    rules = gates.log.of(gates.ask("terminal.run", argv=["/usr/bin/bash", "-c", "ls"]).action_id)[-1].body["body"]["rules"]
    assert rules == ["cohort.shell", "autonomy"]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("permit(principal, action, resource)", 1, "end of input"),
        ('\n// a comment; with a semicolon\n@id("a;b//c")\npermit(principal, action, resource);', 3, "not free to use"),
        ("permit(principal, action, resource);\n\nallow(principal, action, resource);", 3, "effect"),
        ('forbid(principal,\n  action == Action::"files.delet",\n  resource);', 1, "files.delet"),
        ("permit(principal, action, resource);\nforbid(principal, action, resource is File) when { resource.pth == 1 };", 2, "pth"),
        ('@answer("ask") permit(principal, action, resource);', 1, "answer"),
        ('@answer("maybe") forbid(principal, action, resource);', 1, "answer"),
        ('@id("cohort.permit") permit(principal, action, resource);', 1, "not free to use"),
        ('@id("a") permit(principal, action, resource);\n@id("a") forbid(principal, action, resource);', 1, "twice"),
        ("permit(principal == ?principal, action, resource);", 1, "template"),
        ("// x\n" * 3 + ";", 4, ""),
    ],
)
def test_a_wrong_policy_is_refused_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(CohortError) as raised:
        policy_text.read(text, "rules.cedar")
    assert (raised.value.code, raised.value.field) == ("POLICY_INVALID", f"rules.cedar:{line}")
    assert said in raised.value.message


def test_with_a_broken_policy_every_action_is_refused_until_it_is_mended(
    sqlite_database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    gates = house(sqlite_database, clock, tmp_path, "permit(")
    refused = gates.ask("files.read", path="a")
    assert (refused.outcome, refused.code, gates.ran) == (Outcome.REFUSED, "POLICY_UNAVAILABLE", [])
    assert gates.gate.policy_in_words().startswith("every action is refused: policy.cedar, line 1")
    with pytest.raises(CohortError):
        gates.policies.reload()
    (tmp_path / "policy.cedar").write_text("")
    assert gates.ask("files.read", path="a").code == "POLICY_UNAVAILABLE"
    gates.policies.reload()
    assert gates.gate.policy_in_words().startswith("0 rules of your own")
    assert gates.ask("files.read", path="a").outcome is Outcome.DONE


def test_a_reload_with_an_error_keeps_what_was_in_force(tmp_path: Path) -> None:
    file = tmp_path / "policy.cedar"
    file.write_text("forbid (principal, action, resource);")
    policies = Policies(file, {})
    before = policies.current()
    file.write_text("forbid (")
    with pytest.raises(CohortError):
        policies.reload()
    assert policies.current() is before


def test_the_log_says_which_policy_is_in_force_before_it_is(sqlite_database: Database, clock: ManualClock, tmp_path: Path) -> None:
    gates = house(sqlite_database, clock, tmp_path, '@id("a") forbid (principal, action == Action::"memory.read", resource);')
    assert gates.gate.note_policy("control") == gates.policies.current().hash
    (tmp_path / "policy.cedar").write_text('@id("b") forbid (principal, action == Action::"memory.read", resource);')
    after = gates.gate.reload_policy("anna")
    bodies = [entry.body["body"] for entry in gates.log.entries]
    assert [(body["rules"], body["actor"]) for body in bodies] == [(["a"], "control"), (["b"], "anna")]
    assert bodies[1]["hash"] == after == gates.policies.current().hash
    (tmp_path / "policy.cedar").write_text("")
    gates.log.failing = lambda _record: CohortError("AUDIT_UNAVAILABLE", "full")
    with pytest.raises(CohortError):
        gates.gate.reload_policy("anna")
    assert gates.policies.current().hash == after


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"permit(" * 100_000])
def test_a_policy_file_that_cannot_be_read_refuses_and_never_raises(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "policy.cedar"
    if content is not None:
        file.write_bytes(content)
    assert Policies(file, {}).current().text is None


def test_the_hash_is_of_the_meaning_and_of_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "policy.cedar"

    def hashed(text: str, settings: dict[str, object]) -> str:
        file.write_text(text)
        return Policies(file, settings).current().hash

    plain = hashed("forbid(principal,action,resource);", {"a": 1})
    assert hashed("// why\nforbid (\n principal, action, resource );", {"a": 1}) == plain
    assert hashed("forbid(principal,action,resource);", {"a": 2}) != plain
    assert hashed('@answer("ask") forbid(principal,action,resource);', {"a": 1}) != plain


def test_an_approval_does_not_outlive_a_change_of_the_policy(sqlite_database: Database, clock: ManualClock, tmp_path: Path) -> None:
    gates = house(sqlite_database, clock, tmp_path, "")
    asked = gates.ask("terminal.run", argv=["make"])
    gates.approve(asked)
    (tmp_path / "policy.cedar").write_text('@answer("ask") forbid(principal, action == Action::"terminal.run", resource);')
    gates.policies.reload()
    again = gates.ask("terminal.run", argv=["make"])
    assert again.outcome is Outcome.WAITING
    assert again.approval_id != asked.approval_id


def test_a_policy_that_asks_what_the_session_has_read_hears_the_truth(
    sqlite_database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    text = "forbid (principal, action, resource is File) when { context.untrusted };"
    gates = house(sqlite_database, clock, tmp_path, text)
    assert gates.ask("files.read", path="a").outcome is Outcome.DONE
    gates.identities.mark(gates.identities.callers[TOKEN].session, Taint(untrusted=True))  # as another control process would
    assert gates.ask("files.read", path="a").code == "POLICY_DENIED"


def test_the_schema_knows_every_operation_of_the_table() -> None:
    for name in ROWS:
        policy_text.read(f'forbid (principal, action == Action::"{name}", resource);')
