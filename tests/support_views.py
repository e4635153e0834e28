"""Views as delivery would give them: rich, empty, ended, hostile. Times are microseconds since the epoch."""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import replace
from typing import Any

from cohort.base.ids import ReleaseDigest, RolloutId
from cohort.delivery.model import (
    ArmView,
    Certificate,
    Gate,
    GateKind,
    GateView,
    Metric,
    Plan,
    PointView,
    Release,
    ReleaseRef,
    RolloutRow,
    RolloutView,
    ScaleView,
    ServiceView,
    Stage,
    StageView,
    State,
    Transition,
    Verdict,
)

NOW_US = 1_795_210_000_000_000
SECOND_US = 1_000_000
HARM_THRESHOLD = math.log(300)
SAFE_THRESHOLD = math.log(20)
HOSTILE = "</script><img src=x onerror=alert(1)>'\"&{{7*7}}"


def digest(text: str) -> ReleaseDigest:
    return ReleaseDigest("rel_" + hashlib.sha256(text.encode()).hexdigest())


def ref(service: str, version: str) -> ReleaseRef:
    return ReleaseRef(digest(f"{service}@{version}"), version)


def scale(log_e: float, threshold: float) -> ScaleView:
    return ScaleView(log_e, threshold, min(1.0, max(0.0, log_e / threshold)))


