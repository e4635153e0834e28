"""The part of the routing table and of outcomes that is about choosing between a strong and a weak model. Versioned with contract.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FEATURES = ("length", "context", "code", "figures", "questions", "structure", "tools", "format")
"""What is looked at, in this order, each from 0 to 1. See `adaptive/features.py`."""
FEATURE_LEVELS = 15
"""A feature is reported as one hexadecimal digit: its value times this, rounded."""
WEIGHTS: Mapping[str, float] = {
    "bias": -2.2,
    "length": 2.0,
    "context": 0.8,
    "code": 1.6,
    "figures": 1.2,
    "questions": 0.6,
    "structure": 1.0,
    "tools": 0.8,
    "format": 0.4,
}
"""Where a release gives none: chosen so that a short question scores about 0.2 and a long one with code about 0.8. Fit your own with
`cohort routing fit`."""


@dataclass(frozen=True, slots=True)
class RoutingPolicy:
    """How a release chooses between two of its routes.

    `strong_share`: the wanted part of conversations for `strong`, kept between the two ends of `strong_share_range` when outcomes say
    that it should be more or less. `boundary`: the difficulty from which on `strong` answers, as people approved it with the release; the
    boundary in force stays within `drift_max` of it. `control_bucket_share`: the part of units for which nothing ever adapts.
    `override`: one of the two route names, for every request. `weights`: none below 0 but `bias`.
    """

    strong: str
    weak: str
    strong_share: float = 0.6
    strong_share_range: tuple[float, float] = (0.55, 0.65)
    boundary: float = 0.5
    drift_max: float = 0.08
    control_bucket_share: float = 0.1
    adapt: bool = True
    override: str | None = None
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RoutingState:
    """What one gateway process says of one service's release.

    `boundary`: in force for units outside the control bucket. `drift`: how far it, or the share, is from what the release says, whichever is
    more. `shares`: the part that got the strong model, of the newest conversations, per bucket (`control`, `adaptive`); None before any.
    `limited`: the boundary would go further but for `drift_max`.
    """

    release: str
    boundary: float
    target_share: float
    drift: float
    shares: Mapping[str, float | None]
    conversations: int
    limited: bool
    mode: str  # adaptive, frozen, override, killed


def routing_of(entry: dict[str, Any]) -> RoutingPolicy:
    """The policy in a routing table; raises ValueError, KeyError or TypeError when it is none."""
    low, high = entry["strong_share_range"]
    policy = RoutingPolicy(**{**entry, "strong_share_range": (float(low), float(high))})
    if policy.strong == policy.weak or policy.override not in (None, policy.strong, policy.weak):
        raise ValueError("routing: strong and weak must be two routes, and override one of them")
    numbers = (policy.strong_share, low, high, policy.boundary, policy.drift_max, policy.control_bucket_share)
    if not all(isinstance(number, int | float) and 0 <= number <= 1 for number in numbers):
        raise ValueError("routing: shares, boundary and drift must be numbers from 0 to 1")
    if set(policy.weights) - set(WEIGHTS) or not all(isinstance(weight, int | float) for weight in policy.weights.values()):
        raise ValueError(f"routing: weights are numbers for some of {', '.join(WEIGHTS)}")
    return policy
