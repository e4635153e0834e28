"""The boundary between the two models: an online quantile of difficulty that keeps the wanted share, within what people approved. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cohort.gateway.contract_routing import RoutingPolicy

STEP = 0.005
"""How far the boundary may move for one conversation."""
RECENT = 1.0 / 500.0
"""Weight of the newest conversation in the reported share: a mean over about the last 500."""


@dataclass(slots=True)
class Share:
    """The strong share of the newest conversations of one bucket; None before the first."""

    value: float | None = None
    seen: int = 0

    def add(self, strong: bool) -> None:
        """Exact over the first 500, then the newest count most."""
        self.seen += 1
        weight = max(1.0 / self.seen, RECENT)
        self.value = (1.0 if strong else 0.0) if self.value is None else self.value + weight * (float(strong) - self.value)


class Boundary:
    """From which difficulty on the strong model answers.

    Stochastic approximation of a quantile (Robbins and Monro 1951): each conversation below the boundary pulls it down by `STEP` times the
    wanted strong share, each at or above it pushes it up by `STEP` times the rest; at rest the wanted share lies at or above it.
    """

    def __init__(self, policy: RoutingPolicy, target_share: float | None = None) -> None:
        self._policy = policy
        self._low, self._high = max(policy.boundary - policy.drift_max, 0.0), min(policy.boundary + policy.drift_max, 1.0)
        self.value = policy.boundary
        self.target_share = policy.strong_share
        self.limited = False
        self.aim(target_share)

    def aim(self, target_share: float | None) -> None:
        """Another wanted share, as outcomes suggest; kept within the policy's range. None: the policy's own."""
        low, high = self._policy.strong_share_range
        self.target_share = self._policy.strong_share if target_share is None else min(max(target_share, low), high)

    def see(self, difficulty: float) -> None:
        """One new conversation."""
        move = STEP * (1.0 - self.target_share) if difficulty >= self.value else -STEP * self.target_share
        wanted = self.value + move
        self.value = self._low if wanted < self._low else self._high if wanted > self._high else wanted
        self.limited = self.value != wanted

    @property
    def drift(self) -> float:
        """How far the boundary is from the approved one."""
        return abs(self.value - self._policy.boundary)
