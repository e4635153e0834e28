"""Outcomes into evidence: once per unit and stage, each process where it listens, nothing from what was not measured."""

from __future__ import annotations

import pytest

from cohort.delivery.evidence import Evidence, Unit
from cohort.delivery.model import Certificate, Gate, GateKind, Metric, Plan, Stage, Verdict
from cohort.delivery.processes import Baseline
from cohort.delivery.rules import EVIDENCE_UNITS_MIN, Step, decide, findings_of
from cohort.gateway.contract import Arm, Result
from cohort.stats import LabelFailures, LimitCertificate, OneSample, Sketch
from support_calls import assigned, call, name, rollout_of, take

FAILURES = Gate("failures", GateKind.COMPARISON, Metric.FAILURES)
LATENCY = Gate("latency", GateKind.COMPARISON, Metric.LATENCY, margin=1.05)
LIMIT = Gate("limit", GateKind.SLO, Metric.FAILURES, limit=0.02)
SLOW = Gate("slow", GateKind.SLO, Metric.LATENCY, limit_ms=500, share_over=0.05)
BAD = Result.UPSTREAM_ERROR


def plan_of(*stages: Stage) -> Plan:
    return Plan("p", stages)


def one(*gates: Gate, traffic_pct: float = 50.0, shadow_pct: float = 0.0, certificate: Certificate | None = None) -> Plan:
    return plan_of(Stage("only", traffic_pct, shadow_pct, gates=gates, certificate=certificate))


def finding(plan: Plan, evidence: Evidence, check: str, **more):
    found = findings_of(rollout_of(plan, stage_run=evidence.run, **more), evidence, None)
    return next(one for one in found if one.check == check)


def test_a_unit_fails_once_per_stage_however_often_it_calls():
    evidence, plan = Evidence(one(FAILURES)), one(FAILURES)
    take(evidence, [call(at, "u", Arm.CANDIDATE, result=BAD) for at in range(1, 6)])
    once = LabelFailures(1.0)
    once.update(1, 0.5)
    assert evidence.gates["failures"].log_e == once.log_e
    assert (evidence.arms[Arm.CANDIDATE].units_failed, evidence.arms[Arm.CANDIDATE].calls_failed) == (1, 5)
    assert finding(plan, evidence, "failures").verdict is Verdict.NOT_YET


def test_a_unit_that_fails_later_counts_at_its_first_failure():
    evidence = Evidence(one(FAILURES))
    units = take(evidence, [call(1, "u"), call(2, "u")])
    assert evidence.gates["failures"].log_e == 0.0
    take(evidence, [call(3, "u", result=BAD), call(4, "u", result=BAD)], units)
    once = LabelFailures(1.0)
    once.update(0, 0.5)
    assert evidence.gates["failures"].log_e == once.log_e
    assert evidence.arms[Arm.STABLE].units == 1


def test_a_unit_counts_again_in_the_next_stage_with_the_share_it_then_has():
    """A stable unit of 25 % is a candidate of 50 % with probability 1/3; a candidate stays one, and says nothing."""
    plan = plan_of(Stage("25", 25, gates=(FAILURES,)), Stage("50", 50, gates=(FAILURES,)))
    evidence = Evidence(plan)
    units = take(evidence, [call(1, "s", Arm.STABLE, share=0.25), call(2, "c", Arm.CANDIDATE, share=0.25)])
    take(evidence, [call(3, "s", Arm.CANDIDATE, run=2, share=0.5, result=BAD)], units)
    expected = LabelFailures(1.0)
    expected.update(1, 1 / 3)
    fresh = evidence.gates["failures"]._fresh
    assert fresh is not None
    assert fresh.log_e == pytest.approx(expected.log_e, abs=1e-12)
    before = evidence.figures()
    take(evidence, [call(4, "c", Arm.CANDIDATE, run=2, share=0.5, result=BAD)], units)
    assert evidence.figures()[:-1] == before[:-1]
    assert not evidence.split_broken


def test_evidence_of_a_rollout_that_starts_late_is_about_the_stage_it_is_in():
    plan = plan_of(Stage("5", 5, gates=(FAILURES,)), Stage("50", 50, gates=(LIMIT,), certificate=Certificate(2.0)))
    evidence = Evidence(plan, first=1)
    take(evidence, [call(1, "u", Arm.CANDIDATE, result=BAD)])
    assert evidence.gates["limit"].log_e > 0
    assert evidence.gates["failures"].log_e == 0
    assert evidence.certificate is not None
    again = Evidence.from_state(plan, evidence.to_state())
    take(again, [call(2, "v", Arm.CANDIDATE, run=2, result=BAD)])
    assert (again.run, again.late) == (1, 1), "there is no stage behind the last"


