"""Bets on the arm of each failure: what the test for harm (6.2) and the certificate (6.6) have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from cohort.stats.mixture import Mixture, field, is_informative

Steps = tuple[float, ...]


class LabelMixture(Mixture):
    """Players that bet on which arm a failure came from. Memory: one float per player and two counts.

    Only failures are fed, once per unit and stage; what the players stake depends on the share alone.
    """

    __slots__ = ("_if_candidate", "_if_stable", "_share", "failures_candidate", "failures_stable")

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__(weights)
        self._share = 0.0  # the share that the steps belong to
        self._if_candidate: Steps = ()
        self._if_stable: Steps = ()
        self.failures_stable = 0
        self.failures_candidate = 0

    @abstractmethod
    def _steps(self, share: float) -> tuple[Steps, Steps]:
        """What a failure of the candidate, and one of stable, adds to each player's logarithm at this share."""

    def update(self, arm: int, share: float) -> None:
        """One failure of `arm` (1 = candidate); its unit was the candidate's with probability `share`. Share 0 or 1 changes nothing."""
        if not is_informative(arm, share):
            return
        if share != self._share:
            self._if_candidate, self._if_stable = self._steps(share)
            self._share = share
        if arm:
            self.failures_candidate += 1
            self._step(self._if_candidate)
        else:
            self.failures_stable += 1
            self._step(self._if_stable)

    def _labels_state(self) -> dict[str, Any]:
        return self._parts_state() | {"failures_stable": self.failures_stable, "failures_candidate": self.failures_candidate}

    def _restore_labels(self, state: Mapping[str, Any]) -> None:
        self._restore_parts(state)
        self.failures_stable = int(field(state, self.KIND, "failures_stable"))
        self.failures_candidate = int(field(state, self.KIND, "failures_candidate"))
