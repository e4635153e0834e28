"""What people are shown of a service's caches, computed from what its gateways said. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cohort.delivery.cache_state import BandCounts, CacheState, SemanticCounts
from cohort.gateway.cache.semantic.proportion import clopper_pearson
from cohort.gateway.contract_cache import CachePolicy, SemanticPolicy

TIERS = ("l1", "l2", "l3", "l4")


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
    """One cache. `reached`: calls that no cache before it answered. `entries`, `bytes`, `evicted`: of all services; None: not the gateway's to know."""

    tier: str
    reached: int
    hits: int
    entries: int | None
    bytes: int | None
    evicted: int | None


@dataclass(frozen=True, slots=True)
class OtherThreshold:
    """Had the threshold been `threshold`. `served`: of the questions looked up. `wrong`: of `compared`; unclear ones count in its upper end."""

    threshold: float
    found: int
    served: Share
    compared: int
    wrong: Share


@dataclass(frozen=True, slots=True)
class SemanticFigures:
    """L4. `false`: of the hits that were drawn and asked of the model as well; unclear ones count in its upper end only.

    `unproven`: questions found whose entry had not earned to answer. `what_if`: the threshold in force first; none below it, as nothing is known there.
    """

    looked: int
    served: Share
    sampled: int
    false: Share
    unclear: int
    unproven: int
    without_vector: int
    objections: Mapping[str, int]
    what_if: tuple[OtherThreshold, ...]


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


def cache_figures(service: str, policy: CachePolicy, state: CacheState) -> CacheFigures:
    answered = state.answered.get(service, {})
    hits = sum(answered.get(tier, 0) for tier in TIERS)
    calls = hits + answered.get("miss", 0)
    tiers, left = [], calls
    for tier in TIERS:
        found = answered.get(tier, 0)
        if _has(policy, tier) or found:
            held = state.held.get(tier)
            room = (held.entries, held.bytes, held.evicted) if held is not None else (None, None, None)
            tiers.append(Tier(tier, left, found, *room))
        left -= found
    counts = state.semantic.get(service, SemanticCounts())
    semantic = semantic_figures(policy.semantic, counts) if policy.semantic is not None else None
    return CacheFigures(calls, answered.get("bypass", 0), share(hits, calls), tuple(tiers), semantic)


def semantic_figures(policy: SemanticPolicy, counts: SemanticCounts) -> SemanticFigures:
    sampled = sum(counts.sample.values())
    unclear, other = counts.sample.get("unclear", 0), counts.sample.get("other", 0)
    thresholds = [policy.threshold, *(band.lower for band in counts.bands if band.lower > policy.threshold)]
    return SemanticFigures(
        counts.looked,
        share(counts.served, counts.looked),
        sampled,
        share(other, sampled, unclear),
        unclear,
        counts.unproven,
        counts.without_vector,
        counts.objections,
        tuple(_what_if(threshold, counts, number == 0) for number, threshold in enumerate(thresholds)) if counts.looked else (),
    )


def share(count: int, total: int, unclear: int = 0) -> Share:
    """`unclear`: of `total` as well, and `count`'s in the upper end of the interval only."""
    low, high = clopper_pearson(count, total)[0], clopper_pearson(count + unclear, total)[1]
    return Share(count, total, count / total if total else None, low, high)


def _what_if(threshold: float, counts: SemanticCounts, in_force: bool) -> OtherThreshold:
    """Bands are judged each by its own comparisons, so those above another threshold would have been served as they were."""
    bands: Sequence[BandCounts] = [band for band in counts.bands if in_force or band.lower >= threshold]
    unclear, other = sum(band.unclear for band in bands), sum(band.other for band in bands)
    compared = sum(band.same for band in bands) + unclear + other
    served = share(sum(band.served for band in bands), counts.looked)
    return OtherThreshold(threshold, sum(band.found for band in bands), served, compared, share(other, compared, unclear))


def _has(policy: CachePolicy, tier: str) -> bool:
    if tier == "l4":
        return policy.semantic is not None
    return policy.exact and (tier == "l1" or (policy.shared if tier == "l2" else policy.disk))
