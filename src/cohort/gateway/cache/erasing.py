"""Who asked to be forgotten lately: an answer that was in flight at that moment must not be kept afterwards."""

from __future__ import annotations

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.gateway.shared.erasures import Erasures
from cohort.gateway.spend.book import BookBusy

REMEMBERED_S = 7200.0
"""Longer than any call may take."""
UNITS_MAX = 4096
NEVER_S = float("-inf")


class Erased:
    """Units and when they were erased, bounded. When there are too many, the oldest stand for everybody: nothing begun before is kept.

    `shared`: those that any worker of the machine was told; without it a worker knows its own.
    """

    def __init__(self, clock: Clock, shared: Erasures | None = None) -> None:
        self._clock = clock
        self._shared = shared
        self._at_s: dict[str, float] = {}
        self._everybody_s = NEVER_S

    def add(self, unit: str) -> None:
        """Raises CohortError CACHE_NOT_ERASED: the other workers could not be told."""
        now_s = self._clock.monotonic_s()
        self._at_s.pop(unit, None)
        self._at_s[unit] = now_s
        while len(self._at_s) > UNITS_MAX or now_s - next(iter(self._at_s.values())) > REMEMBERED_S:
            oldest = next(iter(self._at_s))
            at_s = self._at_s.pop(oldest)
            if now_s - at_s <= REMEMBERED_S:
                self._everybody_s = at_s
        try:
            if self._shared is not None:
                self._shared.add(unit)
        except BookBusy as error:
            raise CohortError("CACHE_NOT_ERASED", f"the other workers could not be told: {error}", retry=Retry.SAFE) from error

    def since(self, unit: str, began_s: float) -> bool:
        """A call of `unit` that began at `began_s` was in flight when the unit was erased."""
        own = began_s <= self._everybody_s or began_s <= self._at_s.get(unit, NEVER_S)
        return own or (self._shared is not None and self._shared.since(unit, began_s))
