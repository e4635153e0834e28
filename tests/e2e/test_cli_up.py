"""`cohort` as installed: a real gateway and a real control in a data directory of their own, driven by command lines."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support_home import COMMAND_S, Home, home_in
from support_processes import alive, kill, until


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = home_in(tmp_path)
    yield made
    made.run("down")


def release(home: Home, version: str) -> None:
    """The manifest that `cohort init` writes, as another version."""
    text = (home.folder / "releases" / "support-v1.yaml").read_text()
    path = home.folder / "releases" / f"{version}.yaml"
    path.write_text(text.replace("version: 1.0.0", f"version: {version}").replace("0.2}", f"0.{version[0]}}}"))
    assert home.ask("release", "create", str(path))["created"] is True


def test_the_first_hour_from_init_to_a_rollback(home: Home) -> None:
    home.run("init")
    ready = home.ask("up", "--detach")
    assert ready["ready_ms"] > 0
    key = Path(ready["admin_key_file"]).read_text().strip()
    assert home.ask("status")["health"] == "healthy"
    release(home, "1.0.0")
    release(home, "2.0.0")
    assert [item["version"] for item in home.ask("release", "list")["items"]] == ["2.0.0", "1.0.0"]
    (home.folder / "down.yaml").write_text("name: down\nstages:\n  - {traffic_pct: 50}\n  - {traffic_pct: 25}\n  - {traffic_pct: 100}\n")
    for wrong in (("rollout", "plan", "support"), ("rollout", "start", "support", "--to", "2.0.0")):
        refused = home.ask(*wrong, "--plan", "down.yaml", code=2)
        assert (refused["code"], refused["field"]) == ("PLAN_INVALID", "stages[1].traffic_pct")
        assert refused["detail"].startswith("down.yaml:4: ")
    assert home.ask("rollout", "list")["items"] == []
    started = home.ask("rollout", "start", "support", "--to", "2.0.0", "--plan", "fast-10-50-100")
    assert home.ask("rollout", "show", "support")["id"] == started["id"]
    assert home.ask("rollout", "pause", "support")["state"] == "paused"
    assert home.run("rollout", "watch", "support", "--exit-on-wait", code=4).stdout
    rolled_back = home.ask("rollback", "support", "--reason", "a test")
    assert (rolled_back["serving"]["version"], rolled_back["verified"]) == ("1.0.0", True)
    assert home.run("rollout", "watch", started["id"], code=3).stdout
    assert home.ask("rollout", "replay", started["id"])["identical"] is True
    home.environment["COHORT_KEY"] = key
    assert home.ask("service", "show", "support")["stable"]["version"] == "1.0.0"
    again = home.ask("up", "--detach", code=1)
    assert (again["code"], again["details"]["gateway_url"]) == ("ALREADY_RUNNING", ready["gateway_url"])
    pids = home.pids()
    assert home.ask("down")["stopped"] is True
    assert not [pid for pid in pids.values() if alive(pid)]
    assert home.ask("status", code=5)["health"] == "unknown"


def test_control_killed_with_sigkill_comes_back_with_everything_it_knew(home: Home) -> None:
    home.run("init")
    home.ask("up", "--detach")
    release(home, "1.0.0")
    before = home.pids()
    kill(before["control"])
    assert home.ask("service", "list")["items"][0]["name"] == "support"  # waits while control is started again
    after = until(lambda: (now := home.pids())["control"] not in (None, before["control"]) and now)
    assert after["gateway"] == before["gateway"]


def test_a_killed_supervisor_leaves_both_serving_and_the_next_takes_them_over(home: Home) -> None:
    home.run("init")
    first = home.ask("up", "--detach")
    release(home, "1.0.0")
    before = home.pids()
    kill(first["pid"])
    until(lambda: not alive(first["pid"]))
    alone = home.ask("status", code=3)
    assert sorted(alone["left_behind"]) == sorted(before.values())
    assert home.ask("service", "list")["items"]
    second = home.ask("up", "--detach")
    assert home.pids() == before
    assert {process["adopted"] for process in second["processes"]} == {True}
    assert "admin_key_file" not in second


@pytest.mark.parametrize("room", ["gateway", "control"])
def test_a_port_in_use_is_told_before_anything_starts(home: Home, room: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", int(home.environment[f"COHORT_{room.upper()}_PORT"])))
        listener.listen()
        refused = home.ask("up", "--detach", code=1)
    assert (refused["code"], refused["field"]) == ("PORT_IN_USE", f"{room}.port")
    assert home.ask("status", code=5)["parts"] == []
    assert not (home.folder / ".cohort" / "secrets" / "admin.key.sha256").exists()


def test_a_database_that_control_cannot_use_is_the_error_of_up(home: Home) -> None:
    home.environment["COHORT_DATABASE_URL"] = f"sqlite:///{home.folder}/not/there/x.db"
    failed = home.ask("up", "--detach", code=1)
    assert failed["code"] == "PROCESS_FAILED"
    assert failed["details"]["process"] == "control"
    assert failed["details"]["last_lines"]
    assert home.ask("status", code=5)["parts"] == []


def iter_until_closed(lines: Iterator[str]) -> Iterator[str]:
    """The lines of one indented JSON object."""
    for line in lines:
        yield line
        if line == "}\n":
            return


def test_ctrl_c_in_the_foreground_stops_everything_and_exits_with_0(home: Home) -> None:
    process = subprocess.Popen(home.argv("up", "--json"), stdout=subprocess.PIPE, text=True, cwd=home.folder, env=home.environment)
    assert process.stdout is not None
    text = "".join(iter_until_closed(process.stdout))
    children = [entry["pid"] for entry in json.loads(text)["processes"]]
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(COMMAND_S) == 0
    assert not [pid for pid in children if alive(pid)]
