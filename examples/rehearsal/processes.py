"""Child processes that are started, listened to and ended by their process id."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

STOP_S = 10.0
SAID_LINES_MAX = 30
JSON_LINES_MAX = 200
OWN_PORTS = range(20_000, 32_000)
PORTS_TRIED = 100


class Failed(Exception):
    """Something the demo needs did not happen; the text says what, and what was said meanwhile."""


class Child:
    """One process in a session of its own, so that Ctrl-C reaches the demo alone, which then ends its children in order."""

    def __init__(
        self, name: str, argv: Sequence[str], *, environment: Mapping[str, str], folder: Path, listen: Callable[[dict[str, Any]], None]
    ):
        self.name = name
        self._listen = listen
        self._ready = threading.Event()
        self.first: dict[str, Any] = {}
        self.said: deque[str] = deque(maxlen=SAID_LINES_MAX)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            argv, env=dict(environment), cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        self._threads = [threading.Thread(target=read, daemon=True) for read in (self._read_documents, self._read_talk)]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_first(self, within_s: float) -> dict[str, Any]:
        """The first document on its stdout.

        Raises:
            Failed: it ended before, or said nothing in time.
        """
        if not self._ready.wait(within_s) or not self.first:
            what = f"ended with code {self._process.poll()}" if not self.alive else f"was not ready within {within_s:g} s"
            raise Failed(f"{self.name} {what}: {' | '.join(self.said) or 'it said nothing'}")
        return self.first

    def tell(self, command: dict[str, Any]) -> None:
        """One line of JSON on its stdin. A child that has ended hears nothing."""
        try:
            if self._process.stdin is not None:
                self._process.stdin.write(json.dumps(command) + "\n")
                self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            self.said.append("(could not be told: its stdin is closed)")

    def stop(self, within_s: float = STOP_S) -> int:
        """SIGTERM, then SIGKILL to this very process; its exit code."""
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        for thread in self._threads:
            thread.join(1.0)
        return code

    def _read_documents(self) -> None:
        """JSON on stdout: a document a line, or one over several lines."""
        assert self._process.stdout is not None
        pending: list[str] = []
        for line in self._process.stdout:
            pending.append(line)
            try:
                document = json.loads("".join(pending))
            except ValueError:
                del pending[:-JSON_LINES_MAX]
                continue
            pending.clear()
            self.first = self.first or document
            self._ready.set()
            self._listen(document)
        self._ready.set()

    def _read_talk(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said.append(line.rstrip())


def kill_at_once(pid: int) -> None:
    """SIGKILL to one process, which the demo has just been told the id of."""
    os.kill(pid, signal.SIGKILL)


def gone(pid: int) -> bool:
    """Whether no process has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def free_port(preferred: int) -> int:
    """`preferred` where it is free on loopback (0: none is), else one below those that the system hands out, to connections too."""
    first = OWN_PORTS.start + os.getpid() * 997 % (len(OWN_PORTS) - PORTS_TRIED)
    for port in (*([preferred] if preferred else ()), *range(first, first + PORTS_TRIED)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Failed("no port is free on 127.0.0.1")
