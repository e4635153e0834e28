"""The accounts of a ledger by name: found, opened, and given up for others when they are settled and long untouched."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cohort.base.clock import Clock
from cohort.gateway.spend.book import FREE_WORDS_AT, HEADER_WORDS, Book

ACCOUNTS_MAX = 32_768
ACCOUNTS_PER_CALL_MAX = 8
KEPT_US = 8 * 86_400_000_000
"""How long an account that nobody touches is kept: a clock set back by less finds what was spent."""
LABEL_IDLE_US, LABEL_IDLE_OWN_US = 86_400_000_000, 3_600_000_000
"""How long a run's account was not touched before another may take its place; before one of the same caller's may."""
LABEL, COUNTING = 1, 2
"""Marks of accounts: one whose name a caller chose; one that counts a caller's."""
SPARE_MAX = 256
VAIN_S = 5.0
"""When nothing could be given up, how long nobody looks again."""
REUSES_MAX = 64
KNOWN_MAX = 8192

ACCOUNT_WORDS, _ID0, _ID1, _MARK, TOUCHED, VALUE, HELD, _OPENER = 7, 0, 1, 2, 3, 4, 5, 6
ACCOUNTS_WORDS = ACCOUNTS_MAX * ACCOUNT_WORDS
# In the header; the words between them are the ledger's.
_COUNT, _REUSED, _LABELS, _REUSES = FREE_WORDS_AT, FREE_WORDS_AT + 1, FREE_WORDS_AT + 2, FREE_WORDS_AT + 96


@dataclass(frozen=True, slots=True)
class Room:
    """How many accounts there may be.

    `labels`: those whose names callers choose, half of all, so that there is room for those that people set up; `labels_of_one`: of one
    caller's choosing.
    """

    accounts_max: int = ACCOUNTS_MAX
    labels_max: int = ACCOUNTS_MAX // 2
    labels_of_one_max: int = 4096


ROOM = Room()


class LedgerFull(Exception):
    """No room for another account, reservation or worker. Says which."""


class LabelsFull(LedgerFull):
    """A caller named more runs and agents than there is room for. Says how many it may."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` on the account `name`. `told` is what people are told it is. `opener`: who chose the name; None: no caller did."""

    name: str
    most: int
    told: str
    opener: str | None = None


