"""What surfaces show: right figures on known data; where nothing was measured, None, never 0 and never healthy."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from cohort.delivery.evidence import Evidence
from cohort.delivery.forecast import forecast
from cohort.delivery.lifecycle import begin
from cohort.delivery.model import State, Verdict
from cohort.delivery.plans import PRESETS, find_plan, parse_plan
from cohort.delivery.services import service_view, units_per_s, warm_baseline
from cohort.delivery.views import rollout_view
from cohort.gateway.contract import Arm, Result
from cohort.stats import Sketch, expected_units_to_certificate, expected_units_to_detect
from cohort.storage import schema as t
from support_calls import call, name, rollout_of, take
from support_engine import House, plan_text, unit_name

MINUTE = 60_000_000
NOW = 100 * MINUTE
ROW = {"name": "support", "stable": "rel_a", "changed_us": 7}


def minute(at: int, calls: int, failed: int = 0, release: str = "rel_a", cost: int = 0, latency_us: int = 100_000) -> dict:
    sketch = Sketch()
    if calls > failed:
        sketch.add(latency_us, calls - failed)
    body = {
        "calls": calls,
        "failed": failed,
        "cached": 0,
        "units": calls,
        "units_failed": failed,
        "tokens_in": 0,
        "tokens_out": 0,
        "cost_usd_micro": cost,
        "latency": sketch.to_state(),
    }
    return {"service": "support", "release": release, "minute_us": at * MINUTE, **body}


def view_of(*rows: dict):
    return service_view(ROW, None, rows, {"rel_a": "1"}, None, sum(row["cost_usd_micro"] for row in rows) or None, NOW)


def test_a_service_without_traffic_shows_nothing_rather_than_health():
    view = view_of()
    assert (view.calls_per_minute, view.failure_rate, view.p50_ms, view.p95_ms, view.cost_usd_today) == (None,) * 5
    assert view.minutes == (0,) * 30
    assert view.gateway_agrees is None


def test_a_service_whose_traffic_stopped_shows_no_rate_but_its_past():
    view = view_of(minute(80, 50, 5))
    assert (view.calls_per_minute, view.failure_rate, view.p95_ms) == (None, None, None)
    assert view.minutes[9] == 50


def test_rates_of_a_service_are_of_the_last_minutes():
    view = view_of(minute(20, 1000, 1000), minute(96, 60, 6, cost=2_000_000), minute(98, 40, 4))
    assert view.failure_rate == pytest.approx(0.1)
    assert view.calls_per_minute == pytest.approx(25.0)
    assert view.p50_ms == pytest.approx(100.0, rel=0.02)
    assert view.cost_usd_today == 2.0
    assert view.minutes[-3:] == (40, 0, 0)
    assert view.minutes[-5] == 60


def test_a_service_whose_calls_all_failed_shows_it_and_has_no_latency():
    view = view_of(minute(99, 10, 10))
    assert (view.failure_rate, view.p95_ms, view.cost_usd_today) == (1.0, None, None)


def test_the_baseline_of_a_rollout_is_stables_own_past():
    """A candidate that was just rolled back must not excuse the next."""
    baseline = warm_baseline([minute(1, 900, 9), minute(1, 100, 80, release="rel_bad", latency_us=9_000_000)], "rel_a")
    assert (baseline.calls, baseline.failed) == (900, 9)
    assert baseline.failure_rate == 10 / 901
    assert baseline.p95_us == pytest.approx(100_000, rel=0.02)
    assert warm_baseline([minute(1, 99)], "rel_a").failure_rate is None
    assert warm_baseline([minute(1, 99)], "rel_a").p95_us is None


def test_traffic_is_measured_over_the_time_there_was_any():
    assert units_per_s([], NOW) is None
    assert units_per_s([minute(98, 60), minute(99, 60)], NOW) == 1.0
    assert units_per_s([minute(99, 60)], 99 * MINUTE + 1) == 1.0


def shown(plan, evidence: Evidence, **more):
    return rollout_view(rollout_of(plan, **more), evidence, (), (), {"rel_a": "1", "rel_b": "2"}, None, 1)


def test_a_rollout_without_evidence_shows_no_verdict_and_no_figures():
    plan = find_plan("shadow-5-25-100")
    view = shown(plan, Evidence(plan))
    assert [gate.verdict for gate in view.gates if gate.name != "registry"] == [Verdict.NOT_YET, Verdict.NOT_YET]
    assert all(gate.harmful is not None and gate.harmful.part < 1e-12 for gate in view.gates if gate.name != "registry")
    assert (view.arms, view.points) == ((), ())
    assert not any(stage.certified for stage in view.stages)
    assert len(view.waiting_for) == 4
    assert (view.serving.version, view.split.part) == ("1", 0.0)


def test_an_arm_that_only_failed_has_no_latency_and_no_cost():
    plan = parse_plan(plan_text("- {traffic_pct: 50}\n- {traffic_pct: 100}"), "p")
    evidence = Evidence(plan)
    take(
        evidence,
        [call(at, name(at), (Arm.STABLE, Arm.CANDIDATE)[at % 2], result=(Result.OK, Result.TIMEOUT)[at % 2]) for at in range(1, 9)],
    )
    candidate, stable = sorted(shown(plan, evidence).arms, key=lambda arm: arm.arm)
    assert (candidate.units, candidate.units_failed, candidate.calls_failed) == (4, 4, 4)
    assert (candidate.p50_ms, candidate.p99_ms, candidate.cost_usd) == (None, None, None)
    assert stable.p50_ms == pytest.approx(100, rel=0.02)


def test_figures_of_a_stage_are_not_shown_for_the_next():
    plan = parse_plan(plan_text("- {traffic_pct: 50}\n- {traffic_pct: 75}\n- {traffic_pct: 100}"), "p")
    evidence = Evidence(plan)
    take(evidence, [call(at, name(at), (Arm.STABLE, Arm.CANDIDATE)[at % 2]) for at in range(1, 60)])
    view = shown(plan, evidence, stage=1, stage_run=2)
    assert view.arms == ()
    assert any("0 of 30" in need for need in view.waiting_for)


def test_the_scale_of_a_gate_ends_where_it_alone_suffices_for_the_alarm():
    plan = parse_plan(plan_text("- {traffic_pct: 50}\n- {traffic_pct: 100}"), "p")
    evidence = Evidence(plan)
    units: dict = {}
    for at in range(1, 60):
        take(evidence, [call(at, name(at), Arm.CANDIDATE, result=Result.TIMEOUT)], units)
        gate = next(one for one in shown(plan, evidence).gates if one.name == "failures")
        assert gate.harmful is not None
        if gate.harmful.log_e >= gate.harmful.threshold:
            assert evidence.alarm is not None
            return
    pytest.fail("it never reached its end")


def test_an_ended_rollout_waits_for_nothing():
    plan = find_plan("fast-10-50-100")
    view = shown(plan, Evidence(plan), state=State.ROLLED_BACK, ended_us=5, reason="it burned")
    assert (view.waiting_for, view.floor_left_s, view.reason) == ((), 0.0, "it burned")


def test_a_rollout_that_begins_with_a_pause_says_so_in_its_log():
    plan = parse_plan(plan_text("- {traffic_pct: 50, pause: true}\n- {traffic_pct: 100}"), "p")
    rollout, events = begin(rollout_of(plan, stage_run=0, state=State.PLANNED), 5, "alice", {})
    assert (rollout.state, rollout.paused_since_us) == (State.PAUSED, 5)
    assert [event.kind for event in events] == ["started", "stage_entered", "paused"]


# --- forecast ---


def test_a_forecast_uses_the_closed_forms():
    plan = parse_plan(plan_text("- {traffic_pct: 5, floor: 1h, certificate: {ratio: 3}}\n- {traffic_pct: 100, floor: 1h}"), "p")
    seen = forecast("support", plan, 1.0, 2.0, 0.02, False)
    stage = seen.stages[0]
    assert stage.units == 7200
    assert stage.detect_s["2"] == pytest.approx(expected_units_to_detect(0.02, 2.0, 0.05, 0.01) / 2)
    assert stage.extra_failed["2"] == pytest.approx(expected_units_to_detect(0.02, 2.0, 0.05, 0.01) * 0.05 * 0.02)
    assert stage.certificate_s == pytest.approx(expected_units_to_certificate(0.02, 3.0, 0.05, 0.05) / 2)
    assert list(stage.extra_failed) == ["1.5", "2", "5", "10"]
    assert (seen.stages[1].smallest_ratio, seen.stages[1].detect_s, seen.stages[1].certificate_s) == (None, {}, None)


def test_too_little_traffic_is_warned_about_and_more_is_not():
    plan = PRESETS["shadow-5-25-100"]
    assert forecast("support", plan, 1.0, 0.0001, 0.01, False).warnings
    assert forecast("support", plan, 1.0, 50.0, 0.01, False).warnings == ()
    assert forecast("support", plan, 100_000.0, 50.0, 0.01, False).warnings, "floors are compressed, evidence never is"


def test_what_nobody_sees_in_the_shadow_fails_nobody():
    seen = forecast("support", PRESETS["shadow-5-25-100"], 1.0, 5.0, 0.01, False)
    assert set(seen.stages[0].extra_failed.values()) == {0.0}


def test_a_forecast_says_whether_its_figures_were_measured(sqlite_database, clock):
    house = House(sqlite_database, clock)
    house.ready()
    plan = plan_text("- {traffic_pct: 50, floor: 1h}\n- {traffic_pct: 100}")
    assumed = house.rollouts.forecast("support", plan)
    assert (assumed.assumed, assumed.units_per_s, assumed.failure_rate) == (True, 1.0, 0.01)
    clock._now_us -= clock._now_us % MINUTE
    house.traffic(range(600), bad_every=20, step_s=0.1)
    house.tick()
    measured = house.rollouts.forecast("support", plan)
    assert measured.assumed is False
    assert measured.units_per_s == pytest.approx(10, rel=0.05)
    assert measured.failure_rate == pytest.approx(31 / 601)
    assert house.rollouts.forecast("support", plan, failure_rate=0.2).failure_rate == 0.2


def test_the_evidence_that_was_enough_stays_shown_after_an_alarm(sqlite_database, clock):
    house = House(sqlite_database, clock)
    house.ready()
    rollout = house.start(plan_text("- {traffic_pct: 50, floor: 1h}\n- {traffic_pct: 100}"))
    house.traffic(range(120), bad=[Arm.CANDIDATE])
    house.traffic(range(200, 260), bad=[Arm.STABLE])
    house.tick(2)
    shown = house.rollouts.show(rollout.id)
    alarm = house.evidence(rollout.id).alarm
    assert shown.state is State.ROLLED_BACK
    assert alarm is not None
    failures = next(gate for gate in shown.gates if gate.name == alarm.gate)
    assert failures.harmful is not None
    assert failures.harmful.log_e == alarm.log_e


# --- replay ---


@pytest.mark.parametrize(
    ("column", "value"),
    [("result", "timeout"), ("share", 0.4), ("arm", "candidate"), ("total_us", 9_000_000)],
)
def test_replay_finds_an_edited_row_and_names_the_first_difference(database, clock, column, value):
    house = House(database, clock)
    house.ready()
    rollout = house.start(plan_text("- {traffic_pct: 50}\n- {traffic_pct: 100}"))
    house.traffic(range(120), bad_every=10)
    house.gateway.call(unit_name(1), latency_ms=50)
    house.tick()
    assert house.rollouts.replay(rollout.id).identical
    with house.store.database.write() as connection:
        chosen = t.calls.c.arm == "stable"
        first = connection.execute(t.calls.select().where(chosen, t.calls.c.result == "ok").order_by(t.calls.c.at_us).limit(1)).one()
        connection.execute(update(t.calls).where(t.calls.c.at_us == first.at_us).values({column: value}))
    replayed = house.rollouts.replay(rollout.id)
    assert replayed.identical is False
    assert "recorded as" in str(replayed.first_difference)


def test_replay_finds_a_row_that_is_gone(sqlite_database, clock):
    house = House(sqlite_database, clock)
    house.ready()
    rollout = house.start(plan_text("- {traffic_pct: 50, floor: 1s}\n- {traffic_pct: 100}"))
    house.traffic(range(300), bad_every=10, step_s=0.01)
    house.tick()
    assert "passed" in house.events(rollout.id)
    place = house.rollouts.show(rollout.id).events[2].detail["position"]
    with house.store.database.write() as connection:
        connection.execute(t.calls.delete().where(t.calls.c.at_us == place[0]))
    replayed = house.rollouts.replay(rollout.id)
    assert replayed.identical is False
    assert "its position is not in the recorded log" in str(replayed.first_difference)


def test_replays_of_the_same_log_have_the_same_digest(sqlite_database, clock):
    house = House(sqlite_database, clock)
    house.ready()
    rollout = house.start(plan_text("- {traffic_pct: 50}\n- {traffic_pct: 100}"))
    house.traffic(range(50), bad_every=10)
    house.tick()
    first = house.rollouts.replay(rollout.id)
    house.crash()
    assert house.rollouts.replay(rollout.id) == first
    house.traffic(range(50, 60))
    house.tick()
    assert house.rollouts.replay(rollout.id).digest != first.digest
