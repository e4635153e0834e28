"""The two ends of everything that leads into a sandbox: ours stay here, theirs get numbers there."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from types import TracebackType

MFD_NOEXEC_SEAL, MFD_EXEC = 0x8, 0x10
PROGRAM = -1
"""Stands for the number of a program lent: it needs none, because it is executed before it could be used otherwise."""


class Ends:
    """Pipes and given data. As a context: theirs are closed at its end, and ours too when it ends in an error."""

    def __init__(self) -> None:
        self.theirs: dict[int, int] = {}
        self.ours: dict[str, int] = {}

    def __enter__(self) -> Ends:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _close(self.theirs.values())
        self.theirs = {}
        if kind is not None:
            self.close()

    def hear(self, name: str, number: int) -> None:
        """A pipe from `number` there."""
        self.ours[name], self.theirs[number] = os.pipe()
        os.set_blocking(self.ours[name], False)

    def speak(self, name: str, number: int) -> None:
        """A pipe to `number` there."""
        self.theirs[number], self.ours[name] = os.pipe()
        os.set_blocking(self.ours[name], False)

    def give(self, number: int, content: bytes) -> None:
        """`content`, to be read from `number` there."""
        self.theirs[number] = fd = _memory(MFD_NOEXEC_SEAL)
        _fill(fd, content)

    def lend_program(self, content: bytes) -> int | None:
        """A file in memory that can be executed; None where the system does not want any."""
        try:
            fd = _memory(MFD_EXEC)
        except OSError:
            return None
        self.theirs[PROGRAM] = fd
        _fill(fd, content)
        return fd

    def nothing(self, number: int) -> None:
        """An empty input."""
        self.theirs[number] = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        _close(self.ours.values())
        self.ours = {}


def _memory(flag: int) -> int:
    """A file in memory; `flag` says whether it may be executed, which kernels before 6.3 do not ask."""
    try:
        return os.memfd_create("given", os.MFD_CLOEXEC | flag)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("given", os.MFD_CLOEXEC)


def _fill(fd: int, content: bytes) -> None:
    """Without moving its place: it is read from its beginning."""
    written = 0
    while written < len(content):
        written += os.pwrite(fd, memoryview(content)[written:], written)


def _close(fds: Iterable[int]) -> None:
    for fd in list(fds):
        with contextlib.suppress(OSError):
            os.close(fd)
