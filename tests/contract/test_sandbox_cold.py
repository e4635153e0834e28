"""The cold bubblewrap sandbox: one per command."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.model import Command, Place, StoppedBy
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.spawner import Spawner
from support_sandbox import LIMITS, Journal, need_bubblewrap, parts, place, put


@pytest.fixture(scope="module")
def spawner() -> Iterator[Spawner]:
    need_bubblewrap()
    spawner = Spawner()
    yield spawner
    spawner.close()


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as made:
        yield made


def test_a_protected_path_cannot_be_written_and_is_not_created(spawner: Spawner) -> None:
    with place(read_only=(".git/hooks", ".envrc")) as here:
        put(here, ".git/hooks/pre-commit", "#!/bin/sh\n")
        sandbox = Bubblewrap(parts(spawner))
        done = sandbox.run(here, LIMITS, Command(("sh", "-c", "echo x > .git/hooks/pre-commit; echo y > .git/hooks/new; echo z > ok")))
        assert done.stderr.count(b"Read-only file system") == 2
        assert sorted(os.listdir(here.root)) == [".git", "ok"]


def test_a_protected_path_behind_a_link_is_refused(spawner: Spawner) -> None:
    with place(read_only=(".git/hooks",)) as here:
        os.symlink("/etc", f"{here.root}/.git")
        journal = Journal()
        with pytest.raises(CohortError) as caught:
            Bubblewrap(parts(spawner, journal)).run(here, LIMITS, Command(("true",)))
        assert caught.value.code == "SANDBOX_UNAVAILABLE"


def test_a_binary_that_vanished_executes_nothing(spawner: Spawner, here: Place) -> None:
    from dataclasses import replace

    broken = replace(parts(spawner), binary="/usr/bin/no-bubblewrap-here")
    with pytest.raises(CohortError) as caught:
        Bubblewrap(broken).run(here, LIMITS, Command(("touch", "made")))
    assert caught.value.code == "SANDBOX_UNAVAILABLE"
    assert os.listdir(here.root) == []


def test_a_workspace_of_root_is_refused(spawner: Spawner, here: Place) -> None:
    from dataclasses import replace

    with pytest.raises(CohortError) as caught:
        Bubblewrap(parts(spawner)).run(replace(here, uid=0, gid=0), LIMITS, Command(("true",)))
    assert caught.value.code == "SANDBOX_UNAVAILABLE"


def test_a_command_is_stopped_when_its_time_is_over(spawner: Spawner, here: Place) -> None:
    from dataclasses import replace

    done = Bubblewrap(parts(spawner)).run(here, replace(LIMITS, command_s=0.3), Command(("sleep", "60")))
    assert (done.stopped_by, done.exit_code, done.signal) == (StoppedBy.TIME, None, 9)


@pytest.mark.parametrize(
    ("argv", "code", "number"), [("exit 7", 7, None), ("exit 200", 200, None), ("kill -9 $$", None, 9), ("kill -TERM $$", None, 15)]
)
def test_the_end_is_told_exactly(spawner: Spawner, here: Place, argv: str, code: int | None, number: int | None) -> None:
    done = Bubblewrap(parts(spawner)).run(here, LIMITS, Command(("sh", "-c", argv)))
    assert (done.exit_code, done.signal, done.stopped_by) == (code, number, None)


def test_every_execution_is_told_before_it_happens(spawner: Spawner, here: Place) -> None:
    journal = Journal()
    Bubblewrap(parts(spawner, journal)).run(here, LIMITS, Command(("true",), label="act_1"))
    assert [(one.workspace, one.argv, one.label, one.backend) for one in journal] == [(here.workspace, ("true",), "act_1", "bubblewrap")]
