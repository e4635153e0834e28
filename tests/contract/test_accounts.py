"""What calls cost, added up with the records, on each store; and the newest calls."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cohort.base.errors import CohortError
from cohort.delivery.accounts import HOUR_US, RECENT_MAX, SHADOW_KEY, Accounts, Recent
from cohort.delivery.traces import Wanted
from cohort.gateway.contract import Arm, Batch, Call, Cursor, Result
from support_engine import House

NOON_US = 1_700_000_000_000_000 // HOUR_US * HOUR_US


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


def accounts(database: Any) -> Accounts:
    return Accounts(database, Recent(), lambda: [])


def test_costs_add_up_by_service_release_route_and_key(house: House) -> None:
    priced = {"cost_usd_micro": 300, "tokens_in": 10, "tokens_out": 2}
    records = (
        call(1, key="k1", **priced),
        call(2, key="k1", **priced),
        call(3, key="k2"),
        call(4, key="k1", arm=Arm.SHADOW, **priced),
        call(5, key="k1", result=Result.TIMEOUT),
        dataclasses.replace(call(6), kind="feedback"),
    )
    house.ready("1")
    for _ in range(2):
        with house.controller.transaction() as connection:
            house.controller._intake.take(connection, [Batch("gw", 1, records, Cursor(1, 10))], NOON_US)
    found = {cost.client_key: cost for cost in accounts(house.database).costs(NOON_US)}
    assert set(found) == {"k1", "k2", SHADOW_KEY}
    assert dataclasses.astuple(found["k1"])[4:] == (6, 2, 0, 40, 8, 1200)
    assert (found["k2"].unpriced, found["k2"].cost_usd_micro) == (2, 0)
    assert found[SHADOW_KEY].cost_usd_micro == 600
    assert accounts(house.database).costs(NOON_US + HOUR_US) == []


def test_the_newest_calls_are_found_by_what_they_were() -> None:
    recent = Recent()
    recent.take([call(1, key="k1"), call(2, result=Result.TIMEOUT), call(3, cache="l1", service="other"), call(3, arm=Arm.SHADOW)])
    assert [found.seq for found in recent.newest(Wanted(), 10)] == [3, 3, 2, 1]
    assert [found.seq for found in recent.newest(Wanted(key="k1"), 10)] == [1]
    assert [found.seq for found in recent.newest(Wanted(trouble=True), 10)] == [2]
    assert [found.seq for found in recent.newest(Wanted(service="other", cache="l1"), 10)] == [3]
    assert [found.arm for found in recent.find("gw", 1, 3)] == [Arm.STABLE, Arm.SHADOW]
    recent.take([call(seq) for seq in range(RECENT_MAX)])
    assert len(recent.newest(Wanted(), 10 * RECENT_MAX)) == RECENT_MAX


def test_a_call_that_is_not_there_and_a_gateway_that_does_not_answer_are_said(database: Any) -> None:
    def away() -> list[Any]:
        raise CohortError("DATA_PLANE_UNAVAILABLE", "gone")

    made = Accounts(database, Recent(), away)
    assert made.balances() is None
    with pytest.raises(CohortError, match="not among those kept"):
        made.call("gw", 1, 1)
