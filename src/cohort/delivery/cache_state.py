"""What gateways say of their caches, as control takes it in; several workers added up. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cohort.gateway.cache.semantic.drift import MEASURES, Counts

NOBODY_YET = Counts()
TIERS_HELD = ("l1", "l3", "l4")
"""Those whose room the gateway knows; L2 is Redis's own."""


class Keeping(StrEnum):
    """What of a gateway keeps answers by the person who got them, by its path under `/-/`."""

    CACHE = "cache"
    RESPONSES = "responses"
    CONTENTS = "contents"


@dataclass(frozen=True, slots=True)
class Person:
    """Who is to be forgotten: `unit`, the pseudonym that answers carry, or `subject`, the name that clients send. One of them is None."""

    unit: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Forgotten:
    """`unit`: the pseudonym. `erased`: how many answers were removed."""

    unit: str
    erased: int


@dataclass(frozen=True, slots=True)
class Held:
    """What one tier holds, of all services."""

    entries: int = 0
    bytes: int = 0
    evicted: int = 0


@dataclass(frozen=True, slots=True)
class BandCounts:
    """Of the newest lookups, those whose best candidate was at least `lower` alike, and less than a hundredth more: served, and how comparisons went."""

    lower: float
    found: int
    served: int
    same: int
    unclear: int
    other: int


@dataclass(frozen=True, slots=True)
class DriftCounts:
    """Of one measure: the frozen baseline, and the newest."""

    baseline: Counts = NOBODY_YET
    recent: Counts = NOBODY_YET


@dataclass(frozen=True, slots=True)
class SemanticCounts:
    """What happened at one service since its gateways started. `sample`: comparisons by grade of answers that would have been served.

    `recorded`: the newest lookups, of which are the `bands`. `drift`: by release and measure.
    """

    looked: int = 0
    served: int = 0
    unproven: int = 0
    without_vector: int = 0
    objections: Mapping[str, int] = field(default_factory=dict)
    sample: Mapping[str, int] = field(default_factory=dict)
    recorded: int = 0
    bands: tuple[BandCounts, ...] = ()
    drift: Mapping[str, Mapping[str, DriftCounts]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CacheState:
    """`answered`: calls by service and by what answered: l1 to l4, miss, bypass. `held`: by tier. `semantic`: by service."""

    answered: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    held: Mapping[str, Held] = field(default_factory=dict)
    semantic: Mapping[str, SemanticCounts] = field(default_factory=dict)


def cache_state(body: Mapping[str, Any]) -> CacheState:
    """From a gateway's `GET /-/cache`. Raises KeyError, TypeError, ValueError when it is none."""
    held = {tier: Held(*(int(body[tier][name]) for name in ("entries", "bytes", "evicted"))) for tier in TIERS_HELD if tier in body}
    semantic = {service: _semantic(entry) for service, entry in body["l4"]["services"].items()}
    return CacheState({service: _counts(entry) for service, entry in body["services"].items()}, held, semantic)


def together(states: Sequence[CacheState]) -> CacheState:
    """Several workers' as one."""
    services = {service for state in states for service in state.semantic}
    return CacheState(
        {
            service: _summed(state.answered.get(service, {}) for state in states)
            for service in {service for state in states for service in state.answered}
        },
        {tier: _held([state.held[tier] for state in states if tier in state.held]) for tier in TIERS_HELD},
        {service: _added([state.semantic[service] for state in states if service in state.semantic]) for service in services},
    )


def _semantic(entry: Mapping[str, Any]) -> SemanticCounts:
    bands = [
        BandCounts(float(band["from"]), *(int(band[name]) for name in ("found", "served", "same", "unclear", "other")))
        for band in entry["bands"]
    ]
    plain = {name: int(entry[name]) for name in ("looked", "served", "unproven", "without_vector", "recorded")}
    drift = {release: {m.name: _drift(told[m.name]) for m in MEASURES} for release, told in entry["drift"].items()}
    return SemanticCounts(
        **plain, objections=_counts(entry["objections"]), sample=_counts(entry["sample"]), bands=tuple(bands), drift=drift
    )


def _drift(entry: Mapping[str, Any]) -> DriftCounts:
    baseline, recent = (Counts(int(entry[name][0]), int(entry[name][1])) for name in ("baseline", "recent"))
    return DriftCounts(baseline, recent)


def _counts(entry: Mapping[str, Any]) -> dict[str, int]:
    return {str(name): int(count) for name, count in entry.items()}


def _held(parts: Sequence[Held]) -> Held:
    return Held(sum(p.entries for p in parts), sum(p.bytes for p in parts), sum(p.evicted for p in parts))


def _added(parts: Sequence[SemanticCounts]) -> SemanticCounts:
    bands: dict[float, BandCounts] = {}
    for band in (band for part in parts for band in part.bands):
        so_far = bands.get(band.lower, BandCounts(band.lower, 0, 0, 0, 0, 0))
        bands[band.lower] = BandCounts(
            band.lower,
            so_far.found + band.found,
            so_far.served + band.served,
            so_far.same + band.same,
            so_far.unclear + band.unclear,
            so_far.other + band.other,
        )
    return SemanticCounts(
        sum(p.looked for p in parts),
        sum(p.served for p in parts),
        sum(p.unproven for p in parts),
        sum(p.without_vector for p in parts),
        _summed(p.objections for p in parts),
        _summed(p.sample for p in parts),
        sum(p.recorded for p in parts),
        tuple(bands[lower] for lower in sorted(bands)),
        {release: _drifts([p.drift[release] for p in parts if release in p.drift]) for release in {r for p in parts for r in p.drift}},
    )


def _drifts(parts: Sequence[Mapping[str, DriftCounts]]) -> dict[str, DriftCounts]:
    """Each worker has a baseline of its own; together they are the gateway's."""
    return {
        m.name: DriftCounts(
            sum((part[m.name].baseline for part in parts), Counts()), sum((part[m.name].recent for part in parts), Counts())
        )
        for m in MEASURES
    }


def _summed(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)
