"""Accounts that calls reserve from before they are made and settle after: exact across the workers of one machine, without a database.

An account is named; its day, where it has one, is part of the name, so that a clock set back finds what was spent on that day again and
neither resets nor doubles it. What a worker has reserved stands in a region of its own, which it holds by a lock: when it dies the kernel lets
go of the lock, and whoever notices gives back what it held.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cohort.base.clock import Clock
from cohort.gateway.spend.book import FREE_WORDS_AT, HEADER_WORDS, JOURNAL_PAIRS_MAX, Book, BookBusy

ACCOUNTS_MAX = 32_768
LABELS_MAX = ACCOUNTS_MAX // 2
"""Accounts whose names callers choose; the other half is for those that people set up."""
LABELS_OF_ONE_MAX = 4096
"""Those of one caller's choosing."""
ACCOUNTS_PER_CALL_MAX = 8
SETTLED_PAIRS_MAX = JOURNAL_PAIRS_MAX - 1 - 2 * ACCOUNTS_PER_CALL_MAX
"""Words of a change that settles several calls, while there is room for another call."""
REGIONS_MAX = 80
"""Workers at the same time: as many as may be configured, and some that end what they have begun beside their successors."""
HOLDS_MAX = 2048
"""Calls of one worker that hold a reservation at the same time."""
KEPT_US = 8 * 86_400_000_000
"""How long an account that nobody touches is kept: a clock set back by less finds what was spent."""
LABEL_IDLE_US, LABEL_IDLE_OWN_US = 86_400_000_000, 3_600_000_000
"""How long a run's account was not touched before another may take its place; before one of the same caller's may."""
MINUTE_NS = 60_000_000_000
LABEL, COUNTING = 1, 2
"""Marks of accounts: one whose name a caller chose; one that counts a caller's."""
SPARE_MAX = 256
VAIN_S = 5.0
"""When nothing could be given up, how long nobody looks again."""
REUSES_MAX = 64
KNOWN_MAX = 8192

_COUNT, _REUSED, _LABELS, _REGIONS, _REUSES = FREE_WORDS_AT, FREE_WORDS_AT + 1, FREE_WORDS_AT + 2, FREE_WORDS_AT + 8, FREE_WORDS_AT + 96
_ACCOUNT_WORDS, _ID0, _ID1, _MARK, _TOUCHED, _VALUE, _HELD, _OPENER = 7, 0, 1, 2, 3, 4, 5, 6
_HOLD_WORDS, _SERIAL, _AMOUNT, _EXPIRES, _N, _OF = 12, 0, 1, 2, 3, 4
_HOLDS_AT = HEADER_WORDS + ACCOUNTS_MAX * _ACCOUNT_WORDS
_REGION_WORDS = HOLDS_MAX * _HOLD_WORDS
WORDS = _HOLDS_AT + REGIONS_MAX * _REGION_WORDS


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


class Exceeded(Exception):
    """A reservation that does not fit."""

    def __init__(self, limit: Limit, spent: int, held: int) -> None:
        super().__init__(limit.told)
        self.limit = limit
        self.spent = spent
        self.held = held


@dataclass(slots=True)
class Hold:
    """A reservation: `amount` on each of `limits`."""

    slot: int
    serial: int
    amount: int
    accounts: tuple[int, ...]
    limits: Sequence[Limit]


