"""A credential in an action reaches the approver, and no file: not the log, the database, the journal or what a snapshot of them would hold."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.base.redaction import GONE
from cohort.kernel.actions.clearance import Cleared, Executed
from cohort.kernel.actions.executors.processes import ProcessExecutors
from cohort.kernel.face import Request
from cohort.kernel.machine.processes import AgentProcesses
from cohort.kernel.model import GrantScope, Level, Outcome
from cohort.kernel.sandbox.egress_names import hosts_of
from cohort.kernel.sandbox.limits import limited
from cohort.kernel.sandbox.spawner import Spawner
from support_approvals import sign
from support_gate_rooms import Kernel
from support_sandbox import parts

SECRET = "Zq7hunterXYZ"
ACTIONS = {
    "an option": ("terminal.run", {"argv": ["deploy", f"--password={SECRET}"]}),
    "an option's word": ("terminal.run", {"argv": ["mysql", f"-p{SECRET}"]}),
    "a variable": ("terminal.run", {"argv": ["env", f"API_TOKEN={SECRET}", "true"]}),
    "a shell line": ("terminal.run", {"shell": f"curl -H 'Authorization: Bearer {SECRET}' https://x.example"}),
    "an address in words": ("terminal.run", {"argv": ["git", "clone", f"https://me:{SECRET}@host.example/r.git"]}),
    "a query": ("http.request", {"url": f"https://api.example/v1?x=1&api_key={SECRET}"}),
    "a program": ("python.run", {"code": f"password = '{SECRET}'"}),
    "a header": ("http.request", {"url": "https://api.example/", "headers": {"authorization": SECRET}}),
}


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    def execute(cleared: Cleared) -> Executed:
        ran.append(dict(cleared.action.arguments))
        return Executed({"answer": "done"})

    ran: list[dict] = []
    made = Kernel(tmp_path, more=dict.fromkeys(("terminal.run", "http.request", "python.run"), execute))
    made.ran = ran
    yield made
    made.close()


def files_with(folder: Path, text: str) -> list[str]:
    return [str(file) for file in sorted(folder.rglob("*")) if file.is_file() and text.encode() in file.read_bytes()]


@pytest.mark.parametrize("name", ACTIONS)
def test_the_approver_sees_it_and_afterwards_it_is_in_no_file(kernel: Kernel, tmp_path: Path, name: str) -> None:
    operation, arguments = ACTIONS[name]
    token = kernel.agent()
    asked = kernel.gate.perform(token, Request(operation, arguments, why=f"the key is token={SECRET}"))
    assert asked.outcome is Outcome.WAITING, asked
    question = kernel.approvals.find(asked.approval_id)
    assert SECRET in repr(question.action.arguments)
    digest = question.digest
    assert digest == question.action.digest == asked.digest
    kernel.approvals.approve(asked.approval_id, sign("berta"))
    done = kernel.ask(token, operation, key="once", **arguments)
    assert (done.outcome, done.digest) == (Outcome.DONE, digest)
    assert SECRET in repr(kernel.ran), "what runs is the exact action"
    assert SECRET not in repr([entry.body for entry in kernel.log()])
    after = kernel.approvals.find(asked.approval_id)
    assert SECRET not in repr(after)
    assert after.digest == digest
    kernel.close()
    assert files_with(tmp_path, SECRET) == []


@pytest.mark.parametrize("end", ["deny", "withdraw", "refused"])
def test_however_a_question_ends_it_is_taken_out(kernel: Kernel, tmp_path: Path, end: str) -> None:
    token = kernel.agent()
    asked = kernel.ask(token, "terminal.run", argv=["deploy", f"--password={SECRET}"])
    if end == "deny":
        kernel.approvals.deny(asked.approval_id, sign("berta"))
    elif end == "withdraw":
        kernel.approvals.withdraw(asked.approval_id, kernel.gate.caller(token))
    else:
        kernel.approvals.deny(asked.approval_id, sign("berta"))
        assert kernel.ask(token, "terminal.run", argv=["deploy", f"--password={SECRET}"]).code == "APPROVAL_DENIED"
    kernel.close()
    assert files_with(tmp_path, SECRET) == []


def test_a_request_that_is_none_is_recorded_without_what_it_held(kernel: Kernel, tmp_path: Path) -> None:
    token = kernel.agent()
    for url in (f"https://me:{SECRET}@host.example/", f"ftp://host.example/?token={SECRET}"):
        assert kernel.ask(token, "http.request", url=url).outcome is Outcome.REFUSED
    kernel.close()
    assert files_with(tmp_path, SECRET) == []


def test_a_wider_answer_never_holds_a_credential(kernel: Kernel, tmp_path: Path) -> None:
    token = kernel.agent()
    arguments = {"argv": ["deploy", f"--password={SECRET}", "now"]}
    asked = kernel.ask(token, "terminal.run", **arguments)
    with pytest.raises(CohortError) as caught:
        kernel.approvals.approve(asked.approval_id, sign("berta", GrantScope.SESSION, argv_prefix=("deploy", f"--password={SECRET}")))
    assert caught.value.field == "argv_prefix"
    kernel.approvals.approve(asked.approval_id, sign("berta", GrantScope.SESSION, uses=3))
    assert [kernel.ask(token, "terminal.run", **arguments).outcome for _ in range(2)] == [Outcome.DONE] * 2
    assert GONE in kernel.approvals.rules()[0].plain
    assert SECRET not in repr(kernel.log())


def test_a_processs_words_are_kept_and_listed_without_it() -> None:
    with tempfile.TemporaryDirectory(prefix="cohort-words-") as folder:
        Path(folder).chmod(0o755)
        _starts(Path(folder))
        assert files_with(Path(folder), SECRET) == []


def _starts(folder: Path) -> None:
    spawner = Spawner()
    kernel = Kernel(folder, level=Level.NAMESPACES, private_uids=os.geteuid() == 0)
    processes = AgentProcesses(limited(parts(spawner)), kernel.database, SystemClock(), secrets.token_bytes, "here")
    for name, executor in ProcessExecutors(kernel.workspaces, processes, hosts_of).executors().items():
        kernel.gate.register(name, executor)
    try:
        token = kernel.agent()
        argv = ["true", f"--password={SECRET}"]
        kernel.approvals.approve(kernel.ask(token, "process.start", argv=argv).approval_id, sign("berta"))
        started = kernel.ask(token, "process.start", argv=argv)
        assert started.outcome is Outcome.DONE, started
        assert started.result["argv"] == ["true", f"--password={GONE}"]
        assert kernel.ask(token, "process.list").result["processes"][0]["argv"] == ["true", f"--password={GONE}"]
    finally:
        processes.close()
        spawner.close()
        kernel.close()
