"""Routed calls are kept, judged and trimmed on both stores; the wanted share moves as they say and reaches the gateway."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import insert

from cohort.base.errors import CohortError, Retry
from cohort.delivery import routing_store
from cohort.delivery.controller import RECONCILE_EVERY_S
from cohort.delivery.routing_adapter import MOVE_EVERY_US, RoutingAdapter
from cohort.delivery.routing_store import RoutingStore
from cohort.gateway.contract import Arm, Call, Result
from cohort.gateway.contract_routing import RoutingPolicy
from cohort.storage.schema import flag_kills
from support_engine import House, plan_text

POLICY = RoutingPolicy("big", "small", strong_share_range=(0.58, 0.62))


class Adapted:
    """The adapter of a house whose stable release has a policy."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.stable = house.ready()[0]
        self.policy: RoutingPolicy | None = POLICY
        self.records: list[Any] = []
        self.log_away = False
        self.adapter = RoutingAdapter(
            house.store,
            lambda digest: self.policy if digest == self.stable else None,
            lambda: house.reconciler.state,
            house.clock,
            self._record,
        )
        self._seq = 0
        house.clock.advance(MOVE_EVERY_US / 1e6)

    def _record(self, body: Any) -> None:
        if self.log_away:
            raise CohortError("AUDIT_UNAVAILABLE", "the log is away", retry=Retry.SAFE, hint="Wait.")
        self.records.append(body)

    def calls(self, count: int, *, strong: bool, bad: int = 0, **more: Any) -> list[Call]:
        made = []
        for number in range(count):
            self._seq += 1
            self.house.clock.advance(0.001)
            result = Result.UPSTREAM_ERROR if number < bad else Result.OK
            routed = {"strong": strong, "bucket": "adaptive", "difficulty": 0.52 if strong else 0.48, "boundary": 0.5, "features": "0" * 8}
            at = {"gateway": "g", "epoch": 1, "seq": self._seq, "at_us": self.house.clock.now_us()}
            body = {"kind": "call", "service": "support", "release": self.stable, "unit": f"{self._seq:032x}", "result": result}
            made.append(Call(**{**body, **at, **routed, "cost_usd_micro": 10, **more}))
        return made

    def take(self, calls: list[Call]) -> None:
        """In batches, as they come."""
        store = RoutingStore(self.house.store.database)
        for start in range(0, len(calls), routing_store.SAMPLES_PER_BATCH_MAX):
            with self.house.store.database.write() as connection:
                store.take(connection, calls[start : start + routing_store.SAMPLES_PER_BATCH_MAX])

    def samples(self) -> list[Any]:
        with self.house.store.database.read() as connection:
            return RoutingStore(self.house.store.database).samples(connection, "support", self.stable)

    def served_share(self) -> float | None:
        assert self.house.gateway.snapshot is not None
        return self.house.gateway.snapshot.table.services["support"].strong_share

    def settle(self) -> None:
        self.house.clock.advance(RECONCILE_EVERY_S)
        self.house.tick()


@pytest.fixture
def adapted(house: House) -> Adapted:
    return Adapted(house)


def weak_fails(adapted: Adapted) -> None:
    adapted.take([*adapted.calls(250, strong=False, bad=60), *adapted.calls(250, strong=True, bad=2)])


def test_the_wanted_share_moves_with_a_record_and_reaches_the_gateway(adapted: Adapted) -> None:
    weak_fails(adapted)
    assert adapted.adapter.tick() == ["support"]
    assert [(body["event"], body["from"], body["to"]) for body in adapted.records] == [("routing_share_moved", 0.6, 0.61)]
    adapted.settle()
    assert adapted.served_share() == 0.61
    view = adapted.adapter.view("support")
    assert (view.target_share, [move.strong_share for move in view.history], view.samples) == (0.61, [0.61], 500)
    assert view.held == "it was moved less than an hour ago"


def test_what_was_judged_once_does_not_move_it_again(adapted: Adapted) -> None:
    weak_fails(adapted)
    adapted.adapter.tick()
    adapted.house.clock.advance(MOVE_EVERY_US / 1e6)
    assert adapted.adapter.tick() == []
    weak_fails(adapted)
    assert adapted.adapter.tick() == ["support"]
    adapted.house.clock.advance(MOVE_EVERY_US / 1e6)
    weak_fails(adapted)
    assert adapted.adapter.tick() == []
    assert "allows no more" in adapted.adapter.view("support").suggestion.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [({"override": "big"}, "everything to big"), ({"adapt": False}, "does not adapt")],
)
def test_a_release_that_does_not_adapt_is_left_alone(adapted: Adapted, change: dict[str, Any], words: str) -> None:
    adapted.policy = replace(POLICY, **change)
    weak_fails(adapted)
    assert adapted.adapter.tick() == []
    assert words in adapted.adapter.view("support").held


@pytest.mark.parametrize("flag", ["routing.adaptive", "routing.adapt", "rout*"])
def test_the_kill_list_holds_the_share(adapted: Adapted, flag: str) -> None:
    with adapted.house.store.database.write() as connection:
        connection.execute(insert(flag_kills).values(flag=flag, reason="", killed_by="alice", killed_us=1))
    weak_fails(adapted)
    assert adapted.adapter.tick() == []
    assert "kill list" in adapted.adapter.view("support").held


