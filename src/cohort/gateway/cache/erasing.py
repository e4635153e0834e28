"""Who asked to be forgotten lately: an answer that was in flight at that moment must not be kept afterwards."""

from __future__ import annotations

from cohort.base.clock import Clock

REMEMBERED_S = 7200.0
"""Longer than any call may take."""
UNITS_MAX = 4096


class Erased:
    """Units and when they were erased, bounded. When there are too many, the oldest stand for everybody: nothing begun before is kept."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at_s: dict[str, float] = {}
        self._everybody_s = float("-inf")

    def add(self, unit: str) -> None:
        now_s = self._clock.monotonic_s()
        self._at_s.pop(unit, None)
        self._at_s[unit] = now_s
        while len(self._at_s) > UNITS_MAX or now_s - next(iter(self._at_s.values())) > REMEMBERED_S:
            oldest = next(iter(self._at_s))
            at_s = self._at_s.pop(oldest)
            if now_s - at_s <= REMEMBERED_S:
                self._everybody_s = at_s

    def since(self, unit: str, began_s: float) -> bool:
        """A call of `unit` that began at `began_s` was in flight when the unit was erased."""
        return began_s <= self._everybody_s or began_s <= self._at_s.get(unit, float("-inf"))
