"""Agents as a person has them: registered, contained, approved and recorded by command lines, and whole after SIGKILL to control."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import psutil
import pytest

from cohort.base.errors import Exit
from cohort.kernel.sandbox.backends import obstacle
from support_home import COMMAND_S, Home, home_in
from support_processes import kill, until

BWRAP = "/usr/bin/bwrap"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One installation for the whole story; its agents' commands are contained at level 3 at least, or the test says why not."""
    hindrance = obstacle(BWRAP)
    if hindrance is not None:
        if os.environ.get("CI") == "true" and not os.access(BWRAP, os.X_OK):
            pytest.fail(hindrance.what)
        pytest.skip(hindrance.what)
    made = home_in(tmp_path_factory.mktemp("kernel"))
    made.run("init")
    made.ask("up", "--detach")
    yield made
    made.run("down", code=None)


def running(word: str) -> list[int]:
    """Processes that carry `word` in their command line and are not commands of Cohort's."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if word in (process.info["cmdline"] or ()) and "cohort.surfaces.cli" not in process.info["cmdline"]
    ]


def test_a_command_waits_for_a_person_runs_once_and_is_recorded(home: Home) -> None:
    home.run("agent", "register", "builder", "--scope", "files.read", "--scope", "files.write", "--scope", "system.execute")
    command = ("exec", "builder", "--", "python3", "-c", "print('contained')")
    assert "cohort approval show" in home.run(*command, code=4).stderr
    waiting = home.ask("approval", "list", "--state", "pending", code=4)["items"]
    assert len(waiting) == 1
    home.run("approval", "approve", waiting[0]["id"], "--yes")
    assert home.run(*command).stdout == "contained\n"
    home.run(*command, code=4)  # once is once
    assert home.ask("audit", "verify")["integrity"] == "verified"


def test_status_says_that_the_log_was_verified_at_the_start(home: Home) -> None:
    until(lambda: any("verified at the start" in said for part in home.ask("status")["parts"] for said in part["says"]))


def test_a_path_out_of_the_workspace_is_refused_with_code_and_record(home: Home) -> None:
    home.run("agent", "register", "reader", "--scope", "files.read")
    refused = home.ask("action", "run", "files.read", "path=../../etc/passwd", "--agent", "reader", code=3)
    assert refused["code"] == "PATH_ESCAPES"
    newest = home.ask("audit", "search", "--kind", "decision", "--limit", "1")["items"][0]
    assert newest["body"]["body"]["code"] == "PATH_ESCAPES"


def test_the_first_keys_are_in_the_log_and_a_persons_token_ends_with_the_persons_key(home: Home) -> None:
    imported = home.ask("audit", "search", "--kind", "key", "--text", "person_key_imported")["items"]
    assert {entry["body"]["body"]["name"] for entry in imported} == {"admin", "operator"}
    admin = Home(home.folder, home.environment | {"COHORT_KEY": (home.folder / ".cohort/secrets/admin.key").read_text().strip()})
    home.run("agent", "register", "lister", "--scope", "files.read")
    made = admin.ask("key", "create", "nora", "--role", "operator")
    nora = Home(home.folder, home.environment | {"COHORT_KEY": made["text"]})
    token = nora.ask("agent", "token", "lister")["token"]
    assert acted(home, token).status_code == 200
    admin.run("key", "revoke", made["key"]["id"])
    refused = acted(home, token)
    assert (refused.status_code, refused.json()["code"]) == (401, "SESSION_REVOKED")
    assert admin.ask("key", "revoke", admin.ask("key", "list")["items"][0]["id"], code=1)["code"] == "LAST_ADMIN"


def acted(home: Home, token: str) -> httpx2.Response:
    url = next(part["url"] for part in home.ask("status")["parts"] if part["name"] == "control")
    asked = {"operation": "files.list", "arguments": {}}
    return httpx2.post(url + "/api/v1/actions", json=asked, headers={"Authorization": f"Bearer {token}"})


def test_after_sigkill_to_control_the_command_is_gone_and_its_outcome_recorded_as_unknown(home: Home) -> None:
    home.run("agent", "register", "sleeper", "--scope", "system.execute", "--autonomy", "aggressive")
    seconds = "86397"
    argv = home.argv("exec", "sleeper", "--", "sleep", seconds)
    with subprocess.Popen(argv, cwd=home.folder, env=home.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
        until(lambda: running(seconds))
        control = home.pids()["control"]
        kill(control)
        until(lambda: not running(seconds))
        assert asking.wait(COMMAND_S) == Exit.UNKNOWN  # and it is not asked for again
    until(lambda: home.pids()["control"] not in (None, control))
    found = home.ask("audit", "verify")
    assert (found["integrity"], found["complete"]) == ("verified", True)
    outcomes = home.ask("audit", "search", "--kind", "outcome", "--limit", "1")["items"]
    assert outcomes[0]["body"]["body"]["outcome"] == "unknown"
    assert home.run("exec", "sleeper", "--", "echo", "again").stdout == "again\n"


def test_an_entry_edited_while_nothing_ran_is_found_after_the_start_and_no_action_runs(home: Home) -> None:
    write = ("action", "run", "files.write", "path=after.txt", "content=x", "--agent", "writer")
    home.run("agent", "register", "writer", "--scope", "files.write")
    home.run(*write)
    home.run("down")
    with closing(sqlite3.connect(home.folder / ".cohort" / "audit.db")) as log, log:
        edited = log.execute(
            "UPDATE audit_entries SET entry = CAST(replace(entry, 'after.txt', 'other.txt') AS BLOB) WHERE kind = 'intent'"
        )
        assert edited.rowcount > 0
    home.ask("up", "--detach")
    until(lambda: home.ask("status", code=None)["health"] == "unhealthy")
    assert any("read-only" in said for part in home.ask("status", code=3)["parts"] for said in part["says"])
    assert home.ask(*write, code=3)["code"] == "AUDIT_BROKEN"
    assert home.ask("audit", "verify", code=3)["integrity"] == "broken"


def test_down_leaves_no_mount_behind(home: Home) -> None:
    """What an installation mounted is gone with it."""
    home.run("agent", "register", "last", code=None)  # by itself, or after the test before, which has broken the log
    installation = json.loads((home.folder / ".cohort" / "installation.json").read_text())["id"]
    assert home.ask("down")["stopped"] is True
    assert not Path("/run/cohort", installation).exists()
    assert str(home.folder) not in Path("/proc/self/mountinfo").read_text()
    assert not [device for device in Path("/sys/block").glob("loop*/loop/backing_file") if str(home.folder) in device.read_text()]
