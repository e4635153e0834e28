"""Processes of this machine: who they are by their command line, how to start one, how to end one.

A process is recognised by its command line, not by a remembered number: numbers are reused, and one written
down can be lost between start and write.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

PS_TIMEOUT_S = 5.0
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Found:
    """A process of this user. `argv` is its command line; where the system shows only one string, that string split at spaces."""

    pid: int
    argv: tuple[str, ...]


class Handle(Protocol):
    """A process that is watched: started here, or found running."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None:
        """None while it runs; else the exit status, negative for a signal. 0 where the status cannot be known."""
        ...

    def send(self, number: signal.Signals) -> None:
        """To the whole process group; nothing happens when it is gone."""
        ...


class Child:
    """A process started here, in a session and group of its own."""

    def __init__(self, argv: Sequence[str], log: BinaryIO, environment: Mapping[str, str] | None, inherits: Sequence[int] = ()) -> None:
        self._popen = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            pass_fds=inherits,
        )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def poll(self) -> int | None:
        return self._popen.poll()

    def send(self, number: signal.Signals) -> None:
        if self._popen.poll() is None:
            _signal_group(self.pid, number)


class Adopted:
    """A process found running, known by its command line."""

    def __init__(self, found: Found) -> None:
        self._found = found

    @property
    def pid(self) -> int:
        return self._found.pid

    def poll(self) -> int | None:
        return None if command_line(self.pid) == self._found.argv else 0

    def send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            _signal_group(self.pid, number)


def start(argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, inherits: Sequence[int] = ()) -> Child:
    """Run `argv` with everything it prints appended to `log`. `inherits`: open files it keeps, under the same numbers."""
    with log.open("ab") as file:
        return Child(argv, file, environment, inherits)


def end(handle: Handle, within_s: float) -> bool:
    """SIGTERM, then SIGKILL after `within_s`. True when it went by itself."""
    handle.send(signal.SIGTERM)
    if gone(handle, within_s):
        return True
    handle.send(signal.SIGKILL)
    gone(handle, within_s)
    return False


def gone(handle: Handle, within_s: float) -> bool:
    """Wait for the process to end; False when it still runs after `within_s`."""
    deadline = time.monotonic() + within_s
    while handle.poll() is None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def tell(pid: int, number: signal.Signals) -> None:
    """Signal one process; nothing happens when it is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def command_line(pid: int) -> tuple[str, ...] | None:
    """The command line of a process; None when it is gone, a zombie, or somebody else's and hidden."""
    if sys.platform == "linux":
        return _from_proc(pid)
    return next((found.argv for found in _from_ps("-p", str(pid))), None)


def own_processes() -> list[Found]:
    """Every process of this user with a command line."""
    if sys.platform != "linux":
        return _from_ps("-U", str(os.getuid()))
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _owner(entry) == os.getuid()]
    return [Found(pid, argv) for pid in pids if (argv := _from_proc(pid))]


def _owner(entry: Path) -> int | None:
    try:
        return entry.stat().st_uid
    except OSError:
        return None  # it ended while we looked


def _from_proc(pid: int) -> tuple[str, ...] | None:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    return tuple(os.fsdecode(raw).rstrip("\0").split("\0")) if raw else None


def _from_ps(*which: str) -> list[Found]:
    listing = subprocess.run(
        ["ps", "-ww", "-o", "pid=,state=,command=", *which], capture_output=True, text=True, timeout=PS_TIMEOUT_S, check=False
    )
    rows = [line.split() for line in listing.stdout.splitlines()]
    return [Found(int(row[0]), tuple(row[2:])) for row in rows if len(row) > 2 and not row[1].startswith("Z")]


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        # Its group is gone, or (on some systems) holds only a zombie.
        return
