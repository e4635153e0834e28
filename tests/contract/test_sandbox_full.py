"""Level 4: bubblewrap with cgroups. Every flood has a ceiling of its own."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cohort.compose.leftovers import tidy
from cohort.kernel.model import Command, Level, Place, StoppedBy
from cohort.kernel.ports import Sandbox
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.cgroups import CONTROLLERS, Cgroups, Group, Hierarchy, find
from cohort.kernel.sandbox.spawner import Spawner
from support_processes import until
from support_sandbox import LIMITS, cgroups, full, need_bubblewrap, parts, place, processes_with

PYTHON = ("/usr/bin/python3", "-I", "-S", "-c")
HOLD_300_MB = "x = bytearray(300 << 20); print(len(x))"
FILL_TMP = """
import os
fd, written = os.open('/tmp/x', os.O_CREAT | os.O_WRONLY), 0
try:
    for _ in range(300):
        written += os.write(fd, b'x' * (1 << 20))
except OSError as error:
    print(written >> 20, error.strerror)
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    spawner = Spawner()
    with full(spawner) as made:
        yield made
        spawner.close()


@pytest.fixture
def here(sandbox: Sandbox) -> Iterator[Place]:
    with place(hard_quota=True) as made:
        yield made
        sandbox.close(made)


def test_what_a_killed_life_left_is_taken_away_and_what_runs_is_not() -> None:
    with cgroups() as first:
        first.enter("ws_dead", LIMITS)
        group = first.enter("ws_alive", LIMITS)
        parents = list(dict.fromkeys(first._hierarchy.folders.values()))
        for parent in parents:
            (parent / "ws_dead" / "share-1").mkdir()
        with subprocess.Popen(["sleep", "60"]) as running:
            for joins in group.joins:
                Path(joins).write_text(str(running.pid))
            Cgroups(first._hierarchy)
            assert all([one.name for one in parent.iterdir() if one.is_dir()] == ["ws_alive"] for parent in parents)
            running.kill()
        until(lambda: not group.processes())
        Cgroups(first._hierarchy).close()
        assert not any(parent.exists() for parent in parents)


def test_an_installation_that_was_killed_is_tidied_up_after() -> None:
    installation = f"test-{uuid.uuid4().hex}"
    found = find(parent=f"cohort-{installation}")
    if found.hierarchy is None:
        pytest.skip(found.reason)
    Group(found.hierarchy, "ws_dead").open(LIMITS)
    assert all(folder.exists() for folder in found.hierarchy.folders.values())
    tidy(installation)
    assert not any(folder.exists() for folder in found.hierarchy.folders.values())


def test_looking_for_groups_leaves_none() -> None:
    found = find(parent=f"cohort-test-{uuid.uuid4().hex}")
    if found.hierarchy is None:
        pytest.skip(found.reason)
    assert not any(folder.exists() for folder in found.hierarchy.folders.values())


def test_memory_over_the_limit_ends_the_command_at_once(sandbox: Sandbox, here: Place) -> None:
    done = sandbox.run(here, replace(LIMITS, memory_bytes=128 << 20), Command((*PYTHON, HOLD_300_MB)))
    assert (done.stopped_by, done.signal, done.stdout, done.level) == (StoppedBy.MEMORY, 9, b"", Level.FULL)
    assert done.memory_bytes is not None
    assert done.memory_bytes <= 128 << 20


def test_memory_below_the_limit_is_measured(sandbox: Sandbox, here: Place) -> None:
    done = sandbox.run(here, replace(LIMITS, memory_bytes=512 << 20), Command((*PYTHON, HOLD_300_MB)))
    assert (done.exit_code, done.stopped_by) == (0, None)
    assert done.memory_bytes is not None
    assert 300 << 20 <= done.memory_bytes <= 512 << 20


def test_temporary_files_are_sized(sandbox: Sandbox, here: Place) -> None:
    done = sandbox.run(here, LIMITS, Command((*PYTHON, FILL_TMP)))
    assert done.stdout.decode().strip() == "64 No space left on device"


