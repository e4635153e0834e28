"""One file of whole numbers that the workers of a machine share: mapped into memory, changed under a lock, all of a change or nothing.

A change is first written to a journal in the same file; one word then says that it holds (the commit point), and only after that is it
applied. A process killed at any instruction leaves either a change that never was, or one that the next to come applies again. The
kernel lets go of a dead process's locks. What a power cut takes is at most what was written since the last `sync`.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Collection
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

MAGIC = 0x636F686F72743031  # "cohort01"
WORD_BYTES = 8
HEADER_WORDS = 512
JOURNAL_COUNT, JOURNAL = 8, 16
JOURNAL_PAIRS_MAX = 96
FREE_WORDS_AT = JOURNAL + 2 * JOURNAL_PAIRS_MAX
"""Where in the header the owner's own words may begin."""
_JOURNALS = tuple(struct.Struct(f"={2 * count}q") for count in range(JOURNAL_PAIRS_MAX + 1))
_JOURNAL_BYTE = JOURNAL * WORD_BYTES
_TAKE = fcntl.LOCK_EX | fcntl.LOCK_NB
LOCK_WAIT_S = 0.25
"""Another worker holds the lock for some microseconds; one that was stopped in the middle must not stop the others for good."""
OPEN_WAIT_S = 1.0
"""For a file that another process is making."""


class BookBusy(Exception):
    """The lock was not to be had in `LOCK_WAIT_S`; nothing was changed."""


class BookUnavailable(Exception):
    """The file cannot be made or read; the message says why."""


class Book:
    """`words` may be read at any time, and relied upon between `lock` and `unlock`. Not for several threads."""

    def __init__(self, path: Path, words: int) -> None:
        """Open or create the file with room for `words`.

        Raises:
            BookUnavailable: no space, no right, or a file of another shape.
        """
        with ExitStack() as opened:
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock_fd = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                opened.callback(os.close, self._lock_fd)
                self._wait(OPEN_WAIT_S)
                self._fd = _open(path, words * WORD_BYTES)
                opened.callback(os.close, self._fd)
                self._map = mmap.mmap(self._fd, words * WORD_BYTES)
                fcntl.flock(self._lock_fd, fcntl.LOCK_UN)
            except OSError as error:
                raise BookUnavailable(f"{path}: {os.strerror(error.errno or 0)}") from error
            except BookBusy as error:
                raise BookUnavailable(f"{path}: {error}") from error
            self.words = memoryview(self._map).cast("q")
            if self.words[0] != MAGIC:
                raise BookUnavailable(f"{path} is not a ledger of this version")
            opened.pop_all()  # whoever cannot use it may try again and again: nothing may stay open

    def lock(self) -> None:
        """Alone with the words from here on. Finishes what a process killed in the middle of a change had begun. Raises BookBusy."""
        try:
            fcntl.flock(self._lock_fd, _TAKE)
        except BlockingIOError:
            self._wait(LOCK_WAIT_S)
        if self.words[JOURNAL_COUNT]:
            self._apply()

    def unlock(self) -> None:
        fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def change(self, pairs: Collection[tuple[int, int]]) -> None:
        """Set words, (index, value), all or nothing. The lock is held. Raises ValueError for too many, or a number that no word can hold."""
        words, count = self.words, len(pairs)
        if count > JOURNAL_PAIRS_MAX:
            raise ValueError(f"{count} words in one change, at most {JOURNAL_PAIRS_MAX}")
        try:
            _JOURNALS[count].pack_into(self._map, _JOURNAL_BYTE, *chain.from_iterable(pairs))
        except struct.error as error:
            raise ValueError("a number in a change does not fit into a word") from error
        # Commit point. One store of one aligned word: from here on the change holds, whoever dies.
        words[JOURNAL_COUNT] = count
        for index, value in pairs:
            words[index] = value
        words[JOURNAL_COUNT] = 0

    def sync(self) -> None:
        """Have the disk keep it; may be called from another thread. Raises OSError."""
        os.fsync(self._fd)

    def close(self) -> None:
        self.words.release()
        self._map.close()
        os.close(self._fd)
        os.close(self._lock_fd)

    def _apply(self) -> None:
        """What is in the journal."""
        words = self.words
        for at in range(JOURNAL, JOURNAL + 2 * words[JOURNAL_COUNT], 2):
            words[words[at]] = words[at + 1]
        words[JOURNAL_COUNT] = 0

    def _wait(self, wait_s: float) -> None:
        end_s = time.monotonic() + wait_s
        while True:
            os.sched_yield()
            try:
                fcntl.flock(self._lock_fd, _TAKE)
                return
            except BlockingIOError:
                if time.monotonic() > end_s:
                    raise BookBusy(f"the ledger's lock was not to be had in {wait_s} s") from None


def _open(path: Path, size_bytes: int) -> int:
    """The file, whole and allocated: writing to a mapped page without a block on a full disk would kill the process."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_size not in (0, size_bytes):
            raise BookUnavailable(f"{path} has another size than this version's")
        os.posix_fallocate(fd, 0, size_bytes)
        if os.pread(fd, WORD_BYTES, 0) == bytes(WORD_BYTES):
            os.pwrite(fd, MAGIC.to_bytes(WORD_BYTES, "little"), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd
