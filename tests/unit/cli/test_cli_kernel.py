"""Commands about agents: what they send, print and exit with. Control is the real application over a kernel in memory."""

from __future__ import annotations

import io
import os
import re
import secrets
import signal
import sqlite3
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError, Retry
from cohort.kernel.audit.room import open_audit
from cohort.kernel.face import Sign
from cohort.kernel.model import ApprovalState, GrantScope, RecordKind
from cohort.storage.database import open_database
from cohort.surfaces.cli.action import parse_arguments
from cohort.surfaces.cli.approval_text import printable
from cohort.surfaces.cli.audit import KINDS
from cohort.surfaces.cli.audit_text import entry_line
from support_audit import fill
from support_command import Command
from support_delivery import ADMIN_KEY, OPERATOR_KEY, VIEWER_KEY, House, house
from support_kernel import OPERATIONS, Kernel, asked
from support_server import serving
from support_terminal import Terminal

WRITE = ("action", "run", "files.write", "path=report.csv", "content=a,b", "--agent", "scribe")
LISTS = [
    "agent list",
    "workspace list",
    "action list",
    "approval list",
    "audit search",
    "agent sessions scribe",
    "workspace diff scribe",
    "agent limits scribe",
]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[House, str]]:
    made = house()
    with serving(made.control) as url:
        yield made, url


@pytest.fixture
def kernel(served: tuple[House, str]) -> Kernel:
    """The kernel, as new; the running control keeps the objects it was given, so their contents are exchanged."""
    made, fresh = served[0].kernel, Kernel().populated()
    made.audit.entries[:], made.audit.broken, made.audit.down = fresh.audit.entries, None, None
    made.audit.signing[:] = fresh.audit.signing
    made.agents.agents, made.agents.open, made.agents._numbers = fresh.agents.agents, {}, fresh.agents._numbers
    made.approvals.all, made.approvals.grants, made.approvals.signs = {}, {}, []
    made.actions.requests, made.workspaces.kept, made.workspaces.clean = [], {}, set()
    made.workspaces.removed.clear()
    return made


