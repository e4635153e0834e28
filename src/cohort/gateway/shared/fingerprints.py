"""A set of what was seen lately, of bounded size, that the workers of a machine share: a file of hashes, mapped into memory.

Looking something up takes no lock. Where there is no room the entry noted longest ago makes it: among the `WAYS` that one thing's hash may
be at. Two different things are taken for one with a chance of 2^-43.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cohort.base.clock import Clock
from cohort.gateway.spend.book import HEADER_WORDS, Book, BookBusy, BookUnavailable

WAYS = 8
OPEN_AGAIN_S = 5.0
HOUR_US = 3_600_000_000
_HOURS = 1 << 16
_BEGUN, _LOW = hashlib.blake2b(digest_size=14), (1 << 64) - 1
_FLAG, _MARK_AT, _MARK = 1 << 16, 17, (1 << 46) - 1
"""A word: the hour in which it was noted, a flag, the rest of the hash."""


class Fingerprints:
    """`entries`: a power of two, at least WAYS. The file is made when something is first added or asked; without it the set is empty."""

    def __init__(self, path: Path, entries: int, clock: Clock) -> None:
        self._path = path
        self._entries = entries
        self._clock = clock
        self._book: Book | None = None
        self._again_s = float("-inf")
        self.problem: str | None = None

    def holds(self, *parts: str) -> bool:
        """Whether it was added, by any worker, and is still there."""
        book = self._opened()
        if book is None:
            return False
        at, mark = self._place(parts)
        return mark in [word >> _MARK_AT for word in book.words[at : at + WAYS].tolist()]

    def add(self, *parts: str) -> bool:
        """False: it could not be noted; `problem` says why."""
        book = self._opened()
        if book is None:
            return False
        self._store(book, *self._place(parts), False)
        return True

    def note(self, flag: bool, *parts: str) -> bool | None:
        """Add it with a flag, which stays once it is set; returns the flag that it had, None: it was not there, or cannot be looked up."""
        book = self._opened()
        if book is None:
            return None
        at, mark = self._place(parts)
        words = book.words[at : at + WAYS].tolist()
        way = _way_of(words, mark)
        before = bool(words[way] & _FLAG) if way is not None else None
        if before is None or (flag and not before):
            self._store(book, at, mark, flag)
        return before

    def _store(self, book: Book, at: int, mark: int, flag: bool) -> None:
        hour = self._clock.now_us() // HOUR_US % _HOURS
        alone = _locked(book)
        try:
            words = book.words[at : at + WAYS].tolist()
            way, kept = _way_of(words, mark), 0
            if way is not None:
                kept = words[way] & _FLAG
            else:
                way = words.index(0) if 0 in words else max(range(WAYS), key=lambda number: (hour - words[number]) % _HOURS)
            # Commit point. One store of one aligned word.
            book.words[at + way] = mark << _MARK_AT | (_FLAG if flag else kept) | hour
        finally:
            if alone:
                book.unlock()

    def close(self) -> None:
        if self._book is not None:
            self._book.close()
            self._book = None

    def _place(self, parts: tuple[str, ...]) -> tuple[int, int]:
        hashed = _BEGUN.copy()
        hashed.update("\0".join(parts).encode("utf-8", "surrogatepass"))
        number = int.from_bytes(hashed.digest(), "little")
        group = (number & _LOW) % (self._entries // WAYS)
        return HEADER_WORDS + group * WAYS, number >> 64 & _MARK or 1

    def _opened(self) -> Book | None:
        if self._book is None and self._clock.monotonic_s() >= self._again_s:
            try:
                self._book, self.problem = Book(self._path, HEADER_WORDS + self._entries), None
            except BookUnavailable as error:
                self._again_s, self.problem = self._clock.monotonic_s() + OPEN_AGAIN_S, str(error)
        return self._book


def _way_of(words: list[int], mark: int) -> int | None:
    for way, word in enumerate(words):
        if word >> _MARK_AT == mark:
            return way
    return None


def _locked(book: Book) -> bool:
    """Whether the lock was to be had; what is lost without it is at most an entry that another worker adds at the same moment."""
    try:
        book.lock()
    except BookBusy:
        return False
    return True
