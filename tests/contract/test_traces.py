"""Calls as stored, on each store: found by what they were, bounded, the telling ones first."""

from __future__ import annotations

import dataclasses
from typing import Any

from cohort.delivery.accounts import Accounts, Recent
from cohort.delivery.traces import STORED_PER_BATCH_MAX, STORED_US, Traces, Wanted, chosen
from cohort.gateway.contract import Arm, Batch, Call, Cursor, Result, decode_call, encode_call
from cohort.gateway.contract_trace import Attempt, Step
from support_engine import House

NOON_US = 1_700_000_000_000_000
PARENT = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TOLD = {
    "run": "nightly-7",
    "agent": "clerk of shop",
    "parent": PARENT,
    "degraded": True,
    "attempts": 2,
    "tries": (Attempt(1, "main", 10, 500, "status", 503, 400), Attempt(2, "backup", 700, None, "ok", 200, 80, 100, 20, True)),
    "steps": (Step("cache", 2, 5), Step("budget", 7, 3)),
    "looked": "miss",
    "held_usd_micro": 900,
    "budgets": ("team:web", "all"),
    "saved_usd_micro": 7,
}


def call(seq: int, **more: Any) -> Call:
    body = {
        "at_us": NOON_US + seq,
        "service": "support",
        "release": "rel_a",
        "unit": f"{seq:032x}",
        "total_us": 900,
        "route": "main",
        **more,
    }
    return Call("call", "gw", 1, seq, **body)


def put(database: Any, calls: list[Call], now_us: int = NOON_US, store: Traces | None = None) -> Traces:
    made = store or Traces(database)
    with database.write() as connection:
        made.put(connection, calls, now_us)
    return made


def seqs(store: Traces, **wanted: Any) -> list[int]:
    return [found.seq for found in store.newest(Wanted(**wanted), 100)]


def test_a_record_with_everything_comes_back_as_it_was(database: Any) -> None:
    whole = call(1, **TOLD)
    assert decode_call(encode_call(whole)) == whole
    store = put(database, [whole, dataclasses.replace(call(1), arm=Arm.SHADOW), dataclasses.replace(call(2), kind="feedback")])
    assert {found.arm: found for found in store.find("gw", 1, 1)}[Arm.STABLE] == whole
    assert len(store.find("gw", 1, 1)) == 2
    assert store.find("gw", 1, 2) == []


def test_calls_are_found_by_what_they_were(database: Any) -> None:
    store = put(
        database,
        [
            call(1, **TOLD),
            call(2, key="k1", result=Result.TIMEOUT),
            call(3, cache="l1", service="other", route="backup"),
            call(4, release="rel_b", result=Result.CLIENT_GONE),
        ],
    )
    assert seqs(store) == [4, 3, 2, 1]
    for wanted, found in (
        ({"run": "nightly-7"}, [1]),
        ({"agent": "clerk of shop"}, [1]),
        ({"degraded": True}, [1]),
        ({"trace": PARENT[:32]}, [1]),
        ({"key": "k1"}, [2]),
        ({"trouble": True}, [2]),
        ({"result": "client_gone"}, [4]),
        ({"cache": "l1", "service": "other"}, [3]),
        ({"route": "backup"}, [3]),
        ({"unit": f"{2:032x}"}, [2]),
        ({"places": frozenset({("rel_b", "main"), ("rel_a", "backup")})}, [4, 3]),
        ({"places": frozenset()}, []),
    ):
        assert seqs(store, **wanted) == found, wanted
        assert all(Wanted(**wanted).admits(one) for one in store.newest(Wanted(**wanted), 100))


def test_a_call_is_stored_with_its_batch_and_once_and_outlives_control(house: House) -> None:
    records = (call(1, **TOLD), call(2))
    house.ready("1")
    for _ in range(2):
        with house.controller.transaction() as connection:
            house.controller._intake.take(connection, [Batch("gw", 1, records, Cursor(1, 10))], NOON_US)
    begun_again = Accounts(house.database, Recent(), lambda: [])
    assert [found.seq for found in begun_again.newest(Wanted(), 10)] == [2, 1]
    assert begun_again.call("gw", 1, 1)[0].tries == records[0].tries
    begun_again.recent.take([call(3), records[1]])
    assert [found.seq for found in begun_again.newest(Wanted(), 10)] == [3, 2, 1]


def test_of_a_large_batch_those_that_something_happened_to_are_stored(database: Any) -> None:
    ordinary = [call(number) for number in range(3 * STORED_PER_BATCH_MAX)]
    telling = [call(10_000, result=Result.TIMEOUT), call(10_001, degraded=True), call(10_002, **TOLD), call(10_003, parent=PARENT)]
    found = chosen([*ordinary, *telling])
    assert len(found) == STORED_PER_BATCH_MAX
    assert {one.seq for one in telling} <= {one.seq for one in found}


def test_what_is_too_old_or_too_much_goes(database: Any) -> None:
    store = put(database, [call(number) for number in range(4)], store=Traces(database, stored_max=5, prune_every=3))
    put(database, [call(number) for number in range(4, 9)], store=store)
    assert seqs(store) == [8, 7, 6, 5, 4]
    put(database, [call(20, at_us=NOON_US + STORED_US + 50)], NOON_US + STORED_US + 50, Traces(database))
    assert seqs(store) == [20]


def test_a_record_that_is_too_large_is_stored_without_its_attempts(database: Any) -> None:
    many = tuple(Attempt(number, "r" * 600, 0, 1, "status") for number in range(32))
    store = put(database, [call(1, tries=many, attempts=32)])
    (found,) = store.find("gw", 1, 1)
    assert (found.attempts, found.tries) == (32, ())


def test_where_few_calls_come_the_old_ones_go_as_well(database: Any) -> None:
    store = put(database, [call(1)])
    later_us = NOON_US + STORED_US + 10
    put(database, [call(2, at_us=later_us)], later_us, store)
    assert seqs(store) == [2]


def test_what_came_since_a_count_is_told_in_order_and_no_more_than_there_is() -> None:
    recent = Recent()
    recent.take([call(1), call(2)])
    assert [one.seq for one in recent.after(1)[0]] == [2]
    assert recent.after(2) == ([], 2)
    recent.take([call(number) for number in range(3, 3 + 2_500)])
    found, taken = recent.after(2)
    assert (len(found), taken, found[-1].seq) == (2_000, 2_502, 2_502)
