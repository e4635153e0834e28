"""Is it safe to go on? Evidence that the candidate does not fail `ratio` times as often as stable (gates.md section 6.6)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

from cohort.stats.labels import LabelMixture, Steps
from cohort.stats.mixture import field, label_steps

CERTIFICATE_WEIGHTS = (0.2, 0.55, 0.25)


def certificate_ratios(ratio: float) -> tuple[float, float, float]:
    """The betted ratios: sqrt(ratio), ratio and three times ratio (decision 0010).

    The best bet is ratio * p0 / p1: `ratio` itself for a candidate as good as stable, less for one that is a little worse, more for a
    better one. Any ratio above one is valid.
    """
    return math.sqrt(ratio), ratio, 3.0 * ratio


def stable_share(share: float, ratio: float) -> float:
    """W = (1 - w)/(1 - w + w ratio): the largest P(stable | failure) when the candidate fails at least `ratio` times as often."""
    return (1.0 - share) / (1.0 - share + share * ratio)


class SafetyCertificate(LabelMixture):
    """Failures only, roles swapped (section 6.6). Null: the candidate's failure rate is at least `ratio` (above 1) times stable's.

    Reaching 1/beta rules that out with error probability beta. Failures of stable are what it earns evidence from: without failures
    there is no certificate, however long nothing happens.
    """

    __slots__ = ("_ratio", "_ratios")
    KIND = "safety_certificate"

    def __init__(self, ratio: float) -> None:
        if not 1.0 < ratio <= 1e6:
            raise ValueError(f"ratio is {ratio!r}; it must be above 1 and at most 1e6")
        super().__init__(CERTIFICATE_WEIGHTS)
        self._ratio = ratio
        self._ratios = certificate_ratios(ratio)

    @property
    def ratio(self) -> float:
        return self._ratio

    def _steps(self, share: float) -> tuple[Steps, Steps]:
        won, lost = label_steps(stable_share(share, self._ratio), self._ratios)
        return lost, won

    def to_state(self) -> dict[str, Any]:
        """Plain JSON values from which `from_state` continues bit for bit."""
        return self._labels_state() | {"ratio": self._ratio}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Raises ValueError if `state` is not one of `to_state`."""
        made = cls(float(field(state, cls.KIND, "ratio")))
        made._restore_labels(state)
        return made
