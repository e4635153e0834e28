"""The file operations through the gate, on a real workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohort.base.clock import ManualClock
from cohort.kernel.actions.executors.files import FileExecutors
from cohort.kernel.actions.schemas import CONTENT_CHARS_MAX
from cohort.kernel.model import Outcome
from cohort.kernel.workspaces.beneath import best_opener
from cohort.kernel.workspaces.search import Search
from cohort.storage.database import Database
from support_gate import GateHouse
from support_gate_rooms import Kernel
from support_workspaces import Room


@pytest.fixture
def gates(sqlite_database: Database, clock: ManualClock, tmp_path: Path) -> GateHouse:
    room = Room(tmp_path, sqlite_database, "directory")
    place = room.place()
    gates = GateHouse(sqlite_database, clock, tmp_path, workspaces=room.workspaces)
    gates.as_agent(workspace=place.workspace)
    for operation, executor in FileExecutors(room.workspaces, room.files, Search(best_opener(), room.clock)).executors().items():
        gates.replace_executor(operation, executor)
    return gates


def done(gates: GateHouse, operation: str, **arguments: object) -> dict[str, object]:
    result = gates.ask(operation, **arguments)
    assert result.outcome is Outcome.DONE, result
    return dict(result.result)


def test_content_of_as_many_characters_as_it_may_have_is_written_and_one_more_refused(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    try:
        token = kernel.agent()
        assert kernel.ask(token, "files.write", path="full", content="\U0001f600" * CONTENT_CHARS_MAX).outcome is Outcome.DONE
        assert (kernel.root() / "full").stat().st_size == 4 * CONTENT_CHARS_MAX
        assert kernel.ask(token, "files.write", path="more", content="x" * (CONTENT_CHARS_MAX + 1)).code == "ARGUMENT_INVALID"
    finally:
        kernel.close()


def test_a_file_is_written_read_moved_and_deleted(gates: GateHouse) -> None:
    done(gates, "files.mkdir", path="src/deep")
    assert done(gates, "files.write", path="src/deep/a.txt", content="one\n", mode="create")["created"] is True
    done(gates, "files.write", path="src/deep/a.txt", content="two\n", mode="append")
    assert done(gates, "files.read", path="src/deep/a.txt")["content"] == "one\ntwo\n"
    done(gates, "files.move", path="src/deep/a.txt", to="b.txt")
    assert done(gates, "files.stat", path="b.txt")["size"] == 8
    entries = done(gates, "files.list")["entries"]
    assert [entry["path"] for entry in entries] == ["b.txt", "src"]
    assert done(gates, "files.delete", path="src", recursive=True) == {"deleted": 2}


def test_bytes_that_are_no_text_are_refused_as_text_and_read_as_base64(gates: GateHouse) -> None:
    done(gates, "files.write", path="a", content="//4A", encoding="base64")
    refused = gates.ask("files.read", path="a")
    assert (refused.outcome, refused.code) == (Outcome.FAILED, "ARGUMENT_INVALID")
    assert done(gates, "files.read", path="a", encoding="base64")["content"] == "//4A"
    assert gates.ask("files.write", path="a", content="no base64!", encoding="base64").code == "ARGUMENT_INVALID"


def test_a_letter_cut_by_the_limit_is_in_the_next_piece(gates: GateHouse) -> None:
    done(gates, "files.write", path="a", content="aéé")
    first = done(gates, "files.read", path="a", limit=4)
    second = done(gates, "files.read", path="a", offset=first["next_offset"])
    assert (first["content"], first["more"], second["content"], second["more"]) == ("aé", True, "é", False)


def test_a_search_finds_lines_and_says_when_it_stopped(gates: GateHouse) -> None:
    done(gates, "files.mkdir", path="b")
    done(gates, "files.write", path="a", content="needle\nhay\nneedle \x1b[31mred\n")
    done(gates, "files.write", path="b/c", content="needle")
    done(gates, "files.write", path="bin", content="/wBuZWVkbGU=", encoding="base64")
    found = done(gates, "files.search", text="needle")
    assert [(place["path"], place["line"]) for place in found["places"]] == [("a", 1), ("a", 3), ("b/c", 1)]
    assert (found["places"][1]["text"], found["complete"]) == ("needle red", True)
    assert done(gates, "files.search", text="needle", limit=1)["complete"] is False
    assert len(done(gates, "files.search", text="needle", path="b/c")["places"]) == 1
    assert [place["path"] for place in done(gates, "files.search", text="needle", names="c*")["places"]] == ["b/c"]


def test_a_listing_goes_on_behind_a_name(gates: GateHouse) -> None:
    for name in "abc":
        done(gates, "files.write", path=name, content="")
    first = done(gates, "files.list", limit=2)
    assert [entry["path"] for entry in done(gates, "files.list", after=first["after"])["entries"]] == ["c"]


@pytest.mark.parametrize(
    ("operation", "arguments", "code"),
    [
        ("files.read", {"path": "none"}, "PATH_MISSING"),
        ("files.write", {"path": "a", "content": "", "mode": "create"}, "PATH_EXISTS"),
        ("files.read", {"path": ""}, "PATH_WRONG_KIND"),
        ("files.write", {"path": "big", "content": "x" * (1 << 20), "mode": "append"}, "QUOTA_EXCEEDED"),
    ],
)
def test_what_cannot_be_done_is_a_failure_with_an_outcome_in_the_log(
    gates: GateHouse, operation: str, arguments: dict[str, object], code: str
) -> None:
    done(gates, "files.write", path="a", content="")
    for number in range(4):
        gates.ask("files.write", path=f"fill{number}", content="x" * (1 << 20))
    result = gates.ask(operation, **arguments)
    assert (result.outcome, result.code) == (Outcome.FAILED, code)
    assert gates.log.kinds(result.action_id) == ["intent", "outcome"]


@pytest.mark.parametrize("path", [".git", "sub/.git", ".git/hooks/x", ".ENVRC", "a/.mcp.json"])
def test_names_that_others_obey_are_refused_before_anything_runs(gates: GateHouse, path: str) -> None:
    result = gates.ask("files.move", path="a", to=path) if path.endswith(".git") else gates.ask("files.write", path=path, content="x")
    assert (result.outcome, result.code) == (Outcome.REFUSED, "PATH_PROTECTED")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/etc/passwd", "PATH_ESCAPES"),
        ("a/../../b", "PATH_ESCAPES"),
        ("a\\b", "PATH_INVALID"),
        ("a\u202eb", "PATH_INVALID"),
        ("e\u0301", "PATH_INVALID"),
        ("a\ud800", "ARGUMENT_INVALID"),
        ("x" * 300, "PATH_INVALID"),
        ("d/" * 70, "PATH_INVALID"),
        ("x/" * 5000, "ARGUMENT_INVALID"),
    ],
)
def test_every_trick_of_paths_is_refused_with_a_record(gates: GateHouse, path: str, code: str) -> None:
    result = gates.ask("files.read", path=path)
    assert (result.outcome, result.code) == (Outcome.REFUSED, code)
    assert gates.log.kinds(result.action_id) == ["decision"]


def test_a_link_out_of_the_workspace_leads_nowhere(gates: GateHouse, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    root = Path(gates.rooms.workspaces.place(gates.identities.callers["a token"].agent.workspace).root)
    (root / "link").symlink_to(tmp_path / "secret")
    result = gates.ask("files.read", path="link")
    assert (result.outcome, result.result) == (Outcome.FAILED, {})