class Ledger:
    """One worker's view of it. Not for several threads; amounts are whole numbers (millionths of a dollar)."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        """Raises BookUnavailable, BookBusy, LedgerFull."""
        self._clock = clock
        self._directory = directory
        self._book = Book(directory / "ledger", WORDS)
        self._words = self._book.words
        self._by_id: dict[tuple[int, int], int] = {}
        self._known: dict[str, tuple[int, int, int]] = {}
        self._reused = 0
        self._scanned = 0
        self._spare: dict[int, list[int]] = {}
        self._vain_until_s: dict[int, float] = {}
        self._serial = 0
        self._region, self._region_fd = self._claim()
        start = _HOLDS_AT + self._region * _REGION_WORDS
        self._free = list(range(start + _REGION_WORDS - _HOLD_WORDS, start - _HOLD_WORDS, -_HOLD_WORDS))
        self._unsettled: list[tuple[Hold, int]] = []
        self.unaccounted = 0  # what calls cost that were over after their reservation was, with no room for their accounts
        self.orphaned = 0  # what was given back for workers that died, since this one began

    def reserve(self, limits: Sequence[Limit], amount: int, life_s: float) -> Hold:
        """Hold `amount` on every account, or on none. Give it to `settle`; past `life_s` it is given back.

        Raises:
            Exceeded: names the first that it does not fit. LedgerFull, BookBusy: nothing was held.
        """
        amount = max(amount, 1)  # what is held marks the account as one in use
        self._enter()
        try:
            if not self._free:
                raise LedgerFull(f"{HOLDS_MAX} calls of this worker hold a reservation already")
            words, now_us = self._words, self._clock.now_us()
            places = self._places(limits)
            pairs = []
            for limit, at in zip(limits, places, strict=True):
                spent, held = words[at + _VALUE], words[at + _HELD]
                if spent + held + amount > limit.most or not limit.most:
                    raise Exceeded(limit, spent, held)
                pairs.append((at + _HELD, held + amount))
            slot = self._free.pop()
            self._serial += 1
            self._fill(slot, amount, int((self._clock.monotonic_s() + life_s) * 1e6), places)
            for at in places:
                words[at + _TOUCHED] = now_us  # a hint, which may be there without the rest
            pairs.append((slot + _SERIAL, self._serial))
            self._book.change(pairs)
            return Hold(slot, self._serial, amount, places, limits)
        finally:
            self._book.unlock()

    def _fill(self, slot: int, amount: int, expires_us: int, places: Sequence[int]) -> None:
        """What a reservation is of. Nobody reads it before its serial number is there, so it needs no journal."""
        words = self._words
        words[slot + _AMOUNT] = amount
        words[slot + _EXPIRES] = expires_us
        words[slot + _N] = len(places)
        of = slot + _OF
        for at in places:
            words[of] = at
            of += 1

    def settle(self, hold: Hold, actual: int) -> None:
        """Give back what was held and note what it came to. Never lost: when the lock is not to be had it is done by the next that gets it."""
        self._unsettled.append((hold, actual))
        self.settle_waiting()

    def settle_later(self, hold: Hold, actual: int) -> None:
        """As `settle`, with the next that takes the lock, many under one lock. Somebody must call `settle_waiting` soon."""
        self._unsettled.append((hold, actual))

    def settle_waiting(self) -> None:
        """Settle what waits."""
        if not self._unsettled:
            return
        try:
            self._enter()
        except BookBusy:
            return
        self._book.unlock()

    def take(self, name: str, units: int, per_minute: int) -> float:
        """Let `units` pass at `per_minute`, in bursts of at most one minute's worth: 0.0, or the seconds after which they may.

        Infinite: never, because they are more than a minute's worth. Raises LedgerFull, BookBusy.
        """
        if units > per_minute or not per_minute:
            return float("inf")
        self._enter()
        try:
            at = self._account(Limit(name, 0, ""))
            now_ns = int(self._clock.monotonic_s() * 1e9)
            # A time beyond a minute from now is of another boot of the machine.
            due_ns = min(max(self._words[at + _VALUE], now_ns), now_ns + MINUTE_NS)
            after_ns = due_ns + units * MINUTE_NS // per_minute
            if after_ns > now_ns + MINUTE_NS:
                return (after_ns - now_ns - MINUTE_NS) / 1e9
            self._book.change([(at + _VALUE, after_ns), (at + _TOUCHED, self._clock.now_us())])
            return 0.0
        finally:
            self._book.unlock()

    def give(self, name: str, units: int, per_minute: int) -> None:
        """Units that were taken and not used. Raises BookBusy."""
        self._enter()
        try:
            at = self._account(Limit(name, 0, ""))
            self._book.change([(at + _VALUE, max(self._words[at + _VALUE] - units * MINUTE_NS // per_minute, 0))])
        finally:
            self._book.unlock()

    def balance(self, name: str) -> tuple[int, int]:
        """What was spent on an account and what is held on it; nothing for one that nobody touched. Raises BookBusy."""
        self._enter()
        try:
            at = self._find(name)
            return (0, 0) if at is None else (self._words[at + _VALUE], self._words[at + _HELD])
        finally:
            self._book.unlock()

    def holds(self) -> int:
        """Reservations of this worker."""
        return HOLDS_MAX - len(self._free)

    def sweep(self) -> None:
        """Give back what expired here, and what workers that died held. Call now and then. Raises BookBusy."""
        self._give_back(self._region, int(self._clock.monotonic_s() * 1e6))
        for region in range(REGIONS_MAX):
            if region == self._region or not self._words[_REGIONS + region]:
                continue
            fd = self._try_region(region)
            if fd is None:
                continue
            try:
                self.orphaned += self._give_back(region, None)
                self._mark_region(region, 0)
            finally:
                os.close(fd)

    def sync(self) -> None:
        """Raises OSError."""
        self._book.sync()

    def close(self) -> None:
        """At a stop, with nothing held any more; what is still held is given back by whoever sweeps."""
        self.settle_waiting()
        if not self.holds():
            self._mark_region(self._region, 0)
        os.close(self._region_fd)
        self._book.close()

    # --- accounts --------------------------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        """The lock, and what waits to be settled."""
        self._book.lock()
        try:
            while self._unsettled:
                self._settle_some()
        except BaseException:
            self._book.unlock()  # the other workers of the machine must not wait for what this one could not do
            raise

    def _settle_some(self) -> None:
        """As many of those that wait as one change has room for."""
        words, unsettled, now_us = self._words, self._unsettled, self._clock.now_us()
        change: dict[int, int] = {}
        settled: list[int] = []
        late: list[tuple[Hold, int]] = []
        while unsettled and len(change) <= SETTLED_PAIRS_MAX:
            hold, actual = unsettled.pop()
            slot = hold.slot
            if words[slot + _SERIAL] != hold.serial or slot + _SERIAL in change:
                late.append((hold, actual))
                continue
            settled.append(slot)
            change[slot + _SERIAL] = 0
            for at in hold.accounts:
                value, held = at + _VALUE, at + _HELD
                change[value] = change.get(value, words[value]) + actual
                change[held] = change.get(held, words[held]) - hold.amount
                words[at + _TOUCHED] = now_us
        self._book.change(change.items())
        self._free += settled
        for hold, actual in late:
            self._settle_late(hold, actual)

    def _settle_late(self, hold: Hold, actual: int) -> None:
        """Its reservation expired, and was given back; what it cost still counts."""
        words = self._words
        try:
            places = self._places(hold.limits)
        except LedgerFull:
            self.unaccounted += actual
            return
        self._book.change([(at + _VALUE, words[at + _VALUE] + actual) for at in places])

    def _places(self, limits: Sequence[Limit]) -> tuple[int, ...]:
        """The accounts, opened where there are none. Raises LedgerFull."""
        places: list[int] = []
        for limit in limits:
            at = self._find(limit.name)
            places.append(at if at is not None else self._open_account(limit, places))
        return tuple(places)

    def _account(self, limit: Limit) -> int:
        return self._places((limit,))[0]

    def _find(self, name: str) -> int | None:
        known, words = self._known.get(name), self._words
        if known is not None:
            at, id0, id1 = known
            if words[at + _ID0] == id0 and words[at + _ID1] == id1:
                return at
        return self._find_anew(name)

    def _find_anew(self, name: str) -> int | None:
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
            self._learn(HEADER_WORDS + self._scanned * _ACCOUNT_WORDS)
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
        counting = self._find(f"labels\0{limit.opener}")
        if counting is None:
            counting = self._opened(f"labels\0{limit.opener}", COUNTING, 0, taken)
        return self._opened(limit.name, LABEL, counting, (*taken, counting))

    def _opened(self, name: str, mark: int, opener: int, taken: Sequence[int]) -> int:
        words, found, now_us = self._words, _id_of(name), self._clock.now_us()
        count = words[_COUNT]
        own = mark == LABEL and words[opener + _VALUE] >= LABELS_OF_ONE_MAX
        fresh = count < ACCOUNTS_MAX and not own and (mark != LABEL or words[_LABELS] < LABELS_MAX)
        at = HEADER_WORDS + count * _ACCOUNT_WORDS if fresh else self._given_up(mark, opener, own, taken, now_us)
        change = {_COUNT: count + 1} if fresh else self._given_up_words(at)
        if mark == LABEL:
            for counter in (_LABELS, opener + _VALUE):
                change[counter] = change.get(counter, words[counter]) + 1
            change[opener + _TOUCHED] = now_us
        account = zip((_ID0, _ID1, _MARK, _TOUCHED, _VALUE, _HELD, _OPENER), (*found, mark, now_us, 0, 0, opener), strict=True)
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
            change |= {_LABELS: words[_LABELS] - 1, opener + _VALUE: words[opener + _VALUE] - 1}
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
            places = range(HEADER_WORDS, HEADER_WORDS + self._words[_COUNT] * _ACCOUNT_WORDS, _ACCOUNT_WORDS)
            found = [at for at in places if at not in taken and self._over(at, mark, opener, own, now_us)]
            if not found:
                self._vain(kind, now_s)
                break
            if len(self._spare) >= SPARE_MAX:
                self._spare.clear()
            spare = self._spare[kind] = sorted(found, key=lambda at: self._words[at + _TOUCHED])[:SPARE_MAX][::-1]
        if own:
            raise LabelsFull(
                f"{LABELS_OF_ONE_MAX} runs and agents of this caller are remembered, and one is forgotten after an hour at the earliest"
            )
        if mark == LABEL:
            raise LabelsFull(f"{LABELS_MAX} runs and agents are remembered, and one is forgotten after a day at the earliest")
        raise LedgerFull(f"{ACCOUNTS_MAX} accounts are in use")

    def _vain(self, kind: int, now_s: float) -> None:
        if len(self._vain_until_s) >= SPARE_MAX:
            self._vain_until_s.clear()
        self._vain_until_s[kind] = now_s + VAIN_S

    def _over(self, at: int, mark: int, opener: int, own: bool, now_us: int) -> bool:
        """Whether an account may be given up for one of `mark` and `opener`: it is settled, and was not touched for long."""
        words = self._words
        if words[at + _HELD]:
            return False
        idle_us, is_label = now_us - words[at + _TOUCHED], words[at + _MARK] == LABEL
        if is_label:
            return idle_us > LABEL_IDLE_OWN_US if words[at + _OPENER] == opener else not own and idle_us > LABEL_IDLE_US
        if own or mark == LABEL:
            return False
        return idle_us > KEPT_US and not (words[at + _MARK] == COUNTING and words[at + _VALUE])

    # --- regions ---------------------------------------------------------------------------------------------------------------

    def _claim(self) -> tuple[int, int]:
        for region in range(REGIONS_MAX):
            fd = self._try_region(region)
            if fd is None:
                continue
            try:
                self._give_back(region, None)
                self._mark_region(region, 1)
            except BaseException:
                os.close(fd)
                raise
            return region, fd
        raise LedgerFull(f"{REGIONS_MAX} workers use the ledger already")

    def _try_region(self, region: int) -> int | None:
        fd = os.open(self._directory / f"worker-{region:02d}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def _mark_region(self, region: int, used: int) -> None:
        self._book.lock()
        try:
            self._book.change([(_REGIONS + region, used)])
        finally:
            self._book.unlock()

    def _give_back(self, region: int, before_us: int | None) -> int:
        """Reservations of a region that expired `before_us`, or all; returns what they held."""
        start, words, given = _HOLDS_AT + region * _REGION_WORDS, self._words, 0
        own = before_us is not None
        if not own:
            self._book.lock()  # finishes what its worker was killed in: a reservation that it had settled is given back once
            self._book.unlock()
        for slot in range(start, start + _REGION_WORDS, _HOLD_WORDS):
            if not words[slot + _SERIAL] or (before_us is not None and words[slot + _EXPIRES] > before_us):
                continue
            self._book.lock()
            try:
                given += words[slot + _AMOUNT]
                places = [words[slot + _OF + number] for number in range(words[slot + _N])]
                held = [(at + _HELD, words[at + _HELD] - words[slot + _AMOUNT]) for at in places]
                self._book.change([*held, (slot + _SERIAL, 0)])
            finally:
                self._book.unlock()
            if own:
                self._free.append(slot)
        return given


def _id_of(name: str) -> tuple[int, int]:
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little", signed=True), int.from_bytes(digest[8:], "little", signed=True)
