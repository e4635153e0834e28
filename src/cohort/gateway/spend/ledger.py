"""Accounts that calls reserve from before they are made and settle after: exact across the workers of one machine, without a database.

An account is named; its day, where it has one, is part of the name, so that a clock set back finds what was spent on that day again and
neither resets nor doubles it. What a worker has reserved stands in a region of its own, which it holds by a lock: when it dies the kernel lets
go of the lock, and whoever notices gives back what it held.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cohort.base.clock import Clock
from cohort.gateway.spend.accounts import (
    ACCOUNTS_PER_CALL_MAX,
    ACCOUNTS_WORDS,
    HELD,
    ROOM,
    TOUCHED,
    VALUE,
    Accounts,
    LedgerFull,
    Limit,
    Room,
)
from cohort.gateway.spend.book import FREE_WORDS_AT, HEADER_WORDS, JOURNAL_PAIRS_MAX, Book, BookBusy

SETTLED_PAIRS_MAX = JOURNAL_PAIRS_MAX - 1 - 2 * ACCOUNTS_PER_CALL_MAX
"""Words of a change that settles several calls, while there is room for another call."""
BUSY_PAUSE_S = 1.0
"""Between attempts to settle what waits when another process keeps the lock: each holds up the whole worker."""
REGIONS_MAX = 80
"""Workers at the same time: as many as may be configured, and some that end what they have begun beside their successors."""
HOLDS_MAX = 2048
"""Calls of one worker that hold a reservation at the same time."""
MINUTE_NS = 60_000_000_000

_REGIONS = FREE_WORDS_AT + 8
_HOLD_WORDS, _SERIAL, _AMOUNT, _EXPIRES, _N, _OF = 12, 0, 1, 2, 3, 4
_HOLDS_AT = HEADER_WORDS + ACCOUNTS_WORDS
_REGION_WORDS = HOLDS_MAX * _HOLD_WORDS
WORDS = _HOLDS_AT + REGIONS_MAX * _REGION_WORDS


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

    def __init__(self, directory: Path, clock: Clock, room: Room = ROOM) -> None:
        """Raises BookUnavailable, BookBusy, LedgerFull."""
        self._clock = clock
        self._directory = directory
        self._book = Book(directory / "ledger", WORDS)
        self._words = self._book.words
        self._accounts = Accounts(self._book, clock, room)
        self._serial = 0
        self._region, self._region_fd = self._claim()
        start = _HOLDS_AT + self._region * _REGION_WORDS
        self._free = list(range(start + _REGION_WORDS - _HOLD_WORDS, start - _HOLD_WORDS, -_HOLD_WORDS))
        self._unsettled: list[tuple[Hold, int]] = []
        self._busy_until_s = 0.0
        self._ungiven: dict[str, int] = {}  # nanoseconds of a rate
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
            places = self._accounts.places(limits)
            pairs = []
            for limit, at in zip(limits, places, strict=True):
                spent, held = words[at + VALUE], words[at + HELD]
                if spent + held + amount > limit.most or not limit.most:
                    raise Exceeded(limit, spent, held)
                pairs.append((at + HELD, held + amount))
            slot = self._free.pop()
            self._serial += 1
            self._fill(slot, amount, int((self._clock.monotonic_s() + life_s) * 1e6), places)
            for at in places:
                words[at + TOUCHED] = now_us  # a hint, which may be there without the rest
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
        """Settle and give back what waits; where the lock is not to be had, the next that gets it does, and this asks again after `BUSY_PAUSE_S`."""
        if not (self._unsettled or self._ungiven) or self._clock.monotonic_s() < self._busy_until_s:
            return
        try:
            self._enter()
        except BookBusy:
            self._busy_until_s = self._clock.monotonic_s() + BUSY_PAUSE_S
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
            at = self._accounts.account(name)
            now_ns = int(self._clock.monotonic_s() * 1e9)
            # A time beyond a minute from now is of another boot of the machine.
            due_ns = min(max(self._words[at + VALUE], now_ns), now_ns + MINUTE_NS)
            after_ns = due_ns + units * MINUTE_NS // per_minute
            if after_ns > now_ns + MINUTE_NS:
                return (after_ns - now_ns - MINUTE_NS) / 1e9
            self._book.change([(at + VALUE, after_ns), (at + TOUCHED, self._clock.now_us())])
            return 0.0
        finally:
            self._book.unlock()

    def give(self, name: str, units: int, per_minute: int) -> None:
        """Units that were taken and not used, with the next that takes the lock. Somebody must call `settle_waiting` soon."""
        self._ungiven[name] = self._ungiven.get(name, 0) + units * MINUTE_NS // per_minute

    def balance(self, name: str) -> tuple[int, int]:
        """What was spent on an account and what is held on it; nothing for one that nobody touched. Raises BookBusy."""
        self._enter()
        try:
            at = self._accounts.find(name)
            return (0, 0) if at is None else (self._words[at + VALUE], self._words[at + HELD])
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
        self._busy_until_s = 0.0
        self.settle_waiting()
        if not self.holds():
            self._mark_region(self._region, 0)
        os.close(self._region_fd)
        self._book.close()

    # --- settling --------------------------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        """The lock, and what waits to be settled or given back."""
        self._book.lock()
        try:
            while self._unsettled:
                self._settle_some()
            while self._ungiven:
                self._give(*self._ungiven.popitem())
        except BaseException:
            self._book.unlock()  # the other workers of the machine must not wait for what this one could not do
            raise

    def _give(self, name: str, ns: int) -> None:
        at = self._accounts.find(name)
        if at is not None:
            self._book.change([(at + VALUE, max(self._words[at + VALUE] - ns, 0))])

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
                value, held = at + VALUE, at + HELD
                change[value] = change.get(value, words[value]) + actual
                change[held] = change.get(held, words[held]) - hold.amount
                words[at + TOUCHED] = now_us
        self._book.change(change.items())
        self._free += settled
        for hold, actual in late:
            self._settle_late(hold, actual)

    def _settle_late(self, hold: Hold, actual: int) -> None:
        """Its reservation expired, and was given back; what it cost still counts."""
        words = self._words
        try:
            places = self._accounts.places(hold.limits)
        except LedgerFull:
            self.unaccounted += actual
            return
        self._book.change([(at + VALUE, words[at + VALUE] + actual) for at in places])

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
                held = [(at + HELD, words[at + HELD] - words[slot + _AMOUNT]) for at in places]
                self._book.change([*held, (slot + _SERIAL, 0)])
            finally:
                self._book.unlock()
            if own:
                self._free.append(slot)
        return given
