"""A command on a real terminal: what it shows is read, what a person types is written."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

from support_delivery import ADMIN_KEY
from support_processes import environment

WITHIN_S = 20.0


class Terminal:
    """A command on a terminal of its own, 150 columns wide."""

    def __init__(self, url: str, folder: Path, *arguments: str, key: str = ADMIN_KEY) -> None:
        self._fd, inner = pty.openpty()
        told = environment(COHORT_URL=url, COHORT_KEY=key, COLUMNS="150", LINES="60", TERM="xterm-256color")
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

    def until_times(self, words: str, times: int) -> str:
        """Read until `words` were shown so often; everything shown so far."""
        deadline = time.monotonic() + WITHIN_S
        while self.shown.count(words) < times:
            assert time.monotonic() < deadline, self.shown
            self._read()
        return self.shown

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def key(self, text: str) -> None:
        """One key, typed once the command reads keys: what was typed before is thrown away, so that nobody answers a question not yet seen."""
        deadline = time.monotonic() + WITHIN_S
        while termios.tcgetattr(self._fd)[3] & termios.ICANON:
            assert time.monotonic() < deadline, self.shown
            self._read()
        self.type(text)

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