def test_a_stage_run_that_the_plan_does_not_have_is_counted_and_passed_over():
    evidence = Evidence(one(FAILURES))
    take(evidence, [call(1, "u"), call(2, "v", run=9), call(3, "w", run=0)])
    assert (evidence.taken, evidence.late, evidence.run) == (1, 2, 1)


def test_calls_of_a_stage_that_was_left_are_late_and_change_nothing():
    plan = plan_of(Stage("25", 25, gates=(FAILURES,)), Stage("50", 50, gates=(FAILURES,)))
    evidence = Evidence(plan)
    units = take(evidence, [call(1, "a", share=0.25), call(2, "b", run=2)])
    before = evidence.figures()
    take(evidence, [call(3, "c", Arm.CANDIDATE, share=0.25, result=BAD)], units)
    assert evidence.figures() == before
    assert evidence.late == 1


def test_evidence_of_a_gate_stays_when_its_only_stage_is_left():
    """Evidence below 1 must not be forgotten: what is reset to 1 is no longer an e-process."""
    plan = plan_of(Stage("25", 25, gates=(FAILURES,)), Stage("50", 50, gates=(LATENCY,)))
    evidence = Evidence(plan)
    units = take(evidence, [call(at, name(at), share=0.25, result=BAD) for at in range(1, 40)])
    left = evidence.gates["failures"].log_e
    assert left < -1
    take(evidence, [call(99, "z", run=2)], units)
    assert evidence.gates["failures"].log_e == left
    again = Evidence.from_state(plan, evidence.to_state())
    assert again.gates["failures"].log_e == left


def test_the_alarm_stays_whatever_follows():
    evidence = Evidence(one(FAILURES))
    units = take(evidence, [call(at, name(at), Arm.CANDIDATE, result=BAD) for at in range(1, 30)])
    alarm = evidence.alarm
    assert alarm is not None
    take(evidence, [call(at, name(at), Arm.STABLE, result=BAD) for at in range(100, 300)], units)
    assert evidence.alarm == alarm
    assert evidence.gates["failures"].log_e < evidence.threshold_of("failures")
    assert finding(one(FAILURES), evidence, "failures").verdict is Verdict.HARMFUL


def test_the_alarm_of_a_gate_that_is_no_longer_asked_still_rolls_back():
    plan = plan_of(Stage("25", 25, gates=(FAILURES,)), Stage("50", 50, gates=()))
    evidence = Evidence(plan)
    take(evidence, [call(at, name(at), Arm.CANDIDATE, share=0.25, result=BAD) for at in range(1, 30)])
    take(evidence, [call(99, "z", run=2)])
    rollout = rollout_of(plan, stage=1, stage_run=2)
    assert decide(rollout, findings_of(rollout, evidence, None), None, 0).step is Step.ROLL_BACK


@pytest.mark.parametrize(
    ("gate", "more"),
    [
        (Gate("cost", GateKind.COMPARISON, Metric.COST), {}),
        (Gate("tokens", GateKind.COMPARISON, Metric.TOKENS), {}),
        (Gate("first byte", GateKind.COMPARISON, Metric.FIRST_BYTE), {}),
        (LATENCY, {"total_us": None}),
        (LATENCY, {"result": BAD}),
        (SLOW, {"total_us": None}),
    ],
    ids=["cost", "tokens", "first byte", "latency", "latency of failed calls", "a limit on latency"],
)
def test_a_metric_that_was_never_measured_blocks_however_many_units_came(gate, more):
    plan = one(gate)
    evidence = Evidence(plan)
    take(evidence, [call(at, name(at), (Arm.STABLE, Arm.CANDIDATE)[at % 2], **more) for at in range(1, 200)])
    found = finding(plan, evidence, gate.name)
    assert (found.verdict, found.blocks) == (Verdict.NOT_YET, True), found
    assert f"0 of {EVIDENCE_UNITS_MIN}" in found.text


def test_a_measured_metric_stops_blocking_at_the_promised_number_of_units():
    plan = one(Gate("cost", GateKind.COMPARISON, Metric.COST))
    evidence = Evidence(plan)
    units = take(evidence, [call(at, name(at), Arm.CANDIDATE, cost_usd_micro=7) for at in range(1, EVIDENCE_UNITS_MIN)])
    assert finding(plan, evidence, "cost").blocks
    take(evidence, [call(1000, "last", Arm.CANDIDATE, cost_usd_micro=7)], units)
    assert not finding(plan, evidence, "cost").blocks
    assert not finding(plan, Evidence.from_state(plan, evidence.to_state()), "cost").blocks


def pair(at: int, unit: str, stable: Result, shadow: Result, *, stable_us: int = 100_000, shadow_us: int = 100_000):
    return [
        call(at, unit, Arm.STABLE, share=0.0, result=stable, total_us=stable_us),
        call(at, unit, Arm.SHADOW, share=0.25, result=shadow, total_us=shadow_us),
    ]


