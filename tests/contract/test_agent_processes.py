"""Long-running commands in real sandboxes: output, signals, limits, and ending with everything they started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest
from sqlalchemy import select

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.base.ids import AgentId, AgentSessionId
from cohort.kernel.machine import processes as module
from cohort.kernel.machine.priority import give
from cohort.kernel.machine.process_rows import processes as table
from cohort.kernel.machine.processes import AgentProcesses
from cohort.kernel.model import Command, Place, Priority, StoppedBy
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.spawner import Spawner
from support_approvals import Entropy
from support_processes import environment, until
from support_sandbox import LIMITS, need_bubblewrap, parts, place

AGENT, OTHER = AgentId("ag_1"), AgentId("ag_2")
SESSION = AgentSessionId("se_1")


@pytest.fixture(scope="module")
def spawner() -> Iterator[Spawner]:
    need_bubblewrap()
    spawner = Spawner()
    yield spawner
    spawner.close()


@pytest.fixture(scope="module")
def here() -> Iterator[Place]:
    with place() as made:
        yield made


@pytest.fixture
def over() -> set:
    """Sessions that have ended."""
    return set()


@pytest.fixture
def processes(spawner, sqlite_database, over) -> Iterator[AgentProcesses]:
    made = AgentProcesses(
        Bubblewrap(parts(spawner)), sqlite_database, SystemClock(), Entropy(), "here", over=lambda agent, session: session in over
    )
    yield made
    made.close()


def error_of(call, *arguments):
    with pytest.raises(CohortError) as caught:
        call(*arguments)
    return caught.value


def shell(text: str) -> Command:
    return Command(("sh", "-c", text))


def alive(marker: str) -> bool:
    """Whether any process of this machine still carries `marker` in its command."""
    return any(marker in " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))


def test_a_process_outlives_its_call_and_its_output_is_read_by_offset(processes, here):
    view = processes.start(AGENT, here, LIMITS, shell("echo one; echo two >&2; read line; echo $line; exec sleep 60"))
    assert (view.agent, view.ended, view.argv[0]) == (AGENT, None, "sh")
    until(lambda: processes.output(AGENT, view.id, "stdout", 0, 100) == b"one\n\n")
    assert processes.output(AGENT, view.id, "stdout", 1, 2) == b"ne"
    assert processes.output(AGENT, view.id, "stdout", 100, 100) == b""
    until(lambda: processes.output(AGENT, view.id, "stderr", 0, 100) == b"two\n")
    assert processes.find(AGENT, view.id).stdout_bytes == 5
    assert processes.running(AGENT) == 1
    assert processes.wait(AGENT, view.id, 0.01).ended is None
    fed = processes.start(AGENT, here, LIMITS, replace(shell("cat"), stdin=b"fed"))
    processes.wait(AGENT, fed.id, 20)
    assert processes.output(AGENT, fed.id, "stdout", 0, 100) == b"fed"
    deaf = processes.start(AGENT, here, LIMITS, replace(Command(("true",)), stdin=b"x" * 200_000))
    assert processes.wait(AGENT, deaf.id, 20).ended.exit_code == 0


def test_a_process_that_ended_is_kept_with_its_output(processes, here):
    view = processes.start(AGENT, here, LIMITS, shell("echo done; exit 7"))
    ended = processes.wait(AGENT, view.id, 20).ended
    assert (ended.exit_code, ended.stopped_by) == (7, None)
    assert processes.output(AGENT, view.id, "stdout", 0, 10) == b"done\n"
    assert processes.running(AGENT) == 0
    assert [each.id for each in processes.list(AGENT)] == [view.id]
    assert processes.signal(AGENT, view.id, signal.SIGTERM).ended == ended


def test_a_signal_reaches_the_whole_group(processes, here):
    view = processes.start(AGENT, here, LIMITS, shell("trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.02; done"))
    until(lambda: processes.output(AGENT, view.id, "stdout", 0, 10) == b"ready\n")
    processes.signal(AGENT, view.id, signal.SIGTERM)
    assert processes.wait(AGENT, view.id, 20).ended.exit_code == 3
    assert error_of(processes.signal, AGENT, view.id, 0).code == "ARGUMENT_INVALID"
    assert error_of(processes.signal, AGENT, view.id, 1000).code == "ARGUMENT_INVALID"


def test_what_a_process_leaves_behind_dies_with_it(processes, here):
    marker = "cohort-left-behind-71"
    orphans = f"for i in 1 2 3; do (setsid sh -c 'exec -a {marker} sleep 60' &) ; done; echo ready; sleep 0.1"
    view = processes.start(AGENT, here, LIMITS, Command(("bash", "-c", orphans)))
    until(lambda: processes.find(AGENT, view.id).ended is not None)
    until(lambda: not alive(marker))


def test_killing_ends_everything(processes, here):
    marker = "cohort-killed-72"
    view = processes.start(AGENT, here, LIMITS, Command(("bash", "-c", f"(exec -a {marker} sleep 60) & echo ready; wait")))
    until(lambda: alive(marker))
    processes.signal(AGENT, view.id, signal.SIGKILL)
    ended = processes.wait(AGENT, view.id, 20).ended
    assert (ended.exit_code, ended.stopped_by) == (None, StoppedBy.SIGNAL)
    until(lambda: not alive(marker))


def test_another_agents_process_is_unknown(processes, here):
    view = processes.start(AGENT, here, LIMITS, Command(("sleep", "60")))
    for call in (
        lambda: processes.find(OTHER, view.id),
        lambda: processes.output(OTHER, view.id, "stdout", 0, 1),
        lambda: processes.signal(OTHER, view.id, signal.SIGKILL),
        lambda: processes.wait(OTHER, view.id, 0),
        lambda: processes.find(AGENT, "pr_none"),
    ):
        assert error_of(call).code == "PROCESS_UNKNOWN"
    assert processes.list(OTHER) == []
    assert processes.find(AGENT, view.id).ended is None


@pytest.mark.parametrize("arguments", [("stdin", 0, 1), ("stdout", -1, 1), ("stdout", 0, -1)])
def test_output_that_cannot_be_is_refused(processes, here, arguments):
    view = processes.start(AGENT, here, LIMITS, Command(("true",)))
    assert error_of(processes.output, AGENT, view.id, *arguments).code == "ARGUMENT_INVALID"


def test_an_agent_runs_no_more_than_it_may_even_at_once(processes, here):
    limits, answers = replace(LIMITS, processes=2), []

    def start():
        try:
            answers.append(processes.start(AGENT, here, limits, Command(("sleep", "60"))).id)
        except CohortError as error:
            answers.append(error.code)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers.count("QUOTA_EXCEEDED") == 4
    assert processes.running(AGENT) == 2
    assert processes.start(OTHER, here, limits, Command(("sleep", "60"))).ended is None
    assert processes.stop_all(AGENT) == 2
    assert processes.start(AGENT, here, limits, Command(("true",))).id not in answers


def test_a_session_that_ends_ends_its_processes_and_no_others(processes, here, over):
    mine = processes.start(AGENT, here, LIMITS, Command(("sleep", "60")), SESSION)
    other = processes.start(AGENT, here, LIMITS, Command(("sleep", "60")), AgentSessionId("se_2"))
    over.add(SESSION)
    assert processes.wait(AGENT, mine.id, 20).ended.stopped_by is StoppedBy.SIGNAL
    assert processes.find(AGENT, other.id).ended is None
    assert processes.stop_session(AgentSessionId("se_2")) == 1
    assert processes.find(AGENT, other.id).ended is not None


def test_commands_come_after_control_when_the_spawner_does(sqlite_database, here, spawner):
    low = Spawner(begun=lambda pid: give(pid, Priority.LOW))
    processes = AgentProcesses(Bubblewrap(parts(low)), sqlite_database, SystemClock(), Entropy(), "here")
    view = processes.start(AGENT, here, LIMITS, Command(("nice",)))
    processes.wait(AGENT, view.id, 20)
    assert processes.output(AGENT, view.id, "stdout", 0, 10) == b"10\n"
    processes.close()
    low.close()


def test_what_cannot_be_journalled_is_not_started_and_leaves_nothing(spawner, sqlite_database, here):
    def refuse(spawn):
        raise CohortError("AUDIT_UNAVAILABLE", "the journal cannot be written")

    processes = AgentProcesses(Bubblewrap(replace(parts(spawner), on_spawn=refuse)), sqlite_database, SystemClock(), Entropy(), "here")
    assert error_of(processes.start, AGENT, here, LIMITS, Command(("true",))).code == "AUDIT_UNAVAILABLE"
    assert processes.running(AGENT) == 0
    assert processes.list(AGENT) == []
    processes.close()


def test_a_sandbox_that_fails_on_the_way_is_said_to_be_why_it_ended(spawner, sqlite_database, here):
    broken = replace(parts(spawner), binary="/usr/bin/no-bubblewrap-here")
    processes = AgentProcesses(Bubblewrap(broken), sqlite_database, SystemClock(), Entropy(), "here")
    view = processes.start(AGENT, here, LIMITS, Command(("true",)))
    assert processes.wait(AGENT, view.id, 20).ended.stopped_by is StoppedBy.SANDBOX
    processes.close()


def test_how_it_ended_is_known_after_a_restart_and_its_output_is_not(spawner, database, here):
    processes = AgentProcesses(Bubblewrap(parts(spawner)), database, SystemClock(), Entropy(), "here")
    view = processes.start(AGENT, here, LIMITS, shell("echo x; exit 5"))
    processes.wait(AGENT, view.id, 20)
    processes.close()
    assert error_of(processes.start, AGENT, here, LIMITS, Command(("true",))).code == "SANDBOX_UNAVAILABLE"
    again = AgentProcesses(Bubblewrap(parts(spawner)), database, SystemClock(), Entropy("again"), "here")
    assert again.recover() == 0
    found = again.find(AGENT, view.id)
    assert (found.ended.exit_code, found.ended.stopped_by, found.stdout_bytes) == (5, None, 2)
    assert "not kept" in error_of(again.output, AGENT, view.id, "stdout", 0, 1).message


def test_only_the_newest_that_ended_are_kept(processes, here, sqlite_database):
    views = [processes.start(AGENT, here, LIMITS, Command(("true",))) for _ in range(module.KEPT_PER_AGENT + 2)]
    for view in views:
        processes.wait(AGENT, view.id, 20)

    def forgotten():
        try:
            return processes.output(AGENT, views[0].id, "stdout", 0, 1) is None
        except CohortError:
            return True

    def all_written():
        with sqlite_database.read() as connection:
            return all(row.ended_us is not None for row in connection.execute(select(table)))

    until(forgotten)
    until(all_written)
    assert processes.output(AGENT, views[-1].id, "stdout", 0, 1) == b""
    assert len(processes.list(AGENT)) == len(views)


CHILD = """
import sys
from cohort.base.clock import SystemClock
from cohort.base.ids import AgentId
from cohort.kernel.machine.processes import AgentProcesses
from cohort.kernel.model import Command
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.spawner import Spawner
from cohort.storage.database import open_database
from support_approvals import Entropy
from support_sandbox import LIMITS, parts, place

