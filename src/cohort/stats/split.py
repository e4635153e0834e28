"""Is the split what it was meant to be? (gates.md section 6.11.3)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from cohort.stats.mixture import Mixture, field, is_informative, label_steps

# Odds of the candidate relative to the intended ones: small steps find a slight bias in much traffic, large ones a gross one at once.
AUDIT_ODDS = (1 / 3, 1 / 1.5, 1 / 1.15, 1 / 1.05, 1.05, 1.15, 1.5, 3.0)
AUDIT_WEIGHTS = (0.125,) * 8

LOG_E_CERTAIN = 1000.0  # reported once an assignment was seen that has probability zero; beyond any threshold


class SplitAudit(Mixture):
    """Null: each unit is the candidate's with exactly its `share`, given the past. Two-sided.

    If it crosses, hold the rollout and judge nothing: the comparison's only assumption is broken. A unit assigned against a share of 0
    or 1 is certain proof: it is counted in `impossible`, and `log_e` is at least LOG_E_CERTAIN from then on.
    """

    __slots__ = ("_lost", "_share", "_won", "impossible", "units_candidate", "units_stable")
    KIND = "split_audit"

    def __init__(self) -> None:
        super().__init__(AUDIT_WEIGHTS)
        self._share = 0.0  # the share that _won and _lost belong to
        self._won: tuple[float, ...] = ()
        self._lost: tuple[float, ...] = ()
        self.units_stable = 0
        self.units_candidate = 0
        self.impossible = 0

    def update(self, arm: int, share: float) -> None:
        """One assigned unit: its arm (1 = candidate) and the probability with which it was to be the candidate's.

        An assignment that was certain (share 0 or 1) and came out so changes nothing.
        """
        if not is_informative(arm, share):
            if arm != share:
                self.impossible += 1
                self._settle()
            return
        if share != self._share:
            self._won, self._lost = label_steps(share, AUDIT_ODDS)
            self._share = share
        if arm:
            self.units_candidate += 1
            self._step(self._won)
        else:
            self.units_stable += 1
            self._step(self._lost)

    def _settle(self) -> None:
        super()._settle()
        if self.impossible:
            self.log_e = max(self.log_e, LOG_E_CERTAIN)
            self.peak_log_e = max(self.peak_log_e, self.log_e)

    def to_state(self) -> dict[str, Any]:
        """Plain JSON values from which `from_state` continues bit for bit."""
        counts = {"units_stable": self.units_stable, "units_candidate": self.units_candidate, "impossible": self.impossible}
        return self._parts_state() | counts

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Raises ValueError if `state` is not one of `to_state`."""
        made = cls()
        made._restore_parts(state)
        made.units_stable = int(field(state, cls.KIND, "units_stable"))
        made.units_candidate = int(field(state, cls.KIND, "units_candidate"))
        made.impossible = int(field(state, cls.KIND, "impossible"))
        return made
