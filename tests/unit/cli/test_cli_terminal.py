"""Commands on a real terminal: ruled tables, a live picture, and a question before what is dangerous."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.delivery.face import Act
from support_delivery import ADMIN_KEY, House, house
from support_processes import environment
from support_server import serving

RUNNING = "ro_k3v9q2m7x4c8b5nt"
WITHIN_S = 20.0


class Terminal:
    """A command on a terminal of its own, 150 columns wide."""

    def __init__(self, url: str, folder: Path, *arguments: str) -> None:
        self._fd, inner = pty.openpty()
        told = environment(COHORT_URL=url, COHORT_KEY=ADMIN_KEY, COLUMNS="150", LINES="60", TERM="xterm-256color")
        argv = [sys.executable, "-m", "cohort.surfaces.cli", *arguments]
        self.process = subprocess.Popen(argv, stdin=inner, stdout=inner, stderr=inner, cwd=folder, env=told, start_new_session=True)
        os.close(inner)
        self.shown, self._bytes = "", b""

    def until(self, words: str) -> str:
        """Read until `words` were shown; everything shown so far."""
        deadline = time.monotonic() + WITHIN_S
        while words not in self.shown:
            assert time.monotonic() < deadline, self.shown
            self._read()
        return self.shown

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def close(self) -> int:
        """Its exit code, with everything that was still to be shown."""
        deadline = time.monotonic() + WITHIN_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.shown
            self._read()
        os.close(self._fd)
        return self.process.returncode

    def _read(self) -> None:
        if not select.select([self._fd], [], [], 0.1)[0]:
            return
        try:
            self._bytes += os.read(self._fd, 65536)
        except OSError:
            self.process.wait(WITHIN_S)  # Linux says EIO when the last writer has gone
        self.shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._bytes.decode(errors="ignore"))


@pytest.fixture
def home() -> House:
    return house()


@pytest.fixture
def url(home: House) -> Iterator[str]:
    with serving(home.control) as address:
        yield address


def test_a_table_is_ruled(url: str, tmp_path: Path) -> None:
    terminal = Terminal(url, tmp_path, "service", "list")
    terminal.until("support")
    assert terminal.close() == 0
    assert "──" in terminal.shown


def test_a_promotion_is_asked_about_and_no_changes_nothing(url: str, home: House, tmp_path: Path) -> None:
    terminal = Terminal(url, tmp_path, "rollout", "promote", RUNNING, "--reason", "late")
    terminal.until("Go on? [y/N]")
    terminal.type("n\n")
    terminal.until("nothing was changed")
    assert terminal.close() == 3
    assert home.rollouts.acts == []


def test_a_yes_is_for_the_revision_that_was_seen(url: str, home: House, tmp_path: Path) -> None:
    terminal = Terminal(url, tmp_path, "rollout", "abort", RUNNING)
    terminal.until("Go on? [y/N]")
    home.rollouts.pause(RUNNING, Act("somebody", "else"))
    terminal.type("y\n")
    terminal.until("error: ")
    assert terminal.close() == 1
    assert [verb for verb, _, _ in home.rollouts.acts] == ["pause"]


def test_watching_draws_the_ladder_and_ends_quietly_with_ctrl_c(url: str, tmp_path: Path) -> None:
    terminal = Terminal(url, tmp_path, "rollout", "watch", RUNNING)
    terminal.until("towards harmful")
    terminal.until("█")
    os.kill(terminal.process.pid, signal.SIGINT)
    assert terminal.close() == 130
    assert "Traceback" not in terminal.shown
