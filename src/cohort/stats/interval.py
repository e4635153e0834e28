"""Between which limits does the candidate's failure rate lie, relative to stable's? (gates.md section 6.6)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from cohort.stats.certificate import stable_share
from cohort.stats.failures import RATIOS, WEIGHTS
from cohort.stats.mixture import field, is_informative, label_steps, log_mixture, log_threshold, tolerated_share

GRID = tuple(2.0 ** (step * 5 / 32) for step in range(-32, 33))  # 65 margins from 1/32 to 32, 11 % apart
SHARES_MAX = 16  # distinct shares whose failures are kept as counts before they are folded into sums


class RatioInterval:
    """Anytime-valid interval for p1/p0: the margins that neither side rejects at alpha/2.

    `low`: the largest margin m of GRID for which "p1 <= m p0" is rejected by the test of 6.2. `high`: the smallest for which
    "p1 >= m p0" is rejected by the same test with the arms swapped. None: not bounded on that side yet. Evidence against a margin is,
    failure for failure, at least evidence against every smaller one (larger one, for `high`), so only the next margin of the grid has
    to be looked at, and the grid costs no error probability. A rejection stays; `low` above `high` means that no constant ratio fits
    what was seen.
    """

    __slots__ = ("_alpha", "_folded_high", "_folded_low", "_high", "_low", "_shares", "_threshold")
    KIND = "ratio_interval"

    def __init__(self, alpha: float) -> None:
        self._threshold = log_threshold(alpha / 2.0)
        self._alpha = alpha
        self._low = -1  # place in GRID; -1: nothing rejected
        self._high = len(GRID)
        self._shares: dict[float, list[int]] = {}  # share -> failures of [stable, candidate]
        self._folded_low: list[list[float]] | None = None  # [margin][ratio]: log evidence of shares no longer kept apart
        self._folded_high: list[list[float]] | None = None

    @property
    def low(self) -> float | None:
        return GRID[self._low] if self._low >= 0 else None

    @property
    def high(self) -> float | None:
        return GRID[self._high] if self._high < len(GRID) else None

    def update(self, arm: int, share: float) -> None:
        """One failure of `arm` (1 = candidate); its unit was the candidate's with probability `share`. Share 0 or 1 changes nothing."""
        if not is_informative(arm, share):
            return
        if share not in self._shares:
            if len(self._shares) == SHARES_MAX:
                self._fold()
            self._shares[share] = [0, 0]
        self._shares[share][1 if arm else 0] += 1
        if arm:
            while self._low + 1 < len(GRID) and self._rejects_below(self._low + 1):
                self._low += 1
        else:
            while self._high > 0 and self._rejects_above(self._high - 1):
                self._high -= 1

    def _rejects_below(self, place: int) -> bool:
        return log_mixture(WEIGHTS, self._logs_low(place)) >= self._threshold

    def _rejects_above(self, place: int) -> bool:
        return log_mixture(WEIGHTS, self._logs_high(place)) >= self._threshold

    def _logs_low(self, place: int) -> list[float]:
        """Log evidence of each bet against "p1 <= GRID[place] p0"."""
        logs = list(self._folded_low[place]) if self._folded_low else [0.0] * len(RATIOS)
        for share, (stable, candidate) in self._shares.items():
            won, lost = label_steps(tolerated_share(share, GRID[place]), RATIOS)
            logs = [log + candidate * up + stable * down for log, up, down in zip(logs, won, lost, strict=True)]
        return logs

    def _logs_high(self, place: int) -> list[float]:
        """Log evidence of each bet against "p1 >= GRID[place] p0"."""
        logs = list(self._folded_high[place]) if self._folded_high else [0.0] * len(RATIOS)
        for share, (stable, candidate) in self._shares.items():
            won, lost = label_steps(stable_share(share, GRID[place]), RATIOS)
            logs = [log + stable * up + candidate * down for log, up, down in zip(logs, won, lost, strict=True)]
        return logs

    def _fold(self) -> None:
        low = [self._logs_low(place) for place in range(len(GRID))]
        high = [self._logs_high(place) for place in range(len(GRID))]
        self._folded_low, self._folded_high = low, high
        self._shares = {}

    def to_state(self) -> dict[str, Any]:
        """Plain JSON values from which `from_state` continues bit for bit."""
        return {
            "kind": self.KIND,
            "alpha": self._alpha,
            "low": self._low,
            "high": self._high,
            "shares": [[share, stable, candidate] for share, (stable, candidate) in self._shares.items()],
            "folded_low": self._folded_low,
            "folded_high": self._folded_high,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Raises ValueError if `state` is not one of `to_state`."""
        made = cls(float(field(state, cls.KIND, "alpha")))
        made._low = int(field(state, cls.KIND, "low"))
        made._high = int(field(state, cls.KIND, "high"))
        made._shares = {float(share): [int(stable), int(candidate)] for share, stable, candidate in field(state, cls.KIND, "shares")}
        made._folded_low = _table(field(state, cls.KIND, "folded_low"))
        made._folded_high = _table(field(state, cls.KIND, "folded_high"))
        return made


def _table(value: Any) -> list[list[float]] | None:
    return None if value is None else [[float(log) for log in row] for row in value]
