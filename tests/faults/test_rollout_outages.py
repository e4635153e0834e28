"""The gateway or the database is away, the gateway dies, a stored release is damaged: traffic goes where it should, and nothing is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select, update

from cohort.base.errors import CohortError
from cohort.delivery.face import Act
from cohort.delivery.intake import OPEN_S_MAX
from cohort.delivery.model import State
from cohort.delivery.taps import RECORDS_MAX
from cohort.gateway.contract import Arm, Result
from cohort.storage import schema as t
from support_engine import OPERATOR, House, plan_text, unit_name

NOBODY = plan_text("- {traffic_pct: 0, floor: 1h, gates: []}\n- {traffic_pct: 100, floor: 10s}")
HALF = plan_text("- {traffic_pct: 50, floor: 1h}\n- {traffic_pct: 100, floor: 1h}")
SERVED = f"caches: serve\n{HALF}"
SHADOW = plan_text("- {traffic_pct: 0, shadow_pct: 100, floor: 1h}\n- {traffic_pct: 100, floor: 1h}")


def code_of(call, *arguments, **named) -> str:
    with pytest.raises(CohortError) as caught:
        call(*arguments, **named)
    return caught.value.code


def harm(house: House, first: int = 0) -> None:
    """Enough failures of the candidate alone for an alarm."""
    house.traffic(range(first, first + 120), bad=[Arm.CANDIDATE, Arm.SHADOW])


def splits(house: House) -> dict[str, str]:
    return dict(house.gateway.snapshot.splits)


# --- the gateway is away ---


def test_a_verdict_that_cannot_be_pushed_is_pushed_and_verified_when_the_gateway_is_back(house):
    rollout = house.start(HALF)
    harm(house)
    house.gateway.refuse_push = True
    assert code_of(house.tick) == "DATA_PLANE_UNAVAILABLE"
    assert house.rollout(rollout.id).state is State.ROLLED_BACK, "the verdict is durable before it takes effect"
    assert splits(house)
    house.gateway.reachable = False
    for _ in range(3):
        house.clock.advance(1)
        assert code_of(house.tick) == "DATA_PLANE_UNAVAILABLE"
    house.gateway.reachable, house.gateway.refuse_push = True, False
    house.clock.advance(1)
    house.tick(2)
    assert not splits(house)
    assert house.rollout(rollout.id).summary["verified"] is True
    assert house.events(rollout.id).count("rolled_back") == 1
    assert house.evidence(rollout.id).taken == 120


def test_records_taken_before_the_gateway_went_away_are_not_asked_for_again(house):
    """The commit moved the cursor; a push that fails afterwards changes nothing about that."""
    house.start(HALF)
    harm(house)
    house.gateway.refuse_push = True
    assert code_of(house.tick) == "DATA_PLANE_UNAVAILABLE"
    house.gateway.refuse_push = False
    house.tick()
    assert house.controller.trouble is None
    assert house.gateway.acknowledged == max(house.gateway._handed_out)


def test_an_acknowledgement_that_failed_is_made_up_for(lone):
    lone.start(HALF)
    lone.traffic(range(10))
    acknowledge, lone.gateway.acknowledge = lone.gateway.acknowledge, lone.gateway.refuse  # type: ignore[attr-defined]
    assert code_of(lone.tick) == "DATA_PLANE_UNAVAILABLE"
    lone.gateway.acknowledge = acknowledge  # type: ignore[method-assign]
    lone.tick()
    assert lone.gateway.acknowledged == max(lone.gateway._handed_out)
    assert lone.evidence(lone.rollouts.show("support").id).taken == 10


def test_a_persons_rollback_is_durable_though_the_gateway_is_away(lone):
    rollout = lone.start(HALF)
    lone.gateway.reachable = False
    view = lone.rollouts.rollback(rollout.id, OPERATOR)
    assert view.state is State.ROLLED_BACK
    assert "verified" not in view.summary
    lone.gateway.reachable = True
    lone.clock.advance(1)
    lone.tick(2)
    assert not splits(lone)
    assert lone.rollout(rollout.id).summary["verified"] is True


def test_the_emergency_verb_does_not_claim_what_it_could_not_do(lone):
    lone.start(HALF)
    lone.gateway.reachable = False
    assert code_of(lone.rollouts.rollback_service, "support", OPERATOR) == "DATA_PLANE_UNAVAILABLE"
    lone.gateway.reachable = True
    lone.clock.advance(1)
    lone.tick(2)
    assert not splits(lone)


# --- the gateway dies ---


def test_calls_in_flight_when_the_gateway_dies_are_lost_once(house):
    rollout = house.start(HALF)
    house.traffic(range(40))
    house.gateway.assign("support", unit_name(1000))
    house.gateway.assign("support", unit_name(1001))
    house.traffic(range(40, 60))
    house.tick()
    assert house.evidence(rollout.id).taken == 40, "nothing passes a call that is still open"
    house.gateway.restart()
    house.tick(3)
    house.crash()
    house.tick(2)
    assert house.evidence(rollout.id).taken == 62
    with house.store.database.read() as connection:
        lost = connection.execute(select(t.calls.c.unit).where(t.calls.c.result == Result.LOST.value)).scalars().all()
    assert sorted(lost) == sorted([unit_name(1000), unit_name(1001)])
    house.traffic(range(60, 80))
    house.tick()
    assert house.evidence(rollout.id).taken == 82
    assert house.rollouts.replay(rollout.id).identical


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "assigned in an earlier batch"])
@pytest.mark.parametrize(
    ("plan", "counted"),
    [(SERVED, 20), (HALF, 0), (NOBODY, 0)],
    ids=["caches answer", "caches are passed over", "nobody gets the candidate"],
)
def test_what_a_cache_answered_is_evidence_only_where_units_are_split(house, together, plan, counted):
    """Left out where they are split, it would leave out units of stable, whose cache is the fuller one, and none of the candidate's."""
    rollout = house.start(plan)
    ongoing = [one for number in range(1000, 1020) for one in house.gateway.assign("support", unit_name(number))]
    if not together:
        house.tick()
    for one in ongoing:
        one.cache = "l1"
        house.gateway.end(one, latency_ms=0.1)
    house.traffic(range(40), bad_every=7)
    house.tick(2)
    assert house.evidence(rollout.id).taken == 40 + counted
    with house.store.database.read() as connection:
        kept = connection.execute(select(t.calls.c.cached, t.calls.c.result).where(t.calls.c.cached)).all()
    assert kept == [(True, "ok")] * (20 - counted)
    house.crash()
    house.traffic(range(40, 60), bad_every=7)
    house.tick(2)
    assert house.evidence(rollout.id).taken == 60 + counted
    assert house.rollouts.replay(rollout.id).identical


