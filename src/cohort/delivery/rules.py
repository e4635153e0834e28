"""Evidence in, decision out. Pure: time and what was measured are arguments.

Three answers, none of which is "yes" by default: a finding is harmful, or it blocks progress, or it does not object. Nothing measured blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from cohort.delivery.evidence import Evidence
from cohort.delivery.model import Gate, GateKind, Metric, Rollout, Stage, State, Verdict
from cohort.gateway.contract import Arm
from cohort.stats import log_threshold

EVIDENCE_UNITS_MIN = 30
"""Units the candidate must have met in a stage before the absence of an alarm means anything."""


class Step(StrEnum):
    WAIT = "wait"
    HOLD = "hold"
    ROLL_BACK = "roll_back"
    ASK = "ask"
    ADVANCE = "advance"
    PROMOTE = "promote"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says. `blocks`: progress needs more of it; `waivable`: a person may do without, giving a reason; `dry_run`: it decides nothing."""

    check: str
    verdict: Verdict
    text: str
    blocks: bool
    waivable: bool = True
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do next. `needs`: what progress waits for, in words; `check`: the finding that decided, where one did."""

    step: Step
    reason: str = ""
    check: str | None = None
    needs: tuple[str, ...] = ()


def decide(rollout: Rollout, findings: Sequence[Finding], split_problem: str | None, now_us: int) -> Decision:
    """The next step of a rollout. An invariant outranks a broken split, which outranks every statistical verdict.

    `split_problem`: what shows that the split is broken; None: nothing does.
    """
    if rollout.state.ended:
        return Decision(Step.WAIT)
    findings = [finding for finding in findings if not finding.dry_run]
    harmful = [finding for finding in findings if finding.verdict is Verdict.HARMFUL]
    broken = next((finding for finding in harmful if not finding.waivable), None)
    if broken is not None:
        return Decision(Step.ROLL_BACK, broken.text, broken.check)
    if split_problem is not None:
        return _hold(rollout, split_problem)
    if harmful:
        return Decision(Step.ROLL_BACK, harmful[0].text, harmful[0].check)
    needs = _needs(rollout, findings, now_us)
    if rollout.state is State.PAUSED:
        return Decision(Step.WAIT, needs=("a person to resume it", *needs))
    if needs:
        return Decision(Step.WAIT, needs=needs)
    if rollout.present.approval and not rollout.approved:
        asked = rollout.state is State.AWAITING_APPROVAL
        return Decision(Step.WAIT if asked else Step.ASK, needs=("a person's approval",))
    return Decision(Step.PROMOTE if rollout.stage == len(rollout.plan.stages) - 1 else Step.ADVANCE)


def _hold(rollout: Rollout, problem: str) -> Decision:
    reason = f"the split is broken: units do not get the arms that their buckets give them (sample-ratio mismatch): {problem}"
    return Decision(Step.WAIT if rollout.state is State.PAUSED else Step.HOLD, reason, needs=(reason,))


def _needs(rollout: Rollout, findings: Sequence[Finding], now_us: int) -> tuple[str, ...]:
    waived = rollout.waived is not None
    blocking = [finding.text for finding in findings if finding.blocks and not (waived and finding.waivable)]
    left_s = rollout.floor_left_s(now_us)
    floor = [f"{_duration(left_s)} of the stage's floor"] if left_s > 0 and not waived else []
    return (*floor, *blocking)


def findings_of(rollout: Rollout, evidence: Evidence, damaged: str | None) -> list[Finding]:
    """What every check of the present stage says. `damaged` names a damaged release object; None: all verified."""
    stage = rollout.present
    seen = evidence if evidence.run == rollout.stage_run else None
    found = [replace(_gate_finding(gate, evidence, seen, damaged), dry_run=gate.dry_run) for gate in stage.gates]
    if damaged is not None and all(gate.metric is not Metric.REGISTRY for gate in stage.gates):
        found.append(_damage_finding("registry", damaged))
    if evidence.alarm is not None and evidence.alarm.gate not in {gate.name for gate in stage.gates}:
        found.append(Finding(evidence.alarm.gate, Verdict.HARMFUL, _alarm_text(evidence), blocks=True))
    if stage.certificate is not None:
        found.append(_certificate_finding(stage, rollout.plan.beta, seen))
    return found


def _gate_finding(gate: Gate, evidence: Evidence, seen: Evidence | None, damaged: str | None) -> Finding:
    match gate.kind:
        case GateKind.INVARIANT:
            if gate.metric is Metric.REGISTRY and damaged is not None:
                return _damage_finding(gate.name, damaged)
            return Finding(gate.name, Verdict.SAFE, "every stored object matches its digest", blocks=False)
        case GateKind.PASSES:
            return _passes_finding(gate, seen)
        case GateKind.COMPARISON | GateKind.SLO:
            return _evidence_finding(gate, evidence, seen)


def _damage_finding(check: str, damaged: str) -> Finding:
    return Finding(check, Verdict.HARMFUL, f"a stored release is damaged: {damaged}", blocks=True, waivable=False)


def _passes_finding(gate: Gate, seen: Evidence | None) -> Finding:
    passed, failures = (seen.reports.passed, seen.reports.failures) if seen else (0, 0)
    text = f"{passed} of {gate.passes} reports passed in a row"
    if seen is not None and seen.reports.broken:
        return Finding(gate.name, Verdict.HARMFUL, f"{failures} reports failed in a row", blocks=True)
    enough = seen is not None and seen.reports.enough
    return Finding(gate.name, Verdict.SAFE if enough else Verdict.NOT_YET, text, blocks=not enough)


def _evidence_finding(gate: Gate, evidence: Evidence, seen: Evidence | None) -> Finding:
    if evidence.alarm is not None and evidence.alarm.gate == gate.name:
        return Finding(gate.name, Verdict.HARMFUL, _alarm_text(evidence), blocks=True)
    units = candidate_units(seen) if seen else 0
    if seen is None or units < EVIDENCE_UNITS_MIN:
        return Finding(gate.name, Verdict.NOT_YET, f"{gate.name}: {units} of {EVIDENCE_UNITS_MIN} units seen", blocks=True)
    process = seen.gates[gate.name]
    if process.blind:
        return Finding(gate.name, Verdict.NOT_YET, f"{gate.name}: no baseline of stable to compare with", blocks=True)
    if process.measured is not None and process.measured < EVIDENCE_UNITS_MIN:
        text = f"{gate.name}: {gate.metric.value} measured of {process.measured} of {EVIDENCE_UNITS_MIN} units"
        return Finding(gate.name, Verdict.NOT_YET, text, blocks=True)
    return Finding(gate.name, Verdict.NOT_YET, f"no alarm: e = {_e_text(process.log_e)}", blocks=False)


def _certificate_finding(stage: Stage, beta: float, seen: Evidence | None) -> Finding:
    what = certificate_text(stage)
    if seen is None or seen.certificate is None:
        why = "no baseline of stable to compare with" if seen is not None else "nothing measured in this stage yet"
        return Finding("certificate", Verdict.NOT_YET, f"a certificate against {what}: {why}", blocks=True)
    if seen.certified:
        return Finding("certificate", Verdict.SAFE, f"ruled out: {what}", blocks=False)
    done = max(seen.certificate.log_e, 0.0) / log_threshold(beta)
    return Finding("certificate", Verdict.NOT_YET, f"a certificate against {what}: {math.floor(done * 100)} % of the evidence", blocks=True)


def certificate_text(stage: Stage) -> str:
    """What the stage's certificate rules out, in words."""
    if stage.certificate is None:
        return "no certificate asked"
    ratio, limit = stage.certificate.ratio, stage.certificate.limit
    if ratio is None:
        return f"failing at a rate above {limit * 100:g} %" if limit is not None else "nothing"
    against = "stable" if stage.traffic_pct < 100 else "the frozen baseline of stable"
    floor = f", at a rate above {limit * 100:g} %" if limit is not None else ""
    return f"failing {ratio:g} times as often as {against}{floor}"


def candidate_units(evidence: Evidence) -> int:
    """Units that met the candidate in the present stage run; in a stage without live traffic for it, those whose calls were copied."""
    met = evidence.arms.get(Arm.SHADOW if evidence.pairs_compare else Arm.CANDIDATE)
    return met.units if met is not None else 0


def _alarm_text(evidence: Evidence) -> str:
    alarm = evidence.alarm
    if alarm is None:
        return ""
    return f"{alarm.gate}: the candidate is worse (e = {_e_text(alarm.log_e)})"


def _e_text(log_e: float) -> str:
    return f"{math.exp(log_e):.3g}" if log_e < 50 else f"10^{log_e / math.log(10):.0f}"


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
