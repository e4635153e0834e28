"""Holding one process to less than its agent has, in real sandboxes and control groups: what is answered is what holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.base.ids import AgentId
from cohort.kernel.actions import parsing
from cohort.kernel.face import Request
from cohort.kernel.machine.limiting import limit
from cohort.kernel.machine.processes import AgentProcesses
from cohort.kernel.model import Command, Held, Limits, Place, Priority, ProcessLimits
from cohort.kernel.sandbox.cgroups import Cgroups
from cohort.kernel.sandbox.shares import ROUNDS_MAX, every
from cohort.kernel.sandbox.spawner import Spawner
from support_approvals import Entropy
from support_processes import until
from support_sandbox import BACKENDS, LIMITS, cgroups, need, parts, place

AGENT, OTHER = AgentId("ag_1"), AgentId("ag_2")
MIB = 1 << 20
BUSY = "import os; os.fork(); print('busy', flush=True)\nwhile True: pass"
EATER = (
    "import sys, threading; threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    "print('ready', flush=True); sys.stdin.buffer.read(0)\nimport time\nwhile not __import__('os').path.exists('go'): time.sleep(0.02)\n"
    "kept = []\ntry:\n    for _ in range(150): kept.append(bytearray(1 << 20))\nexcept MemoryError: print('refused', flush=True); sys.exit(3)\n"
    "print('ate', flush=True)"
)


@pytest.fixture(scope="module")
def spawner() -> Iterator[Spawner]:
    spawner = Spawner()
    yield spawner
    spawner.close()


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as made:
        yield made


class Machine:
    """Processes of agents in one backend, with control groups or without."""

    def __init__(self, stack: ExitStack, backend: str, spawner: Spawner, database, *, groups: bool) -> None:
        need(backend)
        self.groups: Cgroups | None = stack.enter_context(cgroups()) if groups else None
        sandbox = BACKENDS[backend](replace(parts(spawner), cgroups=self.groups))
        self.processes = AgentProcesses(sandbox, database, SystemClock(), Entropy(), "here")
        stack.callback(self.processes.close)

    def start(self, here: Place, code: str, said: bytes, limits: Limits = LIMITS):
        view = self.processes.start(AGENT, here, limits, Command(("python3", "-c", code)))
        until(lambda: self.processes.output(AGENT, view.id, "stdout", 0, 100).startswith(said))
        return view.id

    def folders(self) -> list[Path]:
        """Every control group below the workspaces' own."""
        return [inner for top in self.groups._hierarchy.folders.values() for inner in top.glob("*/*") if inner.is_dir()]


@pytest.fixture(params=["bubblewrap, cold", "bubblewrap, forked", "confined", "limits"])
def grouped(request, spawner, sqlite_database) -> Iterator[Machine]:
    with ExitStack() as stack:
        yield Machine(stack, request.param, spawner, sqlite_database, groups=True)


@pytest.fixture
def plain(spawner, sqlite_database) -> Iterator[Machine]:
    with ExitStack() as stack:
        yield Machine(stack, "bubblewrap, cold", spawner, sqlite_database, groups=False)


def test_a_share_of_the_cores_is_enforced_on_a_process_and_its_children(grouped, here):
    process = grouped.start(here, BUSY, b"busy\nbusy")
    (held,) = grouped.processes.limit(AGENT, process, ProcessLimits(cpu_cores=0.2))
    assert (held.limit, held.value, held.held, held.by, held.gap) == ("cpu_cores", "0.2", Held.ENFORCED, "cgroup", "")
    (share,) = [folder for folder in grouped.folders() if (folder / "cpu.cfs_quota_us").exists()]
    assert int((share / "cpu.cfs_quota_us").read_text()) == 20_000
    assert len((share / "cgroup.procs").read_text().split()) == 2
    before = _throttled(share)
    until(lambda: _throttled(share) > before)
    (wider,) = grouped.processes.limit(AGENT, process, ProcessLimits(cpu_cores=64))
    assert (wider.value, wider.held) == ("1", Held.ENFORCED), "never more than the agent has"
    grouped.processes.stop_all(AGENT)
    grouped.processes.wait(AGENT, process, 20)
    assert grouped.folders() == []


def _throttled(share: Path) -> int:
    words = (share / "cpu.stat").read_text().split()
    return int(words[words.index("nr_throttled") + 1])


def test_a_share_of_the_memory_is_enforced_and_its_end_is_said_to_be_for_memory(grouped, here):
    process = grouped.start(here, EATER, b"ready")
    (held,) = grouped.processes.limit(AGENT, process, ProcessLimits(memory_bytes=32 * MIB))
    assert (held.limit, held.value, held.held) == ("memory_bytes", f"{32 * MIB} bytes", Held.ENFORCED)
    assert "counts for its workspace" in held.gap
    (Path(here.root) / "go").touch()
    ended = grouped.processes.wait(AGENT, process, 20).ended
    assert ended is not None
    assert (ended.exit_code, ended.stopped_by and ended.stopped_by.value) != (0, None)
    assert b"ate" not in grouped.processes.output(AGENT, process, "stdout", 0, 100)
    assert grouped.folders() == []