def test_nothing_moves_while_a_rollout_runs(adapted: Adapted) -> None:
    adapted.house.start(plan_text("- {traffic_pct: 50, floor: 10s}\n- {traffic_pct: 100, floor: 10s}"))
    weak_fails(adapted)
    assert adapted.adapter.tick() == []
    assert "rollout is running" in adapted.adapter.view("support").held


def test_without_a_record_the_share_stays(adapted: Adapted) -> None:
    weak_fails(adapted)
    adapted.log_away = True
    with pytest.raises(CohortError, match="the log is away"):
        adapted.adapter.tick()
    assert adapted.adapter.view("support").target_share == 0.6


def test_taking_the_same_outcomes_again_changes_nothing(adapted: Adapted) -> None:
    calls = adapted.calls(10, strong=True, bad=3)
    adapted.take(calls)
    before = adapted.samples()
    adapted.take(calls)
    assert adapted.samples() == before
    assert len(before) == 10


def test_only_calls_that_a_policy_routed_and_somebody_met_are_kept(adapted: Adapted) -> None:
    adapted.take(
        [
            *adapted.calls(1, strong=True, arm=Arm.SHADOW),
            *adapted.calls(1, strong=True, difficulty=None),
            *adapted.calls(1, strong=True, kind="assigned"),
        ]
    )
    assert adapted.samples() == []


@pytest.mark.parametrize(("judgement", "failed"), [({"negative": True}, True), ({"score": 0.2}, True), ({"score": 0.9}, False)])
def test_feedback_changes_how_a_conversation_went(adapted: Adapted, judgement: dict[str, Any], failed: bool) -> None:
    (call,) = adapted.calls(1, strong=False)
    adapted.take([call])
    late = replace(call, kind="feedback", seq=call.seq + 1, at_us=call.at_us + 1, difficulty=None, **judgement)
    adapted.take([late])
    assert [sample.failed for sample in adapted.samples()] == [failed]


def test_feedback_a_day_later_or_of_somebody_else_changes_nothing(adapted: Adapted) -> None:
    (call,) = adapted.calls(1, strong=False)
    adapted.take([call])
    feedback = replace(call, kind="feedback", difficulty=None, negative=True)
    adapted.take([replace(feedback, at_us=call.at_us + routing_store.JUDGED_US + 1), replace(feedback, unit="f" * 32)])
    assert [sample.failed for sample in adapted.samples()] == [False]


def test_old_routed_calls_are_deleted(adapted: Adapted) -> None:
    calls = adapted.calls(100, strong=True)
    store = RoutingStore(adapted.house.store.database, kept_max=30, trim_every=10)
    for start in range(0, 100, 10):
        with adapted.house.store.database.write() as connection:
            store.take(connection, calls[start : start + 10])
    assert [sample.unit for sample in adapted.samples()] == [call.unit for call in calls[-30:]]


def test_many_calls_of_one_service_delete_none_of_another(adapted: Adapted) -> None:
    store = RoutingStore(adapted.house.store.database, kept_max=5, trim_every=10)
    for calls in (adapted.calls(3, strong=True), adapted.calls(20, strong=True, service="other")):
        with adapted.house.store.database.write() as connection:
            store.take(connection, calls)
    assert len(adapted.samples()) == 3


def test_feedback_says_nothing_of_a_later_call(adapted: Adapted) -> None:
    (call,) = adapted.calls(1, strong=False)
    adapted.take([call])
    adapted.take([replace(call, kind="feedback", difficulty=None, negative=True, at_us=call.at_us - 1)])
    assert [sample.failed for sample in adapted.samples()] == [False]


def test_of_a_large_batch_a_part_is_kept_that_does_not_depend_on_how_it_went(adapted: Adapted) -> None:
    calls = adapted.calls(300, strong=True, bad=150)[::-1]
    store = RoutingStore(adapted.house.store.database)
    with adapted.house.store.database.write() as connection:
        store.take(connection, calls)
    kept = {sample.unit for sample in adapted.samples()}
    assert kept == set(sorted(call.unit for call in calls)[: routing_store.SAMPLES_PER_BATCH_MAX])


def test_a_replay_and_a_fit_change_nothing_and_say_when_they_know_nothing(adapted: Adapted) -> None:
    assert adapted.adapter.replay("support", [0.5]).samples == 0
    weak_fails(adapted)
    (row,) = adapted.adapter.replay("support", [0.0]).rows
    assert (row.strong_share, row.known) == (1.0, 0.5)
    with pytest.raises(CohortError) as caught:
        adapted.adapter.fit("support")
    assert caught.value.code == "NOT_ENOUGH_EVIDENCE"
    for wrong in ([], [2.0], [0.5] * 51):
        with pytest.raises(CohortError) as caught:
            adapted.adapter.replay("support", wrong)
        assert caught.value.code == "FIELD_INVALID"
    assert adapted.records == []


def test_a_service_that_does_not_choose_says_so(adapted: Adapted) -> None:
    adapted.policy = None
    assert adapted.adapter.tick() == []
    for service in ("support", "nobody"):
        with pytest.raises(CohortError) as caught:
            adapted.adapter.view(service)
        assert caught.value.code == "NOT_FOUND"
