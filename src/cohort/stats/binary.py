"""Is the candidate failing more often, judged from failures and successes? For base rates above about 5 % (gates.md section 6.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

from cohort.stats.failures import check_ratios
from cohort.stats.mixture import Mixture, field, is_informative

HIGH_BASE_RATIOS = (1.25, 1.5, 2.2, 4.0, 8.0)
HIGH_BASE_WEIGHTS = (0.25, 0.25, 0.25, 0.15, 0.10)

CANDIDATE_RATE_MAX = 0.95  # no bet expects the candidate to fail more often than this
PRIOR_RATE = 0.01
PRIOR_UNITS = 100  # units that the prior rate counts for


class LabelBinary(Mixture):
    """Failures and successes (section 6.3). Null: the candidate fails no more often than stable.

    Every unit is fed once per stage. The bets follow the pooled failure rate of the past, (failures + 1)/(units + 100), which steers
    them and cannot invalidate them. A `prior_rate` other than 0.01, such as stable's failure rate before the rollout, counts for as
    many units and makes the first bets fit (decision 0012). For a tolerance margin above one use `LabelFailures`.
    """

    __slots__ = ("_prior_rate", "_ratios", "failures_candidate", "failures_stable", "units_candidate", "units_stable")
    KIND = "label_binary"
    _COUNTS = ("failures_candidate", "failures_stable", "units_candidate", "units_stable")

    def __init__(
        self, ratios: Sequence[float] = HIGH_BASE_RATIOS, weights: Sequence[float] = HIGH_BASE_WEIGHTS, prior_rate: float = PRIOR_RATE
    ) -> None:
        super().__init__(weights)
        self._ratios = check_ratios(ratios)
        if len(self._ratios) != len(self._weights):
            raise ValueError(f"{len(self._ratios)} ratios and {len(self._weights)} weights; there must be as many of each")
        if not 0.0 < prior_rate < 1.0:
            raise ValueError(f"prior_rate is {prior_rate!r}; it must be above 0 and below 1")
        self._prior_rate = prior_rate
        self.failures_candidate = 0
        self.failures_stable = 0
        self.units_candidate = 0
        self.units_stable = 0

    def update(self, arm: int, share: float, failed: bool) -> None:
        """One unit of `arm` (1 = candidate) that had probability `share` of being the candidate's. Share 0 or 1 changes nothing."""
        if not is_informative(arm, share):
            return
        self._step(self._steps(arm, share, failed))
        if arm:
            self.units_candidate += 1
            self.failures_candidate += 1 if failed else 0
        else:
            self.units_stable += 1
            self.failures_stable += 1 if failed else 0

    def _steps(self, arm: int, share: float, failed: bool) -> list[float]:
        """ln e of each bet: p_A / pbar on a failure, (1 - p_A) / (1 - pbar) on a success.

        p_1 is never below p_0: where the cap would turn the bet round (a pooled rate near one), the factor is one instead, which keeps
        the one-sided null covered.
        """
        failures = self.failures_candidate + self.failures_stable
        pooled = (failures + PRIOR_UNITS * self._prior_rate) / (self.units_candidate + self.units_stable + PRIOR_UNITS)
        steps = []
        for ratio in self._ratios:
            stable = pooled / (1.0 + share * (ratio - 1.0))
            candidate = max(stable, min(CANDIDATE_RATE_MAX, ratio * stable))
            mean = share * candidate + (1.0 - share) * stable
            rate = candidate if arm else stable
            steps.append(math.log(rate / mean) if failed else math.log((1.0 - rate) / (1.0 - mean)))
        return steps

    def to_state(self) -> dict[str, Any]:
        """Plain JSON values from which `from_state` continues bit for bit."""
        counts = {name: getattr(self, name) for name in self._COUNTS}
        bets = {"ratios": list(self._ratios), "weights": list(self._weights), "prior_rate": self._prior_rate}
        return self._parts_state() | bets | counts

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Raises ValueError if `state` is not one of `to_state`."""
        made = cls(field(state, cls.KIND, "ratios"), field(state, cls.KIND, "weights"), float(field(state, cls.KIND, "prior_rate")))
        made._restore_parts(state)
        for name in cls._COUNTS:
            setattr(made, name, int(field(state, cls.KIND, name)))
        return made