with place() as here:
    processes = AgentProcesses(Bubblewrap(parts(Spawner())), open_database(sys.argv[1]), SystemClock(), Entropy("child"), sys.argv[2])
    view = processes.start(AgentId("ag_1"), here, LIMITS, Command(("bash", "-c", "exec -a " + sys.argv[3] + " sleep 60")))
    print(view.id, flush=True)
    sys.stdin.read()
"""


def test_processes_die_with_a_control_that_is_killed_and_are_said_to_be_lost(spawner, database, url):
    marker = "cohort-lost-73"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with tempfile.TemporaryDirectory(prefix="cohort-killed-") as folder:  # what a killed child leaves behind is in here
        os.chmod(folder, 0o755)
        variables = environment() | {"TMPDIR": folder}
        with subprocess.Popen([sys.executable, "-c", CHILD, url, "there", marker], env=variables, **pipes) as control:
            process = control.stdout.readline().strip()
            until(lambda: alive(marker))
            control.kill()
            control.wait()
        until(lambda: not alive(marker))
    until(lambda: not alive(marker))
    elsewhere = AgentProcesses(Bubblewrap(parts(spawner)), database, SystemClock(), Entropy(), "elsewhere")
    assert elsewhere.recover() == 0
    assert elsewhere.find(AGENT, process).ended is None
    again = AgentProcesses(Bubblewrap(parts(spawner)), database, SystemClock(), Entropy(), "there")
    assert again.recover() == 1
    ended = again.find(AGENT, process).ended
    assert (ended.exit_code, ended.stopped_by) == (None, StoppedBy.LOST)
    assert "was lost" in error_of(again.output, AGENT, process, "stdout", 0, 1).message
    assert again.signal(AGENT, process, signal.SIGTERM).ended == ended


def test_what_a_process_used_is_charged_once_when_it_has_ended(processes, here):
    told = []
    processes.charge_to(lambda *used: told.append(used))
    view = processes.start(AGENT, here, LIMITS, shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"))
    ended = processes.wait(AGENT, view.id, 20).ended
    processes.running(AGENT)
    assert told == [(AGENT, ended.cpu_us)]
    assert ended.cpu_us > 0
