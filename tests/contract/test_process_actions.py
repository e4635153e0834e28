"""Long-running commands through the gate: asked for, approved by a person, run in the real sandbox, ended with their session."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.base.clock import SystemClock
from cohort.kernel.actions.executors.machine import system_read
from cohort.kernel.actions.executors.processes import ProcessExecutors
from cohort.kernel.face import Request
from cohort.kernel.machine.monitor import Monitor
from cohort.kernel.machine.processes import AgentProcesses
from cohort.kernel.model import ActionResult, ApprovalState, GrantScope, Level, Outcome
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.egress_names import hosts_of
from cohort.kernel.sandbox.spawner import Spawner
from support_approvals import sign
from support_gate_rooms import Kernel
from support_processes import until
from support_sandbox import need_bubblewrap


class Installation:
    """The kernel of the gate's tests, with the machine room beside it."""

    def __init__(self, folder: Path) -> None:
        self.spawner = Spawner()
        self.kernel = Kernel(folder, level=Level.NAMESPACES, private_uids=os.geteuid() == 0)
        kernel, clock = self.kernel, SystemClock()
        sandbox = Bubblewrap(Parts(self.spawner, clock, kernel.journal.spawned))
        self.processes = AgentProcesses(sandbox, kernel.database, clock, secrets.token_bytes, "here", over=self.over)
        found = ProcessExecutors(kernel.workspaces, self.processes, hosts_of).executors()
        for name, executor in kernel.journal.observed({**found, "system.read": system_read(Monitor(clock))}).items():
            kernel.gate.register(name, executor)

    def over(self, agent: str, session: str | None) -> bool:
        return any(view.id == session and view.revoked_us is not None for view in self.kernel.identity.agents.sessions(agent))

    def close(self) -> None:
        self.processes.close()
        self.spawner.close()
        self.kernel.close()


@pytest.fixture
def here() -> Iterator[Installation]:
    need_bubblewrap()
    folder = Path(tempfile.mkdtemp(prefix="cohort-process-"))
    folder.chmod(0o755)
    made = Installation(folder)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)


def start(here: Installation, token: str, *argv: str) -> ActionResult:
    return here.kernel.gate.perform(token, Request("process.start", {"argv": list(argv)}, why="the build needs it"))


def test_a_command_waits_for_a_person_and_then_runs_once(here: Installation) -> None:
    kernel, token = here.kernel, here.kernel.agent()
    asked = start(here, token, "sh", "-c", "echo ready; exec sleep 60")
    assert (asked.outcome, asked.code) == (Outcome.WAITING, "APPROVAL_NEEDED")
    question = kernel.approvals.find(asked.approval_id)
    assert question.plain == "Start `sh -c 'echo ready; exec sleep 60'` in the workspace of agent `smoke-1` and leave it running"
    assert (question.asked_by, question.why) == ("smoke-1", "the build needs it")
    kernel.approvals.approve(asked.approval_id, sign())
    done = start(here, token, "sh", "-c", "echo ready; exec sleep 60")
    assert (done.outcome, done.result["running"]) == (Outcome.DONE, True)
    process = done.result["id"]
    until(lambda: kernel.ask(token, "process.output", process=process).result["stdout"] == "ready\n")
    assert [each["id"] for each in kernel.ask(token, "process.list").result["processes"]] == [process]
    assert start(here, token, "sh", "-c", "echo ready; exec sleep 60").outcome is Outcome.WAITING
    kernel.ask(token, "process.signal", process=process, signal="KILL")
    ended = kernel.ask(token, "process.output", process=process, wait_s=20).result["process"]
    assert (ended["running"], ended["stopped_by"]) == (False, "signal")
    counts = kernel.reconciler().compare()
    assert counts.executions > 0
    assert (counts.bypasses, counts.containment_violations, counts.unauthorised) == (0, 0, 0), counts.findings


def test_a_no_is_the_answer_and_no_process_begins(here: Installation) -> None:
    kernel, token = here.kernel, here.kernel.agent()
    asked = start(here, token, "touch", "made")
    kernel.approvals.deny(asked.approval_id, sign("anna", note="not now"))
    again = start(here, token, "touch", "made")
    assert (again.outcome, again.code) == (Outcome.REFUSED, "APPROVAL_DENIED")
    assert "not now" in again.reason
    assert not (kernel.root() / "made").exists()
    assert here.processes.list(kernel.gate.caller(token).agent.id) == []


def test_processes_end_with_the_session_that_was_revoked(here: Installation) -> None:
    kernel, token = here.kernel, here.kernel.agent()
    asked = start(here, token, "sleep", "60")
    approved = kernel.approvals.approve(asked.approval_id, sign("anna", GrantScope.SESSION))
    assert approved.state is ApprovalState.APPROVED
    processes = [start(here, token, "sleep", "60").result["id"] for _ in range(2)]
    session = kernel.gate.caller(token).session
    agent = kernel.gate.caller(token).agent.id
    kernel.identity.agents.revoke_session(session, "anna", "the work is done")
    for process in processes:
        assert here.processes.wait(agent, process, 20).ended is not None
    assert here.processes.running(agent) == 0


def test_a_process_is_limited_through_the_gate_and_every_limit_says_how_well_it_holds(here: Installation) -> None:
    kernel, token = here.kernel, here.kernel.agent()
    kernel.approvals.approve(start(here, token, "sleep", "60").approval_id, sign())
    process = start(here, token, "sleep", "60").result["id"]
    done = kernel.ask(token, "process.limit", process=process, cpu_cores=0.5, memory_bytes=64 << 20, priority="idle")
    assert done.outcome is Outcome.DONE, done
    assert [(each["limit"], each["held"]) for each in done.result["limits"]] == [
        ("cpu_cores", "not enforced"),
        ("memory_bytes", "soft"),
        ("priority", "enforced"),
    ]
    stranger = kernel.ask(kernel.agent("smoke-2"), "process.limit", process=process, priority="idle")
    assert (stranger.outcome, stranger.code) == (Outcome.FAILED, "PROCESS_UNKNOWN")
    kernel.ask(token, "process.signal", process=process, signal="KILL")


def test_the_machine_is_read_through_the_gate(here: Installation) -> None:
    kernel, token = here.kernel, here.kernel.agent()
    done = kernel.ask(token, "system.read", what="memory")
    assert done.outcome is Outcome.DONE
    assert done.result["total_bytes"]["value"] > 0
    assert kernel.ask(token, "system.read", what="cpu").result["busy_pct"]["unit"] == "percent"