def test_shadow_copies_earn_a_certificate_of_a_limit_and_feed_limits():
    """A service that never fails shows no ratio; its shadow still shows that it stays below a limit."""
    plan = one(LIMIT, SLOW, traffic_pct=0, shadow_pct=25, certificate=Certificate(3.0, 0.01))
    evidence = Evidence(plan)
    for at in range(1, 900):
        take(evidence, pair(at, name(at), Result.OK, Result.OK))
    assert evidence.certified
    assert evidence.arms[Arm.SHADOW].units == 899


def test_harm_in_the_shadow_alarms_on_an_absolute_limit():
    for gate, more in ((LIMIT, {"shadow": BAD}), (SLOW, {"shadow": Result.OK, "shadow_us": 900_000})):
        evidence = Evidence(one(gate, traffic_pct=0, shadow_pct=25))
        for at in range(1, 60):
            take(evidence, pair(at, name(at), Result.OK, **more))
        assert evidence.alarm is not None, gate.name


def test_shadow_pairs_count_once_per_unit_and_stage():
    evidence = Evidence(one(FAILURES, LATENCY, LIMIT, traffic_pct=0, shadow_pct=25))
    units: dict[str, Unit] = {}
    for at in range(1, 9):
        take(evidence, pair(at, "u", Result.OK, BAD), units)
        take(evidence, pair(100 + at, "v", Result.OK, Result.OK, shadow_us=200_000), units)
    expected = LabelFailures(1.0)
    expected.update(1, 0.5)
    assert evidence.gates["failures"].log_e == expected.log_e
    limit = OneSample(0.02)
    limit.update(True)
    limit.update(False)
    assert evidence.gates["limit"].log_e == limit.log_e
    assert (evidence.arms[Arm.SHADOW].units, evidence.arms[Arm.SHADOW].units_failed) == (2, 1)


@pytest.mark.parametrize("lost", [Result.LOST, Result.CLIENT_GONE])
def test_a_pair_of_which_one_half_is_unknown_says_nothing(lost):
    """A copy outlives its call; when the gateway dies between the two, that is not the candidate's failure."""
    evidence = Evidence(one(FAILURES, LATENCY, traffic_pct=0, shadow_pct=25, certificate=Certificate(3.0)))
    for at in range(1, 40):
        take(evidence, [*pair(at, name(at), Result.OK, lost), *pair(at + 1000, name(at + 1000), lost, Result.OK)])
    assert [process.log_e for process in evidence.gates.values()] == [0.0, 0.0]
    assert evidence.certificate is not None
    assert evidence.certificate.log_e == 0.0


def test_a_unit_on_the_wrong_arm_breaks_the_split():
    plan = plan_of(Stage("25", 25, gates=(FAILURES,)), Stage("50", 50, gates=(FAILURES,)))
    evidence = Evidence(plan)
    units = take(evidence, [call(1, "c", Arm.CANDIDATE, share=0.25)])
    take(evidence, [call(2, "c", Arm.STABLE, run=2, share=0.5)], units)
    assert evidence.contradictions == 1
    assert evidence.split_problem is not None
    assert "1 units got an arm that what they had before rules out" in evidence.split_problem
    decision = decide(rollout_of(plan), [], evidence.split_problem, 0)
    assert decision.step is Step.HOLD
    assert evidence.split_problem in decision.reason


def test_negative_feedback_counts_once_for_a_unit_that_called():
    plan = one(Gate("feedback", GateKind.COMPARISON, Metric.FEEDBACK))
    evidence = Evidence(plan)
    take(
        evidence,
        [
            call(1, "never-called", Arm.CANDIDATE, kind="feedback", negative=True),
            call(2, "u", Arm.CANDIDATE),
            *(call(at, "u", Arm.CANDIDATE, kind="feedback", negative=True) for at in (3, 4, 5)),
            call(6, "u", Arm.CANDIDATE, kind="feedback", negative=False),
        ],
    )
    expected = LabelFailures(1.0)
    expected.update(1, 0.5)
    assert evidence.gates["feedback"].log_e == expected.log_e


