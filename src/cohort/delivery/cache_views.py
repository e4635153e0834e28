"""What people are shown of a service's caches, computed from what its gateways said. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cohort.delivery.cache_state import BandCounts, CacheState, DriftCounts, SemanticCounts
from cohort.gateway.cache.semantic.drift import MEASURES, Measure, judge
from cohort.gateway.cache.semantic.proportion import clopper_pearson
from cohort.gateway.cache.semantic.recorded import OBSERVED_BELOW, THRESHOLD_MIN, step_of
from cohort.gateway.contract_cache import CachePolicy, SemanticPolicy

TIERS = ("l1", "l2", "l3", "l4")
WHAT_IF = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99)
"""Thresholds that are compared with the one in force."""


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `total`, with the 95 % interval of Clopper and Pearson (1934); `share` None for nothing."""

    count: int
    total: int
    share: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Tier:
    """One cache. `reached`: calls that no cache before it answered; `hit_rate`: the part of these that it answered. `false`: of its hits, where
    they can be false at all: the exact tiers give what the same request was answered. `entries`, `bytes`, `evicted`: of all services; None: not
    the gateway's to know.
    """

    tier: str
    reached: int
    hits: int
    hit_rate: Share
    false: Share | None
    entries: int | None
    bytes: int | None
    evicted: int | None


@dataclass(frozen=True, slots=True)
class OtherThreshold:
    """Had the threshold been `threshold`, of the newest lookups. `found`: what would be answered, once proven. `served`: what was; None below the
    threshold in force, where nothing was. `wrong`: of `compared`; unclear ones count in its upper end.
    """

    threshold: float
    in_force: bool
    found: Share
    served: Share | None
    compared: int
    wrong: Share


@dataclass(frozen=True, slots=True)
class Drifting:
    """Whether a share is what it was. `measure`: `hits`, what would be answered, or `false_hits`. `state`: too few samples, steady, drifted.

    `low`, `high`: the 99 % interval of `recent` minus `baseline`. `needed`: observations of each before anything is said.
    """

    measure: str
    state: str
    baseline: Share
    recent: Share
    low: float
    high: float
    needed: int


@dataclass(frozen=True, slots=True)
class SemanticFigures:
    """L4. `false`: of the hits that were drawn and asked of the model as well; unclear ones count in its upper end only.

    `unproven`: questions found whose entry had not earned to answer. `what_if`: of the newest `recorded` lookups, lowest threshold first.
    `drift`: of the stable release.
    """

    looked: int
    served: Share
    sampled: int
    false: Share
    unclear: int
    unproven: int
    without_vector: int
    objections: Mapping[str, int]
    recorded: int
    what_if: tuple[OtherThreshold, ...]
    drift: tuple[Drifting, ...]


@dataclass(frozen=True, slots=True)
class CacheFigures:
    """Since the gateways started. `calls`: those the caches took part in; `bypassed`: the others."""

    calls: int
    bypassed: int
    hits: Share
    tiers: tuple[Tier, ...]
    semantic: SemanticFigures | None


@dataclass(frozen=True, slots=True)
class CacheView:
    """The caches of a service's stable release. `killed`: the kill switches thrown. `figures`: None when no worker of the gateway answers.

    `workers`: those in the figures. `silent`: what the others said instead.
    """

    service: str
    release: str
    policy: CachePolicy
    killed: tuple[str, ...]
    workers: int
    silent: tuple[str, ...]
    figures: CacheFigures | None


@dataclass(frozen=True, slots=True)
class StoreErased:
    """One store of one of the gateway's workers. `erased`: how many answers; None with a `problem`: some may still be there."""

    worker: int
    store: str
    erased: int | None
    problem: str


@dataclass(frozen=True, slots=True)
class Erasure:
    """A person forgotten. `unit`: the pseudonym."""

    unit: str
    stores: tuple[StoreErased, ...]


def cache_figures(service: str, release: str, policy: CachePolicy, state: CacheState) -> CacheFigures:
    answered = state.answered.get(service, {})
    hits = sum(answered.get(tier, 0) for tier in TIERS)
    calls = hits + answered.get("miss", 0)
    counts = state.semantic.get(service, SemanticCounts())
    semantic = semantic_figures(policy.semantic, counts, release) if policy.semantic is not None else None
    tiers, left = [], calls
    for tier in TIERS:
        found = answered.get(tier, 0)
        if _has(policy, tier) or found:
            held = state.held.get(tier)
            room = (held.entries, held.bytes, held.evicted) if held is not None else (None, None, None)
            false = semantic.false if tier == "l4" and semantic is not None else None
            tiers.append(Tier(tier, left, found, share(found, left), false, *room))
        left -= found
    return CacheFigures(calls, answered.get("bypass", 0), share(hits, calls), tuple(tiers), semantic)


def semantic_figures(policy: SemanticPolicy, counts: SemanticCounts, release: str) -> SemanticFigures:
    sampled = sum(counts.sample.values())
    unclear, other = counts.sample.get("unclear", 0), counts.sample.get("other", 0)
    drift = counts.drift.get(release, {})
    return SemanticFigures(
        counts.looked,
        share(counts.served, counts.looked),
        sampled,
        share(other, sampled, unclear),
        unclear,
        counts.unproven,
        counts.without_vector,
        counts.objections,
        counts.recorded,
        tuple(_what_if(threshold, policy.threshold, counts) for threshold in _thresholds(policy.threshold)) if counts.recorded else (),
        tuple(_drifting(measure, drift.get(measure.name, DriftCounts())) for measure in MEASURES),
    )


def share(count: int, total: int, unclear: int = 0) -> Share:
    """`unclear`: of `total` as well, and `count`'s in the upper end of the interval only."""
    low, high = clopper_pearson(count, total)[0], clopper_pearson(count + unclear, total)[1]
    return Share(count, total, count / total if total else None, low, high)


def _thresholds(in_force: float) -> list[float]:
    """Those of which something is known: candidates were looked at down to a little below the threshold in force."""
    floor = max(THRESHOLD_MIN, in_force - OBSERVED_BELOW)
    return sorted({in_force, *(threshold for threshold in WHAT_IF if threshold >= floor - 1e-9)})


def _what_if(threshold: float, in_force: float, counts: SemanticCounts) -> OtherThreshold:
    """Bands are judged each by its own comparisons, so those above another threshold would have been served as they were."""
    bands: Sequence[BandCounts] = [band for band in counts.bands if step_of(band.lower) >= step_of(threshold)]
    unclear, other = sum(band.unclear for band in bands), sum(band.other for band in bands)
    compared = sum(band.same for band in bands) + unclear + other
    served = share(sum(band.served for band in bands), counts.recorded) if threshold >= in_force else None
    found = share(sum(band.found for band in bands), counts.recorded)
    return OtherThreshold(threshold, threshold == in_force, found, served, compared, share(other, compared, unclear))


def _drifting(measure: Measure, counts: DriftCounts) -> Drifting:
    found = judge(measure, counts.baseline, counts.recent)
    baseline, recent = (share(part.count, part.total) for part in (counts.baseline, counts.recent))
    return Drifting(measure.name, found.state.value, baseline, recent, found.low, found.high, measure.needed)


def _has(policy: CachePolicy, tier: str) -> bool:
    if tier == "l4":
        return policy.semantic is not None
    return policy.exact and (tier == "l1" or (policy.shared if tier == "l2" else policy.disk))
