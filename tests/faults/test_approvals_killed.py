"""kill -9 between an answer and its use, and inside each change: what was granted is granted once, what was not is not."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.model import ApprovalState, GrantScope
from support_approvals import POLICY, MemoryAudit, action, desk, question, sign
from support_processes import environment

CHILD = """
import sys
from cohort.base.clock import ManualClock
from cohort.storage.database import open_database
from support_approvals import MemoryAudit, action, desk, question, sign, POLICY

class StopsInside(MemoryAudit):
    def append(self, record):
        position = super().append(record)
        if record.body["event"] == stop_at:
            print("inside", flush=True)
            sys.stdin.read()
        return position

url, stop_at, step, seed = sys.argv[1:]
approvals = desk(open_database(url), ManualClock(), StopsInside(), seed)
if step == "ask":
    approvals.ask(question(action()))
else:
    [pending] = [each for each in approvals.list() if each.digest == action().digest]
    approvals.approve(pending.id, sign("anna")) if step == "approve" else approvals.consume(action(), POLICY, None)
print("done", flush=True)
sys.stdin.read()
"""


@contextmanager
def child(url: str, step: str, stop_at: str = "nowhere") -> Iterator[str]:
    """A process that does `step`, killed with SIGKILL once it says that it has, or that it is inside the change."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", CHILD, url, stop_at, step, step], env=environment(), **pipes) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.fixture
def approvals(database, clock):
    return desk(database, clock, MemoryAudit())


def test_an_answer_outlives_the_process_that_took_it_and_is_used_once(approvals, url):
    asked = approvals.ask(question(action()))
    with child(url, "approve") as said:
        assert said == "done"
    assert approvals.find(asked.id).approvers == ("anna",)
    assert approvals.consume(action(), POLICY, None) is not None
    assert approvals.consume(action(), POLICY, None) is None


def test_a_grant_taken_by_a_process_that_died_is_gone(approvals, url):
    asked = approvals.ask(question(action()))
    approvals.approve(asked.id, sign())
    with child(url, "consume") as said:
        assert said == "done"
    assert approvals.consume(action(), POLICY, None) is None
    assert approvals.find(asked.id).state is ApprovalState.CONSUMED


@pytest.mark.parametrize(("step", "stop_at"), [("ask", "asked"), ("approve", "answered"), ("consume", "consumed")])
def test_a_process_killed_between_record_and_commit_has_changed_nothing(approvals, url, step, stop_at):
    if step != "ask":
        asked = approvals.ask(question(action()))
    if step == "consume":
        approvals.approve(asked.id, sign())
    with child(url, step, stop_at) as said:
        assert said == "inside"
    if step == "ask":
        assert approvals.list() == []
    elif step == "approve":
        assert approvals.find(asked.id) == asked
        approvals.approve(asked.id, sign("anna", GrantScope.SESSION))
    else:
        assert approvals.consume(action(), POLICY, None) is not None
        assert approvals.consume(action(), POLICY, None) is None


def test_a_full_or_failing_log_refuses_and_loses_nothing(approvals, database, clock):
    class Fails(MemoryAudit):
        def append(self, record):
            raise CohortError("OUTCOME_UNKNOWN", "it may be in the log")

    asked = approvals.ask(question(action()))
    approvals.approve(asked.id, sign())
    failing = desk(database, clock, Fails(), "failing")
    with pytest.raises(CohortError, match="may be in the log"):
        failing.consume(action(), POLICY, None)
    assert approvals.find(asked.id).state is ApprovalState.APPROVED
