"""Commands through the gate in the real sandbox, with everything they leave in the log and the journal."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cohort.base.clock import SystemClock
from cohort.kernel.model import Autonomy, Level, Outcome
from cohort.kernel.ports import Sandbox
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.spawner import OnSpawn, Spawner
from support_gate_rooms import Kernel
from support_sandbox import need_bubblewrap


@pytest.fixture(scope="module")
def installed() -> Iterator[tuple[Kernel, str]]:
    """An installation with bubblewrap, in a folder that a private uid can pass through, and an agent that need not ask."""
    need_bubblewrap()
    with ExitStack() as after:
        folder = Path(tempfile.mkdtemp(prefix="cohort-gate-"))
        after.callback(shutil.rmtree, folder)
        folder.chmod(0o755)
        spawner = Spawner()
        after.callback(spawner.close)

        def sandbox_of(on_spawn: OnSpawn) -> Sandbox:
            return Bubblewrap(Parts(spawner, SystemClock(), on_spawn), warm=False)

        kernel = Kernel(folder, level=Level.NAMESPACES, sandbox_of=sandbox_of, private_uids=os.geteuid() == 0)
        after.callback(kernel.close)
        yield kernel, kernel.agent(autonomy=Autonomy.AGGRESSIVE)


def test_a_command_runs_in_the_workspace_and_says_how_it_ended(installed: tuple[Kernel, str]) -> None:
    kernel, token = installed
    kernel.ask(token, "files.write", path="a.txt", content="from a file\n")
    done = kernel.ask(token, "terminal.run", argv=["cat", "a.txt"])
    assert (done.outcome, done.result["exit_code"], done.result["stdout"]) == (Outcome.DONE, 0, "from a file\n")
    failed = kernel.ask(token, "terminal.run", shell="echo no >&2; exit 3", stdin="x")
    assert (failed.outcome, failed.result["exit_code"], failed.result["stderr"]) == (Outcome.DONE, 3, "no\n")
    assert done.level >= Level.NAMESPACES


def test_a_python_program_runs_with_and_without_an_input(installed: tuple[Kernel, str]) -> None:
    kernel, token = installed
    code = "import sys\nprint(len(sys.stdin.read()))"
    assert kernel.ask(token, "python.run", code=code, stdin="four").result["stdout"] == "4\n"
    assert kernel.ask(token, "python.run", code="print('é')").result["stdout"] == "é\n"
    refused = kernel.ask(token, "python.run", code="#" * 200_000, stdin="x")
    assert (refused.outcome, refused.code) == (Outcome.FAILED, "ARGUMENT_INVALID")


def test_output_does_not_act_on_who_reads_it(installed: tuple[Kernel, str]) -> None:
    kernel, token = installed
    result = kernel.ask(token, "terminal.run", argv=["printf", "\\033[2Jgone\\rback"])
    assert result.result["stdout"] == "gone\\u{d}back"


def test_every_execution_is_in_the_journal_and_none_is_a_breach(installed: tuple[Kernel, str]) -> None:
    kernel, token = installed
    before = kernel.reconciler().compare()
    kernel.ask(token, "terminal.run", argv=["true"])
    kernel.ask(token, "python.run", code="print(1)")
    kernel.ask(token, "files.list")
    after = kernel.reconciler().compare()
    assert after.executions == before.executions + 3
    assert (after.bypasses, after.containment_violations, after.unauthorised) == (0, 0, 0), after.findings