def test_the_last_stage_is_judged_by_the_frozen_baseline_of_stable():
    watched = Gate("frozen", GateKind.SLO, Metric.FAILURES, margin=2.0)
    slower = Gate("frozen latency", GateKind.SLO, Metric.LATENCY, share_over=0.10)
    plan = plan_of(Stage("50", 50, gates=(FAILURES,)), Stage("100", 100, gates=(watched, slower), certificate=Certificate(2.0)))
    evidence = Evidence(plan)
    units = take(evidence, [assigned(at, at, 0.5, bad=[Arm.STABLE] if at % 10 == 0 else []) for at in range(1, 1000)])
    met = evidence.arms[Arm.STABLE]
    rate = (met.units_failed + 1) / (met.units + 1)
    take(evidence, [call(2000, "new", Arm.CANDIDATE, run=2, share=1.0, result=BAD)], units)
    expected = OneSample(2 * rate)
    expected.update(True)
    assert evidence.gates["frozen"].log_e == expected.log_e
    certificate = LimitCertificate(2 * rate)
    certificate.update(True)
    assert evidence.certificate is not None
    assert evidence.certificate.log_e == certificate.log_e
    before = evidence.to_state()["baseline"]
    take(evidence, [call(3000 + at, name(9000 + at), Arm.CANDIDATE, run=2, share=1.0, result=BAD) for at in range(30)], units)
    assert evidence.to_state()["baseline"] == before
    assert evidence.alarm is not None
    assert evidence.alarm.gate == "frozen"


def test_without_a_baseline_a_frozen_limit_blocks_instead_of_passing():
    watched = Gate("frozen", GateKind.SLO, Metric.FAILURES, margin=2.0)
    plan = plan_of(Stage("100", 100, gates=(watched,), certificate=Certificate(2.0)))
    evidence = Evidence(plan)
    take(evidence, [call(at, name(at), Arm.CANDIDATE, share=1.0) for at in range(1, 200)])
    assert finding(plan, evidence, "frozen").blocks
    assert finding(plan, evidence, "certificate").blocks
    warm = Baseline(1000, 10, Sketch())
    evidence = Evidence(plan, warm)
    take(evidence, [call(at, name(at), Arm.CANDIDATE, share=1.0) for at in range(1, 400)])
    assert not finding(plan, evidence, "frozen").blocks
    assert evidence.certified


def test_dry_run_gates_are_shown_and_decide_nothing():
    dry = [
        Gate("failures", GateKind.COMPARISON, Metric.FAILURES, dry_run=True),
        Gate("limit", GateKind.SLO, Metric.FAILURES, limit=0.02, dry_run=True),
        Gate("reports", GateKind.PASSES, Metric.FAILURES, limit=0.01, passes=3, failures=2, dry_run=True),
        Gate("registry", GateKind.INVARIANT, Metric.REGISTRY, dry_run=True),
    ]
    plan = plan_of(Stage("only", 50, floor_s=9, gates=tuple(dry)))
    evidence = Evidence(plan)
    take(
        evidence,
        [call(at * 5_000, name(at), (Arm.STABLE, Arm.CANDIDATE)[at % 2], result=BAD if at % 2 else Result.OK) for at in range(2000)],
    )
    assert evidence.gates["failures"].log_e > 10
    assert evidence.reports.broken
    rollout = rollout_of(plan)
    findings = findings_of(rollout, evidence, "a prompt")
    assert {one.check for one in findings} >= {"failures", "limit", "reports", "registry"}
    assert decide(rollout, findings, None, 10_000_000).step is Step.PROMOTE


def test_damage_rolls_back_even_where_no_gate_asks_for_it():
    plan = one(FAILURES)
    findings = findings_of(rollout_of(plan), Evidence(plan), "release rel_b: its prompt")
    decision = decide(rollout_of(plan), findings, "1 of 2", 0)
    assert decision.step is Step.ROLL_BACK
    assert "its prompt" in decision.reason


def test_copies_beside_live_traffic_feed_limits_but_no_comparison():
    """The stable half of a pair is a label already; counted as both, evidence would grow under the null (its mean factor exceeds 1)."""
    plan = one(FAILURES, LATENCY, LIMIT, traffic_pct=25, shadow_pct=50, certificate=Certificate(3.0))
    evidence, alone = Evidence(plan), Evidence(plan)
    for at in range(1, 60):
        stable = Result.OK if at % 3 else BAD
        take(evidence, pair_at(at, name(at), stable, Result.OK if at % 5 else BAD))
        take(alone, pair_at(at, name(at), stable, Result.OK)[:1])
    for gate in ("failures", "latency"):
        assert evidence.gates[gate].log_e == alone.gates[gate].log_e
    assert evidence.certificate is not None
    assert alone.certificate is not None
    assert evidence.certificate.log_e == alone.certificate.log_e
    assert evidence.gates["limit"].log_e > alone.gates["limit"].log_e
    assert evidence.to_state()["interval"] == alone.to_state()["interval"]
    found = finding(plan, evidence, "failures")
    assert found.blocks, "nor do copies stand in for units that meet the candidate"


def pair_at(at: int, unit: str, stable: Result, shadow: Result):
    return [call(at, unit, Arm.STABLE, share=0.25, result=stable), call(at, unit, Arm.SHADOW, share=0.5, result=shadow, total_us=990_000)]
