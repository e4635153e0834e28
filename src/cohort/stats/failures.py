"""Is the candidate failing more often? Tests on which arm each failure came from (gates.md sections 6.2 and 6.7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from cohort.stats.labels import LabelMixture, Steps
from cohort.stats.mixture import check_positive, field, label_steps, tolerated_share

RATIOS = (1.5, 2.2, 4.0, 8.0, 14.0)
WEIGHTS = (0.28, 0.27, 0.20, 0.15, 0.10)

SIGN_RATIOS = (1.25, 1.5, 2.2, 4.0, 8.0)  # the finer grid of 6.3: a sign turns a large effect into modest odds
SIGN_WEIGHTS = (0.25, 0.25, 0.25, 0.15, 0.10)


def check_ratios(ratios: Sequence[float]) -> tuple[float, ...]:
    """The betted ratios as a tuple; each is above one, or the bet would favour the wrong side."""
    if any(check_positive("ratio", ratio) <= 1.0 for ratio in ratios):
        raise ValueError(f"ratios are {tuple(ratios)}; each must be above 1")
    return tuple(ratios)


class LabelFailures(LabelMixture):
    """Failures only (section 6.2). Null: the candidate's failure rate is at most `margin` times stable's.

    Exact at any base rate, under drift and changing shares, because it asks only which arm each failure came from.
    """

    __slots__ = ("_margin", "_ratios")
    KIND = "label_failures"

    def __init__(self, margin: float = 1.0, ratios: Sequence[float] = RATIOS, weights: Sequence[float] = WEIGHTS) -> None:
        super().__init__(weights)
        self._margin = check_positive("margin", margin)
        self._ratios = check_ratios(ratios)
        if len(self._ratios) != len(self._weights):
            raise ValueError(f"{len(self._ratios)} ratios and {len(self._weights)} weights; there must be as many of each")

    @property
    def margin(self) -> float:
        return self._margin

    def _steps(self, share: float) -> tuple[Steps, Steps]:
        return label_steps(tolerated_share(share, self._margin), self._ratios)

    def to_state(self) -> dict[str, Any]:
        """Plain JSON values from which `from_state` continues bit for bit."""
        return self._labels_state() | {"margin": self._margin, "ratios": list(self._ratios), "weights": list(self._weights)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Raises ValueError if `state` is not one of `to_state`."""
        made = cls(float(field(state, cls.KIND, "margin")), field(state, cls.KIND, "ratios"), field(state, cls.KIND, "weights"))
        made._restore_labels(state)
        return made


class LabelSign:
    """Shadow pairs with an ordered outcome: the sign of the difference (section 6.7).

    Null: in a pair whose outcomes differ, the candidate's is the worse one with probability at most 1/2. Ties are not fed.
    """

    __slots__ = ("_label",)
    KIND = "label_sign"

    def __init__(self) -> None:
        self._label = LabelFailures(ratios=SIGN_RATIOS, weights=SIGN_WEIGHTS)

    @property
    def log_e(self) -> float:
        return self._label.log_e

    @property
    def peak_log_e(self) -> float:
        return self._label.peak_log_e

    @property
    def pairs_worse(self) -> int:
        """Pairs in which the candidate did worse."""
        return self._label.failures_candidate

    @property
    def pairs_better(self) -> int:
        return self._label.failures_stable

    def update(self, candidate_worse: bool) -> None:
        """One pair whose outcomes differ."""
        self._label.update(1 if candidate_worse else 0, 0.5)

    def to_state(self) -> dict[str, Any]:
        """Plain JSON values from which `from_state` continues bit for bit."""
        return {"kind": self.KIND, "label": self._label.to_state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Raises ValueError if `state` is not one of `to_state`."""
        made = cls()
        made._label = LabelFailures.from_state(field(state, cls.KIND, "label"))
        return made
