"""Several metrics of one release, one alarm (gates.md section 6.8)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

from cohort.stats.mixture import check_positive, field, log_mixture


def normalised(weights: Sequence[float]) -> tuple[float, ...]:
    """`weights` divided by their sum. Raises ValueError if there is none or one is not a positive number."""
    if not weights:
        raise ValueError("there are no weights; an alarm needs at least one metric")
    total = math.fsum(check_positive("weight", weight) for weight in weights)
    return tuple(weight / total for weight in weights)


def global_log_e(weights: Sequence[float], log_es: Sequence[float]) -> float:
    """ln of the weighted average of e-values: an e-value whatever the dependence between them (Vovk & Wang 2021).

    `weights` are each metric's part of alpha, on any scale; `log_es` the present log e-values, never their peaks (an average of running
    maxima is not an e-process). A metric without data counts with 0.0. Alarm when the result reaches `log_threshold(alpha)`; that
    happens no later than any single metric's own alarm at its part of alpha.
    """
    if len(weights) != len(log_es):
        raise ValueError(f"{len(weights)} weights and {len(log_es)} e-values; there must be as many of each")
    return log_mixture(normalised(weights), log_es)


class GlobalAlarm:
    """`global_log_e` over time: the present value and its running maximum."""

    __slots__ = ("_weights", "log_e", "peak_log_e")
    KIND = "global_alarm"

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = normalised(weights)
        self.log_e = 0.0
        self.peak_log_e = 0.0

    def update(self, log_es: Sequence[float]) -> None:
        """The present log e-value of every metric, in the order of the weights."""
        if len(log_es) != len(self._weights):
            raise ValueError(f"{len(self._weights)} weights and {len(log_es)} e-values; there must be as many of each")
        self.log_e = log_mixture(self._weights, log_es)
        if self.log_e > self.peak_log_e:
            self.peak_log_e = self.log_e

    def to_state(self) -> dict[str, Any]:
        """Plain JSON values from which `from_state` continues bit for bit."""
        return {"kind": self.KIND, "weights": list(self._weights), "log_e": self.log_e, "peak_log_e": self.peak_log_e}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Raises ValueError if `state` is not one of `to_state`."""
        made = cls(field(state, cls.KIND, "weights"))
        made._weights = tuple(float(weight) for weight in state["weights"])
        made.log_e = float(field(state, cls.KIND, "log_e"))
        made.peak_log_e = float(field(state, cls.KIND, "peak_log_e"))
        return made
