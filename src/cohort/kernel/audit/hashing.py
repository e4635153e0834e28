"""Stretches of the log, hashed by other processes while this one looks at what comes out: all cores work, where threads would share one.

It only ever saves work. A stretch that is not whole, or that no process answers for, is read here row by row, and judged there; so a verdict
never hangs on another process, nor on which of them was quicker.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from subprocess import DEVNULL, PIPE
from typing import IO

from cohort.kernel.audit import hasher
from cohort.kernel.audit.merkle import HASH_BYTES, TILE_WIDTH
from cohort.kernel.audit.store import Rows
from cohort.storage.database import Database

PROCESSES = 2
AHEAD = 2
"""Stretches that each process is asked for before its first answer was read."""

Process = subprocess.Popen[bytes]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hashing:
    """From `records_min` on (a smaller log is read sooner than processes are started) `python` runs `program`, for stretches of so many records."""

    records_min: int = 100_000
    stretch: int = 32 * TILE_WIDTH
    python: str = sys.executable
    program: str = hasher.__file__


USUAL = Hashing()


@dataclass(frozen=True, slots=True)
class Hashed:
    """A whole stretch. `tiles`: the hash of each whole tile in it."""

    leaves: list[bytes]
    tiles: list[bytes]


def tiles_of(leaves: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """In pieces of a tile; the last may be smaller."""
    for start in range(0, len(leaves), TILE_WIDTH):
        yield leaves[start : start + TILE_WIDTH]


class Hashers:
    """Answers for stretches of the first `size` records, in their order. `processes` may be none."""

    def __init__(self, processes: Sequence[Process], size: int, stretch: int) -> None:
        self._processes = list(processes)
        self._size = size
        self._stretch = stretch
        self._next = 0  # the first record that nobody was asked for yet
        self._asked: deque[tuple[int, Process]] = deque()

    def get(self, low: int) -> Hashed | None:
        """The stretch from `low` on; None when it has to be read here."""
        try:
            self._ask()
            if not self._asked or self._asked[0][0] != low:
                return None
            _, process = self._asked.popleft()
            return _answer(process, min(self._stretch, self._size - low))
        except OSError as error:
            _log.warning("a process that hashes the audit log has ended (%s); going on without it", error)
            self._next = self._size
            self._asked.clear()
            return None

    def _ask(self) -> None:
        while self._next < self._size and len(self._asked) < AHEAD * len(self._processes):
            process = self._processes[self._next // self._stretch % len(self._processes)]
            high = min(self._size, self._next + self._stretch)
            _pipe(process.stdin).write(b"%d %d\n" % (self._next, high))
            _pipe(process.stdin).flush()
            self._asked.append((self._next, process))
            self._next = high


def _answer(process: Process, count: int) -> Hashed | None:
    said = _pipe(process.stdout).read(1)
    if said == hasher.NOT_WHOLE:
        return None
    wanted = HASH_BYTES * (count + count // TILE_WIDTH) if said == hasher.WHOLE else 0
    found = _pipe(process.stdout).read(wanted)
    if not wanted or len(found) != wanted:
        raise OSError("it gave no whole answer")
    hashes = [found[at : at + HASH_BYTES] for at in range(0, wanted, HASH_BYTES)]
    return Hashed(hashes[:count], hashes[count:])


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise OSError("it has no pipe")
    return pipe


@contextmanager
def hashers(database: Database, size: int, how: Hashing = USUAL) -> Iterator[Hashers]:
    """For a log of `size` records. Every process has ended when this has."""
    processes: list[Process] = []
    try:
        if size >= how.records_min and database.dialect == "sqlite" and how.python:
            _start(processes, [how.python, "-I", "-S", "-B", how.program, _file(database)])
        yield Hashers(processes, size, how.stretch)
    finally:
        for process in processes:
            _end(process)


def _file(database: Database) -> str:
    with database.read() as connection:
        return str(Rows(connection).all("PRAGMA database_list")[0][2])


def _start(processes: list[Process], command: Sequence[str]) -> None:
    """Without an environment, without our packages: the program needs neither."""
    try:
        for _ in range(PROCESSES):  # one by one, so that those which were started are known when the next cannot be
            processes.append(subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={}))  # noqa: PERF401
    except OSError as error:
        _log.warning("no process to hash the audit log can be started: %s", error)


def _end(process: Process) -> None:
    """It has nothing to lose."""
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # what was not sent to it is no loss either
            _pipe(pipe).close()
    process.wait()
