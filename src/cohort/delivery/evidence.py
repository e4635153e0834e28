"""What the units of one rollout experienced, taken in the order of assignment, and the verdicts that follow. Pure and replayable.

Evidence counts a unit once per stage: failures at its first failed call, ordered metrics at its first completed call (gates.md 6.11). Calls
reach `take` behind a watermark, sorted by `key_of`, so that a slow arm is not seen later than a fast one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any

from cohort.delivery.model import CacheUse, Gate, GateKind, Plan
from cohort.delivery.processes import WHOLE_WEIGHT, Baseline, CertificateProcess, Process, certificate_for, log_average, process_for
from cohort.delivery.reports import PassReports
from cohort.gateway.contract import Arm, Call, Result, failed
from cohort.stats import RatioInterval, Sketch, SplitAudit, log_threshold

Key = tuple[int, str, int, int]
"""(at_us, gateway, epoch, seq): the order of evidence. A call and its shadow copy share one key."""

COMPARISON_PART = 0.9
"""Of alpha, where a plan has both comparisons and limits: the comparisons' part, shared equally; limits share the rest (gates.md 6.8)."""
SPLIT_ALPHA = 0.001
"""Chance of ever calling a sound split broken."""
_UNKNOWN = frozenset({Result.CLIENT_GONE, Result.LOST})
"""How a half of a shadow pair ended that says nothing of its release: the client left, or the gateway died."""


def key_of(call: Call) -> Key:
    return (call.at_us, call.gateway, call.epoch, call.seq)


def in_evidence(call: Call, plan: Plan) -> bool:
    """What a cache answered says what an earlier answer was like, and is in no evidence.

    Unless the plan lets caches answer while units are split: then it is what they met, and leaving it out would leave out more units of
    stable, whose cache is the fuller one, than of the candidate, so that a sound split would look broken.
    """
    return not call.answered_from_cache or (plan.caches is CacheUse.SERVE and 0 < call.share < 1)


class Seen(IntFlag):
    """What a unit has been counted for in its present stage run."""

    CANDIDATE = 1
    CALLED = 2
    COMPLETED = 4
    FAILED = 8
    NEGATIVE = 16
    PAIRED = 32
    DISCORDANT = 64


@dataclass(slots=True)
class Unit:
    """What is known of a unit: its bucket lies in [low, high) by what it got before `stage_run`; `seen` is about `stage_run`."""

    low: float = 0.0
    high: float = 1.0
    stage_run: int = 0
    seen: Seen = field(default_factory=lambda: Seen(0))

    def share_given_past(self, share: float) -> float:
        """The probability that this unit gets the candidate at `share`, given what it got before (gates.md 6.11.1)."""
        if self.high <= self.low:
            return share
        return min(max((share - self.low) / (self.high - self.low), 0.0), 1.0)

    def enter(self, stage_run: int, share_before: float) -> None:
        """Go on to a new stage run; what the last one showed narrows the bucket."""
        if self.stage_run and self.seen & Seen.CANDIDATE:
            self.high = min(self.high, share_before)
        elif self.stage_run and self.seen & Seen.CALLED:
            self.low = max(self.low, share_before)
        self.stage_run, self.seen = stage_run, Seen(0)


