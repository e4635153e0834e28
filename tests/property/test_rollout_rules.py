"""What holds for every plan, every evidence and every order of delivery."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.delivery.evidence import Evidence, Seen, Unit
from cohort.delivery.intake import Live
from cohort.delivery.lifecycle import begin, follow
from cohort.delivery.model import Certificate, Gate, GateKind, Metric, Plan, Rollout, Stage, State, Verdict
from cohort.delivery.plans import PRESETS
from cohort.delivery.processes import Baseline
from cohort.delivery.routing import build_table
from cohort.delivery.rules import Decision, Finding, Step, decide, findings_of
from cohort.gateway.contract import Arm, Call, ReleaseRoute, Result, Route, bucket
from support_calls import SALT, assigned, rollout_of, take

QUICK = settings(max_examples=60, deadline=None)
FORWARD = (Step.ADVANCE, Step.PROMOTE, Step.ASK)

comparisons = st.builds(
    Gate,
    name=st.sampled_from(["failures", "failures too"]),
    kind=st.just(GateKind.COMPARISON),
    metric=st.sampled_from([Metric.FAILURES, Metric.LATENCY, Metric.COST, Metric.TOKENS, Metric.FEEDBACK, Metric.FIRST_BYTE]),
    margin=st.sampled_from([1.0, 1.05, 1.5]),
)
limits = st.builds(
    Gate, name=st.just("limit"), kind=st.just(GateKind.SLO), metric=st.just(Metric.FAILURES), limit=st.sampled_from([None, 0.01, 0.3])
)
counts = st.builds(
    Gate,
    name=st.just("reports"),
    kind=st.just(GateKind.PASSES),
    metric=st.just(Metric.FAILURES),
    limit=st.just(0.01),
    passes=st.integers(1, 5),
    failures=st.integers(0, 3),
)
registry = st.just(Gate("registry", GateKind.INVARIANT, Metric.REGISTRY))
certificates = st.builds(Certificate, ratio=st.sampled_from([None, 1.5, 3.0]), limit=st.sampled_from([0.001, 0.1]))


@st.composite
def stages(draw) -> Stage:
    """Any stage that asks for evidence."""
    gates = draw(st.lists(st.one_of(comparisons, limits, counts, registry), max_size=4, unique_by=lambda gate: gate.name))
    asks = any(gate.kind is not GateKind.INVARIANT for gate in gates)
    certificate = draw(certificates if not asks else st.none() | certificates)
    return Stage(
        "s",
        draw(st.sampled_from([0.0, 5.0, 50.0, 100.0])),
        draw(st.sampled_from([0.0, 25.0])),
        draw(st.sampled_from([0.0, 1.0, 3600.0])),
        certificate,
        tuple(gates),
        approval=draw(st.booleans()),
    )


@st.composite
def plans(draw) -> Plan:
    made = draw(st.lists(stages(), min_size=1, max_size=4))
    seen: dict[str, Gate] = {}
    same = [replace(stage, gates=tuple(seen.setdefault(gate.name, gate) for gate in stage.gates)) for stage in made]
    return Plan("p", tuple(same), draw(st.sampled_from([0.01, 0.1])), draw(st.sampled_from([0.01, 0.2])))


running = st.sampled_from([State.RUNNING, State.PAUSED, State.AWAITING_APPROVAL])
moments = st.integers(0, 10**16)


@QUICK
@given(plans(), st.data(), running, moments, st.booleans())
def test_no_evidence_never_goes_forward(plan, data, state, now_us, approved):
    stage = data.draw(st.integers(0, len(plan.stages) - 1))
    warm = data.draw(st.none() | st.builds(Baseline, calls=st.integers(0, 10_000), failed=st.integers(0, 5)))
    rollout = rollout_of(
        plan, stage=stage, stage_run=stage + 1, state=state, approved=approved, paused_since_us=0 if state is State.PAUSED else None
    )
    findings = findings_of(rollout, Evidence(plan, warm), None)
    assert decide(rollout, findings, None, now_us).step is Step.WAIT


@QUICK
@given(plans(), moments)
def test_a_stage_behind_one_that_was_left_begins_without_evidence(plan, now_us):
    """What the last stage showed promotes nobody from the next."""
    two = replace(plan, stages=(replace(plan.stages[0], traffic_pct=50.0), replace(plan.stages[0], traffic_pct=60.0)))
    evidence = Evidence(two)
    take(evidence, [assigned(at, at, 0.5, cost_usd_micro=5, tokens_out=7, first_us=9) for at in range(1, 1500, 3)])
    rollout = rollout_of(two, stage=1, stage_run=2)
    assert decide(rollout, findings_of(rollout, evidence, None), None, now_us).step in (Step.WAIT, Step.ROLL_BACK)


verdicts = st.sampled_from(Verdict)
findings = st.builds(Finding, check=st.text(max_size=3), verdict=verdicts, text=st.just("x"), blocks=st.booleans(), waivable=st.booleans())


def towards_promotion(decision: Decision) -> int:
    """How far a decision goes: rolling back is the least, holding and waiting are next, then asking, then going on."""
    order = {Step.ROLL_BACK: 0, Step.HOLD: 1, Step.WAIT: 1, Step.ASK: 2, Step.ADVANCE: 3, Step.PROMOTE: 3}
    return order[decision.step]


@QUICK
@given(plans(), st.lists(findings, max_size=6), findings, running, moments, st.none() | st.just("1 of 2"), st.none() | st.just("I know"))
def test_one_more_finding_never_moves_a_decision_forward(plan, known, more, state, now_us, split_problem, waived):
    rollout = rollout_of(plan, state=state, waived=waived, paused_since_us=0 if state is State.PAUSED else None)
    before = decide(rollout, known, split_problem, now_us)
    after = decide(rollout, [*known, more], split_problem, now_us)
    if split_problem is not None and before.step is not Step.ROLL_BACK and after.step is Step.ROLL_BACK:
        assert more.verdict is Verdict.HARMFUL
        assert not more.waivable
    assert towards_promotion(after) <= towards_promotion(before)


@QUICK
@given(plans(), st.lists(findings, max_size=6), running, moments)
def test_nobody_waives_harm(plan, known, state, now_us):
    harmful = Finding("x", Verdict.HARMFUL, "harm", blocks=True)
    rollout = rollout_of(plan, state=state, waived="I know", approved=True)
    assert decide(rollout, [*known, harmful], None, now_us).step is Step.ROLL_BACK


# --- order of delivery, duplicates, storage ---

MIXED = Plan(
    "mixed",
    (
        Stage(
            "shadow and a quarter",
            25,
            50,
            floor_s=2,
            certificate=Certificate(3.0, 0.01),
            gates=(
                Gate("failures", GateKind.COMPARISON, Metric.FAILURES),
                Gate("latency", GateKind.COMPARISON, Metric.LATENCY, margin=1.05),
                Gate("feedback", GateKind.COMPARISON, Metric.FEEDBACK),
                Gate("limit", GateKind.SLO, Metric.FAILURES, limit=0.05),
                Gate("reports", GateKind.PASSES, Metric.FAILURES, limit=0.1, passes=3, failures=2),
            ),
        ),
        Stage(
            "most",
            75,
            gates=(
                Gate("failures", GateKind.COMPARISON, Metric.FAILURES),
                Gate("latency", GateKind.COMPARISON, Metric.LATENCY, margin=1.05),
                Gate("frozen", GateKind.SLO, Metric.FAILURES, margin=2.0),
            ),
        ),
    ),
)


def history(seed: int, count: int = 260) -> list[Call]:
    """Records in the order of assignment: several calls a unit, copies, feedback, two stages."""
    chance = random.Random(seed)
    records: list[Call] = []
    for index in range(count):
        run, share = (1, 0.25) if index < count // 2 else (2, 0.75)
        number, at_us = chance.randrange(count // 3), 1000 + index * 10_000
        call = assigned(
            at_us, number, share, run=run, bad=list(Arm) if chance.random() < 0.15 else [], total_us=chance.randrange(10_000, 900_000)
        )
        records.append(call)
        if call.arm is Arm.STABLE and run == 1 and bucket(SALT + b"s", call.unit) < 0.5:
            result = Result.UPSTREAM_ERROR if chance.random() < 0.2 else Result.OK
            records.append(replace(call, arm=Arm.SHADOW, share=0.5, result=result, total_us=chance.randrange(10_000, 900_000)))
        if chance.random() < 0.2:
            records.append(
                replace(call, kind="feedback", seq=call.seq + 1, at_us=at_us + 1, negative=chance.random() < 0.5, result=Result.OK)
            )
    return records


def deliver(records: list[Call], seed: int) -> Live:
    """As a gateway writes them: assignments in order, ends whenever they happen; in batches cut anywhere, some of them twice."""
    chance = random.Random(seed)
    written: list[tuple[float, int, Call]] = []
    for index, call in enumerate(records):
        if call.kind == "call":
            written.append((call.at_us, index, replace(call, kind="assigned", result=Result.OK)))
            written.append((call.at_us + 0.5 + chance.expovariate(1 / 60_000), index, call))
        else:
            written.append((call.at_us, index, call))
    stream = [call for _, _, call in sorted(written, key=lambda one: one[:2])]
    live = Live(rollout_of(MIXED), Evidence(MIXED), None)
    units: dict[str, Unit] = {}
    place = 0
    while place < len(stream):
        cut = place + chance.randrange(1, 60)
        for call in stream[place:cut]:
            live.receive(call)
        if chance.random() < 0.5:
            live.take(live.ready(), units)
        if chance.random() < 0.3:
            live = reloaded(live)
        place = cut if chance.random() < 0.8 else max(place - 5, 0) + 5 - chance.randrange(5)
        place = min(max(place, 0), cut)
    live.take(live.ready(), units)
    return live


def reloaded(live: Live) -> Live:
    """As after a restart: what is in memory comes from what was stored."""
    evidence = Evidence.from_state(MIXED, json.loads(json.dumps(live.evidence.to_state())))
    again = Live(rollout_of(MIXED), evidence, live.position)
    again.open, again.waiting = dict(live.open), dict(live.waiting)
    return again


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_neither_batches_nor_duplicates_nor_the_order_of_ends_nor_restarts_change_a_bit(story, delivery):
    records = history(story)
    plain = Evidence(MIXED)
    take(plain, records)
    live = deliver(records, delivery)
    assert live.evidence.figures() == plain.figures()
    state, expected = live.evidence.to_state(), plain.to_state()
    assert [name for name in expected if state[name] != expected[name]] == []


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 250))
def test_evidence_goes_on_bit_for_bit_from_what_was_stored(story, cut):
    records = history(story, 130)
    whole, part = Evidence(MIXED), Evidence(MIXED)
    take(whole, records)
    keys = sorted({(call.at_us, call.gateway, call.epoch, call.seq) for call in records})
    place = keys[min(cut, len(keys) - 1)]
    units = take(part, [call for call in records if (call.at_us, call.gateway, call.epoch, call.seq) < place])
    stored = json.loads(json.dumps(part.to_state()))
    again = Evidence.from_state(MIXED, stored)
    assert json.loads(json.dumps(again.to_state())) == stored
    kept = {name: Unit(unit.low, unit.high, unit.stage_run, Seen(int(unit.seen))) for name, unit in units.items()}
    take(again, [call for call in records if (call.at_us, call.gateway, call.epoch, call.seq) >= place], kept)
    assert again.to_state() == whole.to_state()


def test_the_stored_evidence_of_a_long_rollout_stays_small():
    """Bounded by bins, not by units: 6,000 outcomes over four decades of latency."""
    plan = PRESETS["shadow-5-25-100"]
    evidence, units = Evidence(plan), {}
    chance = random.Random(1)
    for at in range(6_000):
        take(evidence, [assigned(at, at, 0.05, run=2, total_us=int(math.exp(chance.gauss(12, 1.5))))], units)
    assert len(json.dumps(evidence.to_state())) < 64_000


# --- what a unit's past says of its arm ---


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.5, 0.5, 0.75, 1.0]), min_size=1, max_size=5), st.integers(0, 10**6))
def test_a_units_share_given_its_past_is_what_counting_buckets_says(ladder, seed):
    """Against brute force: of all buckets that would have got the same arms so far, the part that gets the candidate now."""
    chance = random.Random(seed)
    shares = sorted(ladder)
    grid = [(index + 0.5) / 4000 for index in range(4000)]
    for _ in range(6):
        mine = chance.choice(grid)
        unit, possible, before = Unit(), grid, 0.0
        for run, share in enumerate(shares, start=1):
            if chance.random() < 0.3:
                continue  # the unit did not come in this stage
            unit.enter(run, before)
            expected = sum(bucket < share for bucket in possible) / len(possible)
            assert unit.share_given_past(share) == pytest.approx(expected, abs=2e-3 / max(len(possible) / 4000, 1e-3))
            assert not (mine < share and unit.share_given_past(share) == 0.0)
            assert not (mine >= share and unit.share_given_past(share) == 1.0)
            got = mine < share
            possible = [bucket for bucket in possible if (bucket < share) == got]
            unit.seen = Seen.CALLED | (Seen.CANDIDATE if got else Seen(0))
            before = share


@QUICK
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(list(State)), st.sampled_from([0.0, 5.0, 100.0])), max_size=6))
def test_the_table_shares_units_only_for_rollouts_that_run(made):
    """Whatever states rollouts are in, only those not ended may stand in the table; `active` is what the store says so."""
    plan = Plan("p", (Stage("s", 5.0), Stage("t", 100.0)))
    rollouts: list[Rollout] = []
    for index, (http, state, pct) in enumerate(made):
        one = replace(plan, stages=(Stage("s", pct), Stage("t", 100.0)))
        more = {"id": f"ro_{index}", "service": f"s{index}", "stable": f"a{index}", "candidate": f"h{index}" if http else f"b{index}"}
        rollouts.append(rollout_of(one, state=state, ended_us=5 if state.ended else None, **more))
    stable = {rollout.service: rollout.stable for rollout in rollouts}
    route = Route("main", "openai", "http://127.0.0.1/v1", "m")
    digests = [*stable.values(), *(rollout.candidate for rollout in rollouts if not rollout.candidate.startswith("h"))]
    routes = {digest: ReleaseRoute(digest, "1", (route,)) for digest in digests}
    active = [rollout for rollout in rollouts if rollout.ended_us is None]
    table = build_table(3, 4, stable, active, routes)
    shown = {service.split.rollout_id for service in table.services.values() if service.split is not None}
    assert shown == {rollout.id for rollout in active if not rollout.candidate.startswith("h")}
    assert all(service.stable in table.releases for service in table.services.values())


@QUICK
@given(plans(), st.lists(st.sampled_from([Step.HOLD, Step.ASK, Step.ADVANCE, Step.ROLL_BACK, Step.PROMOTE, Step.WAIT]), max_size=8))
def test_a_rollout_follows_decisions_without_ever_leaving_an_end_or_its_plan(plan, steps):
    rollout, _ = begin(rollout_of(plan, stage_run=0, state=State.PLANNED), 0, "alice", {})
    for at, step in enumerate(steps, start=1):
        if rollout.state.ended or (step is Step.ADVANCE and rollout.stage + 1 >= len(plan.stages)):
            break
        before = rollout
        rollout, events = follow(rollout, Decision(step, "why"), at)
        assert rollout.stage in (before.stage, before.stage + 1)
        assert rollout != before or step in (Step.WAIT, Step.ASK)
        assert bool(events) == (step is not Step.WAIT)
    assert (rollout.ended_us is not None) == rollout.state.ended
