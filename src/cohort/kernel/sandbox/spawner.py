"""The one process that all sandboxes are started by, and the orders it takes. See `forker.py`, which is that process."""

from __future__ import annotations

import array
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cohort.base.errors import CohortError, Retry

ORDER_BYTES_MAX = 128 << 10
"""Of the arguments and variables of one command, as JSON."""
FORKER = Path(__file__).with_name("forker.py")
END_WAIT_S = 5.0
SEND_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Spawn:
    """What the journal of executions is told, before it happens: independent of what the action gate believes it ordered.

    `label`: `Command.label`. `backend`: the sandbox's name.
    """

    workspace: str
    argv: tuple[str, ...]
    label: str
    at_us: int
    backend: str


OnSpawn = Callable[[Spawn], None]
"""Called in the thread that asked, before anything is executed. When it raises, nothing is executed and the error goes to the caller."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the forker is asked to start; see `forker._prepare` for the order of the steps.

    `rlimits`: pairs of a resource and the value of both its limits. `landlock`: number of the descriptor of a rule set. `seccomp`: a
    filter in base64. `nanny`: whether a parent stays that ends what the program leaves behind. `forgive`: a program that is not there
    is the command's own failure (127), not the sandbox's.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    owner: tuple[int, int] | None = None
    rlimits: tuple[tuple[int, int], ...] = ()
    cgroups: tuple[str, ...] = ()
    landlock: int | None = None
    seccomp: str | None = None
    nanny: bool = False
    forgive: bool = False
    tell: tuple[int, ...] = ()

    def message(self, id: int, numbers: list[int]) -> dict[str, Any]:
        """As the forker reads it. The number -1 among `numbers` stands for a program to execute instead of `argv[0]`."""
        said: dict[str, Any] = {"id": id, "argv": list(self.argv), "env": dict(self.env), "cwd": self.cwd, "fds": numbers}
        if self.owner is not None:
            said["uid"], said["gid"] = self.owner
        optional = {"rlimits": self.rlimits, "cgroups": self.cgroups, "landlock": self.landlock, "seccomp": self.seccomp}
        flags = {"nanny": self.nanny, "forgive": self.forgive, "tell": self.tell}
        return said | {name: value for name, value in (optional | flags).items() if value not in (None, (), False)}


class Line:
    """The control side of a forker's socket. Safe to use from many threads."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._end.settimeout(SEND_WAIT_S)
        self._lock = threading.Lock()
        self._ids = itertools.count(1)

    def start(self, order: Order, fds: Mapping[int, int]) -> tuple[int, int]:
        """Ask to start `order`, with `fds`: number there to descriptor here. Returns its id and a descriptor to read how it goes.

        Raises:
            CohortError SANDBOX_UNAVAILABLE: the forker is gone. ARGUMENT_INVALID: the order is too long.
        """
        id = next(self._ids)
        data = json.dumps(order.message(id, list(fds))).encode()
        if len(data) > ORDER_BYTES_MAX:
            raise CohortError(
                "ARGUMENT_INVALID", f"arguments and variables of {len(data)} bytes", field="argv", hint="Write them to a file instead."
            )
        told_r, told_w = os.pipe()
        os.set_blocking(told_r, False)
        try:
            self._send(data, [told_w, *fds.values()])
        except OSError as error:
            os.close(told_r)
            raise unavailable(f"the spawner does not answer: {error}") from error
        finally:
            os.close(told_w)
        return id, told_r

    def signal(self, id: int, number: int) -> None:
        """To what was started as `id`; nothing happens when it has ended, or the forker has."""
        try:
            self._send(json.dumps({"kill": id, "signal": number}).encode(), [])
        except OSError:
            return

    def close(self) -> None:
        """End the forker and everything it started."""
        self._end.close()

    def _send(self, data: bytes, fds: list[int]) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with self._lock:
            self._end.sendmsg([data], ancillary)


class Spawner:
    """Starts the process when it is first needed, and again when it is gone; then everything it had started is gone too.

    `begun` is called with its process id each time, before it has started anything: what it is given, everything it starts inherits.
    """

    def __init__(self, python: str = sys.executable, begun: Callable[[int], object] | None = None) -> None:
        self._python = python
        self._begun = begun
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Line | None = None

    def line(self) -> Line:
        """Errors: SANDBOX_UNAVAILABLE."""
        with self._lock:
            if self._process is not None and self._process.poll() is None and self._line is not None:
                return self._line
            self._forget()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            argv = [self._python, "-I", "-S", str(FORKER)]
            try:
                self._process = subprocess.Popen(argv, stdin=theirs.fileno(), env=dict[str, str](), cwd="/", start_new_session=True)
            except OSError as error:
                ours.close()
                raise unavailable(f"the spawner cannot be started: {error}") from error
            finally:
                theirs.close()
            if self._begun is not None:
                self._begun(self._process.pid)
            self._line = Line(ours)
            return self._line

    @property
    def pid(self) -> int | None:
        """Of the process; None when there is none. What it starts inherits from it."""
        process = self._process
        return None if process is None else process.pid

    def close(self) -> None:
        """End everything that was started; afterwards a new order starts a new spawner."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._process is not None:
            try:
                self._process.wait(END_WAIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def unavailable(what: str, hint: str = "Run `cohort doctor`.") -> CohortError:
    return CohortError("SANDBOX_UNAVAILABLE", what, retry=Retry.SAFE, hint=hint)