class Accounts:
    """One worker's view of the accounts in a book. Whoever calls holds the book's lock."""

    def __init__(self, book: Book, clock: Clock, room: Room) -> None:
        self._book = book
        self._words = book.words
        self._clock = clock
        self._room = room
        self._by_id: dict[tuple[int, int], int] = {}
        self._known: dict[str, tuple[int, int, int]] = {}
        self._reused = 0
        self._scanned = 0
        self._spare: dict[int, list[int]] = {}
        self._vain_until_s: dict[int, float] = {}

    def places(self, limits: Sequence[Limit]) -> tuple[int, ...]:
        """The accounts, opened where there are none. Raises LedgerFull."""
        places: list[int] = []
        for limit in limits:
            at = self.find(limit.name)
            places.append(at if at is not None else self._open_account(limit, places))
        return tuple(places)

    def account(self, name: str) -> int:
        """One that no caller named, opened if there is none. Raises LedgerFull."""
        at = self.find(name)
        return at if at is not None else self._opened(name, 0, 0, ())

    def find(self, name: str) -> int | None:
        known, words = self._known.get(name), self._words
        if known is not None:
            at, id0, id1 = known
            if words[at + _ID0] == id0 and words[at + _ID1] == id1:
                return at
        return self._found(name)

    def _found(self, name: str) -> int | None:
        wanted = _id_of(name)
        at = self._look_up(wanted)
        if at is not None:
            self._know(name, at, wanted)
        return at

    def _know(self, name: str, at: int, found: tuple[int, int]) -> None:
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[name] = (at, *found)

    def _look_up(self, wanted: tuple[int, int]) -> int | None:
        self._catch_up()
        at, words = self._by_id.get(wanted), self._words
        return at if at is not None and (words[at + _ID0], words[at + _ID1]) == wanted else None

    def _catch_up(self) -> None:
        """Learn of accounts that others opened, and of those that took another's place."""
        words = self._words
        if words[_REUSED] - self._reused > REUSES_MAX:
            self._by_id.clear()
            self._scanned, self._reused = 0, words[_REUSED]
        while self._scanned < words[_COUNT]:
            self._learn(HEADER_WORDS + self._scanned * ACCOUNT_WORDS)
            self._scanned += 1
        while self._reused < words[_REUSED]:
            self._learn(words[_REUSES + self._reused % REUSES_MAX])
            self._reused += 1

    def _learn(self, at: int) -> None:
        self._by_id[(self._words[at + _ID0], self._words[at + _ID1])] = at

    def _open_account(self, limit: Limit, taken: Sequence[int]) -> int:
        """`taken`: accounts that must not be given up for it."""
        if limit.opener is None:
            return self._opened(limit.name, 0, 0, taken)
        counting = self.find(f"labels\0{limit.opener}")
        if counting is None:
            counting = self._opened(f"labels\0{limit.opener}", COUNTING, 0, taken)
        return self._opened(limit.name, LABEL, counting, (*taken, counting))

    def _opened(self, name: str, mark: int, opener: int, taken: Sequence[int]) -> int:
        words, found, now_us = self._words, _id_of(name), self._clock.now_us()
        count = words[_COUNT]
        own = mark == LABEL and words[opener + VALUE] >= self._room.labels_of_one_max
        fresh = count < self._room.accounts_max and not own and (mark != LABEL or words[_LABELS] < self._room.labels_max)
        at = HEADER_WORDS + count * ACCOUNT_WORDS if fresh else self._given_up(mark, opener, own, taken, now_us)
        change = {_COUNT: count + 1} if fresh else self._given_up_words(at)
        if mark == LABEL:
            for counter in (_LABELS, opener + VALUE):
                change[counter] = change.get(counter, words[counter]) + 1
            change[opener + TOUCHED] = now_us
        account = zip((_ID0, _ID1, _MARK, TOUCHED, VALUE, HELD, _OPENER), (*found, mark, now_us, 0, 0, opener), strict=True)
        self._book.change([*change.items(), *((at + word, value) for word, value in account)])
        self._catch_up()
        self._know(name, at, found)
        return at

    def _given_up_words(self, at: int) -> dict[int, int]:
        """What changes besides the account at `at` when another takes its place."""
        words = self._words
        reused = words[_REUSED]
        change = {_REUSED: reused + 1, _REUSES + reused % REUSES_MAX: at}
        if words[at + _MARK] == LABEL:
            opener = words[at + _OPENER]
            change |= {_LABELS: words[_LABELS] - 1, opener + VALUE: words[opener + VALUE] - 1}
        return change

    def _given_up(self, mark: int, opener: int, own: bool, taken: Sequence[int], now_us: int) -> int:
        """The account longest untouched of those that are settled and that nobody misses. `own`: of the labels of `opener` only. Raises LedgerFull."""
        kind = opener if own else -opener
        spare, now_s = self._spare.get(kind, []), self._clock.monotonic_s()
        while True:
            while spare:
                at = spare.pop()
                if at not in taken and self._over(at, mark, opener, own, now_us):
                    return at
            if now_s < self._vain_until_s.get(kind, now_s):
                break
            places = range(HEADER_WORDS, HEADER_WORDS + self._words[_COUNT] * ACCOUNT_WORDS, ACCOUNT_WORDS)
            found = [at for at in places if at not in taken and self._over(at, mark, opener, own, now_us)]
            if not found:
                self._vain(kind, now_s)
                break
            if len(self._spare) >= SPARE_MAX:
                self._spare.clear()
            spare = self._spare[kind] = sorted(found, key=lambda at: self._words[at + TOUCHED])[:SPARE_MAX][::-1]
        if own:
            raise LabelsFull(
                f"{self._room.labels_of_one_max} runs and agents of this caller are remembered, and one is forgotten after an hour at the earliest"
            )
        if mark == LABEL:
            raise LabelsFull(f"{self._room.labels_max} runs and agents are remembered, and one is forgotten after a day at the earliest")
        raise LedgerFull(f"{self._room.accounts_max} accounts are in use")

    def _vain(self, kind: int, now_s: float) -> None:
        if len(self._vain_until_s) >= SPARE_MAX:
            self._vain_until_s.clear()
        self._vain_until_s[kind] = now_s + VAIN_S

    def _over(self, at: int, mark: int, opener: int, own: bool, now_us: int) -> bool:
        """Whether an account may be given up for one of `mark` and `opener`: it is settled, and was not touched for long."""
        words = self._words
        if words[at + HELD]:
            return False
        idle_us, is_label = now_us - words[at + TOUCHED], words[at + _MARK] == LABEL
        if is_label:
            return idle_us > LABEL_IDLE_OWN_US if words[at + _OPENER] == opener else not own and idle_us > LABEL_IDLE_US
        if own or mark == LABEL:
            return False
        return idle_us > KEPT_US and not (words[at + _MARK] == COUNTING and words[at + VALUE])


def _id_of(name: str) -> tuple[int, int]:
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little", signed=True), int.from_bytes(digest[8:], "little", signed=True)
