"""`cohort approval watch`: the inbox on a terminal, where one key answers, and as lines for programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.kernel.face import Sign
from cohort.kernel.model import ApprovalState
from support_delivery import ADMIN_KEY, VIEWER_KEY, House, house
from support_kernel import Kernel, asked
from support_processes import environment
from support_server import serving
from support_terminal import Terminal

KEYS = "[a]pprove once, [d]eny, [s]kip, [q]uit"


@pytest.fixture
def home() -> House:
    return house()


@pytest.fixture
def kernel(home: House) -> Kernel:
    return home.kernel


@pytest.fixture
def url(home: House) -> Iterator[str]:
    with serving(home.control) as address:
        yield address


def watching(url: str, folder: Path) -> Terminal:
    return Terminal(url, folder, "approval", "watch")


def test_one_key_answers_each_question_and_what_comes_later_is_put_too(url: str, kernel: Kernel, tmp_path: Path) -> None:
    first, second = asked(kernel, path="one.csv"), asked(kernel, path="two.csv")
    terminal = watching(url, tmp_path)
    terminal.until_times(KEYS, 1)
    assert "one.csv" in terminal.shown
    assert "two.csv" not in terminal.shown  # one at a time
    terminal.key("a")
    terminal.until_times(KEYS, 2)
    terminal.key("d")
    terminal.until("denied by first-key")
    third = asked(kernel, path="three.csv")
    terminal.until_times(KEYS, 3)
    terminal.key("s")
    fourth = asked(kernel, path="four.csv")
    terminal.until_times(KEYS, 4)
    terminal.key("q")
    assert terminal.close() == 0
    states = [kernel.approvals.find(each.id).state for each in (first, second, third, fourth)]
    assert states == [ApprovalState.APPROVED, ApprovalState.DENIED, ApprovalState.PENDING, ApprovalState.PENDING]
    assert all(sign.looked_ms is not None for sign in kernel.approvals.signs)


def test_another_key_answers_nothing(url: str, kernel: Kernel, tmp_path: Path) -> None:
    question = asked(kernel)
    terminal = watching(url, tmp_path)
    terminal.until_times(KEYS, 1)
    terminal.key("y")
    asked(kernel, path="next.csv")
    terminal.until_times(KEYS, 2)
    terminal.key("q")
    assert terminal.close() == 0
    assert kernel.approvals.find(question.id).state is ApprovalState.PENDING


def test_an_answer_that_comes_too_late_is_told_and_ends_nothing(url: str, kernel: Kernel, tmp_path: Path) -> None:
    question = asked(kernel)
    terminal = watching(url, tmp_path)
    terminal.until_times(KEYS, 1)
    kernel.approvals.deny(question.id, Sign("ana"))
    terminal.key("a")
    terminal.until(f"{question.id}: ")
    asked(kernel, path="next.csv")
    terminal.until_times(KEYS, 2)
    assert kernel.approvals.find(question.id).state is ApprovalState.DENIED
    os.kill(terminal.process.pid, signal.SIGINT)
    assert terminal.close() == 130


def test_for_programs_each_change_is_one_line_and_nothing_is_asked(url: str, kernel: Kernel, tmp_path: Path) -> None:
    question = asked(kernel)
    with Piped(url, tmp_path, "--json") as watch:
        assert [item["id"] for item in json.loads(line(watch))["items"]] == [question.id]
        kernel.approvals.approve(question.id, Sign("ana"))
        assert json.loads(line(watch)) == {"items": []}


def test_without_a_terminal_each_question_is_shown_and_nothing_is_asked(url: str, kernel: Kernel, tmp_path: Path) -> None:
    question = asked(kernel, why="to see")
    with Piped(url, tmp_path) as watch:
        assert line(watch).startswith(f"{question.id}: Write report.csv")
        while '"to see"' not in line(watch):
            pass
    assert kernel.approvals.find(question.id).state is ApprovalState.PENDING


def test_whoever_may_only_look_is_told_so_by_the_first_answer(url: str, kernel: Kernel, tmp_path: Path) -> None:
    asked(kernel)
    terminal = Terminal(url, tmp_path, "approval", "watch", key=VIEWER_KEY)
    terminal.until_times(KEYS, 1)
    terminal.key("a")
    terminal.until("has no right to approve")
    assert terminal.close() == 1


class Piped:
    """The command with pipes instead of a terminal; ended at the end."""

    def __init__(self, url: str, folder: Path, *options: str) -> None:
        self._argv = [sys.executable, "-m", "cohort.surfaces.cli", "approval", "watch", *options]
        self._folder = folder
        self._told = environment(COHORT_URL=url, COHORT_KEY=ADMIN_KEY)

    def __enter__(self) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        self._process = subprocess.Popen(self._argv, text=True, cwd=self._folder, env=self._told, **pipes)
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(20) == 130
        assert self._process.stdout is not None
        self._process.stdout.close()


def line(watch: subprocess.Popen[str]) -> str:
    assert watch.stdout is not None
    return watch.stdout.readline()
