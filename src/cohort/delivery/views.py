"""Stored values as the views that surfaces show. Reads nothing; decides nothing that is not in `rules`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cohort.base.ids import ReleaseDigest
from cohort.delivery.evidence import SPLIT_ALPHA, ArmTally, Evidence
from cohort.delivery.intake import bucket_us_of
from cohort.delivery.model import (
    ArmView,
    Gate,
    GateKind,
    GateView,
    Metric,
    PointView,
    ReleaseRef,
    Rollout,
    RolloutRow,
    RolloutView,
    ScaleView,
    StageView,
    State,
    Transition,
    Verdict,
)
from cohort.delivery.rules import Finding, certificate_text, decide, findings_of
from cohort.gateway.contract import Arm
from cohort.stats import Sketch, log_threshold

POINTS_MAX = 2000


def scale(log_e: float, threshold: float) -> ScaleView:
    return ScaleView(log_e, threshold, min(max(log_e / threshold, 0.0), 1.0))


def row_view(rollout: Rollout, versions: Mapping[str, str]) -> RolloutRow:
    stage = rollout.present
    return RolloutRow(
        rollout.id,
        rollout.service,
        rollout.state,
        ref(rollout.stable, versions),
        ref(rollout.candidate, versions),
        rollout.plan.name,
        rollout.stage,
        stage.name,
        stage.traffic_pct,
        rollout.created_us,
        rollout.ended_us,
        rollout.reason,
    )


def ref(digest: str, versions: Mapping[str, str]) -> ReleaseRef:
    return ReleaseRef(ReleaseDigest(digest), versions.get(digest, "?"))


def rollout_view(
    rollout: Rollout,
    evidence: Evidence,
    events: Sequence[Transition],
    series: Sequence[Mapping[str, Any]],
    versions: Mapping[str, str],
    damaged: str | None,
    now_us: int,
) -> RolloutView:
    findings = findings_of(rollout, evidence, damaged)
    decision = decide(rollout, findings, evidence.split_problem, now_us)
    serving = rollout.candidate if rollout.state is State.PROMOTED else rollout.stable
    return RolloutView(
        id=rollout.id,
        service=rollout.service,
        state=rollout.state,
        revision=rollout.revision,
        stable=ref(rollout.stable, versions),
        candidate=ref(rollout.candidate, versions),
        serving=ref(serving, versions),
        plan=rollout.plan.name,
        speed=rollout.speed,
        alpha=rollout.plan.alpha,
        beta=rollout.plan.beta,
        stage=rollout.stage,
        stages=tuple(_stage_views(rollout, evidence, events)),
        floor_left_s=0.0 if rollout.state.ended else rollout.floor_left_s(now_us),
        waiting_for=decision.needs,
        gates=tuple(_gate_view(gate, rollout, evidence, findings) for gate in rollout.present.gates),
        split=scale(evidence.split_peak, log_threshold(SPLIT_ALPHA)),
        arms=tuple(_arm_view(arm, tally, rollout, versions) for arm, tally in sorted(_present(rollout, evidence).arms.items())),
        points=tuple(_point(row) for row in series[-POINTS_MAX:]),
        bucket_s=bucket_us_of(rollout) / 1e6,
        events=tuple(events),
        created_us=rollout.created_us,
        created_by=rollout.created_by,
        ended_us=rollout.ended_us,
        reason=rollout.reason,
        summary=rollout.summary,
        now_us=now_us,
    )


def _present(rollout: Rollout, evidence: Evidence) -> Evidence:
    """The evidence if it is about the present stage run, else none."""
    return evidence if evidence.run == rollout.stage_run else Evidence(rollout.plan)


def _stage_views(rollout: Rollout, evidence: Evidence, events: Sequence[Transition]) -> list[StageView]:
    entered = {event.stage: event.at_us for event in events if event.kind == "stage_entered"}
    left = {event.stage: event.at_us for event in events if event.kind in ("certificate", "passed", "waived")}
    how = {event.stage: event.kind for event in events if event.kind in ("certificate", "passed", "waived")}
    views = []
    for index, stage in enumerate(rollout.plan.stages):
        certified = how.get(index) == "certificate" or (index == rollout.stage and _present(rollout, evidence).certified)
        text = certificate_text(stage)
        if stage.certificate is not None:
            text = f"ruled out: {text}" if certified else f"to rule out: {text}"
        if how.get(index) == "waived":
            text = f"waived by a person ({certificate_text(stage)})"
        views.append(
            StageView(
                stage.name,
                stage.traffic_pct,
                stage.shadow_pct,
                stage.floor_s / rollout.speed,
                _stage_status(index, rollout, entered),
                entered.get(index),
                left.get(index),
                text,
                certified,
            )
        )
    return views


def _stage_status(index: int, rollout: Rollout, entered: Mapping[int, int]) -> str:
    if index not in entered and index < rollout.stage:
        return "skipped"
    if index < rollout.stage or (index == rollout.stage and rollout.state is State.PROMOTED):
        return "done"
    return "present" if index == rollout.stage else "ahead"


def _gate_view(gate: Gate, rollout: Rollout, evidence: Evidence, findings: Sequence[Finding]) -> GateView:
    finding = next((finding for finding in findings if finding.check == gate.name), None)
    present = _present(rollout, evidence)
    harmful = safe = None
    if gate.name in evidence.gates:
        threshold = evidence.threshold_of(gate.name)
        alarm = evidence.alarm if evidence.alarm is not None and evidence.alarm.gate == gate.name else None
        # what was enough for the alarm stays shown, although outcomes that came in later may have weakened it
        harmful = scale(alarm.log_e if alarm is not None else evidence.gates[gate.name].log_e, threshold)
    if gate.metric is Metric.FAILURES and gate.kind in (GateKind.COMPARISON, GateKind.SLO) and present.certificate is not None:
        safe = scale(present.certificate.log_e, log_threshold(rollout.plan.beta))
    verdict = finding.verdict if finding else Verdict.NOT_YET
    if verdict is Verdict.NOT_YET and safe is not None and present.certified:
        verdict = Verdict.SAFE
    failures = gate.metric is Metric.FAILURES
    stable, candidate = present.arms.get(Arm.STABLE, ArmTally()), _candidate(present)
    return GateView(
        gate.name,
        gate.kind,
        gate.metric,
        verdict,
        harmful,
        safe,
        finding.text if finding else "",
        gate.dry_run,
        evidence.interval.low if failures and gate.kind is GateKind.COMPARISON else None,
        evidence.interval.high if failures and gate.kind is GateKind.COMPARISON else None,
        stable.units,
        candidate.units,
        stable.units_failed if failures else 0,
        candidate.units_failed if failures else 0,
    )


def _candidate(evidence: Evidence) -> ArmTally:
    return evidence.arms.get(Arm.CANDIDATE) or evidence.arms.get(Arm.SHADOW) or ArmTally()


def _arm_view(arm: Arm, tally: ArmTally, rollout: Rollout, versions: Mapping[str, str]) -> ArmView:
    digest = rollout.stable if arm is Arm.STABLE else rollout.candidate
    p50, p95, p99 = (_ms(tally.latency, q) for q in (0.5, 0.95, 0.99))
    cost = tally.cost_usd_micro / 1e6 if tally.cost_usd_micro else None
    return ArmView(arm.value, ref(digest, versions), tally.units, tally.units_failed, tally.calls, tally.calls_failed, p50, p95, p99, cost)


def _point(row: Mapping[str, Any]) -> PointView:
    sketch = Sketch.from_state(row["latency"])
    return PointView(row["bucket_us"], row["arm"], row["calls"], row["failed"], _ms(sketch, 0.5), _ms(sketch, 0.95))


def _ms(sketch: Sketch, q: float) -> float | None:
    value = sketch.quantile(q)
    return None if value is None else round(value / 1000, 3)
