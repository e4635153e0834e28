"""Addresses that gave too many wrong keys are refused for a while."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict

from cohort.base.clock import Clock

FAILURES_MAX = 20
LOCK_S = 60.0
"""How long an address is refused, and how long its failures are remembered after the last one."""
ADDRESSES_MAX = 10_000
TRUSTED_MAX = 10_000


class Lockout:
    """Counts wrong keys per address (of IPv6: per /64) for at most `ADDRESSES_MAX`: the one that failed longest ago is forgotten first.

    A key that was good from an address before stays good there: behind a proxy that shows one address for everybody, one client's wrong
    key does not lock out the others. A key seen there for the first time waits.
    """

    __slots__ = ("_clock", "_failures", "_trusted")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._trusted: OrderedDict[tuple[str, str], None] = OrderedDict()

    @property
    def any(self) -> bool:
        """Somebody failed."""
        return bool(self._failures)

    @property
    def addresses(self) -> int:
        return len(self._failures)

    def trusts(self, peer: str, key: str) -> bool:
        return (peer, key) in self._trusted

    def wait_s(self, peer: str) -> int:
        """Whole seconds for which this address is still refused; 0: it is not."""
        failures, last_s = self._failures.get(_network(peer), (0, 0.0))
        left_s = last_s + LOCK_S - self._clock.monotonic_s()
        return max(math.ceil(left_s), 0) if failures >= FAILURES_MAX else 0

    def failed(self, peer: str) -> None:
        network, now_s = _network(peer), self._clock.monotonic_s()
        failures, last_s = self._failures.get(network, (0, now_s))
        self._failures[network] = (failures + 1 if now_s < last_s + LOCK_S else 1, now_s)
        self._failures.move_to_end(network)
        if len(self._failures) > ADDRESSES_MAX:
            self._failures.popitem(last=False)

    def succeeded(self, peer: str, key: str) -> None:
        place = (peer, key)
        if place not in self._trusted:
            self._trusted[place] = None
            if len(self._trusted) > TRUSTED_MAX:
                self._trusted.popitem(last=False)

    def forget_old(self) -> None:
        """Drop addresses whose last failure is over; call now and then."""
        oldest_s = self._clock.monotonic_s() - LOCK_S
        while self._failures and next(iter(self._failures.values()))[1] <= oldest_s:
            self._failures.popitem(last=False)


def _network(peer: str) -> str:
    if ":" not in peer:
        return peer
    try:
        address = ipaddress.IPv6Address(peer.partition("%")[0])
        return str(address.ipv4_mapped) if address.ipv4_mapped is not None else address.packed[:8].hex()
    except ipaddress.AddressValueError:
        return peer
