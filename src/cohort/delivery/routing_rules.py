"""What outcomes say about choosing between a strong and a weak model. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cohort.gateway.contract_routing import RoutingPolicy

SHARE_STEP = 0.01
"""How far the wanted share moves at once."""
BAND = 0.1
"""How near to the boundary a conversation must be to say something about moving it."""
SIDE_SAMPLES_MIN = 200
"""Conversations needed on each side of the boundary, within the band, since the last move."""
MARGIN = 0.01
"""Failures of the weak model beyond the strong one's that are not worth the strong one's price."""
Z = 1.959963984540054
"""Two-sided 95 %."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One routed call and how it went. `features` as reported; `cost_usd_micro` None where unknown."""

    release: str
    unit: str
    at_us: int
    bucket: str
    strong: bool
    difficulty: float
    boundary: float
    features: str
    failed: bool
    cost_usd_micro: int | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """Failed of all, with the 95 % interval of Wilson (1927); `rate` None for nothing."""

    failed: int
    count: int
    rate: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What should happen to the wanted strong share: `share` it should be (the present one: stay), and why, in words."""

    share: float
    moves: bool
    reason: str
    weak: Rate
    strong: Rate


@dataclass(frozen=True, slots=True)
class WhatIf:
    """One boundary, on conversations that were seen.

    `strong_share`: the part at or above it. `known`: the part for which it chooses the model that did answer, so that their outcome is known;
    `failure_rate` is of those, reweighted to all. `cost_usd_per_1000`: with each model's own mean cost; None where unknown.
    """

    boundary: float
    strong_share: float
    known: float
    failure_rate: float | None
    cost_usd_per_1000: float | None
    drift: float


def rate(failed: int, count: int) -> Rate:
    """Wilson's interval: sound also where nothing or everything failed."""
    if count == 0:
        return Rate(0, 0, None, 0.0, 1.0)
    share, squared = failed / count, Z * Z
    middle = (share + squared / (2 * count)) / (1 + squared / count)
    room = Z * math.sqrt(share * (1 - share) / count + squared / (4 * count * count)) / (1 + squared / count)
    return Rate(failed, count, share, max(middle - room, 0.0), min(middle + room, 1.0))


def suggest(policy: RoutingPolicy, share: float, samples: Sequence[Sample]) -> Suggestion:
    """Whether outcomes near the boundary ask for more or less of the strong model; `share` is the wanted one now.

    Compares conversations just below the boundary (weak) with those just above (strong): near it they are alike but for the model
    (regression discontinuity; Thistlethwaite and Campbell 1960). The strong side is the harder one, which counts in favour of the weak model,
    so the share goes up only on clear evidence and goes down only when the weak model is no worse by more than `MARGIN`.
    """
    near = [sample for sample in samples if abs(sample.difficulty - sample.boundary) <= BAND and sample.bucket != "control"]
    weak, strong = _side(near, False), _side(near, True)
    low, high = policy.strong_share_range
    if min(weak.count, strong.count) < SIDE_SAMPLES_MIN:
        few = f"{weak.count} weak and {strong.count} strong conversations near the boundary"
        few += f"; {SIDE_SAMPLES_MIN} of each are needed before outcomes move the wanted share"
        return Suggestion(share, False, few, weak, strong)
    below, above = difference(weak, strong)
    said = f"just below the boundary {_percent(weak)} fail, just above {_percent(strong)}; the difference is {below:+.1%} to {above:+.1%}"
    if below > MARGIN:
        return _towards(min(share + SHARE_STEP, high), share, f"{said}: more conversations need the strong model", weak, strong)
    if above < MARGIN:
        return _towards(max(share - SHARE_STEP, low), share, f"{said}: the weak model is enough for more", weak, strong)
    return Suggestion(share, False, f"{said}: not clear either way", weak, strong)


def difference(weak: Rate, strong: Rate) -> tuple[float, float]:
    """95 % interval of the weak failure rate less the strong one (Newcombe 1998, method 10)."""
    first, second = weak.rate or 0.0, strong.rate or 0.0
    low = first - second - math.hypot(first - weak.low, strong.high - second)
    return low, first - second + math.hypot(weak.high - first, second - strong.low)


def what_if(
    policy: RoutingPolicy, samples: Sequence[Sample], score: Callable[[Sample], float], boundaries: Sequence[float]
) -> list[WhatIf]:
    """Each boundary on the same conversations; `score`: the difficulty of a sample, such as by other weights."""
    scored = [(score(sample), sample) for sample in samples]
    costs = {
        strong: _mean([s.cost_usd_micro for s in samples if s.strong is strong and s.cost_usd_micro is not None])
        for strong in (True, False)
    }
    actual = sum(sample.strong for sample in samples) / len(samples) if samples else 0.0
    return [_one(boundary, scored, costs, actual, policy) for boundary in boundaries]


def _one(
    boundary: float, scored: Sequence[tuple[float, Sample]], costs: Mapping[bool, float | None], actual: float, policy: RoutingPolicy
) -> WhatIf:
    count = len(scored)
    strong = sum(difficulty >= boundary for difficulty, _ in scored)
    share = strong / count if count else 0.0
    known = {side: [s for difficulty, s in scored if (difficulty >= boundary) is side and s.strong is side] for side in (True, False)}
    return WhatIf(
        boundary=boundary,
        strong_share=share,
        known=(len(known[True]) + len(known[False])) / count if count else 0.0,
        failure_rate=_stratified(share, known),
        cost_usd_per_1000=_cost(share, costs),
        drift=max(abs(boundary - policy.boundary), abs(share - actual)),
    )


def _stratified(share: float, known: Mapping[bool, Sequence[Sample]]) -> float | None:
    """Failure rate of each side's known conversations, weighed as the boundary would share them; None when a side that counts has none."""
    total = 0.0
    for side, weight in ((True, share), (False, 1.0 - share)):
        if weight > 0 and not known[side]:
            return None
        if weight > 0:
            total += weight * sum(sample.failed for sample in known[side]) / len(known[side])
    return total


def _cost(share: float, costs: Mapping[bool, float | None]) -> float | None:
    strong, weak = costs[True], costs[False]
    if (strong is None and share > 0) or (weak is None and share < 1):
        return None
    return (share * (strong or 0.0) + (1 - share) * (weak or 0.0)) / 1e3


def _side(samples: Sequence[Sample], strong: bool) -> Rate:
    """Conversations, not calls: one that failed once has failed."""
    units: dict[str, bool] = {}
    for sample in samples:
        if sample.strong is strong:
            units[sample.unit] = units.get(sample.unit, False) or sample.failed
    return rate(sum(units.values()), len(units))


def _towards(wanted: float, share: float, reason: str, weak: Rate, strong: Rate) -> Suggestion:
    moved = round(wanted, 6) != round(share, 6)
    return Suggestion(round(wanted, 6), moved, reason if moved else f"{reason}, but the release allows no more", weak, strong)


def _mean(values: Sequence[int]) -> float | None:
    return sum(values) / len(values) if values else None


def _percent(found: Rate) -> str:
    return f"{found.rate:.1%} of {found.count}" if found.rate is not None else "none"
