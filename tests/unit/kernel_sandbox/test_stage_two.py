"""The program that the kernel writes itself, executed as it is: without bubblewrap around it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from cohort.kernel.sandbox import landlock, stage_two
from cohort.kernel.sandbox.stage_two import GO, GO_AHEAD, SET_UP, TELL, Ending, Plan

pytestmark = pytest.mark.skipif(not stage_two.HERE, reason="machine code of Linux on x86_64")


def plan(*paths: str, rules: landlock.Rules | None = None, cwd: str = "/", variables: tuple[str, ...] = ("A=1",)) -> Plan:
    return Plan(rules, landlock.abi(), ((resource.RLIMIT_NPROC, 1000),), cwd, paths or ("/bin/sh",), "sh", variables)


def execute(tmp_path: Path, what: Plan, argv: Sequence[str], go: bytes = GO_AHEAD) -> tuple[Ending, bytes, bytes]:
    """Run it with its two descriptors where bubblewrap would have left them; answers what it told and what the command said."""
    made = stage_two.image(what)
    file = tmp_path / "stage-two"
    file.write_bytes(made.file)
    file.chmod(0o755)
    told_r, told_w = os.pipe()
    go_r, go_w = os.pipe()
    os.write(go_w, go)
    os.close(go_w)

    def arrange() -> None:
        first, second = os.dup(told_w), os.dup(go_r)
        os.dup2(first, TELL)
        os.dup2(second, GO)
        os.closerange(GO + 1, 100)

    with subprocess.Popen(
        [file, *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=arrange,
        close_fds=False,
        env={"B": "2"},
    ) as process:
        os.close(told_w)
        os.close(go_r)
        out, err = process.communicate(timeout=20)
    told = b""
    while chunk := os.read(told_r, 4096):
        told += chunk
    os.close(told_r)
    assert told.startswith(SET_UP)
    return stage_two.ending(told, made), out, err


def test_it_executes_and_tells_the_status_and_the_usage(tmp_path: Path) -> None:
    ending, out, _ = execute(tmp_path, plan(), ["sh", "-c", "echo $0 $A [$B]; exit 9", "arg"])
    assert (ending.started, os.waitstatus_to_exitcode(ending.status or 0), out) == (True, 9, b"arg 1 []\n")
    assert ending.memory_bytes > 100_000
    assert 0 <= ending.cpu_us < 1_000_000


def test_a_signal_is_told_as_a_signal(tmp_path: Path) -> None:
    ending, _, _ = execute(tmp_path, plan(), ["sh", "-c", "kill -11 $$"])
    assert os.WTERMSIG(ending.status or 0) == signal.SIGSEGV


def test_paths_are_tried_in_order(tmp_path: Path) -> None:
    ending, out, _ = execute(tmp_path, plan("/nowhere/sh", "/bin/sh", "/bin/false"), ["sh", "-c", "echo here"])
    assert (ending.status, out) == (0, b"here\n")


def test_a_program_that_is_nowhere_is_said_on_standard_error(tmp_path: Path) -> None:
    ending, _, err = execute(tmp_path, plan("/nowhere/x"), ["x"])
    assert (ending.started, ending.status) == (True, 127 << 8)
    assert err == b"cohort: sh: not found, or not executable\n"


def test_a_folder_that_cannot_be_entered_executes_nothing(tmp_path: Path) -> None:
    ending, out, _ = execute(tmp_path, plan(cwd="/nowhere"), ["sh", "-c", "echo x"])
    assert (ending.started, ending.failed, ending.error, out) == (False, "folder", 2, b"")
    assert stage_two.reason(ending) == "folder: ENOENT"


def test_without_permission_it_executes_nothing(tmp_path: Path) -> None:
    """The kernel's end was closed: it died, or refused."""
    ending, out, _ = execute(tmp_path, plan(), ["sh", "-c", "echo x"], go=b"")
    assert (ending.started, ending.failed, out) == (False, "permission to begin", b"")


def test_only_the_three_descriptors_are_left(tmp_path: Path) -> None:
    _, out, _ = execute(tmp_path, plan("/bin/ls"), ["ls", "/proc/self/fd"])
    assert out.split() == [b"0", b"1", b"2", b"3"], "3 is the listing itself"


def test_the_rules_hold_for_the_command(tmp_path: Path) -> None:
    if landlock.abi() == 0:
        pytest.skip("this kernel has no Landlock")
    (tmp_path / "secret").write_text("x")
    rules = landlock.Rules(files=(("/usr", landlock.RUN), ("/bin", landlock.RUN), ("/lib", landlock.RUN), ("/lib64", landlock.RUN)))
    ending, out, err = execute(tmp_path, plan(rules=rules), ["sh", "-c", f"cat {tmp_path}/secret; cat /usr/bin/true | wc -c"])
    assert b"Permission denied" in err
    assert int(out) > 1000
    assert ending.status == 0


def test_a_rule_on_a_path_that_is_not_there_executes_nothing(tmp_path: Path) -> None:
    if landlock.abi() == 0:
        pytest.skip("this kernel has no Landlock")
    ending, _, _ = execute(tmp_path, plan(rules=landlock.Rules(files=(("/nowhere", landlock.READ),))), ["true"])
    assert (ending.started, ending.failed) == (False, "Landlock /nowhere")


@pytest.mark.parametrize("told", [b"", b"SET UP\0\0", b"SET UP\0\0GSTAR", b"\0" * 16])
def test_anything_else_means_that_it_did_not_start(told: bytes) -> None:
    assert not stage_two.ending(told, stage_two.image(plan())).started


def test_a_start_without_a_status_means_that_its_supervisor_was_killed() -> None:
    ending = stage_two.ending(SET_UP + GO_AHEAD + stage_two.STARTED, stage_two.image(plan()))
    assert (ending.started, ending.status) == (True, None)
