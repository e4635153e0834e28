"""Warm sandboxes: what commands of one workspace share, what they do not, and when one ends."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cohort.base.clock import ManualClock, SystemClock
from cohort.base.errors import CohortError
from cohort.kernel.model import Command, Completed, Level, Limits, Place, StoppedBy
from cohort.kernel.sandbox import landlock
from cohort.kernel.sandbox.active import Active
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.runners import Runners
from cohort.kernel.sandbox.spawner import Spawner
from cohort.kernel.sandbox.warm import IDLE_S, WARM_MAX, Warm
from support_processes import until
from support_sandbox import LIMITS, Journal, need_bubblewrap, parts, place, processes_with, put

NAME = "cat /tmp/name 2>/dev/null || tee /tmp/name < /proc/sys/kernel/random/uuid"


class Watched(SystemClock):
    """Real time, and a push when a test wants time to have passed."""

    def __init__(self) -> None:
        self.pushed = ManualClock(0)

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.pushed.monotonic_s()


def made(parts: Parts, sandboxes_max: int = WARM_MAX) -> Warm:
    return Warm(Runners(parts, Level.NAMESPACES), parts.clock, Active(), sandboxes_max)


@pytest.fixture(scope="module")
def spawner() -> Iterator[Spawner]:
    need_bubblewrap()
    spawner = Spawner()
    yield spawner
    spawner.close()


@pytest.fixture
def warm(spawner: Spawner) -> Warm:
    return made(parts(spawner))


@pytest.fixture
def here(warm: Warm) -> Iterator[Place]:
    with place() as empty:
        yield empty
        warm.close(str(empty.workspace))


def shell(warm: Warm, here: Place, text: str, limits: Limits = LIMITS) -> Completed:
    done = warm.run(here, limits, Command(("sh", "-c", text)))
    assert done is not None, "it was busy"
    return done


def name_of(warm: Warm, here: Place) -> str:
    """Another one for every sandbox, kept in its /tmp."""
    return shell(warm, here, NAME).stdout.decode()


def test_one_sandbox_takes_one_command_after_the_other(warm: Warm, here: Place) -> None:
    first = name_of(warm, here)
    assert {name_of(warm, here) for _ in range(3)} == {first}
    shell(warm, here, "echo kept > /tmp/x")
    assert shell(warm, here, "cat /tmp/x").stdout == b"kept\n"


def test_two_workspaces_share_nothing(warm: Warm, here: Place) -> None:
    with place() as elsewhere:
        assert name_of(warm, here) != name_of(warm, elsewhere)
        shell(warm, here, "echo mine > /tmp/x")
        assert shell(warm, elsewhere, "cat /tmp/x").exit_code == 1
        warm.close(str(elsewhere.workspace))


def test_nothing_of_a_command_meets_the_next_one(warm: Warm, here: Place) -> None:
    shell(warm, here, "setsid sh -c 'while :; do :; done' & (sleep 300 &) ; echo started")
    listed = shell(warm, here, "ls /proc").stdout.decode().split()
    assert sorted(int(one) for one in listed if one.isdigit())[:2] == [1, 2]
    assert len([one for one in listed if one.isdigit()]) == 4, "the first process, the runner, the shell and ls"


def test_the_runner_cannot_be_harmed_or_looked_into(warm: Warm, here: Place) -> None:
    if landlock.abi() < 6:
        pytest.skip("Landlock scopes signals from ABI 6 on")
    first = name_of(warm, here)
    done = shell(
        warm, here, "kill -9 2; kill -STOP 2; kill -9 -1; cat /proc/2/environ; ls /proc/2/fd; cat /proc/2/mem; echo x > /proc/2/mem"
    )
    assert done.stdout == b""
    assert [done.stderr.count(word) for word in (b"not permitted", b"Permission denied", b"Read-only")] == [2, 3, 1]
    assert name_of(warm, here) == first


def test_a_busy_sandbox_is_not_waited_for(warm: Warm, here: Place, spawner: Spawner) -> None:
    found: list[Completed | None] = []
    command = Command(("sh", "-c", "touch up; while [ ! -e down ]; do sleep .01; done"))
    thread = threading.Thread(target=lambda: found.append(warm.run(here, LIMITS, command)))
    thread.start()
    until(lambda: os.path.exists(f"{here.root}/up"))
    assert warm.run(here, LIMITS, Command(("true",))) is None
    put(here, "down")
    thread.join(20)
    assert found[0] is not None
    assert found[0].exit_code == 0


def test_after_a_command_that_had_to_be_stopped_a_new_sandbox_is_made(warm: Warm, here: Place) -> None:
    first = name_of(warm, here)
    marker = f"cohort-warm-{uuid.uuid4().hex}"
    done = shell(warm, here, f"sleep 300; : {marker}", replace(LIMITS, command_s=0.2))
    assert done.stopped_by is StoppedBy.TIME
    assert processes_with(marker) == []
    assert name_of(warm, here) != first


def test_other_limits_and_other_protected_paths_get_another_sandbox(warm: Warm, here: Place) -> None:
    first = name_of(warm, here)
    assert shell(warm, here, NAME, replace(LIMITS, command_s=5.0)).stdout.decode() == first
    assert shell(warm, here, NAME, replace(LIMITS, processes=20)).stdout.decode() != first
    guarded = replace(here, read_only=(".envrc",))
    second = name_of(warm, guarded)
    put(here, ".envrc", "kept")
    assert shell(warm, guarded, "echo changed > .envrc").exit_code != 0
    assert name_of(warm, guarded) != second
    assert Path(f"{here.root}/.envrc").read_text() == "kept"


def test_a_sandbox_that_is_not_used_ends(spawner: Spawner) -> None:
    clock = Watched()
    warm = made(Parts(spawner, clock, Journal()))
    with place() as here:
        first = name_of(warm, here)
        warm.close_idle()
        assert name_of(warm, here) == first
        clock.pushed.advance(IDLE_S + 1)
        warm.close_idle()
        assert name_of(warm, here) != first
        warm.close(str(here.workspace))


def test_a_sandbox_that_died_is_made_anew(warm: Warm, here: Place, spawner: Spawner) -> None:
    first = name_of(warm, here)
    spawner.close()
    assert name_of(warm, here) != first


def test_a_sandbox_that_cannot_be_set_up_says_why(spawner: Spawner) -> None:
    warm = made(replace(parts(spawner), binary="/usr/bin/no-bubblewrap"))
    with place() as here, pytest.raises(CohortError) as caught:
        warm.run(here, LIMITS, Command(("true",)))
    assert caught.value.code == "SANDBOX_UNAVAILABLE"


def test_there_are_never_more_than_the_limit(spawner: Spawner) -> None:
    warm = made(parts(spawner), sandboxes_max=2)
    with place() as one, place() as two, place() as three:
        first, second = name_of(warm, one), name_of(warm, two)
        name_of(warm, three)
        assert name_of(warm, two) == second
        assert name_of(warm, one) != first
        for each in (one, two, three):
            warm.close(str(each.workspace))


def test_a_cold_command_finds_nothing_of_the_warm_one(spawner: Spawner) -> None:
    sandbox = Bubblewrap(parts(spawner))
    with place() as here:
        sandbox.run(here, LIMITS, Command(("sh", "-c", "echo x > /tmp/x")))
        running = sandbox.start(here, LIMITS, Command(("cat", "/tmp/x")))
        done = running.wait(20)
        assert done is not None
        assert done.exit_code == 1
        sandbox.close(here)
