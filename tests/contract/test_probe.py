"""The start-up probe against real sandboxes, and against none."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.kernel.model import Command, Completed, Level, Limits, Place
from cohort.kernel.ports import Running
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.cgroups import Cgroups
from cohort.kernel.sandbox.probe import PROBED, Surroundings, probe
from cohort.kernel.sandbox.spawner import Spawner
from support_attacks import PRIVATE_UID, stage
from support_ordinary import as_ordinary_user
from support_sandbox import cgroups, need_bubblewrap, place

_numbers = itertools.count(1)


def entropy(count: int) -> bytes:
    return os.getpid().to_bytes(4, "big") + next(_numbers).to_bytes(count - 4, "big")


def around(here: Place) -> Surroundings:
    return Surroundings(Path(here.root).parent, SystemClock(), entropy, cgroups=False)


@contextmanager
def bubblewrap(groups: Cgroups | None = None) -> Iterator[Bubblewrap]:
    need_bubblewrap()
    spawner = Spawner()
    try:
        yield Bubblewrap(Parts(spawner, SystemClock(), lambda spawn: None, cgroups=groups), Level.FULL)
    finally:
        spawner.close()


class Nothing:
    """A sandbox that contains nothing at all and says that it is the best there is."""

    name = "nothing"
    level = Level.FULL

    def run(self, place: Place, limits: Limits, command: Command) -> Completed:
        user = {"user": place.uid, "group": place.gid, "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run(command.argv, input=command.stdin, capture_output=True, cwd=place.root, timeout=30, **user)
        size = len(done.stdout)
        return Completed(done.returncode, None, done.stdout, done.stderr, size, len(done.stderr), 0, 0, None, None, Level.FULL)

    def start(self, place: Place, limits: Limits, command: Command) -> Running:
        raise NotImplementedError

    def close(self, place: Place) -> None:
        """Nothing is kept."""


class Mute(Nothing):
    """A sandbox in which nothing runs."""

    def run(self, place: Place, limits: Limits, command: Command) -> Completed:
        return Completed(0, None, b"", b"", 0, 0, 0, 0, None, None, Level.FULL)


def test_bubblewrap_without_hard_limits_shows_level_3() -> None:
    with place() as here, bubblewrap() as sandbox:
        found = probe(sandbox, here, around(here))
        assert found.level is Level.NAMESPACES
        assert [row.name for row in found.rows] == [attack.name for attack in PROBED]
        assert not [row for row in found.rows if row.stopped is False]
        assert len(found.soft) == 2
        assert found.kernel
        assert found.backend == "bubblewrap"
        assert os.listdir(here.root) == []
        assert os.listdir(Path(here.root).parent) == ["workspace"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a workspace with a hard quota here")
def test_bubblewrap_with_hard_limits_shows_level_4() -> None:
    with cgroups() as groups, stage(PRIVATE_UID, hard=True) as made, bubblewrap(groups) as sandbox:
        here = made.place()
        found = probe(sandbox, here, Surroundings(made.folder, SystemClock(), entropy, cgroups=True))
        sandbox.close(here)
    assert found.level is Level.FULL
    assert {row.stopped for row in found.rows} == {True}
    assert found.soft == ()
    assert found.fixes == ()


AS_USER = """
import dataclasses, itertools, pathlib, tempfile
from cohort.base.clock import SystemClock
from cohort.base.ids import WorkspaceId
from cohort.kernel.model import Level, Place
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.cgroups import Cgroups
from cohort.kernel.sandbox.probe import Surroundings, probe
from cohort.kernel.sandbox.spawner import Spawner
spawner = Spawner()
with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder, "w")
    root.mkdir()
    here = Place(WorkspaceId("ws_probe"), str(root), os.getuid(), os.getgid(), False)
    found = probe(Bubblewrap(Parts(spawner, SystemClock(), lambda spawn: None)), here, Surroundings(pathlib.Path(folder), SystemClock(), os.urandom, False))
    print(json.dumps(dataclasses.asdict(found)))
spawner.close()
"""


def test_an_ordinary_user_is_shown_level_3() -> None:
    need_bubblewrap()
    found = json.loads(as_ordinary_user(AS_USER))
    assert found["level"] == Level.NAMESPACES
    rows = {row["name"]: row["stopped"] for row in found["rows"]}
    assert rows.pop("shadow-file") is None
    assert rows.pop("memory-bomb") is None
    assert set(rows.values()) == {True}


def test_a_sandbox_that_contains_nothing_is_found_out() -> None:
    with place() as here:
        found = probe(Nothing(), here, around(here))
        through = {row.name for row in found.rows if row.stopped is False}
        assert found.level is Level.NONE
        assert {
            "home-secret",
            "dotdot",
            "symlink",
            "hard-link",
            "process-listing",
            "signals",
            "tcp-loopback",
            "udp",
            "abstract-socket",
        } <= through
        assert {"keyring", "risky-syscalls", "socket-families", "fork-bomb"} <= through
        assert found.fixes
        assert os.listdir(here.root) == []


def test_a_sandbox_in_which_nothing_runs_has_no_level() -> None:
    with place() as here:
        found = probe(Mute(), here, around(here))
    assert found.level is Level.NONE
    assert {row.stopped for row in found.rows} == {None}


def test_a_folder_that_is_not_there_is_said() -> None:
    with place() as here, pytest.raises(CohortError) as caught:
        probe(Mute(), here, Surroundings(Path(here.root) / "missing", SystemClock(), entropy, False))
    assert caught.value.code == "SANDBOX_UNAVAILABLE"