@pytest.fixture
def cohort(kernel: Kernel, served: tuple[House, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, {"COHORT_URL": served[1], "COHORT_KEY": ADMIN_KEY}, capsys)


@pytest.mark.parametrize("line", LISTS)
def test_a_list_is_the_apis_json_and_an_aligned_table(cohort: Command, kernel: Kernel, line: str) -> None:
    asked(kernel)
    answer = cohort(*line.split(), "--json")
    assert answer.json["items"]
    text = cohort(*line.split())
    assert text.code == answer.code
    assert len(text.out.splitlines()) in (len(answer.json["items"]), len(answer.json["items"]) + 1)


def test_an_agent_is_registered_and_its_key_is_the_last_line(cohort: Command, kernel: Kernel) -> None:
    made = cohort("agent", "register", "helper", "--scope", "files.read", "--limit", "files=20", "--egress", "https://a.example")
    assert made.code == 0
    assert made.out.splitlines()[-1].startswith("ak_")
    assert kernel.agents.find("helper").limits.files == 20
    again = cohort("agent", "register", "helper", "--json")
    assert (again.code, again.json["code"]) == (1, "AGENT_NAME_TAKEN")
    assert cohort("agent", "register", "x", "--scope", "files.fly").code == 2
    assert cohort("agent", "register", "x", "--limit", "files").code == 2


def test_scopes_are_given_and_taken_and_an_agent_is_revoked_only_by_name(cohort: Command, kernel: Kernel) -> None:
    assert "system.read" in cohort("agent", "grant", "scribe", "system.read").out
    assert "system.read" not in cohort("agent", "revoke", "scribe", "system.read").out
    assert cohort("agent", "suspend", "scribe", "--reason", "odd", "--json").json["state"] == "suspended"
    assert cohort("agent", "trust", "scribe", "--reason", "looked", "--json").json["untrusted_us"] is None
    assert cohort("agent", "resume", "scribe", "--json").json["state"] == "active"
    refused = cohort("agent", "revoke", "scribe")
    assert refused.code == 2
    assert "--confirm scribe" in refused.err
    assert cohort("agent", "revoke", "scribe", "--confirm", "scribe", "--json").json["state"] == "revoked"
    assert cohort("agent", "key", "crawler").out.startswith("ak_")
    assert cohort("agent", "show", "nobody").code == 1


def test_a_token_and_its_session(cohort: Command) -> None:
    minted = cohort("agent", "token", "scribe", "--scope", "files.read", "--life", "60", "--json").json
    assert minted["token"].startswith("jwt.")
    ended = cohort("agent", "sessions", "scribe", "--end", minted["session"])
    assert "revoked" in ended.out


def test_an_action_by_hand_is_typed_by_its_schema(cohort: Command, kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "plan.md").write_text("# Plan\n")
    line = (
        "action",
        "run",
        "files.write",
        "path=plan.md",
        f"content=@{tmp_path / 'plan.md'}",
        "append=true",
        "mode=420",
        "--agent",
        "scribe",
    )
    waits = cohort(*line, "--why", "because")
    assert waits.code == 4
    assert "cohort approval show ap_" in waits.err
    request = kernel.actions.requests[-1]
    assert dict(request.arguments) == {"path": "plan.md", "content": "# Plan\n", "append": True, "mode": 420}
    assert request.why == "because"
    assert cohort(*line, "--json").json["outcome"] == "waiting"


def test_an_action_is_done_refused_or_unknown(cohort: Command) -> None:
    done = cohort("action", "run", "files.read", "path=x", "--agent", "scribe")
    assert (done.code, done.out.splitlines()[-1]) == (0, "hello")
    refused = cohort("action", "run", "files.delete", "path=x", "--agent", "scribe", "--json")
    assert (refused.code, refused.json["code"]) == (3, "SCOPE_REFUSED")
    assert refused.json["details"]["action"]["outcome"] == "refused"
    action = refused.json["details"]["action"]["action_id"]
    assert cohort("action", "show", action).code == 0
    assert cohort("action", "run", "files.fly", "--agent", "scribe").code == 2
    assert cohort("action", "run", "files.read", "path=x", "--agent", "nobody").code == 1
    assert cohort("action", "run", "files.read", "path=x", "--agent", "crawler").code == 3


def test_arguments_are_read_as_the_schema_says(tmp_path: Path) -> None:
    schemas = {operation.name: operation.arguments for operation in OPERATIONS}
    run = schemas["terminal.run"]
    assert parse_arguments(("argv=git log --oneline",), run) == {"argv": ["git", "log", "--oneline"]}
    assert parse_arguments(('argv=["a b", "c"]', "timeout_s=1.5"), run) == {"argv": ["a b", "c"], "timeout_s": 1.5}
    assert parse_arguments(("path=@@name",), schemas["files.read"]) == {"path": "@name"}
    for words, field in ((("nope=1",), "nope"), (("path",), "path"), (("append=perhaps",), "append")):
        with pytest.raises(CohortError) as error:
            parse_arguments(words, schemas["files.write"])
        assert error.value.field == field
    (tmp_path / "b").write_bytes(b"\xff")
    for name, code in (("missing", "FILE_MISSING"), ("b", "FIELD_INVALID")):
        with pytest.raises(CohortError) as error:
            parse_arguments((f"content=@{tmp_path / name}",), schemas["files.write"])
        assert error.value.code == code


def test_exec_passes_output_and_exit_code_through(cohort: Command, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = cohort("exec", "scribe", "--", "echo", "--json", "hi")
    assert (ran.code, ran.out, ran.err) == (0, "echo --json hi\n", "a word\n")
    assert cohort("exec", "scribe", "false").code == 7
    assert cohort("exec", "--json", "scribe", "--", "false").json["result"]["exit_code"] == 7
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo\n")))
    cohort("exec", "--stdin", "--cwd", "src", "--env", "A=1", "--network", "scribe", "--", "sort")
    assert dict(kernel.actions.requests[-1].arguments) == {
        "argv": ["sort"],
        "cwd": "src",
        "env": {"A": "1"},
        "network": True,
        "stdin": "one\ntwo\n",
    }
    assert cohort("exec", "crawler", "--", "true").code == 3
    assert cohort("exec", "scribe").code == 2
    assert cohort("exec", "scribe", "--").code == 2
    misplaced = cohort("exec", "scribe", "--why", "because", "--", "true")
    assert misplaced.code == 2
    assert "before AGENT" in misplaced.err
    assert cohort("exec", "--env", "A", "scribe", "--", "true").code == 2


def test_an_action_waits_for_the_person_and_then_is_done(cohort: Command, kernel: Kernel) -> None:
    def answer(verb: str) -> None:
        while not (pending := kernel.approvals.list(ApprovalState.PENDING)):
            pass
        sign = Sign("ana", note="not today")
        (kernel.approvals.approve if verb == "approve" else kernel.approvals.deny)(pending[0].id, sign)

    for verb, code in (("approve", 0), ("deny", 3)):
        person = threading.Thread(target=answer, args=(verb,))
        person.start()
        ended = cohort(*WRITE, "--wait", "30")
        person.join(20)
        assert ended.code == code, ended.err
    assert "denied by ana: not today" in ended.err


def test_whoever_stops_waiting_is_told_that_the_question_goes_on(served: tuple[House, str], tmp_path: Path, kernel: Kernel) -> None:
    terminal = Terminal(served[1], tmp_path, *WRITE, "--wait", "60")
    terminal.until("waiting for a person: ap_")
    [question] = kernel.approvals.list(ApprovalState.PENDING)
    os.kill(terminal.process.pid, signal.SIGINT)
    terminal.until(f"{question.id} still waits for a person; `cohort approval deny {question.id}` ends it")
    assert terminal.close() == 130


def test_of_a_yes_it_is_said_whether_it_was_used(cohort: Command, kernel: Kernel) -> None:
    question = asked(kernel)
    kernel.approvals.approve(question.id, Sign("ana"))
    later = replace(kernel.approvals.find(question.id), expires_us=int((time.time() + 600) * 1e6))
    kernel.approvals.put(later)
    shown = cohort("approval", "show", question.id)
    assert shown.code == 0
    assert re.search(r"answered    approved by ana, once; not used yet, void in (9\.\d+|10) min\n", shown.out), shown.out
    kernel.approvals.put(replace(later, state=ApprovalState.CONSUMED))
    assert "answered    approved by ana, once; used\n" in cohort("approval", "show", question.id).out
    kernel.approvals.put(replace(later, state=ApprovalState.DENIED, grant=None))
    assert "answered    denied by ana\n" in cohort("approval", "show", question.id).out


def test_a_rule_that_covers_nothing_any_more_says_so(cohort: Command, kernel: Kernel) -> None:
    cohort("approval", "approve", asked(kernel).id, "--for", "standing", "--yes")
    [rule] = kernel.approvals.grants.values()
    for changed, word in (
        ({"expires_us": int((time.time() + 60) * 1e6)}, "standing"),
        ({"expires_us": 1}, "expired"),
        ({"expires_us": 1, "uses_left": 0}, "used up"),
        ({"revoked_us": 1}, "revoked"),
    ):
        kernel.approvals.grants[rule.id] = replace(rule, **changed)
        assert cohort("approval", "rules").out.splitlines()[1].split("  ")[1] == word


def test_words_with_an_open_quote_are_wrong_input(cohort: Command, kernel: Kernel) -> None:
    approving = cohort("approval", "approve", asked(kernel).id, "--for", "standing", "--command", "git 'sta", "--yes", "--json")
    running = cohort("action", "run", "terminal.run", "argv=git 'sta", "--agent", "scribe", "--json")
    assert [(ran.code, ran.json["code"], ran.json["field"]) for ran in (approving, running)] == [
        (2, "FIELD_INVALID", "command"),
        (2, "FIELD_INVALID", "argv"),
    ]


@pytest.mark.parametrize("line", ["agent show", "approval show", "workspace show", "action show", "agent suspend"])
@pytest.mark.parametrize("name", ["", ".", ".."])
def test_no_name_is_wrong_input_and_reaches_no_other_path(cohort: Command, line: str, name: str) -> None:
    refused = cohort(*line.split(), name, "--json")
    assert (refused.code, refused.json["code"]) == (2, "FIELD_INVALID")


def test_the_log_is_searched_by_an_agents_name_too_and_nothing_found_is_said(cohort: Command, kernel: Kernel) -> None:
    asked(kernel)
    named = cohort("audit", "search", "--agent", "scribe", "--json").json["items"]
    assert named
    assert named == cohort("audit", "search", "--agent", named[0]["body"]["agent"], "--json").json["items"]
    assert cohort("audit", "tail", "--agent", "scribe").out.count("\n") == len(named)
    assert cohort("audit", "search", "--agent", "nobody").code == 1
    none = cohort("audit", "search", "--text", "not there at all")
    assert (none.code, none.out, none.err) == (3, "", f"none of the log's {kernel.audit.size()} entries is like that\n")
    assert cohort("audit", "search", "--kind", "nosuch").code == 2


def test_the_kinds_that_can_be_searched_are_those_of_the_log() -> None:
    assert tuple(RecordKind) == KINDS


def test_workspaces_are_listed_with_their_agents_names(cohort: Command, kernel: Kernel) -> None:
    rows = [line.split() for line in cohort("workspace", "list").out.splitlines()[1:]]
    assert sorted(row[1] for row in rows) == ["crawler", "scribe"]
    assert " of scribe, " in cohort("workspace", "show", "scribe").out


def test_an_approval_is_shown_in_plain_words_and_wants_yes(cohort: Command, kernel: Kernel) -> None:
    approval = asked(kernel, why="urgent\x1b[2J\u202egpj.exe").id
    shown = cohort("approval", "show", approval)
    assert shown.code == 4
    assert "Write report.csv in the workspace of scribe" in shown.out
    assert "risk        high (0.70)" in shown.out
    assert "\x1b" not in shown.out
    assert "\u202e" not in shown.out
    assert cohort("approval", "approve", approval).code == 2
    assert kernel.approvals.find(approval).state is ApprovalState.PENDING
    done = cohort("approval", "approve", approval, "--yes", "--note", "fine")
    assert (done.code, done.out) == (0, "approved by first-key, once: fine\n")
    assert cohort("approval", "approve", approval, "--yes").code == 1
    assert cohort("approval", "list").out == "Nothing waits for a person.\n"
    assert cohort("approval", "list", "--state", "approved").code == 0
    assert cohort("approval", "deny", asked(kernel, path="b").id, COHORT_KEY=OPERATOR_KEY).code == 1


def test_a_wider_grant_leaves_a_rule_that_is_listed_and_ended(cohort: Command, kernel: Kernel) -> None:
    approval = asked(kernel).id
    assert cohort("approval", "rules").out.startswith("No rule")
    line = ("--for", "standing", "--pattern", "ws_1/**", "--command", "git status", "--hours", "8", "--uses", "5", "--yes")
    asking = cohort("approval", "approve", approval, *line[:-1])
    assert (asking.code, f"permits     {kernel.approvals.find(approval).plain}. standing." in asking.err) == (2, True)
    assert kernel.approvals.find(approval).state is ApprovalState.PENDING
    assert cohort("approval", "approve", approval, *line).code == 0
    sign = kernel.approvals.signs[-1]
    assert (sign.grant, sign.resource, sign.argv_prefix, sign.life_s, sign.uses) == (
        GrantScope.STANDING,
        "ws_1/**",
        ("git", "status"),
        28_800.0,
        5,
    )
    rule = cohort("approval", "rules", "--json").json["items"][0]["id"]
    assert "revoked" in cohort("approval", "rules", "--revoke", rule).out


def test_the_log_is_shown_searched_and_noted(cohort: Command, kernel: Kernel) -> None:
    assert cohort("audit", "note", "rotated the key").out == f"{kernel.audit.size() - 1}\n"
    tail = cohort("audit", "tail", "-n", "2")
    assert len(tail.out.splitlines()) == 2
    assert tail.out.splitlines()[-1].endswith("rotated the key")
    assert cohort("audit", "search", "--text", "nowhere to be found").code == 3
    found = cohort("audit", "search", "--kind", "note", "--json").json["items"]
    assert cohort("audit", "show", str(found[0]["index"]), "--json").json == found[0]
    assert cohort("audit", "search", "--since", "yesterday").code == 2
    assert cohort("audit", "tail", COHORT_KEY=VIEWER_KEY).code == 1


@pytest.mark.parametrize(
    ("state", "code", "words"), [("verified", 0, "verified: all"), ("broken", 3, "BROKEN at entry 2"), ("no data", 5, "no data")]
)
def test_verify_exits_as_it_finds(cohort: Command, kernel: Kernel, state: str, code: int, words: str) -> None:
    kernel.audit.note("one", "ana")
    if state == "broken":
        kernel.audit.broken = 2
    if state == "no data":
        kernel.audit.entries.clear()
    answer = cohort("audit", "verify")
    assert answer.code == code
    assert words in answer.out
    assert "completeness" in answer.out
    assert cohort("audit", "verify", "--quick", "--json").json["integrity"] == state


def test_verify_works_on_an_installation_that_does_not_run(cohort: Command, tmp_path: Path) -> None:
    stopped = replace(cohort, environment={})
    data = tmp_path / "data"
    assert stopped("audit", "verify").code == 1, "there is no log yet"
    (data / "secrets").mkdir(parents=True)
    database = open_database(f"sqlite:///{data / 'audit.db'}")
    database.migrate()
    room = open_audit(database, SystemClock(), secrets.token_bytes, key_file=data / "secrets" / "audit.key", origin="test.example/audit")
    assert stopped("audit", "verify", "--offline").code == 5
    fill(room, 40)
    room.stop()
    database.close()
    found = stopped("audit", "verify", "--json")
    assert (found.code, found.json["integrity"], found.json["size"]) == (0, "verified", 40)
    with sqlite3.connect(data / "audit.db") as connection:
        connection.execute("UPDATE audit_entries SET entry = replace(entry, 'files.write', 'files.chmod') WHERE idx = 17")
    broken = stopped("audit", "verify", "--offline")
    assert broken.code == 3
    assert "BROKEN at entry 17" in broken.out
    assert stopped("audit", "verify", COHORT_URL="http://127.0.0.1:9", COHORT_KEY="ck_x").code == 1


def test_the_log_s_keys_are_shown_rotated_and_retired(cohort):
    first = "cohort.local/audit+00000000+AAAA"
    assert cohort("audit", "key", "retire").code == 1, "it is the only one"
    made = cohort("audit", "key", "rotate")
    assert (made.code, made.out.split()[0]) == (0, "cohort.local/audit+00000001+AAAA")
    assert cohort("audit", "key", "rotate", "--json").json["code"] == "AUDIT_KEY_REFUSED"
    assert cohort("audit", "key").out.splitlines()[1] == first
    assert cohort("audit", "key", "retire", "ffffffff").code == 1
    ended = cohort("audit", "key", "retire", "--json").json
    assert (ended["vkey"], ended["active"]) == (first, False)
    assert [line.split()[1] for line in cohort("audit", "key", "list").out.splitlines()[-2:]] == ["active", "retired"]
    assert cohort("audit", "key", "--json").json["vkey"].startswith("cohort.local/audit+00000001")


def test_only_an_admin_changes_the_log_s_keys(cohort):
    for verb in ("rotate", "retire"):
        assert cohort("audit", "key", verb, "--json", COHORT_KEY=OPERATOR_KEY).json["code"] == "ROLE_TOO_LOW"
    assert len(cohort("audit", "key", "list", "--json").json["items"]) == 1


def test_a_proof_and_an_export_can_be_taken_away(cohort: Command, tmp_path: Path) -> None:
    assert cohort("audit", "prove", "1").out.startswith("c2sp.org/tlog-proof@v1")
    assert cohort("audit", "prove", "999").code == 1
    assert cohort("audit", "key").out == "cohort.local/audit+00000000+AAAA\n"
    folder, file = tmp_path / "out", tmp_path / "audit.tar"
    assert cohort("audit", "export", str(folder), "--json").json["files"] == 2
    assert (folder / "checkpoint").read_text().startswith("cohort.local/audit")
    assert cohort("audit", "export", str(folder)).code == 1
    assert cohort("audit", "export", "--tar", str(file)).code == 0
    with tarfile.open(file) as tar:
        assert "audit/entries.jsonl" in tar.getnames()
    assert cohort("audit", "export").code == 2
    anchored = cohort("audit", "anchor")
    assert (anchored.code, anchored.out) == (0, "ok  file:/elsewhere/checkpoints: appended\n")


def test_a_policy_is_checked_here_and_reloaded_there(cohort: Command, kernel: Kernel, tmp_path: Path) -> None:
    file = tmp_path / "policy.cedar"
    file.write_text('@id("a") permit (principal, action, resource);\n@answer("ask") forbid (principal, action, resource);\n')
    checked = cohort("policy", "check", str(file))
    assert (checked.code, checked.out.split()) == (0, ["1", "permit", "a", "2", "ask", "line-2"])
    assert cohort("policy", "check", str(file), "--json").json["rules"][1] == {"id": "line-2", "effect": "ask", "line": 2}
    file.write_text("permit (principal, action, resource);\nforbid (")
    wrong = cohort("policy", "check", str(file))
    assert (wrong.code, "line 2" in wrong.err) == (2, True)
    kernel.policy_asked_by.clear()
    assert cohort("policy", "reload").code == 2
    assert cohort("policy", "reload").out == "c0ffee\n"


def test_a_workspace_is_committed_discarded_and_restored(cohort: Command, kernel: Kernel) -> None:
    assert cohort("workspace", "diff", "scribe").code == 3
    assert "+two" in cohort("workspace", "diff", "scribe", "notes/plan.md").out
    assert cohort("workspace", "discard", "scribe").code == 2
    assert "report.csv" in cohort("workspace", "discard", "scribe", "--dry-run").out
    assert not kernel.workspaces.kept
    assert cohort("workspace", "commit", "scribe", "--reason", "good").code == 0
    kept = cohort("workspace", "snapshots", "scribe", "--json").json["items"][0]
    assert kept["reason"] == "good"
    assert cohort("workspace", "restore", "scribe", kept["id"], "--yes").code == 0
    assert "hard" in cohort("workspace", "show", "scribe").out
    assert cohort("workspace", "discard", "scribe", "--yes").code == 0
    assert cohort("workspace", "remove", "scribe").code == 2
    assert cohort("workspace", "remove", "scribe", "--confirm", "scribe").code == 0


def test_keys_are_made_listed_and_revoked(cohort: Command) -> None:
    made = cohort("key", "create", "nora", "--role", "approver")
    assert made.out.startswith("ck_")
    key = cohort("key", "list", "--json").json["items"][-1]
    assert (key["name"], key["role"]) == ("nora", "approver")
    assert "revoked" in cohort("key", "revoke", key["id"]).out
    refused = cohort("key", "list", COHORT_KEY=OPERATOR_KEY)
    assert refused.code == 1
    assert "admin" in refused.err


def test_keys_and_budgets_of_clients_are_made_listed_and_ended(cohort: Command) -> None:
    made = cohort(
        "gateway", "key", "create", "shop", "--service", "support", "--budget-usd-day", "2.5", "--rpm", "60", "--expires-days", "1"
    )
    assert made.out.startswith("cgk_")
    listed = cohort("gateway", "key", "list")
    assert made.out.strip() not in listed.out
    assert "$2.50/day, 60 rpm" in listed.out
    assert "revoked" in cohort("gateway", "key", "revoke", "shop").out
    assert "$50" in cohort("gateway", "budget", "set", "team", "web", "50").out
    assert cohort("gateway", "budget", "set", "all", "web", "50").code == 2
    assert cohort("gateway", "budget", "set", "team", "web", "much").code == 2
    assert "$0" in cohort("gateway", "budget", "set", "all", "0").out
    assert cohort("gateway", "budget", "remove", "team", "web").code == 0
    assert [entry["budget"]["scope"] for entry in cohort("gateway", "budget", "list", "--json").json["items"]] == ["all"]


def test_a_kernel_that_cannot_record_is_said_so(cohort: Command, kernel: Kernel) -> None:
    kernel.agents.mint("scribe", None, "first-key")
    kernel.audit.down = CohortError("AUDIT_UNAVAILABLE", "the disk is full", retry=Retry.SAFE, hint="Make room.")
    answer = cohort("exec", "scribe", "--", "true")
    assert (answer.code, answer.err) == (1, "error: the disk is full\nhint: Make room.\n")


def test_text_of_others_cannot_move_the_cursor() -> None:
    assert printable("a\x1b[1mb\u202ec\n") == "a<U+001B>[1mb<U+202E>c<U+000A>"


@pytest.mark.parametrize(
    "whole", [{}, {"unreadable": "{\x1b"}, {"at_us": 10**30, "kind": {}, "agent": [1], "body": [2]}, {"at_us": "x", "body": None}]
)
def test_an_edited_entry_is_a_line_like_any_other(whole: dict[str, object]) -> None:
    line = entry_line({"index": 3, "body": whole})
    assert line.startswith("      3  ")
    assert line.isprintable()


def test_text_that_is_not_utf_8_is_an_error_with_a_code(cohort: Command) -> None:
    for line in (("exec", "--why", "\udcff", "scribe", "--", "ls"), ("agent", "show", "\udcff")):
        answer = cohort(*line, "--json") if line[0] == "agent" else cohort(*line)
        assert answer.code == 2
        assert "not UTF-8" in answer.err
