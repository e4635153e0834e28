"""Every verb on rollouts, in every state, on both stores."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import update

from cohort.base.errors import CohortError
from cohort.delivery.face import Act, Bundle, Rollouts
from cohort.delivery.model import State
from cohort.gateway.contract import Arm, Result
from cohort.storage import schema as t
from support_engine import OPERATOR, House, plan_text, unit_name

HALF = plan_text("- {traffic_pct: 50, floor: 10s}\n- {traffic_pct: 100, floor: 10s}")
OPEN = plan_text("- {traffic_pct: 50, floor: 10s, gates: []}\n- {traffic_pct: 100, floor: 10s, gates: []}")
ASKING = plan_text("- {traffic_pct: 50, floor: 10s, gates: [], approval: true}\n- {traffic_pct: 100, gates: []}")
PAUSING = plan_text(
    "- {traffic_pct: 10, gates: []}\n- {traffic_pct: 50, floor: 10s, gates: [], pause: true}\n- {traffic_pct: 100, gates: []}"
)


def error_of(call, *arguments, **named) -> CohortError:
    with pytest.raises(CohortError) as caught:
        call(*arguments, **named)
    return caught.value


def pass_time(house: House, seconds: float) -> None:
    house.clock.advance(seconds)
    house.tick()


def share(house: House) -> float | None:
    split = house.gateway.snapshot.services["support"].split
    return split.share if split else None


def test_it_is_the_face_that_surfaces_call(lone):
    face: Rollouts = lone.rollouts
    assert [plan.name for plan in face.plans()]


# --- start ---


def test_a_start_takes_effect_at_the_gateway_before_it_answers(house):
    view = house.start(HALF)
    assert (view.state, view.stage, view.candidate.version, view.serving.version) == (State.RUNNING, 0, "2", "1")
    assert share(house) == 0.5
    assert house.events(view.id) == ["started", "stage_entered"]


def test_a_start_says_what_becomes_of_calls_that_caches_answer(house):
    for number in range(10):
        (ongoing,) = house.gateway.assign("support", unit_name(number))
        ongoing.cache = "l1" if number < 6 else ""
        house.clock.advance(0.001)
        house.gateway.end(ongoing)
    house.tick()
    assert house.rollouts.forecast("support", HALF).cached_share == 0.6
    view = house.start(HALF)
    assert "2.5 times" in view.events[0].detail["notes"][0]
    assert house.gateway.snapshot.services["support"].split.bypass_caches


def test_a_second_rollout_of_a_service_is_refused_with_the_first_ones_id(house):
    first = house.start(HALF)
    error = error_of(house.start, HALF, to="3")
    assert (error.code, error.details["rollout"]) == ("ROLLOUT_ACTIVE", first.id)
    assert first.id in error.hint


def test_of_many_starts_at_once_one_wins_and_the_others_are_told_its_id(house):
    answers = at_once(4, lambda number: house.start(HALF, to=str(2 + number % 2)))
    made = [answer for answer in answers if not isinstance(answer, CohortError)]
    refused = [answer for answer in answers if isinstance(answer, CohortError)]
    assert len(made) == 1
    assert {(error.code, error.details["rollout"]) for error in refused} == {("ROLLOUT_ACTIVE", made[0].id)}


def test_of_starts_by_several_control_processes_one_wins(database, clock, house):
    """Nothing but the database stands between two processes."""
    other = House(database, clock)
    other._numbers = 1000
    houses = (house, other)
    answers = at_once(2, lambda number: houses[number].start(HALF))
    assert sorted(type(answer).__name__ for answer in answers) == ["CohortError", "RolloutView"]
    assert next(answer for answer in answers if isinstance(answer, CohortError)).code == "ROLLOUT_ACTIVE"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"to": "1"}, "ROLLOUT_NOT_NEEDED"),
        ({"to": "9"}, "RELEASE_UNKNOWN"),
        ({"service": "nobody"}, "RELEASE_UNKNOWN"),
        ({"speed": 0.0}, "FIELD_INVALID"),
        ({"speed": float("nan")}, "FIELD_INVALID"),
        ({"at_pct": 101.0}, "FIELD_INVALID"),
        ({"at_pct": -1.0}, "FIELD_INVALID"),
        ({"plan": "vibes"}, "PLAN_UNKNOWN"),
        ({"plan": "name: x"}, "PLAN_INVALID"),
        ({"plan": "shadow-5-25-100", "strict": True, "speed": 1000.0}, "PLAN_UNDERPOWERED"),
    ],
)
def test_a_start_that_cannot_be_is_refused_and_leaves_nothing(lone, more, code):
    arguments = {"plan": HALF, **more}
    assert error_of(lone.start, arguments.pop("plan"), **arguments).code == code
    assert list(lone.rollouts.list()) == []
    assert share(lone) is None


def test_a_service_whose_traffic_nobody_routes_is_not_rolled_out(lone):
    for version in ("1", "2"):
        text = f"service: shop\nversion: '{version}'\nkind: http\nroutes:\n  main: {{base_url: 'http://127.0.0.1:800{version}'}}\n"
        lone.registry.create(Bundle("shop.yaml", text, {}), "alice")
    refused = error_of(lone.start, HALF, service="shop")
    assert (refused.code, refused.field) == ("ROLLOUT_UNROUTED", "kind")
    assert list(lone.rollouts.list()) == []


@pytest.mark.parametrize(("at", "stage"), [(None, 0), (0.0, 0), (10.0, 0), (11.0, 1), (50.0, 1), (100.0, 2)])
def test_a_start_at_a_share_begins_at_the_first_stage_with_as_much(lone, at, stage):
    view = lone.start(plan_text("- {traffic_pct: 10}\n- {traffic_pct: 50}\n- {traffic_pct: 100}"), at_pct=at)
    assert view.stage == stage
    assert [one.status for one in view.stages][:stage] == ["skipped"] * stage


def test_a_rollout_that_starts_late_is_judged_by_the_stage_it_is_in(lone):
    plan = plan_text("- {traffic_pct: 5, floor: 10s}\n- {traffic_pct: 50, floor: 10s, certificate: {ratio: 4}}\n- {traffic_pct: 100}")
    rollout = lone.start(plan, at_pct=50)
    for part in range(4):
        lone.traffic(range(part * 150, part * 150 + 150), bad_every=6, step_s=0.02)
        lone.tick()
    events = lone.events(rollout.id)
    assert events[:4] == ["started", "stage_entered", "certificate", "stage_entered"], events
    assert lone.rollouts.replay(rollout.id).identical


# --- idempotency and revisions ---


def test_a_start_repeated_with_its_key_answers_with_the_rollout_it_made(house):
    act = Act("alice", "x", idempotency_key="k1")
    first = house.start(HALF, act=act)
    assert house.start(HALF, act=act).id == first.id
    house.rollouts.abort(first.id, OPERATOR)
    house.clock.advance(1)
    second = house.start(HALF, to="3")
    again = house.start(HALF, act=act)
    assert (again.id, again.state) == (first.id, State.ABORTED)
    assert second.id != first.id
    assert error_of(house.start, HALF, to="3", act=act).code == "IDEMPOTENCY_MISMATCH"


@pytest.mark.parametrize("verb", ["pause", "rollback", "abort", "promote"])
def test_a_verb_repeated_with_its_key_changes_nothing_more(house, verb):
    rollout = house.start(HALF)
    act = Act("alice", "x", idempotency_key="k2")
    first = getattr(house.rollouts, verb)(rollout.id, act)
    events = house.events(rollout.id)
    again = getattr(house.rollouts, verb)(rollout.id, act)
    assert (again.state, again.stage, again.revision) == (first.state, first.stage, first.revision)
    assert [kind for kind in house.events(rollout.id) if kind != "verified"] == [kind for kind in events if kind != "verified"]


def test_an_act_on_what_has_changed_since_is_refused(house):
    rollout = house.start(HALF)
    seen = Act("alice", "x", revision=rollout.revision)
    house.rollouts.pause(rollout.id, seen)
    error = error_of(house.rollouts.promote, rollout.id, seen)
    assert error.code == "ROLLOUT_CHANGED"
    assert rollout.id in error.hint


def test_of_two_operators_who_press_promote_at_once_one_wins_and_the_other_is_told(house):
    rollout = house.start(plan_text("- {traffic_pct: 10, floor: 1h}\n- {traffic_pct: 50, floor: 1h}\n- {traffic_pct: 100, floor: 1h}"))
    answers = at_once(2, lambda number: house.rollouts.promote(rollout.id, Act(f"op{number}", "go", revision=rollout.revision)))
    assert sorted(getattr(answer, "code", "won") for answer in answers) == ["ROLLOUT_CHANGED", "won"]
    assert house.rollout(rollout.id).stage == 1


def test_a_rollout_is_never_saved_over_what_somebody_else_has_written(house):
    rollout = house.rollout(house.start(HALF).id)
    with house.store.database.write() as connection:
        saved = house.store.save(connection, rollout)
    assert saved.revision == rollout.revision + 1
    with house.store.database.write() as connection:
        assert error_of(house.store.save, connection, rollout).code == "ROLLOUT_CHANGED"


def test_of_verbs_by_several_control_processes_one_wins(database, clock, house):
    rollout = house.start(HALF)
    houses = (house, House(database, clock))
    houses[1].gateway = house.gateway
    houses[1].crash()
    act = Act("alice", "go", revision=rollout.revision)
    verbs = (lambda: houses[0].rollouts.promote(rollout.id, act), lambda: houses[1].rollouts.abort(rollout.id, act))
    answers = at_once(2, lambda number: verbs[number]())
    assert sorted(getattr(answer, "code", "won") for answer in answers) == ["ROLLOUT_CHANGED", "won"]


def at_once(count: int, call) -> list:
    """What `count` threads that start together get."""
    barrier, answers = threading.Barrier(count), [None] * count

    def one(number: int) -> None:
        barrier.wait(10)
        try:
            answers[number] = call(number)
        except CohortError as error:
            answers[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return answers


# --- pause, resume, approve ---


def test_time_spent_paused_does_not_count_towards_the_floor(house):
    rollout = house.start(OPEN)
    pass_time(house, 4)
    assert house.rollouts.pause(rollout.id, OPERATOR).floor_left_s == 6
    pass_time(house, 100)
    view = house.rollouts.show(rollout.id)
    assert (view.state, view.floor_left_s, view.waiting_for[0]) == (State.PAUSED, 6, "a person to resume it")
    assert share(house) == 0.5, "a pause leaves traffic as it is"
    house.rollouts.resume(rollout.id, OPERATOR)
    pass_time(house, 5)
    assert house.rollout(rollout.id).stage == 0
    pass_time(house, 1)
    assert (house.rollout(rollout.id).stage, share(house)) == (1, 1.0)


def test_a_paused_rollout_is_still_rolled_back_by_an_alarm(house):
    rollout = house.start(HALF)
    house.rollouts.pause(rollout.id, OPERATOR)
    house.traffic(range(120), bad=[Arm.CANDIDATE])
    house.tick()
    assert house.rollout(rollout.id).state is State.ROLLED_BACK


def test_a_stage_with_the_pause_flag_begins_paused(lone):
    rollout = lone.start(PAUSING)
    lone.tick()
    view = lone.rollouts.show(rollout.id)
    assert (view.state, view.stage, share(lone)) == (State.PAUSED, 1, 0.5)
    lone.clock.advance(99)
    lone.tick()
    assert lone.rollouts.show(rollout.id).floor_left_s == 10
    lone.rollouts.resume(rollout.id, OPERATOR)
    pass_time(lone, 10)
    lone.tick()
    assert lone.rollout(rollout.id).state is State.PROMOTED
    assert lone.events(rollout.id)[:6] == ["started", "stage_entered", "passed", "stage_entered", "paused", "resumed"]


def test_approval_is_asked_for_once_when_everything_else_has_passed(house):
    rollout = house.start(ASKING)
    pass_time(house, 5)
    assert house.rollout(rollout.id).state is State.RUNNING
    pass_time(house, 5)
    house.tick(2)
    view = house.rollouts.show(rollout.id)
    assert (view.state, view.waiting_for) == (State.AWAITING_APPROVAL, ("a person's approval",))
    assert house.events(rollout.id).count("approval_asked") == 1
    assert house.rollouts.approve(rollout.id, OPERATOR).stage == 1


def test_approval_given_early_is_kept_for_when_the_rest_has_passed(lone):
    rollout = lone.start(ASKING)
    assert lone.rollouts.approve(rollout.id, OPERATOR).stage == 0
    pass_time(lone, 10)
    assert lone.rollout(rollout.id).stage == 1
    assert "approval_asked" not in lone.events(rollout.id)


def test_an_alarm_comes_before_an_approval(lone):
    plan = plan_text("- {traffic_pct: 50, floor: 1s, approval: true}\n- {traffic_pct: 100}")
    rollout = lone.start(plan)
    lone.traffic(range(300), bad_every=50, step_s=0.01)
    lone.tick()
    assert lone.rollout(rollout.id).state is State.AWAITING_APPROVAL
    lone.traffic(range(300, 420), bad=[Arm.CANDIDATE])
    assert lone.rollouts.approve(rollout.id, OPERATOR).stage == 1, "what has not come in yet cannot be known"
    lone.tick()
    assert lone.rollout(rollout.id).state is State.ROLLED_BACK


# --- promote ---


def test_promote_waives_floor_and_certificate_with_a_reason_and_goes_one_stage_on(house):
    plan = plan_text(
        "- {traffic_pct: 5, floor: 9d, certificate: {ratio: 3}}\n- {traffic_pct: 50, floor: 9d, approval: true}\n- {traffic_pct: 100, floor: 9d}"
    )
    rollout = house.start(plan)
    view = house.rollouts.promote(rollout.id, Act("alice", "I know it"))
    assert (view.stage, view.state, share(house)) == (1, State.RUNNING, 0.5)
    waived = next(event for event in view.events if event.kind == "waived")
    assert (waived.actor, waived.reason) == ("alice", "I know it")
    assert "waived" in view.stages[0].certificate_text
    house.rollouts.promote(rollout.id, OPERATOR)
    view = house.rollouts.promote(rollout.id, OPERATOR)
    assert (view.state, view.serving.version) == (State.PROMOTED, "2")
    assert house.rollouts.service("support").stable.version == "2"
    assert house.gateway.snapshot.stable["support"] == view.candidate.digest
    assert view.summary["verified"] is True


def test_promote_does_not_waive_an_alarm(house):
    rollout = house.start(plan_text("- {traffic_pct: 50, floor: 1h}\n- {traffic_pct: 100}"))
    house.traffic(range(120), bad=[Arm.CANDIDATE])
    batch = house.gateway.pull(house.controller._taps[0].cursor, records_max=4000, wait_ms=0)
    with house.controller.transaction() as connection:  # the outcomes are in, and nobody has decided yet
        house.controller._intake.take(connection, [batch], house.clock.now_us())
        house.store.set_cursor(connection, batch.gateway, batch.epoch, batch.next, house.clock.now_us())
    house.controller._taps[0].cursor = batch.next
    view = house.rollouts.promote(rollout.id, OPERATOR)
    assert view.state is State.ROLLED_BACK
    assert "failures" in str(view.reason)
    assert share(house) is None


def test_promote_resumes_a_paused_rollout(lone):
    rollout = lone.start(HALF)
    lone.rollouts.pause(rollout.id, OPERATOR)
    view = lone.rollouts.promote(rollout.id, OPERATOR)
    assert (view.state, view.stage) == (State.RUNNING, 1)


# --- the ends ---


@pytest.mark.parametrize(("verb", "state"), [("rollback", State.ROLLED_BACK), ("abort", State.ABORTED)])
@pytest.mark.parametrize("before", ["running", "paused", "awaiting_approval"])
def test_ending_takes_the_candidate_off_whatever_the_state(house, verb, state, before):
    rollout = house.start(ASKING)
    if before == "paused":
        house.rollouts.pause(rollout.id, OPERATOR)
    if before == "awaiting_approval":
        pass_time(house, 10)
    assert house.rollout(rollout.id).state.value == before
    view = getattr(house.rollouts, verb)(rollout.id, Act("alice", "enough"))
    assert (view.state, view.reason, share(house)) == (state, "enough", None)
    assert view.summary["verified"] is True
    assert view.waiting_for == ()


@pytest.mark.parametrize("verb", ["pause", "resume", "approve", "promote", "rollback", "abort"])
def test_nothing_can_be_done_to_a_rollout_that_has_ended(lone, verb):
    rollout = lone.start(HALF)
    lone.rollouts.abort(rollout.id, OPERATOR)
    error = error_of(getattr(lone.rollouts, verb), rollout.id, OPERATOR)
    assert error.code == "ROLLOUT_ENDED"
    assert "a test" in error.message


@pytest.mark.parametrize("verb", ["pause", "resume", "approve", "promote", "rollback", "abort"])
def test_a_verb_on_an_unknown_rollout_says_so(lone, verb):
    for unknown in ("ro_aaaaaaaaaaaaaaaa", "nobody"):
        assert error_of(getattr(lone.rollouts, verb), unknown, OPERATOR).code == "ROLLOUT_UNKNOWN"


def test_only_what_is_paused_can_be_resumed(lone):
    rollout = lone.start(HALF)
    assert error_of(lone.rollouts.resume, rollout.id, OPERATOR).code == "ROLLOUT_NOT_PAUSED"
    paused = lone.rollouts.pause(rollout.id, OPERATOR)
    assert lone.rollouts.pause(rollout.id, OPERATOR).revision == paused.revision


def test_unknown_things_are_named(lone):
    assert error_of(lone.rollouts.show, "ro_aaaaaaaaaaaaaaaa").code == "ROLLOUT_UNKNOWN"
    assert error_of(lone.rollouts.replay, "nobody").code == "ROLLOUT_UNKNOWN"
    assert error_of(lone.rollouts.service, "nobody").code == "SERVICE_UNKNOWN"
    assert "support" in error_of(lone.rollouts.forecast, "nobody", HALF).hint
    assert error_of(lone.rollouts.rollback_service, "nobody", OPERATOR).code == "SERVICE_UNKNOWN"


# --- the emergency verb ---


def test_the_emergency_verb_ends_the_rollout_and_verifies(house):
    rollout = house.start(HALF)
    result = house.rollouts.rollback_service("support", Act("alice", "it burns"))
    assert (result.rollout, result.serving.version, result.replaced.version, result.verified) == (rollout.id, "1", "2", True)
    assert share(house) is None
    assert house.rollout(rollout.id).reason == "it burns"


def test_without_a_rollout_it_goes_back_to_what_served_before_and_leaves_a_trace(house):
    rollout = house.start(HALF)
    house.rollouts.promote(rollout.id, OPERATOR)
    house.rollouts.promote(rollout.id, OPERATOR)
    result = house.rollouts.rollback_service("support", Act("alice", "it burns", idempotency_key="k9"))
    assert (result.serving.version, result.replaced.version, result.verified) == ("1", "2", True)
    assert house.rollouts.service("support").stable.version == "1"
    event = house.rollouts.show(rollout.id).events[-1]
    assert (event.kind, event.actor, event.reason) == ("reverted", "alice", "it burns")


def test_the_emergency_verb_repeated_with_its_key_does_not_go_back_further(house):
    for version in ("2", "3"):
        rollout = house.start(HALF, to=version)
        house.rollouts.promote(rollout.id, OPERATOR)
        house.rollouts.promote(rollout.id, OPERATOR)
        house.clock.advance(1)
    running = house.start(HALF, to="1")
    act = Act("alice", "it burns", idempotency_key="k9")
    assert house.rollouts.rollback_service("support", act).serving.version == "3"
    again = house.rollouts.rollback_service("support", act)
    assert (again.serving.version, again.rollout, again.verified) == ("3", running.id, True)


def test_the_emergency_verb_can_name_a_release(lone):
    lone.start(HALF)
    result = lone.rollouts.rollback_service("support", OPERATOR, to="3")
    assert (result.serving.version, result.verified) == ("3", True)
    assert lone.rollouts.service("support").stable.version == "3"


def test_with_nothing_to_go_back_to_it_says_so(lone):
    assert error_of(lone.rollouts.rollback_service, "support", OPERATOR).code == "ROLLOUT_NOT_NEEDED"


# --- the split and the order of verdicts ---


def break_split(house: House, count: int = 400) -> None:
    """Every unit gets the candidate, whatever its bucket says."""
    for number in range(count):
        house.clock.advance(0.001)
        unit = next(name for name in (unit_name(number * 50 + more) for more in range(50)) if candidate(house, name))
        house.gateway.call(unit, bad=[Arm.CANDIDATE])


def candidate(house: House, unit: str) -> bool:
    from cohort.gateway.assignment import arm_of

    service = house.gateway.snapshot.services["support"]
    return arm_of(service.split, service.salts, unit) is Arm.CANDIDATE


def test_a_broken_split_is_held_and_never_judged(house):
    rollout = house.start(plan_text("- {traffic_pct: 50}\n- {traffic_pct: 100}"))
    break_split(house, 60)
    house.tick()
    view = house.rollouts.show(rollout.id)
    assert house.evidence(rollout.id).alarm is not None, "it would be an alarm, were it judged"
    assert (view.state, view.split.part) == (State.PAUSED, 1.0)
    assert "held" in house.events(rollout.id)
    assert house.rollouts.resume(rollout.id, OPERATOR).state is State.PAUSED
    assert house.rollouts.promote(rollout.id, OPERATOR).state is State.PAUSED, "nor can a person promote what was never compared"
    house.tick(2)
    assert house.rollouts.rollback(rollout.id, OPERATOR).state is State.ROLLED_BACK


def test_an_invariant_outranks_a_broken_split(house):
    rollout = house.start(plan_text("- {traffic_pct: 50}\n- {traffic_pct: 100}"))
    break_split(house, 60)
    house.tick()
    assert house.rollout(rollout.id).state is State.PAUSED
    with house.store.database.write() as connection:
        connection.execute(update(t.releases).where(t.releases.c.version == "2").values(kind="agent"))
    house.clock.advance(6)
    house.tick()
    assert house.rollout(rollout.id).state is State.ROLLED_BACK


# --- pass counts ---

COUNTED = plan_text(
    "- {traffic_pct: 50, floor: 9s, gates: [{kind: passes, metric: failures, limit: 0.1, passes: 3, failures: 2}]}\n- {traffic_pct: 100, gates: []}"
)


def window(house: House, first: int, bad_every: int, count: int = 100) -> None:
    """Three seconds of traffic."""
    house.traffic(range(first, first + count), bad_every=bad_every, step_s=3 / count)
    house.tick()


def test_three_reports_passed_in_a_row_go_on(house):
    rollout = house.start(COUNTED)
    for part in range(3):
        assert house.rollout(rollout.id).stage == 0
        window(house, part * 100, 0)
    window(house, 300, 0, 5)
    assert house.rollout(rollout.id).stage == 1 or house.rollout(rollout.id).state is State.PROMOTED


def test_two_reports_failed_in_a_row_roll_back_and_one_does_not(lone):
    rollout = lone.start(COUNTED)
    window(lone, 0, 0)
    window(lone, 100, 2)
    window(lone, 200, 0)
    window(lone, 300, 2)
    assert lone.rollout(rollout.id).state is State.RUNNING
    window(lone, 400, 2)
    window(lone, 500, 0, 5)
    assert lone.rollout(rollout.id).state is State.ROLLED_BACK
    assert "2 reports failed in a row" in str(lone.rollout(rollout.id).reason)


def test_a_report_on_too_few_calls_is_neither_passed_nor_failed(lone):
    rollout = lone.start(COUNTED)
    for part in range(12):
        window(lone, part * 20, 0, 20)
    evidence = lone.evidence(rollout.id)
    assert (evidence.reports.passed, evidence.reports.failures) == (0, 0)
    assert evidence.reports.inconclusive >= 10
    assert lone.rollout(rollout.id).stage == 0


# --- lists ---


def test_rollouts_are_listed_newest_first_by_service_and_activity(house):
    house.release("1", "2", service="billing")
    made = []
    for version in ("2", "3"):
        house.clock.advance(1)
        made.append(house.start(HALF, to=version).id)
        house.rollouts.abort(made[-1], OPERATOR)
    house.clock.advance(1)
    made.append(house.start(HALF, service="billing").id)
    rows = house.rollouts.list()
    assert [row.id for row in rows] == made[::-1]
    assert [row.id for row in house.rollouts.list(active=True)] == made[2:]
    assert [row.id for row in house.rollouts.list("support", active=False, limit=1)] == [made[1]]
    assert [row.id for row in house.rollouts.list(before_us=rows[0].created_us)] == made[1::-1]


def test_the_version_grows_when_something_shown_has_changed(lone):
    before = lone.rollouts.version()
    lone.start(HALF)
    started = lone.rollouts.version()
    assert started > before
    lone.traffic(range(3))
    lone.tick()
    assert lone.rollouts.version() > started


def test_the_last_outcomes_of_an_ended_rollout_make_its_final_figures(house):
    rollout = house.start(HALF)
    house.traffic(range(40), bad_every=10)
    open_call = house.gateway.assign("support", unit_name(999))[0]
    house.rollouts.rollback(rollout.id, OPERATOR)
    house.tick(2)
    assert "settled" not in house.rollout(rollout.id).summary
    house.gateway.end(open_call, Result.TIMEOUT)
    house.tick(2)
    summary = house.rollout(rollout.id).summary
    assert summary["settled"] is True
    assert summary["stable_units"] + summary["candidate_units"] == 41
    assert summary["stable_calls_failed"] + summary["candidate_calls_failed"] == 5
    assert house.events(rollout.id)[-1] == "settled"
