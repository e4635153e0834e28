"""What people are shown of routing between a strong and a weak model."""

from __future__ import annotations

from dataclasses import dataclass

from cohort.delivery.routing_rules import Rate, Suggestion, WhatIf
from cohort.gateway.contract_routing import RoutingPolicy, RoutingState


@dataclass(frozen=True, slots=True)
class Target:
    """The wanted share of one release and since when; `reason` in words."""

    release: str
    strong_share: float
    changed_us: int
    reason: str


@dataclass(frozen=True, slots=True)
class BucketView:
    """One bucket of units, of the samples at hand: which part got the strong model, and how each model's conversations went."""

    bucket: str
    conversations: int
    strong_share: float | None
    weak: Rate
    strong: Rate


@dataclass(frozen=True, slots=True)
class RoutingView:
    """How routing stands for a service's stable release. `state`: what the gateway said last; None: not heard of.

    `drift` is the gateway's (see RoutingState); `drift_max` what the release allows. `samples`: routed calls that the rest rests on.
    """

    service: str
    release: str
    policy: RoutingPolicy
    state: RoutingState | None
    target_share: float
    suggestion: Suggestion
    held: str  # why the wanted share is not moved now, in words; "" when it may
    buckets: tuple[BucketView, ...]
    history: tuple[Target, ...]
    samples: int


@dataclass(frozen=True, slots=True)
class RoutingReplay:
    """Other boundaries on the conversations that were seen. `samples` 0: nothing is known."""

    service: str
    release: str
    samples: int
    rows: tuple[WhatIf, ...]
