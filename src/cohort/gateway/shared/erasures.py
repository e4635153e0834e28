"""Who asked to be forgotten lately, known to every worker of the machine: also to one that is being stopped and is not asked any more."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cohort.base.clock import Clock
from cohort.gateway.spend.book import FREE_WORDS_AT, HEADER_WORDS, Book

UNITS_MAX = 1024
REMEMBERED_NS = 7200 * 1_000_000_000
"""Longer than any call may take."""
_NEXT, _NEWEST, _EVERYBODY = FREE_WORDS_AT, FREE_WORDS_AT + 1, FREE_WORDS_AT + 2
_ENTRY_WORDS, _AT, _ID0, _ID1 = 3, 0, 1, 2
WORDS = HEADER_WORDS + UNITS_MAX * _ENTRY_WORDS


class Erasures:
    """A ring of units and when each was erased, on the machine's monotonic clock; a time ahead of now is of another boot and means nothing.

    When there are too many, the oldest stand for everybody: nothing begun before is kept.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        """Raises BookUnavailable."""
        self._book = Book(path, WORDS)
        self._clock = clock

    def add(self, unit: str) -> None:
        """Raises BookBusy: nothing was noted."""
        self._book.lock()
        try:
            words, now_ns = self._book.words, self._now_ns()
            number = words[_NEXT] % UNITS_MAX
            at, (id0, id1) = HEADER_WORDS + number * _ENTRY_WORDS, _id_of(unit)
            given_up_ns = words[at + _AT]
            pairs = [(at + _AT, now_ns), (at + _ID0, id0), (at + _ID1, id1), (_NEXT, number + 1), (_NEWEST, now_ns)]
            if now_ns - REMEMBERED_NS < given_up_ns <= now_ns and given_up_ns:
                pairs.append((_EVERYBODY, given_up_ns))
            self._book.change(pairs)
        finally:
            self._book.unlock()

    def since(self, unit: str, began_s: float) -> bool:
        """A call of `unit` that began at `began_s` was in flight when the unit was erased."""
        words, began_ns = self._book.words, int(began_s * 1e9)
        if words[_NEWEST] < began_ns:
            return False
        now_ns, wanted = self._now_ns(), _id_of(unit)
        if began_ns <= words[_EVERYBODY] <= now_ns:
            return True
        late = (at for at in range(HEADER_WORDS, WORDS, _ENTRY_WORDS) if began_ns <= words[at + _AT] <= now_ns)
        return any((words[at + _ID0], words[at + _ID1]) == wanted for at in late)

    def close(self) -> None:
        self._book.close()

    def _now_ns(self) -> int:
        return int(self._clock.monotonic_s() * 1e9)


def _id_of(unit: str) -> tuple[int, int]:
    digest = hashlib.blake2b(unit.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little", signed=True), int.from_bytes(digest[8:], "little", signed=True)
