"""Whether a share is still what it was: the newest observations against a baseline that was frozen once.

A baseline begins after a warm-up, because a cache that begins empty finds little, and never changes afterwards. Pure, but for the clock of
who calls it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cohort.gateway.cache.semantic.proportion import difference

Z = 2.576
"""Of the interval of the difference: 99 %, as it is looked at again and again."""


class Steadiness(StrEnum):
    """TOO_FEW is not STEADY: nothing can be said."""

    TOO_FEW = "too few samples"
    STEADY = "steady"
    DRIFTED = "drifted"


@dataclass(frozen=True, slots=True)
class Measure:
    """What is watched. `warm_up`: observations left out first; then `baseline` make the baseline, and the newest `recent` are compared with it.

    `margin`: a difference up to this is none. `falls`: a fall beyond it is drift as well, not only a rise.
    """

    name: str
    warm_up: int
    baseline: int
    recent: int
    needed: int
    margin: float
    falls: bool


HITS = Measure("hits", 500, 1000, 1000, 300, 0.05, True)
"""The share of questions that would be answered, accepted or not: found at the threshold, and no guard objected."""
FALSE_HITS = Measure("false_hits", 0, 200, 200, 50, 0.005, False)
"""The share of wrong answers among the hits that were drawn."""
MEASURES = (HITS, FALSE_HITS)


@dataclass(frozen=True, slots=True)
class Counts:
    """`count` of `total`."""

    count: int = 0
    total: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.count + other.count, self.total + other.total)

    @property
    def share(self) -> float | None:
        return self.count / self.total if self.total else None


@dataclass(frozen=True, slots=True)
class Drift:
    """`low` and `high`: the 99 % interval of recent minus baseline (Newcombe, 1998, method 10)."""

    measure: str
    state: Steadiness
    baseline: Counts
    recent: Counts
    low: float
    high: float


def judge(measure: Measure, baseline: Counts, recent: Counts) -> Drift:
    """Drifted is what certainly differs by more than the margin."""
    if min(baseline.total, recent.total) < measure.needed:
        return Drift(measure.name, Steadiness.TOO_FEW, baseline, recent, -1.0, 1.0)
    low, high = difference((recent.count, recent.total), (baseline.count, baseline.total), Z)
    gone = low > measure.margin or (measure.falls and high < -measure.margin)
    return Drift(measure.name, Steadiness.DRIFTED if gone else Steadiness.STEADY, baseline, recent, low, high)


class Watch:
    """One measure of one release of one service. `baseline`: the one frozen by a former process."""

    __slots__ = ("_at", "_held", "_measure", "_recent", "_seen", "baseline", "frozen")

    def __init__(self, measure: Measure, baseline: Counts | None = None) -> None:
        self._measure = measure
        self._seen = 0
        self.frozen = baseline is not None
        self.baseline = baseline or Counts()
        self._recent = bytearray()
        self._at = self._held = 0

    def add(self, is_so: bool) -> bool:
        """One observation; whether the baseline is frozen by it."""
        if self.frozen:
            self._compare(is_so)
            return False
        self._seen += 1
        if self._seen <= self._measure.warm_up:
            return False
        self.baseline += Counts(int(is_so), 1)
        self.frozen = self.baseline.total >= self._measure.baseline
        return self.frozen

    def drift(self) -> Drift:
        return judge(self._measure, self.baseline, self.recent)

    @property
    def recent(self) -> Counts:
        return Counts(self._held, len(self._recent))

    def _compare(self, is_so: bool) -> None:
        if len(self._recent) < self._measure.recent:
            self._recent.append(is_so)
        else:
            self._held -= self._recent[self._at]
            self._recent[self._at] = is_so
            self._at = (self._at + 1) % self._measure.recent
        self._held += is_so
