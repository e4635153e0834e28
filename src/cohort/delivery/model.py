"""The words of delivery as values: plans, rollouts, verdicts, and the views that surfaces show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cohort.base.ids import ReleaseDigest, RolloutId


class Verdict(StrEnum):
    """The answer of a gate. Missing evidence is NOT_YET, never SAFE."""

    HARMFUL = "harmful"
    SAFE = "safe"
    NOT_YET = "not_yet"


class State(StrEnum):
    PLANNED = "planned"
    RUNNING = "running"
    PAUSED = "paused"
    AWAITING_APPROVAL = "awaiting_approval"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"

    @property
    def ended(self) -> bool:
        return self in (State.PROMOTED, State.ROLLED_BACK, State.ABORTED)


class GateKind(StrEnum):
    INVARIANT = "invariant"  # a count that must be 0; the first event rolls back
    SLO = "slo"  # an absolute limit, no baseline needed
    COMPARISON = "comparison"  # against the stable release, at the same time
    PASSES = "passes"  # so many reports of one check in a row


class Metric(StrEnum):
    """What is looked at, once per unit and stage (metric dictionary: docs/reference/metrics.md)."""

    FAILURES = "failures"
    LATENCY = "latency"  # total, of the unit's first completed call
    FIRST_BYTE = "first_byte"
    COST = "cost"
    TOKENS = "tokens"  # output tokens
    FEEDBACK = "feedback"  # negative feedback
    REGISTRY = "registry"  # damaged release in the registry (invariant)


@dataclass(frozen=True, slots=True)
class Gate:
    """One question.

    COMPARISON: `margin` 1.0 asks for "no worse", 1.05 tolerates 5 % more. SLO: `limit` is the allowed failure rate (0 to 1) for
    failures; for latency `limit_ms` with `share_over` the allowed share of units above it; with no limit given, `margin` times stable's
    failure rate (for latency: `share_over` of the units above stable's p95) as measured earlier in the rollout. PASSES: so many SLO reports
    (`limit`, `limit_ms`) in a row to go on, `failures` in a row to roll back; one report per `floor / passes`.
    `dry_run` gates are computed and shown, and decide nothing.
    """

    name: str
    kind: GateKind
    metric: Metric
    margin: float = 1.0
    limit: float | None = None
    limit_ms: float | None = None
    share_over: float = 0.05
    passes: int = 0
    failures: int = 0
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Certificate:
    """What must be ruled out before a stage is left: a failure rate `ratio` times stable's, or else one above `limit`.

    Either suffices: a service that never fails cannot show a ratio. At a stage with no stable arm the ratio is taken to
    stable's rate as measured earlier in the rollout (frozen baseline).
    """

    ratio: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """One rung. `traffic_pct` of the units get the candidate; `shadow_pct` of the units have their calls copied to it."""

    name: str
    traffic_pct: float
    shadow_pct: float = 0.0
    floor_s: float = 0.0
    certificate: Certificate | None = None
    gates: tuple[Gate, ...] = ()
    approval: bool = False
    pause: bool = False


class CacheUse(StrEnum):
    """Whether caches answer calls while units are split between two releases, of which the older has the fuller cache."""

    BYPASS = "bypass"
    """The model is asked, and its answer kept: what is compared is what the releases say."""
    SERVE = "serve"
    """Caches answer as ever: what is compared is what units meet, the candidate's cold cache included."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A ladder. `alpha`: the chance, over the whole rollout, of ever rolling back a release that is no worse. `beta`: the chance of a wrong certificate."""

    name: str
    stages: tuple[Stage, ...]
    alpha: float = 0.01
    beta: float = 0.05
    description: str = ""
    caches: CacheUse = CacheUse.BYPASS


@dataclass(frozen=True, slots=True)
class ReleaseRef:
    digest: ReleaseDigest
    version: str


@dataclass(frozen=True, slots=True)
class Release:
    """A stored release. `manifest` is the whole manifest, plain JSON values; `prompt` the text of its prompt."""

    digest: ReleaseDigest
    service: str
    version: str
    kind: str
    manifest: Mapping[str, Any]
    prompt: str | None
    created_us: int
    created_by: str
    tags: tuple[str, ...] = ()
    stable: bool = False


@dataclass(frozen=True, slots=True)
class Transition:
    """One entry of a rollout's event log."""

    seq: int
    at_us: int
    kind: str  # started, stage_entered, certificate, paused, resumed, approval_asked, approved, alarm, held, promoted, rolled_back, aborted, verified, ...
    stage: int
    actor: str  # `control`, or the name of the key that asked
    reason: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout as stored. `stage_run` counts entries into stages, from 1; `held_us` is time spent paused in this stage run."""

    id: RolloutId
    service: str
    stable: ReleaseDigest
    candidate: ReleaseDigest
    plan: Plan
    speed: float
    salt: str
    state: State
    stage: int
    stage_run: int
    stage_since_us: int
    held_us: int
    paused_since_us: int | None
    approved: bool
    waived: str | None
    revision: int
    created_us: int
    created_by: str
    ended_us: int | None
    reason: str | None
    summary: Mapping[str, Any]

    @property
    def present(self) -> Stage:
        return self.plan.stages[self.stage]

    def floor_left_s(self, now_us: int) -> float:
        """Seconds of the stage's floor still to pass at rehearsal speed, pauses not counted; 0 when passed."""
        paused_us = now_us - self.paused_since_us if self.paused_since_us is not None else 0
        spent_s = (now_us - self.stage_since_us - self.held_us - paused_us) / 1e6
        return max(self.present.floor_s / self.speed - spent_s, 0.0)


# --- views: what surfaces show -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScaleView:
    """Evidence on one scale: natural logarithm of an e-value, from 0 to its threshold. `part` is value / threshold, cut to 0..1."""

    log_e: float
    threshold: float
    part: float


@dataclass(frozen=True, slots=True)
class GateView:
    """One gate as it stands. `harmful` is None where the gate cannot alarm, `safe` where no certificate is asked of it.

    `ratio_low`, `ratio_high`: anytime-valid interval for candidate/stable (None: not yet bounded on that side).
    """

    name: str
    kind: GateKind
    metric: Metric
    verdict: Verdict
    harmful: ScaleView | None
    safe: ScaleView | None
    text: str  # the finding in words
    dry_run: bool = False
    ratio_low: float | None = None
    ratio_high: float | None = None
    units_stable: int = 0
    units_candidate: int = 0
    events_stable: int = 0  # failures, or values over the limit, where the metric has such
    events_candidate: int = 0


@dataclass(frozen=True, slots=True)
class ArmView:
    """What one arm met in the present stage run, in units and calls; latencies in ms, None without data."""

    arm: str
    release: ReleaseRef
    units: int
    units_failed: int
    calls: int
    calls_failed: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class StageView:
    """One rung of the ladder. status: done, present, ahead, skipped. `certificate_text`: what was ruled out, or what still has to be."""

    name: str
    traffic_pct: float
    shadow_pct: float
    floor_s: float  # already divided by the rehearsal speed
    status: str
    entered_us: int | None
    left_us: int | None
    certificate_text: str
    certified: bool


@dataclass(frozen=True, slots=True)
class PointView:
    """One point of a rollout's curves: one arm, one bucket of time."""

    at_us: int
    arm: str
    calls: int
    failed: int
    p50_ms: float | None
    p95_ms: float | None


@dataclass(frozen=True, slots=True)
class RolloutView:
    """Everything about a rollout at one moment."""

    id: RolloutId
    service: str
    state: State
    revision: int
    stable: ReleaseRef
    candidate: ReleaseRef
    serving: ReleaseRef  # what unassigned users get now (stable until promoted)
    plan: str
    speed: float
    alpha: float
    beta: float
    stage: int
    stages: tuple[StageView, ...]
    floor_left_s: float
    waiting_for: tuple[str, ...]  # what progress still needs, in words; empty when ended
    gates: tuple[GateView, ...]
    split: ScaleView  # towards "the split is broken"
    arms: tuple[ArmView, ...]
    points: tuple[PointView, ...]
    bucket_s: float
    events: tuple[Transition, ...]
    created_us: int
    created_by: str
    ended_us: int | None
    reason: str | None
    summary: Mapping[str, Any]
    now_us: int


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """A rollout in a list."""

    id: RolloutId
    service: str
    state: State
    stable: ReleaseRef
    candidate: ReleaseRef
    plan: str
    stage: int
    stage_name: str
    traffic_pct: float
    created_us: int
    ended_us: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A service and what serves where. Rates are of the last 5 minutes; None without data."""

    name: str
    stable: ReleaseRef
    candidate: ReleaseRef | None
    traffic_pct: float  # share of units on the candidate
    rollout: RolloutRow | None  # the active one
    calls_per_minute: float | None
    failure_rate: float | None
    p50_ms: float | None
    p95_ms: float | None
    cost_usd_today: float | None
    minutes: tuple[int, ...]  # calls per minute, oldest first, 30 of them
    releases: tuple[ReleaseRef, ...]  # newest first, at most 20
    gateway_agrees: bool | None  # the data plane says it serves this; None: not asked or no answer
    changed_us: int


@dataclass(frozen=True, slots=True)
class StageForecast:
    """Planning before traffic, one stage (gates.md section 7). Times in seconds; None: not within a year at this traffic."""

    name: str
    traffic_pct: float
    floor_s: float
    units: float  # units the floor sees at this traffic, both arms
    smallest_ratio: float | None  # smallest failure-rate ratio detected within the floor with probability 80 %
    extra_failed: Mapping[str, float]  # ratio ("1.5", "2", "5", "10") -> expected extra failed units before rollback
    detect_s: Mapping[str, float | None]  # ratio -> expected time to rollback
    certificate_s: float | None  # expected time to the certificate if the candidate is as good as stable
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Forecast:
    service: str
    plan: str
    units_per_s: float
    failure_rate: float
    assumed: bool  # no traffic was seen: the two figures above are the caller's or a default
    stages: tuple[StageForecast, ...]
    warnings: tuple[str, ...]
    cached_share: float = 0.0  # of stable's calls, answered by a cache now, 0 to 1
    notes: tuple[str, ...] = ()  # what to know besides; `--strict` does not refuse for them


@dataclass(frozen=True, slots=True)
class Replay:
    """The verdicts of a rollout recomputed from the recorded log. `first_difference` is None when identical."""

    rollout: RolloutId
    identical: bool
    records: int
    verdicts: int
    first_difference: str | None
    digest: str  # SHA-256 over every recomputed e-value, for comparison between machines


@dataclass(frozen=True, slots=True)
class RollbackResult:
    """What an emergency rollback did. `verified`: the data plane itself says it serves `serving`."""

    service: str
    rollout: RolloutId | None
    serving: ReleaseRef
    replaced: ReleaseRef | None
    verified: bool
    took_ms: float


@dataclass(frozen=True, slots=True)
class FlagKill:
    """An entry of the kill list: a flag, or the beginning of flags and `*`, that is off everywhere."""

    flag: str
    reason: str
    killed_by: str
    killed_us: int


@dataclass(frozen=True, slots=True)
class Killed:
    """The kill list after a change. `confirmed`: the gateway has it; else `detail` says why not yet."""

    items: tuple[FlagKill, ...]
    confirmed: bool
    detail: str = ""
