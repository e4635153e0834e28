"""kill -9 at every step of an action: nothing ran without its intent, and after a restart the log says what is known."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cohort.kernel.actions.gate import STEPS
from cohort.kernel.face import Sign
from cohort.kernel.model import Autonomy, Outcome
from support_gate_rooms import Kernel

CHILD = """
import os, signal, sys
from pathlib import Path
from support_gate_rooms import Kernel

folder, step, token = sys.argv[1:]

def at(reached):
    if reached == step:
        os.kill(os.getpid(), signal.SIGKILL)

kernel = Kernel(Path(folder), at=at)
kernel.ask(token, "files.delete", key="once", path="victim")
kernel.close()
"""
EXECUTED = {"executed", "ended"}
RECORDED = {"recorded", *EXECUTED}


def die_at(folder: Path, step: str, token: str) -> int:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", CHILD, str(folder), step, token], env=environment, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Path, str]:
    """An installation with a file to delete, shut down."""
    kernel = Kernel(tmp_path)
    token = kernel.agent()
    assert kernel.ask(token, "files.write", path="victim", content="x").outcome is Outcome.DONE
    kernel.close()
    return tmp_path, token


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_nothing_ran_without_its_record(prepared: tuple[Path, str], step: str) -> None:
    folder, token = prepared
    assert die_at(folder, step, token) == -signal.SIGKILL
    kernel = Kernel(folder)
    try:
        intents = [entry.body["action"] for entry in kernel.log() if entry.body["kind"] == "intent"][1:]
        gone = not (kernel.root() / "victim").exists()
        assert len(intents) == (1 if step in RECORDED else 0)
        assert gone == (step in EXECUTED)
        assert kernel.closed_orphans == (1 if step in RECORDED - {"ended"} else 0)
        verification = kernel.audit.desk.verify()
        assert (verification.integrity, verification.complete) == ("verified", True)
        counts = kernel.reconciler().compare()
        assert (counts.bypasses, counts.containment_violations, counts.unauthorised) == (0, 0, 0)
        again = kernel.ask(token, "files.delete", key="once", path="victim")
        began = step in RECORDED | {"claimed"}
        assert (again.outcome, again.code) == ((Outcome.UNKNOWN, "OUTCOME_UNKNOWN") if began else (Outcome.DONE, None))
        if intents:
            known = kernel.gate.result(intents[0])
            assert known.outcome is (Outcome.DONE if step == "ended" else Outcome.UNKNOWN)
    finally:
        kernel.close()


def test_a_consumed_approval_is_gone_after_a_crash_and_never_used_twice(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    token = kernel.agent(autonomy=Autonomy.CONSERVATIVE)
    kernel.ask(token, "files.write", path="victim", content="x")
    asked = kernel.ask(token, "files.delete", path="victim")
    assert asked.approval_id is not None
    kernel.approvals.approve(asked.approval_id, Sign("anna"))
    kernel.close()
    assert die_at(tmp_path, "approved", token) == -signal.SIGKILL
    kernel = Kernel(tmp_path)
    try:
        again = kernel.ask(token, "files.delete", path="victim")
        assert again.outcome is Outcome.WAITING
        assert again.approval_id != asked.approval_id
        assert (kernel.root() / "victim").exists()
    finally:
        kernel.close()
