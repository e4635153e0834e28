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
from cohort.gateway.spend.book import FREE_WORDS_AT, HEADER_WORDS, Book, BookBusy

ACCOUNTS_MAX = 8192
ACCOUNTS_PER_CALL_MAX = 8
REGIONS_MAX = 32
"""Workers at the same time."""
HOLDS_MAX = 2048
"""Calls of one worker that hold a reservation at the same time."""
KEPT_US = 8 * 86_400_000_000
"""How long an account that nobody touches is kept: a clock set back by less finds what was spent."""
MINUTE_NS = 60_000_000_000
PASSING = 1
"""Mark of an account that may be given up when there is no room: a run that nobody has called for long."""

_COUNT, _GENERATION, _REGIONS = FREE_WORDS_AT, FREE_WORDS_AT + 1, FREE_WORDS_AT + 8
_ACCOUNT_WORDS, _ID0, _ID1, _MARK, _TOUCHED, _VALUE, _HELD = 6, 0, 1, 2, 3, 4, 5
_HOLD_WORDS, _SERIAL, _AMOUNT, _EXPIRES, _N, _OF = 12, 0, 1, 2, 3, 4
_HOLDS_AT = HEADER_WORDS + ACCOUNTS_MAX * _ACCOUNT_WORDS
_REGION_WORDS = HOLDS_MAX * _HOLD_WORDS
WORDS = _HOLDS_AT + REGIONS_MAX * _REGION_WORDS


class LedgerFull(Exception):
    """No room for another account, reservation or worker. Says which."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` on the account `name`. `passing`: see PASSING. `told` is what people are told it is."""

    name: str
    most: int
    told: str
    passing: bool = False


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
        self._known: dict[str, int] = {}
        self._generation = -1
        self._scanned = 0
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
        if not self._free:
            raise LedgerFull(f"{HOLDS_MAX} calls of this worker hold a reservation already")
        amount = max(amount, 1)  # what is held marks the account as one in use
        self._enter()
        try:
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
            if fd is not None:
                self.orphaned += self._give_back(region, None)
                self._mark_region(region, 0)
                os.close(fd)

    def sync(self) -> None:
        """Raises OSError."""
        self._book.sync()

    def close(self) -> None:
        """At a stop, with nothing held any more; what is still held is given back by whoever sweeps."""
        if not self.holds():
            self._mark_region(self._region, 0)
        os.close(self._region_fd)
        self._book.close()

    # --- accounts --------------------------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        """The lock, and what could not be settled before."""
        self._book.lock()
        try:
            if self._words[_GENERATION] != self._generation:
                self._forget()
            while self._unsettled:
                self._settle(*self._unsettled.pop())
        except BaseException:
            self._book.unlock()  # the other workers of the machine must not wait for what this one could not do
            raise

    def _settle(self, hold: Hold, actual: int) -> None:
        words = self._words
        if words[hold.slot + _SERIAL] == hold.serial:
            pairs = [(hold.slot + _SERIAL, 0)]
            for at in hold.accounts:
                pairs += [(at + _VALUE, words[at + _VALUE] + actual), (at + _HELD, words[at + _HELD] - hold.amount)]
            self._book.change(pairs)
            self._free.append(hold.slot)
            return
        try:
            late = self._places(hold.limits)  # it expired, and was given back; what it cost still counts
        except LedgerFull:
            self.unaccounted += actual
            return
        self._book.change([(at + _VALUE, words[at + _VALUE] + actual) for at in late])

    def _places(self, limits: Sequence[Limit]) -> tuple[int, ...]:
        """The accounts; looked up again where opening one gave up another of them. Raises LedgerFull."""
        known = self._known
        places = tuple([known[limit.name] for limit in limits if limit.name in known])
        if len(places) == len(limits):
            return places
        for _ in range(2):
            before = self._generation
            places = tuple([self._account(limit) for limit in limits])
            if self._generation == before:
                return places
        raise LedgerFull(f"{ACCOUNTS_MAX} accounts are in use")

    def _account(self, limit: Limit) -> int:
        at = self._find(limit.name)
        if at is None:
            at = self._open_account(limit)
        return at

    def _find(self, name: str) -> int | None:
        at = self._known.get(name)
        if at is None:
            at = self._look_up(_id_of(name))
            if at is not None:
                if len(self._known) >= ACCOUNTS_MAX:
                    self._known.clear()
                self._known[name] = at
        return at

    def _look_up(self, wanted: tuple[int, int]) -> int | None:
        words = self._words
        while self._scanned < words[_COUNT]:  # those that others opened
            at = HEADER_WORDS + self._scanned * _ACCOUNT_WORDS
            self._by_id[(words[at + _ID0], words[at + _ID1])] = at
            self._scanned += 1
        return self._by_id.get(wanted)

    def _open_account(self, limit: Limit) -> int:
        id0, id1 = _id_of(limit.name)
        count, now_us = self._words[_COUNT], self._clock.now_us()
        fresh = count < ACCOUNTS_MAX
        at = HEADER_WORDS + count * _ACCOUNT_WORDS if fresh else self._reclaimed(now_us)
        mark = PASSING if limit.passing else 0
        pairs = [(at + _ID0, id0), (at + _ID1, id1), (at + _MARK, mark), (at + _TOUCHED, now_us), (at + _VALUE, 0), (at + _HELD, 0)]
        self._book.change([*pairs, (_COUNT, count + 1) if fresh else (_GENERATION, self._words[_GENERATION] + 1)])
        if not fresh:
            self._forget()
        self._known[limit.name] = at
        return at

    def _forget(self) -> None:
        """An account was given up for another one: what is known of places may be wrong."""
        self._generation = self._words[_GENERATION]
        self._by_id.clear()
        self._known.clear()
        self._scanned = 0

    def _reclaimed(self, now_us: int) -> int:
        """An account that can be given up: one that nobody touched for KEPT_US, else the passing one that was not touched for longest."""
        words = self._words
        places = range(HEADER_WORDS, HEADER_WORDS + ACCOUNTS_MAX * _ACCOUNT_WORDS, _ACCOUNT_WORDS)
        unused = [at for at in places if not words[at + _HELD] and (words[at + _MARK] or words[at + _TOUCHED] < now_us - KEPT_US)]
        if not unused:
            raise LedgerFull(f"{ACCOUNTS_MAX} accounts are in use")
        return min(unused, key=lambda at: words[at + _TOUCHED])

    # --- regions ---------------------------------------------------------------------------------------------------------------

    def _claim(self) -> tuple[int, int]:
        for region in range(REGIONS_MAX):
            fd = self._try_region(region)
            if fd is not None:
                self._give_back(region, None)
                self._mark_region(region, 1)
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