def test_a_copy_of_a_call_that_a_cache_answered_is_half_a_pair(house):
    rollout = house.start(SHADOW)
    for number in range(1000, 1040):
        for one in house.gateway.assign("support", unit_name(number)):
            one.cache = "" if one.arm is Arm.SHADOW else "l1"
            house.gateway.end(one, Result.UPSTREAM_ERROR if one.arm is Arm.SHADOW else Result.OK)
    house.traffic(range(40))
    house.tick(2)
    assert house.rollout(rollout.id).state is State.RUNNING
    assert house.rollouts.replay(rollout.id).identical
    assert all(arm.calls_failed == 0 for arm in house.rollouts.show(rollout.id).arms if arm.arm == "stable")


def test_an_outcome_that_never_comes_counts_as_timed_out_once_and_holds_the_evidence_no_longer(lone):
    rollout = lone.start(HALF)
    silent = lone.gateway.assign("support", unit_name(1000))
    lone.traffic(range(40))
    lone.tick()
    assert lone.evidence(rollout.id).taken == 0
    lone.clock.advance(OPEN_S_MAX + 1)
    lone.tick(2)
    assert lone.evidence(rollout.id).taken == 41
    for ongoing in silent:
        lone.gateway.end(ongoing)
    lone.tick()
    with lone.store.database.read() as connection:
        kinds = connection.execute(select(t.calls.c.kind, t.calls.c.result).where(t.calls.c.unit == unit_name(1000))).all()
    assert sorted(map(tuple, kinds)) == [("call", Result.TIMEOUT.value), ("late", Result.OK.value)]
    assert lone.controller.passed_over == (0, 1)
    assert lone.rollouts.replay(rollout.id).identical


def test_a_gateway_that_comes_back_with_an_older_table_is_given_the_newer(house):
    house.start(HALF)
    older = house.gateway.tables[0]
    house.gateway.restart()
    stable = {name: route.stable for name, route in older.services.items()}
    house.gateway.snapshot = replace(house.gateway.snapshot, table=older, services={}, splits={}, stable=stable)
    house.clock.advance(3)
    house.tick(2)
    assert splits(house) == {"support": house.rollouts.show("support").id}


def test_a_gateway_whose_clock_went_back_does_not_stop_the_evidence(lone):
    """Records from before what was taken are late: kept, in no evidence, and nothing waits for them."""
    rollout = lone.start(HALF)
    lone.traffic(range(30))
    lone.tick()
    taken = lone.evidence(rollout.id).taken
    newest = lone.gateway.recorder._last_us
    lone.gateway.recorder._last_us = newest - 20_000
    lone.clock._now_us = newest - 20_000
    open_call = lone.gateway.assign("support", unit_name(500))[0]
    lone.tick()
    lone.gateway.end(open_call)
    lone.clock.advance(1)
    lone.traffic(range(30, 50))
    lone.tick()
    assert lone.evidence(rollout.id).taken == taken + 20
    lone.crash()
    lone.traffic(range(50, 60))
    lone.tick()
    assert lone.evidence(rollout.id).taken == taken + 30
    assert lone.rollouts.replay(rollout.id).identical


