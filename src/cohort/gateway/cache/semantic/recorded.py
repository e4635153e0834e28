"""The newest lookups of a service, for what other thresholds would have done: how near the best candidate was, and what it was worth.

Two bytes each, the newest SAMPLE_MAX of them. Nothing of what was asked is held.
"""

from __future__ import annotations

from typing import Any

from cohort.gateway.cache.semantic.acceptance import Grade

SAMPLE_MAX = 2000
OBSERVED_BELOW = 0.15
"""How far below the threshold candidates are looked at as well, to know what a lower one would do. They never answer."""
THRESHOLD_MIN = 0.5
BINS = 100
"""Likeness in steps of a hundredth."""
NOTHING = 255
SERVED = 1
_GRADES = {Grade.SAME: 2, Grade.UNCLEAR: 4, Grade.OTHER: 8}


class Recorded:
    """A ring of lookups."""

    __slots__ = ("_bins", "_count", "_marks")

    def __init__(self) -> None:
        self._bins, self._marks = bytearray(), bytearray()
        self._count = 0

    def add(self, cosine: float | None, served: bool = False, below: float | None = None) -> int:
        """One lookup; its ticket. `cosine`: of the best candidate that no guard objected to. `below`: the threshold that it is below of."""
        place = NOTHING if cosine is None else min(step_of(cosine), step_of(below) - 1 if below is not None else BINS - 1)
        ticket, at = self._count, self._count % SAMPLE_MAX
        self._count += 1
        if at == len(self._bins):
            self._bins.append(place)
            self._marks.append(served)
        else:
            self._bins[at], self._marks[at] = place, served
        return ticket

    def graded(self, ticket: int, grade: Grade) -> None:
        """What a lookup found was compared with the model's answer."""
        if self._count - ticket <= SAMPLE_MAX:
            self._marks[ticket % SAMPLE_MAX] |= _GRADES[grade]

    def state(self) -> dict[str, Any]:
        """How many lookups there are, and of each step of likeness, lowest first, what was found, served and compared."""
        bands: dict[int, dict[str, float | int]] = {}
        for place, mark in zip(self._bins, self._marks, strict=True):
            if place == NOTHING:
                continue
            band = bands.setdefault(place, dict.fromkeys(("found", "served", *(grade.value for grade in Grade)), 0))
            band["found"] += 1
            band["served"] += mark & SERVED
            for grade, bit in _GRADES.items():
                band[grade.value] += bool(mark & bit)
        return {"recorded": len(self._bins), "bands": [{"from": place / BINS, **bands[place]} for place in sorted(bands)]}


def step_of(cosine: float) -> int:
    return max(0, min(int(cosine * BINS + 1e-6), BINS - 1))