def test_an_agent_with_less_takes_it_from_its_shares_too(grouped, here):
    process = grouped.start(here, BUSY, b"busy")
    grouped.processes.limit(AGENT, process, ProcessLimits(cpu_cores=0.8))
    other = grouped.start(here, "print('here', flush=True); import time; time.sleep(60)", b"here", replace(LIMITS, cpu_cores=0.5))
    (share,) = [folder for folder in grouped.folders() if (folder / "cpu.cfs_quota_us").exists()]
    assert int((share / "cpu.cfs_quota_us").read_text()) == 50_000
    assert grouped.processes.find(AGENT, other).ended is None


def test_without_control_groups_memory_is_soft_and_cores_are_not_enforced(plain, here):
    process = plain.start(here, EATER, b"ready")
    cores, memory = plain.processes.limit(AGENT, process, ProcessLimits(cpu_cores=0.5, memory_bytes=48 * MIB))
    assert (cores.held, cores.by) == (Held.NOT_ENFORCED, "nothing")
    assert (memory.held, memory.by) == (Held.SOFT, "RLIMIT_AS")
    (Path(here.root) / "go").touch()
    assert plain.processes.wait(AGENT, process, 20).ended.exit_code == 3
    assert plain.processes.output(AGENT, process, "stdout", 0, 100) == b"ready\nrefused\n"


def test_an_address_space_that_was_made_smaller_stays_so(plain, here):
    process = plain.start(here, EATER, b"ready")
    (pid,) = plain.processes._started[process].running.processes()
    for most in (64 * MIB, 128 * MIB):
        (held,) = plain.processes.limit(AGENT, process, ProcessLimits(memory_bytes=most))
        assert held.held is Held.SOFT
        (line,) = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max address space")]
        assert line.split()[-3:-1] == [str(64 * MIB)] * 2


class Gone:
    """`Running`, of a command whose last process has just ended."""

    def processes(self) -> list[int]:
        return []

    def confine(self, cpu_cores: float | None, memory_bytes: int | None) -> frozenset[str]:
        return frozenset()


def test_what_has_no_process_left_is_not_said_to_be_limited():
    wanted = ProcessLimits(cpu_cores=1, memory_bytes=MIB, priority=Priority.LOW)
    assert [each.held for each in limit(Gone(), wanted, Limits())] == [Held.NOT_ENFORCED] * 3


def test_priority_is_lowered_for_every_thread_and_never_raised(plain, here):
    process = plain.start(here, EATER, b"ready")
    (held,) = plain.processes.limit(AGENT, process, ProcessLimits(priority=Priority.IDLE))
    assert (held.limit, held.value, held.held, held.by) == ("priority", "idle", Held.ENFORCED, "nice")
    pids = plain.processes._started[process].running.processes()
    assert len(pids) == 1
    threads = [int(name) for name in os.listdir(f"/proc/{pids[0]}/task")]
    assert len(threads) == 2
    assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {19}
    plain.processes.limit(AGENT, process, ProcessLimits(priority=Priority.LOW))
    assert psutil.Process(pids[0]).nice() == 19


def test_only_the_agents_own_living_process_is_limited(plain, here):
    process = plain.start(here, "print('ready', flush=True)", b"ready")
    plain.processes.wait(AGENT, process, 20)
    for agent, code in ((AGENT, "PROCESS_FAILED"), (OTHER, "PROCESS_UNKNOWN")):
        with pytest.raises(CohortError) as caught:
            plain.processes.limit(agent, process, ProcessLimits(cpu_cores=0.5))
        assert caught.value.code == code


def test_an_orphan_of_a_command_is_one_of_its_processes(plain, here):
    code = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork(): os._exit(0)\n    print('orphan', flush=True)\ntime.sleep(60)"
    process = plain.start(here, code, b"orphan")
    until(lambda: len(plain.processes._started[process].running.processes()) >= 2)
    names = {psutil.Process(pid).name() for pid in plain.processes._started[process].running.processes()}
    assert all(name.startswith("python") for name in names)


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(CohortError) as caught:
        parsing.parse(Request("process.limit", {"process": "pr_0123456789abcdef"}))
    assert (caught.value.code, caught.value.field) == ("ARGUMENT_INVALID", "arguments")


def test_what_breeds_faster_than_it_is_looked_at_is_said_not_to_settle():
    born = iter(range(10 * ROUNDS_MAX))
    assert every(lambda: [next(born)], lambda _: None) is False
    done: list[int] = []
    looks = iter([[1], [1, 2], [2], [3], [], []])
    assert every(lambda: next(looks), done.append) is True
    assert done == [1, 2, 3]