def test_a_spool_that_is_read_again_from_the_start_counts_nothing_twice(lone):
    rollout = lone.start(HALF)
    lone.traffic(range(40), bad_every=5)
    open_call = lone.gateway.assign("support", unit_name(500))[0]
    lone.traffic(range(40, 60))
    lone.tick()
    before = lone.evidence(rollout.id).to_state()
    lone.gateway.records.extend(list(lone.gateway.records))
    lone.tick()
    assert lone.evidence(rollout.id).to_state() == before
    lone.gateway.end(open_call)
    lone.tick()
    assert lone.evidence(rollout.id).taken == 61
    assert lone.rollouts.replay(rollout.id).identical


def test_records_of_rollouts_nobody_knows_are_counted_and_passed_over(house):
    rollout = house.start(HALF)
    house.traffic(range(5))
    house.gateway.records.extend([record.replace(rollout.id.encode(), b"ro_forgotten") for record in house.gateway.records[-6:]])
    house.traffic(range(5, 10))
    house.tick()
    assert house.controller.passed_over == (6, 0)
    assert house.evidence(rollout.id).taken == 10


# --- the database is away ---


def test_without_the_database_traffic_moves_at_once_and_is_recorded_later(house):
    rollout = house.start(HALF)
    house.traffic(range(20))
    house.tick()
    house.database.away = True
    result = house.rollouts.rollback_service("support", Act("alice", "it burns"))
    assert result.verified
    assert not splits(house)
    assert code_of(house.tick) == "DATABASE_UNAVAILABLE"
    house.database.away = False
    for _ in range(3):
        house.clock.advance(1)
        house.tick()
        assert not splits(house)
    ended = house.rollout(rollout.id)
    assert ended.state is State.ROLLED_BACK
    assert "it burns" in str(ended.reason)
    assert "while the database was away" in str(ended.reason)
    assert ended.summary["verified"] is True
    assert house.events(rollout.id).count("rolled_back") == 1


def test_nothing_pushes_the_candidate_back_before_the_rollback_is_recorded(house):
    """The database comes back between the two halves of the emergency verb; a push then knows only what is stored."""
    rollout = house.start(HALF)
    house.reconciler.take_off("support", None)
    house.reconciler.recheck()
    house.reconciler.reconcile()
    assert not splits(house)
    house.controller.remember("support", "alice", "it burns")
    house.tick(2)
    assert house.rollout(rollout.id).state is State.ROLLED_BACK
    house.clock.advance(1)
    again = house.start(HALF, to="3")
    assert splits(house) == {"support": again.id}, "and a later rollout is not held back"


def test_control_that_restarts_before_recording_adopts_what_the_gateway_does(house):
    rollout = house.start(HALF)
    house.traffic(range(20))
    house.tick()
    house.database.away = True
    house.rollouts.rollback_service("support", OPERATOR)
    house.crash()
    assert code_of(house.tick) == "DATABASE_UNAVAILABLE"
    house.database.away = False
    tables = len(house.gateway.tables)
    house.tick(2)
    house.clock.advance(1)
    house.tick()
    assert house.rollout(rollout.id).state is State.ROLLED_BACK
    assert all(route.split is None for table in house.gateway.tables[tables:] for route in table.services.values())
    assert house.rollout(rollout.id).summary["verified"] is True


def test_a_verb_right_after_such_a_restart_does_not_push_the_candidate_back(lone):
    """A person may be faster than the first round of the loop."""
    lone.release("1", "2", service="billing")
    lone.tick()
    rollout = lone.start(HALF)
    other = lone.start(HALF, service="billing")
    lone.database.away = True
    lone.rollouts.rollback_service("support", OPERATOR)
    lone.crash()
    lone.database.away = False
    lone.rollouts.pause(other.id, OPERATOR)
    assert list(splits(lone)) == ["billing"]
    lone.tick(2)
    assert lone.rollout(rollout.id).state is State.ROLLED_BACK
    assert splits(lone) == {"billing": other.id}


def test_a_commit_whose_answer_was_lost_still_takes_the_candidate_off(lone):
    rollout = lone.start(HALF)
    lone.database.commit_unknown = True  # the transaction is written; its answer never comes
    result = lone.rollouts.rollback_service("support", OPERATOR)
    assert result.verified
    assert not splits(lone)
    lone.database.commit_unknown = False
    lone.tick(2)
    assert lone.rollout(rollout.id).state is State.ROLLED_BACK
    assert lone.events(rollout.id).count("rolled_back") == 1