def release(
    service: str, version: str, prompt: str | None = "You are a support agent.\nAnswer in two sentences.", **changes: Any
) -> Release:
    manifest = {
        "service": service,
        "version": version,
        "kind": "model",
        "routes": {
            "main": {
                "provider": "openai",
                "base_url": "http://127.0.0.1:9101/v1",
                "model": "big",
                "api_key": "env:MAIN_KEY",
                "price": {"input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10},
            }
        },
        "parameters": {"temperature": 0.2, "max_output_tokens": 800},
    }
    values: dict[str, Any] = {
        "digest": digest(f"{service}@{version}"),
        "service": service,
        "version": version,
        "kind": "model",
        "manifest": manifest,
        "prompt": prompt,
        "created_us": NOW_US - 3600 * SECOND_US,
        "created_by": "first-key",
        "tags": ("stable",) if changes.get("stable") else (),
    }
    return Release(**(values | changes))


def plan() -> Plan:
    gates = (
        Gate("failures", GateKind.COMPARISON, Metric.FAILURES),
        Gate("latency", GateKind.COMPARISON, Metric.LATENCY, margin=1.05),
        Gate("failures under 1 %", GateKind.SLO, Metric.FAILURES, limit=0.01),
        Gate("cost", GateKind.COMPARISON, Metric.COST, dry_run=True),
    )
    day = 86_400.0
    return Plan(
        "shadow-5-25-100",
        (
            Stage("shadow", 0, 10, day, None, gates),
            Stage("5 %", 5, 0, 2 * day, Certificate(ratio=3.0), gates),
            Stage("25 %", 25, 0, 3 * day, Certificate(ratio=2.0), gates),
            Stage("100 %", 100, 0, 7 * day, Certificate(limit=0.02), gates, approval=True),
        ),
        description="Shadow, then 5 %, 25 % and everybody, watched for a week.",
    )


def stages(present: int, ended: bool = False) -> tuple[StageView, ...]:
    rows = [
        ("shadow", 0.0, 10.0, 12.0, "no harm seen in 1,204 pairs"),
        ("5 %", 5.0, 0.0, 24.0, "rules out 3 times the failures of stable"),
        ("25 %", 25.0, 0.0, 36.0, "has to rule out 2 times the failures of stable"),
        ("100 %", 100.0, 0.0, 84.0, "has to rule out a failure rate above 2 %"),
    ]
    entered = NOW_US - 150 * SECOND_US
    made = []
    for index, (name, share, shadow, floor, text) in enumerate(rows):
        status = "done" if index < present else "present" if index == present and not ended else "ahead"
        if ended and index == present:
            status = "present"
        began = entered + index * 50 * SECOND_US if index <= present else None
        left = entered + (index + 1) * 50 * SECOND_US if index < present else None
        made.append(StageView(name, share, shadow, floor, status, began, left, text, index < present))
    return tuple(made)


def gates() -> tuple[GateView, ...]:
    return (
        GateView(
            "failures",
            GateKind.COMPARISON,
            Metric.FAILURES,
            Verdict.NOT_YET,
            scale(0.9, HARM_THRESHOLD),
            scale(2.2, SAFE_THRESHOLD),
            "not yet: 11 failed units, no sign of harm; a tripled failure rate is nearly ruled out",
            ratio_low=0.31,
            ratio_high=3.4,
            units_stable=18_204,
            units_candidate=961,
            events_stable=185,
            events_candidate=9,
        ),
        GateView(
            "latency",
            GateKind.COMPARISON,
            Metric.LATENCY,
            Verdict.NOT_YET,
            scale(2.7, HARM_THRESHOLD),
            None,
            "not yet: the candidate's tail is a little slower",
            units_stable=18_204,
            units_candidate=961,
            events_stable=912,
            events_candidate=63,
        ),
        GateView(
            "failures under 2 %",
            GateKind.SLO,
            Metric.FAILURES,
            Verdict.SAFE,
            scale(0.0, HARM_THRESHOLD),
            scale(3.3, SAFE_THRESHOLD),
            "safe: a failure rate above 2 % is ruled out",
            units_candidate=961,
            events_candidate=9,
        ),
        GateView(
            "cost",
            GateKind.COMPARISON,
            Metric.COST,
            Verdict.NOT_YET,
            scale(0.2, HARM_THRESHOLD),
            None,
            "not yet: no sign of a higher cost",
            dry_run=True,
            units_stable=18_204,
            units_candidate=961,
        ),
    )


def points(buckets: int = 75, bucket_s: float = 2.0, slow: float = 1.0, bad: float = 0.01) -> tuple[PointView, ...]:
    """Curves of both arms, the last bucket just before NOW_US."""
    draw = random.Random(7)
    made = []
    for index in range(buckets):
        at_us = NOW_US - int((buckets - index) * bucket_s * SECOND_US)
        wave = 1 + 0.15 * math.sin(index / 6)
        calls = int(240 * wave + draw.gauss(0, 8))
        p50 = 180 * wave + draw.gauss(0, 6)
        made.append(PointView(at_us, "stable", calls, sum(draw.random() < 0.01 for _ in range(calls)), p50, p50 * 2.3 + draw.gauss(0, 14)))
        if index >= buckets // 3:
            few = max(0, int(13 * wave + draw.gauss(0, 3)))
            p50 = 176 * wave * slow + draw.gauss(0, 9)
            p95 = p50 * 2.2 + draw.gauss(0, 30) if few else None
            made.append(PointView(at_us, "candidate", few, sum(draw.random() < bad for _ in range(few)), p50 if few else None, p95))
    return tuple(made)


def arms(service: str = "support") -> tuple[ArmView, ...]:
    return (
        ArmView("stable", ref(service, "v1"), 18_204, 185, 54_112, 402, 181.2, 420.9, 804.0, 12.4183),
        ArmView("candidate", ref(service, "v2"), 961, 9, 2_850, 21, 176.0, 431.3, 911.5, 0.5291),
    )


def events(*extra: Transition) -> tuple[Transition, ...]:
    start = NOW_US - 150 * SECOND_US
    return (
        Transition(1, start, "started", 0, "first-key", "cheaper model for short questions", {"plan": "shadow-5-25-100"}),
        Transition(2, start, "stage_entered", 0, "control", "shadow: copies of 10 % of the units", {}),
        Transition(3, start + 50 * SECOND_US, "certificate", 0, "control", "no harm seen in 1,204 pairs", {"log_e": 3.1}),
        Transition(4, start + 50 * SECOND_US, "stage_entered", 1, "control", "5 % of the units", {"traffic_pct": 5}),
        *extra,
    )


def rollout(rollout_id: str = "ro_k3v9q2m7x4c8b5nt", service: str = "support", **changes: Any) -> RolloutView:
    """Running at 5 %, with evidence."""
    values: dict[str, Any] = {
        "id": RolloutId(rollout_id),
        "service": service,
        "state": State.RUNNING,
        "revision": 4,
        "stable": ref(service, "v1"),
        "candidate": ref(service, "v2"),
        "serving": ref(service, "v1"),
        "plan": "shadow-5-25-100",
        "speed": 7200.0,
        "alpha": 0.01,
        "beta": 0.05,
        "stage": 1,
        "stages": stages(1),
        "floor_left_s": 14.0,
        "waiting_for": ("14 s of the stage's time", "the certificate: a tripled failure rate is not ruled out yet"),
        "gates": gates(),
        "split": scale(0.3, HARM_THRESHOLD),
        "arms": arms(service),
        "points": points(),
        "bucket_s": 2.0,
        "events": events(),
        "created_us": NOW_US - 150 * SECOND_US,
        "created_by": "first-key",
        "ended_us": None,
        "reason": None,
        "summary": {},
        "now_us": NOW_US,
    }
    return RolloutView(**(values | changes))


def harmful(rollout_id: str = "ro_h7w2p9d4s6f3j8ka", service: str = "support") -> RolloutView:
    """Rolled back from the 5 % stage on failures."""
    reason = "failures: the candidate fails more often than stable (e = 412, the limit is 300)"
    gate = GateView(
        "failures",
        GateKind.COMPARISON,
        Metric.FAILURES,
        Verdict.HARMFUL,
        scale(math.log(412), HARM_THRESHOLD),
        scale(0.0, SAFE_THRESHOLD),
        "harmful: 14 of 171 units failed on v3, 27 of 3,310 on v1",
        ratio_low=2.9,
        ratio_high=18.0,
        units_stable=3310,
        units_candidate=171,
        events_stable=27,
        events_candidate=14,
    )
    end = NOW_US - 20 * SECOND_US
    ended = (
        Transition(5, end - 900_000, "alarm", 1, "control", reason, {"gate": "failures", "log_e": math.log(412)}),
        Transition(6, end - 700_000, "rolled_back", 1, "control", reason, {"serving": "v1"}),
        Transition(7, end, "verified", 1, "control", "the gateway says it serves v1", {"took_ms": 143.0}),
    )
    return rollout(
        rollout_id,
        service,
        state=State.ROLLED_BACK,
        revision=7,
        candidate=ref(service, "v3"),
        gates=(gate, *gates()[1:2]),
        points=points(slow=1.4, bad=0.08),
        waiting_for=(),
        floor_left_s=0.0,
        ended_us=end,
        reason=reason,
        events=events(*ended),
        stages=stages(1, ended=True),
        arms=(arms()[0], replace(arms()[1], release=ref(service, "v3"), units=171, units_failed=14)),
        summary={
            "verified": True,
            "verdict_us": end - 700_000,
            "traffic_moved_ms": 41.2,
            "verdict_to_last_candidate_ms": 38.9,
            "serving": digest(f"{service}@v1"),
            "candidate_units": 171,
            "candidate_units_failed": 14,
            "candidate_calls": 402,
            "candidate_calls_failed": 31,
            "settled": True,
        },
    )


def promoted(rollout_id: str = "ro_b2c4d6e8f3g5h7jk", service: str = "support") -> RolloutView:
    done = tuple(
        StageView(
            s.name,
            s.traffic_pct,
            s.shadow_pct,
            s.floor_s,
            "done",
            NOW_US - (300 - 50 * i) * SECOND_US,
            NOW_US - (250 - 50 * i) * SECOND_US,
            s.certificate_text,
            True,
        )
        for i, s in enumerate(stages(3))
    )
    return rollout(
        rollout_id,
        service,
        state=State.PROMOTED,
        revision=12,
        stage=3,
        stages=done,
        serving=ref(service, "v2"),
        waiting_for=(),
        floor_left_s=0.0,
        ended_us=NOW_US - 100 * SECOND_US,
        reason="every stage passed",
        summary={"verified": True, "traffic_moved_ms": 22.0, "candidate_units": 9_120, "candidate_units_failed": 74, "settled": True},
    )


def empty(rollout_id: str = "ro_z9y8x7w6v5u4t3sr", service: str = "billing") -> RolloutView:
    """Just started: nothing was measured."""
    silent = tuple(
        GateView(
            g.name,
            g.kind,
            g.metric,
            Verdict.NOT_YET,
            scale(0.0, HARM_THRESHOLD) if g.harmful else None,
            g.safe and scale(0.0, SAFE_THRESHOLD),
            "no units yet",
            g.dry_run,
        )
        for g in gates()
    )
    nothing = tuple(
        ArmView(arm, ref(service, version), 0, 0, 0, 0, None, None, None, None) for arm, version in (("stable", "v1"), ("candidate", "v2"))
    )
    return rollout(
        rollout_id,
        service,
        stage=0,
        stages=stages(0),
        gates=silent,
        arms=nothing,
        points=(),
        events=events()[:2],
        revision=2,
        waiting_for=("12 s of the stage's time", "units: none has been seen yet"),
        split=scale(0.0, HARM_THRESHOLD),
    )


def row(view: RolloutView) -> RolloutRow:
    present = view.stages[view.stage]
    return RolloutRow(
        view.id,
        view.service,
        view.state,
        view.stable,
        view.candidate,
        view.plan,
        view.stage,
        present.name,
        present.traffic_pct,
        view.created_us,
        view.ended_us,
        view.reason,
    )


def service(name: str = "support", active: RolloutView | None = None, **changes: Any) -> ServiceView:
    draw = random.Random(name)
    values: dict[str, Any] = {
        "name": name,
        "stable": ref(name, "v1"),
        "candidate": active.candidate if active else None,
        "traffic_pct": active.stages[active.stage].traffic_pct if active else 0.0,
        "rollout": row(active) if active else None,
        "calls_per_minute": 7_214.0,
        "failure_rate": 0.0094,
        "p50_ms": 181.0,
        "p95_ms": 421.0,
        "cost_usd_today": 31.4183,
        "minutes": tuple(int(7000 + 900 * math.sin(i / 4) + draw.gauss(0, 300)) for i in range(30)),
        "releases": (ref(name, "v3"), ref(name, "v2"), ref(name, "v1")),
        "gateway_agrees": True,
        "changed_us": NOW_US - 90 * SECOND_US,
    }
    return ServiceView(**(values | changes))


def idle(name: str = "billing") -> ServiceView:
    """Nobody has called it yet."""
    return service(
        name,
        calls_per_minute=None,
        failure_rate=None,
        p50_ms=None,
        p95_ms=None,
        cost_usd_today=None,
        minutes=(0,) * 30,
        gateway_agrees=None,
        releases=(ref(name, "v1"),),
    )
