"""Addresses that gave too many wrong keys are refused for a while, by every worker of the machine whichever met them."""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections import OrderedDict
from collections.abc import Sequence

from cohort.base.clock import Clock
from cohort.gateway.shared.fingerprints import Fingerprints
from cohort.gateway.spend.book import FREE_WORDS_AT, HEADER_WORDS, WORD_BYTES, Book, BookBusy

FAILURES_MAX = 20
LOCK_S = 60.0
"""How long an address is refused, and how long its failures are remembered after the last one."""
ADDRESSES_MAX = 16_384
TRUSTED_MAX = 10_000
_WAYS = 8
_LATEST = FREE_WORDS_AT
_CELL_WORDS, _ID, _FAILURES, _LAST_NS = 3, 0, 1, 2
WORDS = HEADER_WORDS + ADDRESSES_MAX * _CELL_WORDS
_LOCK_NS = int(LOCK_S * 1e9)


class Lockout:
    """Counts wrong keys per address (of IPv6: per /64) for at most `ADDRESSES_MAX`: of 8 that a hash puts together the one that failed longest ago goes.

    A key that was good from an address before stays good there: behind a proxy that shows one address for everybody, one client's wrong
    key does not lock out the others. A key seen there for the first time waits.

    `book`, of WORDS: the counts of all workers; None: this process counts for itself. `trusted`: what was good at any of them.
    """

    __slots__ = ("_book", "_clock", "_shared", "_trusted", "_words")

    def __init__(self, clock: Clock, book: Book | None = None, trusted: Fingerprints | None = None) -> None:
        self._clock = clock
        self._book = book
        self._words = book.words if book is not None else memoryview(bytearray(WORDS * WORD_BYTES)).cast("q")
        self._shared = trusted
        self._trusted: OrderedDict[tuple[str, str], None] = OrderedDict()

    @property
    def any(self) -> bool:
        """Somebody failed."""
        return self._words[_LATEST] != 0

    @property
    def addresses(self) -> int:
        """Those that failed lately."""
        now_ns, words = self._now_ns(), self._words
        last = words[HEADER_WORDS + _LAST_NS : WORDS : _CELL_WORDS].tolist() if self.any else []
        return sum(now_ns - _LOCK_NS < at_ns <= now_ns for at_ns in last if at_ns)

    def trusts(self, peer: str, key: str) -> bool:
        return (peer, key) in self._trusted or (self._shared is not None and self._shared.holds(peer, key))

    def wait_s(self, peer: str) -> int:
        """Whole seconds for which this address is still refused; 0: it is not."""
        words, (wanted, first) = self._words, _place(_network(peer))
        now_ns = self._now_ns()
        for at in range(first, first + _WAYS * _CELL_WORDS, _CELL_WORDS):
            if words[at + _ID] == wanted and words[at + _FAILURES] >= FAILURES_MAX and words[at + _LAST_NS] <= now_ns:
                return max(math.ceil((words[at + _LAST_NS] + _LOCK_NS - now_ns) / 1e9), 0)
        return 0

    def failed(self, peer: str) -> None:
        words, (wanted, first) = self._words, _place(_network(peer))
        locked = self._locked()
        try:
            now_ns = self._now_ns()
            places = range(first, first + _WAYS * _CELL_WORDS, _CELL_WORDS)
            at = next((at for at in places if words[at + _ID] == wanted), None)
            if at is None:  # a time ahead of now is of another boot
                at, known = min(places, key=lambda at: words[at + _LAST_NS] if words[at + _LAST_NS] <= now_ns else 0), 0
            else:
                known = words[at + _FAILURES] if now_ns - _LOCK_NS < words[at + _LAST_NS] <= now_ns else 0
            self._change([(at + _ID, wanted), (at + _FAILURES, known + 1), (at + _LAST_NS, now_ns), (_LATEST, now_ns)])
        finally:
            if locked is not None:
                locked.unlock()

    def succeeded(self, peer: str, key: str) -> None:
        place = (peer, key)
        if place not in self._trusted:
            self._trusted[place] = None
            if self._shared is not None:
                self._shared.add(peer, key)
            if len(self._trusted) > TRUSTED_MAX:
                self._trusted.popitem(last=False)

    def forget_old(self) -> None:
        """Stop looking when the last failure is over; call now and then."""
        if not self.any:
            return
        locked = self._locked()
        try:
            if not 0 <= self._now_ns() - self._words[_LATEST] < _LOCK_NS:
                self._change([(_LATEST, 0)])
        finally:
            if locked is not None:
                locked.unlock()

    def _locked(self) -> Book | None:
        """None: there is nobody to lock out, or the lock is not to be had; then a failure that another worker counts at this moment may be lost."""
        if self._book is not None:
            try:
                self._book.lock()
            except BookBusy:
                return None
        return self._book

    def _change(self, pairs: Sequence[tuple[int, int]]) -> None:
        for index, value in pairs:
            self._words[index] = value

    def _now_ns(self) -> int:
        return int(self._clock.monotonic_s() * 1e9)


def _place(network: str) -> tuple[int, int]:
    """What an address is known by, and the first of the cells it may be in."""
    digest = hashlib.blake2b(network.encode(), digest_size=16).digest()
    group = int.from_bytes(digest[8:], "little") % (ADDRESSES_MAX // _WAYS)
    return int.from_bytes(digest[:8], "little") >> 1 or 1, HEADER_WORDS + group * _WAYS * _CELL_WORDS


def _network(peer: str) -> str:
    if ":" not in peer:
        return peer
    try:
        address = ipaddress.IPv6Address(peer.partition("%")[0])
        return str(address.ipv4_mapped) if address.ipv4_mapped is not None else address.packed[:8].hex()
    except ipaddress.AddressValueError:
        return peer