def test_without_database_and_without_a_rollout_there_is_nothing_it_could_do(lone):
    """The last stable release of before is known to the database alone; saying "verified" would be a lie."""
    lone.database.away = True
    assert code_of(lone.rollouts.rollback_service, "support", OPERATOR) == "DATABASE_UNAVAILABLE"


def test_outcomes_that_waited_for_hours_are_not_taken_for_missing(lone):
    """Control was away; what ended a call may stand in a later batch than what began it."""
    rollout = lone.start(HALF)
    slow = lone.gateway.assign("support", unit_name(9999))[0]
    lone.traffic(range(RECORDS_MAX // 2 + 50))
    lone.gateway.end(slow)
    lone.clock.advance(3 * 3600)
    lone.tick(3)
    with lone.store.database.read() as connection:
        results = connection.execute(select(t.calls.c.result).distinct()).scalars().all()
    assert results == [Result.OK.value]
    assert lone.evidence(rollout.id).taken == RECORDS_MAX // 2 + 51


def test_evidence_survives_a_database_that_fails_in_the_middle(house):
    rollout = house.start(HALF)
    for part in range(4):
        house.traffic(range(part * 20, part * 20 + 20), bad_every=7)
        house.database.away = bool(part % 2)
        if house.database.away:
            assert code_of(house.tick) == "DATABASE_UNAVAILABLE"
    house.database.away = False
    house.tick(2)
    assert house.evidence(rollout.id).taken == 80
    assert house.rollouts.replay(rollout.id).identical


# --- a stored release is damaged ---


def damage(house: House, version: str) -> None:
    with house.store.database.write() as connection:
        record = connection.execute(select(t.releases.c.manifest).where(t.releases.c.version == version)).scalar_one()
        data = connection.execute(select(t.blobs.c.data).where(t.blobs.c.digest == record)).scalar_one()
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        connection.execute(update(t.blobs).where(t.blobs.c.digest == record).values(data=flipped))


def test_a_damaged_release_rolls_back_at_once_and_everything_can_still_be_seen(house):
    rollout = house.start(HALF)
    house.tick()
    damage(house, "2")
    house.clock.advance(6)
    house.tick(2)
    view = house.rollouts.show(rollout.id)
    assert view.state is State.ROLLED_BACK
    assert "damaged" in str(view.reason)
    assert not splits(house)
    assert (view.stable.version, view.candidate.version) == ("1", "2")
    assert [row.candidate.version for row in house.rollouts.list("support")] == ["2"]
    assert [ref.version for ref in house.rollouts.service("support").releases] == ["3", "2", "1"]
    assert house.rollouts.services()[0].stable.version == "1"
    assert code_of(house.start, HALF) == "RELEASE_DAMAGED"


def test_a_damaged_release_of_another_service_is_nobody_elses_business(lone):
    lone.release("1", "2", service="billing")
    lone.tick()
    rollout = lone.start(HALF)
    other = lone.start(HALF, service="billing")
    with lone.store.database.write() as connection:
        record = connection.execute(
            select(t.releases.c.manifest).where(t.releases.c.version == "2", t.releases.c.service == "billing")
        ).scalar_one()
        connection.execute(update(t.blobs).where(t.blobs.c.digest == record).values(data=b"x"))
    lone.clock.advance(6)
    lone.tick(2)
    assert lone.rollout(other.id).state is State.ROLLED_BACK
    assert lone.rollout(rollout.id).state is State.RUNNING


def test_a_damaged_stable_release_stops_nobody_elses_rollback_after_a_restart(house):
    """What the gateway serves of it is kept as it was pushed: the service goes on, and the table can still be changed."""
    house.release("1", "2", service="billing")
    house.tick()
    house.start(HALF)
    with house.store.database.write() as connection:
        found = select(t.releases.c.manifest).where(t.releases.c.version == "1", t.releases.c.service == "billing")
        record = connection.execute(found).scalar_one()
        connection.execute(update(t.blobs).where(t.blobs.c.digest == record).values(data=b"x"))
    before = house.gateway.snapshot.table.services["billing"]
    house.crash()
    assert house.rollouts.rollback_service("support", OPERATOR).verified
    house.tick(2)
    assert not splits(house)
    assert house.gateway.snapshot.table.services["billing"] == before


def test_shadow_copies_lost_with_the_gateway_are_nobodys_failure(lone):
    rollout = lone.start(SHADOW)
    for number in range(30):
        lone.clock.advance(0.01)
        stable, copy = lone.gateway.assign("support", unit_name(number))
        assert copy.arm is Arm.SHADOW
        lone.gateway.end(stable)
    lone.gateway.restart()
    lone.tick(2)
    evidence = lone.evidence(rollout.id)
    assert evidence.taken == 30
    assert lone.rollout(rollout.id).state is State.RUNNING
    assert all(process.log_e == 0 for process in evidence.gates.values())
