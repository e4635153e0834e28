"""Promises never exceed the machine, and a limit is called enforced only where something enforces it."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.base.errors import CohortError
from cohort.base.ids import AgentId
from cohort.kernel.machine.holding import Mechanisms, holdings
from cohort.kernel.machine.priority import give
from cohort.kernel.machine.resources import Capacity, Promised, Resources, capacity
from cohort.kernel.model import Agent, AgentState, Autonomy, Held, Limits, Priority

SMALL = Limits(cpu_cores=1, memory_bytes=100, disk_bytes=10)
MACHINE = Capacity(4, 1000, 100)


def agent(name: str, state: AgentState = AgentState.ACTIVE, limits: Limits = SMALL) -> Agent:
    return Agent(AgentId(name), name, state, (), Autonomy.STANDARD, limits, (), None, 0, "anna")


def error_of(call, *arguments):
    with pytest.raises(CohortError) as caught:
        call(*arguments)
    return caught.value


def test_no_more_is_promised_than_there_is():
    resources = Resources(MACHINE)
    for name in "abcd":
        resources.reserve(AgentId(name), SMALL)
    assert resources.promised() == Promised(4, 4, 400, 40)
    error = error_of(resources.reserve, AgentId("e"), SMALL)
    assert (error.code, error.message) == ("QUOTA_EXCEEDED", "1 cores are wanted, 4 of 4 are promised already")
    resources.release(AgentId("a"))
    resources.release(AgentId("a"))
    resources.reserve(AgentId("e"), SMALL)


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        (dataclasses.replace(SMALL, cpu_cores=4.5), "cores"),
        (dataclasses.replace(SMALL, memory_bytes=1001), "bytes of memory"),
        (dataclasses.replace(SMALL, disk_bytes=101), "bytes of disk"),
    ],
)
def test_the_answer_says_of_what_there_is_not_enough(limits, what):
    assert f" {what} are wanted" in error_of(Resources(MACHINE).reserve, AgentId("a"), limits).message


def test_cores_and_memory_may_be_promised_several_times_and_the_disk_once():
    resources = Resources(MACHINE, overcommit=2)
    resources.reserve(AgentId("a"), Limits(cpu_cores=8, memory_bytes=2000, disk_bytes=100))
    assert "disk" in error_of(resources.reserve, AgentId("b"), Limits(cpu_cores=0, memory_bytes=0, disk_bytes=1)).message
    assert error_of(Resources, MACHINE, 0.5).code == "CONFIG_INVALID"
    assert error_of(Resources, MACHINE, float("nan")).code == "CONFIG_INVALID"


def test_another_promise_to_the_same_agent_replaces_the_first_or_changes_nothing():
    resources = Resources(MACHINE)
    resources.reserve(AgentId("a"), dataclasses.replace(SMALL, cpu_cores=3))
    resources.reserve(AgentId("a"), dataclasses.replace(SMALL, cpu_cores=4))
    error_of(resources.reserve, AgentId("a"), dataclasses.replace(SMALL, cpu_cores=5))
    assert resources.promised().cores == 4


def test_a_machine_that_became_smaller_keeps_what_was_promised_and_promises_no_more():
    resources = Resources(Capacity(1, None, None))
    resources.load([agent("a"), agent("b"), agent("c", AgentState.REVOKED), agent("d", AgentState.SUSPENDED)])
    assert resources.promised().agents == 3
    assert error_of(resources.reserve, AgentId("e"), SMALL).code == "QUOTA_EXCEEDED"


def test_many_agents_at_once_get_no_more_than_there_is():
    resources, answers = Resources(MACHINE), []

    def ask(name):
        try:
            resources.reserve(AgentId(name), SMALL)
            answers.append(True)
        except CohortError:
            answers.append(False)

    threads = [threading.Thread(target=ask, args=(str(number),)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sum(answers) == 4


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 3), st.integers(0, 600), st.booleans()), max_size=20))
def test_whatever_is_asked_and_released_the_sum_stays_within(steps):
    resources = Resources(MACHINE)
    for name, cores, memory, release in steps:
        try:
            resources.release(AgentId(name)) if release else resources.reserve(AgentId(name), Limits(10, 1, memory, 1, cores))
        except CohortError:
            continue
    now = resources.promised()
    assert now.cores <= 4 + 1e-9
    assert now.memory_bytes <= 1000


def test_this_machine_says_what_it_has(tmp_path):
    here = capacity(tmp_path)
    assert 1 <= here.cores <= psutil.cpu_count()
    assert 0 < here.memory_bytes <= psutil.virtual_memory().total
    assert here.disk_bytes == shutil.disk_usage(tmp_path).total
    assert capacity(tmp_path / "none").disk_bytes is None


BARE = {system: Mechanisms(system) for system in ("linux", "darwin", "win32")}
FULL = Mechanisms("linux", cgroup=True, namespaces=True, rlimits=True, hard_disk_quota=True, priority=True)


def held(here: Mechanisms) -> dict[str, Held]:
    return {each.limit: each.held for each in holdings(Limits(), here)}


def test_every_limit_is_reported_once_on_every_machine():
    for here in (*BARE.values(), FULL):
        assert [each.limit for each in holdings(Limits(), here)] == [*(field.name for field in dataclasses.fields(Limits)), "priority"]


def test_what_is_not_enforced_says_what_that_means():
    for here in (*BARE.values(), FULL, Mechanisms("linux", rlimits=True, watchdog=True), Mechanisms("win32", job_object=True)):
        assert all(each.gap for each in holdings(Limits(), here) if each.held is not Held.ENFORCED)


def test_where_there_is_nothing_nothing_of_the_machine_is_called_enforced():
    for here in BARE.values():
        of_the_machine = ("memory_bytes", "processes", "cpu_cores", "priority", "egress_bytes_per_day")
        assert {held(here)[name] for name in of_the_machine} == {Held.NOT_ENFORCED}
        assert held(here)["disk_bytes"] is Held.SOFT


@pytest.mark.parametrize(
    ("here", "expected"),
    [
        (
            FULL,
            {"disk_bytes": "enforced", "files": "enforced", "memory_bytes": "enforced", "processes": "enforced", "cpu_cores": "enforced"},
        ),
        (
            Mechanisms("linux", namespaces=True, rlimits=True, watchdog=True),
            {"disk_bytes": "soft", "memory_bytes": "soft", "processes": "enforced", "cpu_cores": "soft"},
        ),
        (Mechanisms("linux", rlimits=True), {"memory_bytes": "soft", "processes": "soft", "cpu_cores": "soft"}),
        (
            Mechanisms("darwin", rlimits=True, no_network=True),
            {"memory_bytes": "not enforced", "processes": "soft", "cpu_cores": "soft", "egress_bytes_per_day": "enforced"},
        ),
        (Mechanisms("win32", job_object=True), {"memory_bytes": "enforced", "processes": "enforced", "cpu_cores": "enforced"}),
    ],
)
def test_each_mechanism_holds_what_it_holds(here, expected):
    found = held(here)
    assert {name: found[name].value for name in expected} == expected


SAYS_PRIORITY_OF_ITS_CHILD = """
import subprocess, sys
sys.stdin.readline()
print(subprocess.run([sys.executable, "-c", "import os; print(os.nice(0))"], capture_output=True, text=True).stdout, flush=True)
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SAYS_PRIORITY_OF_ITS_CHILD], **pipes) as process:
        yield process
        process.kill()


@pytest.mark.parametrize(("priority", "nice"), [(Priority.LOW, 10), (Priority.IDLE, 19)])
def test_a_process_gets_a_lower_priority_and_what_it_starts_inherits_it(child, priority, nice):
    assert give(child.pid, priority) is Held.ENFORCED
    assert psutil.Process(child.pid).nice() == nice
    child.stdin.write("go\n")
    child.stdin.flush()
    assert int(child.stdout.readline()) == nice


def test_a_process_that_has_ended_is_said_not_to_hold(child):
    child.kill()
    child.wait()
    assert give(child.pid, Priority.LOW) is Held.NOT_ENFORCED
