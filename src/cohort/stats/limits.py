"""One arm against a fixed limit: is it above (gates.md section 6.5), and is it surely below?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

from cohort.stats.failures import RATIOS, WEIGHTS
from cohort.stats.mixture import Mixture, field

RATE_MAX = 0.95  # no bet expects a higher failure rate (section 6.5)
CERTIFICATE_PARTS = (0.1, 0.2, 0.4, 0.6, 0.8)
CERTIFICATE_WEIGHTS = (0.3, 0.2, 0.2, 0.15, 0.15)


class _Rate(Mixture):
    """Bets that the failure rate is each of some fixed rates, against a limit."""

    __slots__ = ("_failed", "_limit", "_passed", "failures", "units")

    def __init__(self, limit: float, rates: Sequence[float], weights: Sequence[float]) -> None:
        super().__init__(weights)
        self._limit = limit
        self._failed = tuple(math.log(rate / limit) for rate in rates)
        self._passed = tuple(math.log1p(-rate) - math.log1p(-limit) for rate in rates)
        self.units = 0
        self.failures = 0

    @property
    def limit(self) -> float:
        return self._limit

    def update(self, failed: bool) -> None:
        """One unit."""
        self.units += 1
        if failed:
            self.failures += 1
            self._step(self._failed)
        else:
            self._step(self._passed)

    def to_state(self) -> dict[str, Any]:
        """Plain JSON values from which `from_state` continues bit for bit."""
        return self._parts_state() | {"limit": self._limit, "units": self.units, "failures": self.failures}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._restore_parts(state)
        self.units = int(field(state, self.KIND, "units"))
        self.failures = int(field(state, self.KIND, "failures"))


class OneSample(_Rate):
    """Absolute limit, no baseline (section 6.5). Null: every unit's failure probability, given the past, is at most `limit`.

    Bets on `limit` times {1.5, 2.2, 4, 8, 14}, at most RATE_MAX. For "95 % of calls within 20 s" feed `latency > 20 s` with a limit of
    0.05. `limit` is above 0 and below RATE_MAX; "never" is not a rate but an invariant, and needs no statistics (section 6.8).
    """

    __slots__ = ()
    KIND = "one_sample"

    def __init__(self, limit: float) -> None:
        if not 0.0 < limit < RATE_MAX:
            raise ValueError(f"limit is {limit!r}; it must be above 0 and below {RATE_MAX}")
        super().__init__(limit, [min(RATE_MAX, limit * ratio) for ratio in RATIOS], WEIGHTS)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Raises ValueError if `state` is not one of `to_state`."""
        made = cls(float(field(state, cls.KIND, "limit")))
        made._restore(state)
        return made


class LimitCertificate(_Rate):
    """The counterpart of `OneSample` for a stage with no stable arm. Null: every unit's failure probability is at least `limit`.

    Bets on `limit` times {0.1, 0.2, 0.4, 0.6, 0.8}: each factor falls with the failure probability and has mean one at the limit, so
    reaching 1/beta certifies that the rate was not at or above the limit all along. `limit` is above 0 and below 1.
    """

    __slots__ = ()
    KIND = "limit_certificate"

    def __init__(self, limit: float) -> None:
        if not 0.0 < limit < 1.0:
            raise ValueError(f"limit is {limit!r}; it must be above 0 and below 1")
        super().__init__(limit, [limit * part for part in CERTIFICATE_PARTS], CERTIFICATE_WEIGHTS)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Raises ValueError if `state` is not one of `to_state`."""
        made = cls(float(field(state, cls.KIND, "limit")))
        made._restore(state)
        return made