@dataclass(slots=True)
class ArmTally:
    """What one arm met in the present stage run."""

    units: int = 0
    units_failed: int = 0
    calls: int = 0
    calls_failed: int = 0
    cost_usd_micro: int = 0
    latency: Sketch = field(default_factory=Sketch)

    def to_state(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in ("units", "units_failed", "calls", "calls_failed", "cost_usd_micro")}
        return {**plain, "latency": self.latency.to_state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ArmTally:
        return cls(**{**state, "latency": Sketch.from_state(state["latency"])})


@dataclass(frozen=True, slots=True)
class Alarm:
    """The first moment at which the evidence sufficed: sticky. `gate` contributed most."""

    gate: str
    log_e: float
    global_log_e: float
    key: Key


class GateProcess:
    """One alarming gate over the whole rollout: a process on everything, one per stage, their weighted average. `weight`: its part of alpha."""

    def __init__(self, gate: Gate, stages: int, weight: float) -> None:
        self.gate = gate
        self.weight = weight
        self._stages = stages
        self._whole: Process | None = None
        self._fresh: Process | None = None
        self._past: list[float] = []  # final log_e of the stages left behind

    def start_run(self, active: bool, baseline: Baseline) -> None:
        """A stage run begins; `active`: the gate is asked in it."""
        if self._fresh is not None:
            self._past.append(self._fresh.log_e)
        self._fresh = process_for(self.gate, baseline) if active else None
        if active and self._whole is None:
            self._whole = process_for(self.gate, baseline)

    @property
    def listening(self) -> list[Process]:
        """The processes to feed; none while the gate is not asked."""
        if self._fresh is None:
            return []
        return [self._fresh] if self._whole is None or self._stages == 1 else [self._whole, self._fresh]

    @property
    def blind(self) -> bool:
        """Asked in this stage, but lacking the baseline it needs."""
        return self._fresh is None

    @property
    def measured(self) -> int | None:
        """Candidate units of this stage that the gate's metric was measured of; None where every unit counts."""
        return self._fresh.measured if self._fresh is not None else 0

    @property
    def log_e(self) -> float:
        if self._stages == 1:
            return self._fresh.log_e if self._fresh is not None else self._past[0] if self._past else 0.0
        each = (1 - WHOLE_WEIGHT) / self._stages
        stages = [*self._past, *([self._fresh.log_e] if self._fresh is not None else [])][: self._stages]
        unused = self._stages - len(stages)
        parts = [(WHOLE_WEIGHT, self._whole.log_e if self._whole is not None else 0.0), *((each, log_e) for log_e in stages)]
        return log_average([*parts, (each * unused, 0.0)] if unused else parts)

    def to_state(self) -> dict[str, Any]:
        return {
            "whole": self._whole.to_state() if self._whole else None,
            "fresh": self._fresh.to_state() if self._fresh else None,
            "past": self._past,
        }

    def load(self, state: Mapping[str, Any], baseline: Baseline) -> None:
        self._past = list(state["past"])
        self._whole = _loaded(self.gate, baseline, state["whole"])
        self._fresh = _loaded(self.gate, baseline, state["fresh"])


class Evidence:
    """All evidence of one rollout. `warm`: stable as it was before the rollout, for ranks and frozen baselines. `first`: index of its first stage."""

    def __init__(self, plan: Plan, warm: Baseline | None = None, speed: float = 1.0, first: int = 0) -> None:
        self._plan = plan
        self._first = first
        self._speed = speed
        self._baseline = warm or Baseline()
        self._choice = Baseline.from_state(self._baseline.to_state())  # what processes were chosen by; never changes
        self.run = 0
        self.shares: dict[int, float] = {}
        self.alarm: Alarm | None = None
        self.contradictions = 0  # units that got what their bucket cannot give
        self.late = 0  # calls of a stage run that was already left, or that the plan does not have
        self.taken = 0
        self.arms: dict[Arm, ArmTally] = {}
        self.split = SplitAudit()
        self.split_peak = 0.0
        self.certificate: CertificateProcess | None = None
        self.interval = RatioInterval(0.05)
        self.reports = PassReports(None)
        self.gates = {process.gate.name: process for process in _alarming(plan)}
        self._deciding = [process for process in self.gates.values() if process.weight > 0]
        self._alarm_at = log_threshold(plan.alpha)

    def threshold_of(self, gate: str) -> float:
        """The log e-value at which this gate alone suffices for the alarm: ln(1 / (weight * alpha))."""
        weight = self.gates[gate].weight
        return self._alarm_at - (math.log(weight) if weight else 0.0)

    @property
    def pairs_compare(self) -> bool:
        """Whether shadow pairs speak in this stage run. Beside live traffic they do not: the stable half of a pair is a label already."""
        return self.run > 0 and self._plan.stages[self._first + self.run - 1].traffic_pct == 0

    @property
    def split_broken(self) -> bool:
        return self.contradictions > 0 or self.split_peak >= log_threshold(SPLIT_ALPHA)

    @property
    def split_problem(self) -> str | None:
        """What shows that the split is broken, with its figures; None: nothing does."""
        if not self.split_broken:
            return None
        known, candidate = self.split.units_stable + self.split.units_candidate, self.split.units_candidate
        share = self.shares.get(self.run, 0.0)
        return (
            f"in this stage, of {share:.1%}, {candidate} of {known} units that could get either arm got the candidate, a chance of at most "
            f"{math.exp(-self.split_peak):.1g} if sound; {self.contradictions} units got an arm that what they had before rules out"
        )

    @property
    def certified(self) -> bool:
        return self.certificate is not None and self.certificate.peak_log_e >= log_threshold(self._plan.beta)

    def take(self, group: Sequence[Call], units: dict[str, Unit]) -> None:
        """One call, or a call and its shadow copy (same key). `units` must hold every known unit of the group; new ones are added."""
        call = group[0]
        if not max(self.run, 1) <= call.stage_run <= len(self._plan.stages) - self._first:
            self.late += 1
            return
        if call.stage_run > self.run:
            self._start_run(call.stage_run)
        self.taken += 1
        unit = units.setdefault(call.unit, Unit())
        if unit.stage_run != call.stage_run:
            unit.enter(call.stage_run, self.shares.get(unit.stage_run, 0.0))
        for one in group:
            self._one(one, unit)
        self._pair(group, unit)
        self._look(key_of(call))

    def _start_run(self, run: int) -> None:
        self.run = run
        stage = self._plan.stages[self._first + run - 1]
        self.arms = {}
        self.split, self.split_peak = SplitAudit(), 0.0
        self.certificate = certificate_for(stage.certificate, stage.traffic_pct, self._baseline)
        counting = next((gate for gate in stage.gates if gate.kind is GateKind.PASSES), None)
        window_us = int(stage.floor_s / self._speed / max(counting.passes, 1) * 1e6) if counting else 0
        self.reports = PassReports(counting, window_us)
        asked = {gate.name for gate in stage.gates}
        for name, process in self.gates.items():
            process.start_run(name in asked, self._choice if process.gate.kind is GateKind.COMPARISON else self._baseline)

    def _one(self, call: Call, unit: Unit) -> None:
        if call.kind == "feedback":
            self._feedback(call, unit)
            return
        bad = failed(call.result)
        tally = self.arms.setdefault(call.arm, ArmTally())
        tally.calls += 1
        tally.calls_failed += bad
        tally.cost_usd_micro += call.cost_usd_micro or 0
        if call.total_us is not None and not bad:
            tally.latency.add(call.total_us)
        if call.arm is Arm.SHADOW:
            return
        self.shares[call.stage_run] = call.share
        self.reports.take(call)
        arm, share = (1 if call.arm is Arm.CANDIDATE else 0), unit.share_given_past(call.share)
        self._firsts(call, unit, tally, arm, share, bad)

    def _firsts(self, call: Call, unit: Unit, tally: ArmTally, arm: int, share: float, bad: bool) -> None:
        if not unit.seen & Seen.CALLED:
            unit.seen |= Seen.CALLED | (Seen.CANDIDATE if arm else Seen(0))
            tally.units += 1
            self._audit(arm, share)
            for process in self._listening():
                process.first_call(arm, share, bad)
            if not arm:
                self._baseline.add(bad, call.total_us)
        if bad and not unit.seen & Seen.FAILED:
            unit.seen |= Seen.FAILED
            tally.units_failed += 1
            self.interval.update(arm, share)
            for process in self._listening():
                process.first_failure(arm, share)
        if not bad and not unit.seen & Seen.COMPLETED:
            unit.seen |= Seen.COMPLETED
            for process in self._listening():
                process.first_completed(arm, share, call)

    def _audit(self, arm: int, share: float) -> None:
        if arm != round(share) and share in (0.0, 1.0):
            self.contradictions += 1
            return
        self.split.update(arm, share)
        self.split_peak = max(self.split_peak, self.split.log_e)

    def _feedback(self, call: Call, unit: Unit) -> None:
        if not call.negative or unit.seen & Seen.NEGATIVE or not unit.seen & Seen.CALLED:
            return
        unit.seen |= Seen.NEGATIVE
        arm, share = (1 if unit.seen & Seen.CANDIDATE else 0), unit.share_given_past(self.shares.get(self.run, 0.0))
        for process in self._listening():
            process.first_negative(arm, share)

    def _pair(self, group: Sequence[Call], unit: Unit) -> None:
        shadow = next((call for call in group if call.arm is Arm.SHADOW), None)
        stable = next((call for call in group if call.arm is Arm.STABLE), None)
        if shadow is None or stable is None or _UNKNOWN & {stable.result, shadow.result}:
            return
        ours, theirs = failed(shadow.result), failed(stable.result)
        tally = self.arms[Arm.SHADOW]
        if not unit.seen & Seen.PAIRED:
            tally.units += 1
        if ours and not theirs:
            tally.units_failed += not unit.seen & Seen.DISCORDANT
        if ours != theirs and not unit.seen & Seen.DISCORDANT:
            unit.seen |= Seen.DISCORDANT
            self._discordant(int(ours))
        if not unit.seen & Seen.PAIRED:
            unit.seen |= Seen.PAIRED
            for process in self._listening():
                process.first_shadow(shadow, ours)
                if not ours and not theirs and self.pairs_compare:
                    process.first_pair(shadow, stable)

    def _discordant(self, arm: int) -> None:
        if not self.pairs_compare:
            return
        self.interval.update(arm, 0.5)
        for process in self._listening():
            process.first_discordant(arm)

    def _listening(self) -> list[Process]:
        heard: list[Process] = [process for gate in self.gates.values() for process in gate.listening]
        return [*heard, self.certificate] if self.certificate is not None else heard

    def _look(self, key: Key) -> None:
        if self.alarm is not None or not self._deciding:
            return
        overall = log_average([(process.weight, process.log_e) for process in self._deciding])
        if overall >= self._alarm_at:
            worst = max(self._deciding, key=lambda process: process.log_e + math.log(process.weight))
            self.alarm = Alarm(worst.gate.name, worst.log_e, overall, key)

    def figures(self) -> list[float]:
        """Every number a verdict rests on, in a fixed order: what replay compares bit for bit."""
        certificate = self.certificate.peak_log_e if self.certificate else 0.0
        return [*(process.log_e for process in self.gates.values()), certificate, self.split_peak, float(self.taken)]

    def to_state(self) -> dict[str, Any]:
        """Plain JSON values; `from_state` goes on bit for bit."""
        return {
            "first": self._first,
            "run": self.run,
            "shares": {str(run): share for run, share in self.shares.items()},
            "alarm": [self.alarm.gate, self.alarm.log_e, self.alarm.global_log_e, list(self.alarm.key)] if self.alarm else None,
            "contradictions": self.contradictions,
            "late": self.late,
            "taken": self.taken,
            "arms": {arm.value: tally.to_state() for arm, tally in self.arms.items()},
            "split": self.split.to_state(),
            "split_peak": self.split_peak,
            "certificate": self.certificate.to_state() if self.certificate else None,
            "interval": self.interval.to_state(),
            "reports": self.reports.to_state(),
            "gates": {name: process.to_state() for name, process in self.gates.items()},
            "baseline": self._baseline.to_state(),
            "choice": self._choice.to_state(),
        }

    @classmethod
    def from_state(cls, plan: Plan, state: Mapping[str, Any], speed: float = 1.0) -> Evidence:
        self = cls(plan, Baseline.from_state(state["choice"]), speed, state["first"])
        self._baseline = Baseline.from_state(state["baseline"])
        self.run, self.contradictions, self.late, self.taken = state["run"], state["contradictions"], state["late"], state["taken"]
        self.shares = {int(run): share for run, share in state["shares"].items()}
        if state["alarm"]:
            gate, log_e, overall, key = state["alarm"]
            self.alarm = Alarm(gate, log_e, overall, (key[0], key[1], key[2], key[3]))
        self.arms = {Arm(arm): ArmTally.from_state(tally) for arm, tally in state["arms"].items()}
        self.split, self.split_peak = SplitAudit.from_state(state["split"]), state["split_peak"]
        if state["certificate"]:
            self.certificate = CertificateProcess(None, None)
            self.certificate.load(state["certificate"])
        self.interval = RatioInterval.from_state(state["interval"])
        self.reports = PassReports.from_state(state["reports"])
        for name, process in self.gates.items():
            process.load(state["gates"][name], self._choice if process.gate.kind is GateKind.COMPARISON else self._baseline)
        return self


def _alarming(plan: Plan) -> list[GateProcess]:
    """Every gate that alarms on evidence, once, with the number of stages that ask it and its weight; dry runs weigh nothing."""
    gates: dict[str, Gate] = {}
    counts: dict[str, int] = {}
    for gate in (gate for stage in plan.stages for gate in stage.gates):
        if gate.kind in (GateKind.COMPARISON, GateKind.SLO):
            gates.setdefault(gate.name, gate)
            counts[gate.name] = counts.get(gate.name, 0) + 1
    weights = _weights([gate for gate in gates.values() if not gate.dry_run])
    return [GateProcess(gate, counts[name], weights.get(name, 0.0)) for name, gate in gates.items()]


def _weights(gates: Sequence[Gate]) -> dict[str, float]:
    comparisons = [gate.name for gate in gates if gate.kind is GateKind.COMPARISON]
    limits = [gate.name for gate in gates if gate.kind is GateKind.SLO]
    part = 1.0 if not limits else 0.0 if not comparisons else COMPARISON_PART
    return {name: part / len(comparisons) for name in comparisons} | {name: (1 - part) / len(limits) for name in limits}


def _loaded(gate: Gate, baseline: Baseline, state: dict[str, Any] | None) -> Process | None:
    if state is None:
        return None
    process = process_for(gate, baseline)
    if process is None:
        return None
    process.load(state)
    return process
