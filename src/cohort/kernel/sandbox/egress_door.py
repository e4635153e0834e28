"""The process that opens listeners inside sandboxes, and the descriptor it passes back."""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from cohort.base.errors import CohortError, Retry
from cohort.kernel.sandbox import egress_join

ANSWER_WAIT_S = 5.0
BACKLOG = 256


class Door:
    """Started at the first use, ended by `close`; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def open(self, pid: int, port: int) -> socket.socket:
        """A socket that listens on 127.0.0.1:`port` in the network namespace of `pid`.

        Raises:
            CohortError SANDBOX_UNAVAILABLE: nothing listens.
        """
        with self._lock:
            try:
                return self._ask(pid, port)
            except OSError as error:
                self._end()  # a late answer must not be taken for the next one's
                raise _unavailable(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        with self._lock:
            self._end()

    def _ask(self, pid: int, port: int) -> socket.socket:
        channel = self._running()
        channel.send(egress_join.REQUEST.pack(pid, port, BACKLOG))
        answer, rights = _receive(channel)
        if answer != egress_join.LISTENING or rights is None:
            raise _unavailable(answer.decode(errors="replace") or "the process that opens listeners ended")
        return socket.socket(fileno=rights)

    def _running(self) -> socket.socket:
        if self._channel is not None and self._process is not None and self._process.poll() is None:
            return self._channel
        self._end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(ANSWER_WAIT_S)
        with theirs:
            argv = [sys.executable, "-I", "-S", str(Path(egress_join.__file__)), str(theirs.fileno())]
            self._process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], env={}, cwd="/", stdin=subprocess.DEVNULL)
        self._channel = ours
        return ours

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _receive(channel: socket.socket) -> tuple[bytes, int | None]:
    integers = array.array("i")
    answer, ancillary, _, _ = channel.recvmsg(egress_join.ANSWER_BYTES_MAX, socket.CMSG_LEN(integers.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            integers.frombytes(data[: integers.itemsize])
    return answer, integers[0] if integers else None


def _unavailable(why: str) -> CohortError:
    hint = "Run `cohort doctor` to see what this machine can contain."
    return CohortError(
        "SANDBOX_UNAVAILABLE", f"no way out to the network could be opened in the sandbox: {why}", retry=Retry.SAFE, hint=hint
    )


def own_listener() -> socket.socket:
    """A socket that listens on a free port of this machine's loopback address, for sandboxes without a network namespace."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    os.set_inheritable(listener.fileno(), False)
    return listener
