"""How caches are shown, and a person is forgotten: every store of every worker is asked, and one that did not do it is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import insert

from cohort.base.errors import CohortError, Retry
from cohort.delivery.cache_state import Keeping, Person
from cohort.delivery.caches import Caches
from cohort.gateway.contract import pseudonym
from cohort.gateway.contract_cache import CachePolicy
from cohort.storage.schema import flag_kills
from support_engine import House, MemoryGateway
from support_gateway import UNIT_KEY

ANNA = pseudonym(bytes.fromhex(UNIT_KEY), "anna")


class Desk:
    """The caches of a house whose gateway has two workers; `support` keeps answers."""

    def __init__(self, house: House) -> None:
        self.workers = [house.gateway, MemoryGateway(house.clock, name="gw_second")]
        self.policy: CachePolicy | None = CachePolicy()
        self.records: list[Mapping[str, Any]] = []
        self.log_away = False
        self.caches = Caches(house.store, lambda _digest: self.policy, self.workers, self._record)
        for worker in self.workers:
            for store in Keeping:
                worker.kept[store] = [ANNA, "ben", ANNA]

    def _record(self, body: Mapping[str, Any]) -> None:
        if self.log_away:
            raise CohortError("AUDIT_UNAVAILABLE", "the log is away", retry=Retry.SAFE, hint="Wait.")
        self.records.append(body)

    def left(self) -> list[list[str]]:
        return [worker.kept[store] for worker in self.workers for store in Keeping]


@pytest.fixture
def desk(lone: House) -> Desk:
    return Desk(lone)


@pytest.mark.parametrize("person", [Person(subject="anna"), Person(unit=ANNA)])
def test_a_person_is_forgotten_in_every_store_of_every_worker(desk: Desk, person: Person) -> None:
    done = desk.caches.erase(person, "alice")
    assert done.unit == ANNA
    assert [(row.worker, row.store, row.erased, row.problem) for row in done.stores] == [
        (1, "cache", 2, ""),
        (1, "responses", 2, ""),
        (1, "contents", 2, ""),
        (2, "cache", 2, ""),
        (2, "responses", 2, ""),
        (2, "contents", 2, ""),
    ]
    assert desk.left() == [["ben"]] * 6


def test_the_log_says_who_asked_and_never_a_name(desk: Desk) -> None:
    desk.caches.erase(Person(subject="anna"), "alice")
    desk.caches.erase(Person(unit=ANNA), "alice")
    assert [(body["event"], body["unit"], body["actor"]) for body in desk.records] == [
        ("erasure_asked", None, "alice"),
        ("erasure_asked", ANNA, "alice"),
    ]
    assert "anna" not in str(desk.records)


def test_what_cannot_be_recorded_is_not_done(desk: Desk) -> None:
    desk.log_away = True
    with pytest.raises(CohortError) as caught:
        desk.caches.erase(Person(subject="anna"), "alice")
    assert caught.value.code == "AUDIT_UNAVAILABLE"
    assert desk.left() == [[ANNA, "ben", ANNA]] * 6


@pytest.mark.parametrize("person", [Person(), Person(unit=ANNA, subject="anna")])
def test_nobody_and_two_people_are_refused(desk: Desk, person: Person) -> None:
    with pytest.raises(CohortError) as caught:
        desk.caches.erase(person, "alice")
    assert (caught.value.code, desk.records) == ("FIELD_INVALID", [])


def test_a_store_that_did_not_forget_is_named_and_the_others_are_asked_all_the_same(desk: Desk) -> None:
    desk.workers[0].reachable = False
    desk.workers[1].stuck = {Keeping.CACHE}
    with pytest.raises(CohortError) as caught:
        desk.caches.erase(Person(subject="anna"), "alice")
    error = caught.value
    assert (error.code, error.retry) == ("CACHE_NOT_ERASED", Retry.SAFE)
    assert [(row["worker"], row["store"], row["erased"]) for row in error.details["stores"]] == [
        (1, "cache", None),
        (1, "responses", None),
        (1, "contents", None),
        (2, "cache", None),
        (2, "responses", 2),
        (2, "contents", 2),
    ]
    assert "cache of worker 2: the cache cannot be erased" in error.message
    desk.workers[0].reachable, desk.workers[1].stuck = True, set()
    assert [row.erased for row in desk.caches.erase(Person(subject="anna"), "alice").stores] == [2, 2, 2, 2, 0, 0]


def test_workers_are_shown_together_and_one_that_is_silent_is_said(desk: Desk) -> None:
    for worker in desk.workers:
        worker.answered = {"l1": 3, "miss": 1}
    view = desk.caches.view("support")
    assert view.figures is not None
    assert (view.workers, view.silent, view.figures.calls, view.figures.tiers[0].entries) == (2, (), 8, 6)
    desk.workers[1].reachable = False
    view = desk.caches.view("support")
    assert view.figures is not None
    assert (view.workers, view.figures.calls) == (1, 4)
    assert view.silent == ("worker 2: the gateway in memory is out of reach",)
    desk.workers[0].reachable = False
    assert desk.caches.view("support").figures is None


def test_a_thrown_switch_is_shown(desk: Desk, lone: House) -> None:
    assert desk.caches.view("support").killed == ()
    with lone.database.write() as connection:
        connection.execute(insert(flag_kills).values(flag="cache.semantic", reason="wrong", killed_by="alice", killed_us=1))
    assert desk.caches.view("support").killed == ("cache.semantic",)


def test_only_a_service_whose_release_keeps_answers_is_shown(desk: Desk) -> None:
    assert desk.caches.keeps("support")
    assert not desk.caches.keeps("nowhere")
    desk.policy = None
    assert not desk.caches.keeps("support")
    for service in ("support", "nowhere"):
        with pytest.raises(CohortError) as caught:
            desk.caches.view(service)
        assert caught.value.code == "NOT_FOUND"