def test_temporary_files_count_as_memory_for_the_watchdog_too() -> None:
    spawner = Spawner()
    text = FILL_TMP + "import time; x = b'x' * (72 << 20); time.sleep(20)"
    with place() as here:
        need_bubblewrap()
        done = Bubblewrap(parts(spawner)).run(here, replace(LIMITS, memory_bytes=100 << 20), Command((*PYTHON, text)))
        assert (done.stopped_by, done.stdout) == (StoppedBy.MEMORY, b"")
        spawner.close()


def test_the_level_is_what_the_workspace_allows(sandbox: Sandbox, here: Place) -> None:
    assert sandbox.run(here, LIMITS, Command(("true",))).level is Level.FULL
    assert sandbox.run(replace(here, hard_quota=False), LIMITS, Command(("true",))).level is Level.NAMESPACES


def test_cores_are_limited(sandbox: Sandbox, here: Place) -> None:
    """Two busy loops for 0.6 s on a fifth of a core: the processor time cannot be what the clock says."""
    loop = "timeout .6 sh -c 'while :; do :; done' & timeout .6 sh -c 'while :; do :; done' & wait"
    done = sandbox.run(here, replace(LIMITS, cpu_cores=0.2), Command(("sh", "-c", loop)))
    assert 0 < done.cpu_us < 450_000


def test_a_closed_workspace_leaves_no_group(here: Place, sandbox: Sandbox) -> None:
    with cgroups() as groups:
        group = groups.enter("ws_closing", LIMITS)
        folders = [Path(join).parent for join in group.joins]
        assert all(folder.is_dir() for folder in folders)
        groups.leave(group)
        groups.remove("ws_closing")
        assert not any(folder.exists() for folder in folders)


def test_processes_of_a_sandbox_are_in_its_group(sandbox: Sandbox, here: Place) -> None:
    marker = f"cohort-group-{uuid.uuid4().hex}"
    running = sandbox.start(here, LIMITS, Command(("sh", "-c", f"echo up; sleep 300; : {marker}")))
    until(lambda: running.output("stdout", 0, 10) == b"up\n")
    for pid in processes_with(marker):
        groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        inside = [group for group in groups if group.endswith(f"/{here.workspace}")]
        assert len(inside) == (1 if inside[0].startswith("0:") else len(CONTROLLERS)), groups
    assert running.stop().level is Level.FULL


def test_joining_does_not_stop_every_fork_of_the_machine_where_that_can_be_avoided(tmp_path: Path) -> None:
    apart = Hierarchy(1, {name: tmp_path / name for name in CONTROLLERS})
    assert Group(apart, "ws_x").joins == tuple(f"{tmp_path}/{name}/ws_x/tasks" for name in CONTROLLERS)
    together = Hierarchy(2, dict.fromkeys(CONTROLLERS, tmp_path))
    assert Group(together, "ws_x").joins == (f"{tmp_path}/ws_x/cgroup.procs",)


def test_version_2_is_used_where_controllers_can_be_passed_on(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/user.slice\n")
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"30 20 0:26 / {tmp_path}/fs rw - cgroup2 cgroup2 rw\n")
    assert find(mountinfo=mountinfo, own=own).reason == "memory, pids and cpu controllers are not mounted"
    folder = tmp_path / "fs" / "user.slice"
    folder.mkdir(parents=True)
    (folder / "cgroup.controllers").write_text("cpu memory pids\n")
    (folder / "cgroup.type").write_text("domain\n")
    (folder / "cgroup.procs").write_text("17\n")
    found = find(mountinfo=mountinfo, own=own)
    assert found.hierarchy is not None, "plain folders take any limit"
    assert found.hierarchy.version == 2
    assert (folder / "cohort-itself" / "cgroup.procs").read_text() == "17", "a group that passes controllers on has no processes itself"
    assert (folder / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
