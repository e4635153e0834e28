"""Minutes of traffic: conversations are counted once, however many calls they have."""

from __future__ import annotations

from cohort.delivery import traffic
from cohort.delivery.traffic import Minute, RecentUnits
from cohort.gateway.contract import Call, Result


def call(unit: str, result: Result = Result.OK, service: str = "support") -> Call:
    return Call("call", "gw", 1, 1, 1, service, "rel", unit, result=result, total_us=1000, tokens_in=3, cost_usd_micro=7)


def test_a_conversation_counts_once_and_fails_once():
    minute, recent = Minute(), RecentUnits()
    for unit, result in [("a", Result.OK), ("a", Result.TIMEOUT), ("a", Result.TIMEOUT), ("b", Result.TIMEOUT), ("b", Result.OK)]:
        minute.add(call(unit, result), recent)
    assert (minute.calls, minute.failed, minute.units, minute.units_failed) == (5, 3, 2, 2)
    assert (minute.tokens_in, minute.cost_usd_micro, minute.latency.count) == (15, 35, 2)


def test_a_conversation_that_goes_on_is_not_new_in_the_next_minute():
    first, second, recent = Minute(), Minute(), RecentUnits()
    first.add(call("a"), recent)
    second.add(call("a", Result.UPSTREAM_ERROR), recent)
    second.add(call("a", service="other"), recent)
    assert (first.units, second.units, second.units_failed) == (1, 1, 1)


def test_what_is_remembered_has_a_limit():
    recent = RecentUnits()
    for number in range(traffic.UNITS_REMEMBERED_MAX + 1):
        recent.see("support", str(number), False)
    assert recent.see("support", str(traffic.UNITS_REMEMBERED_MAX), False) == (False, False)
    assert recent.see("support", "0", False) == (True, False)


def test_a_minute_is_the_same_after_it_was_stored():
    minute, recent = Minute(), RecentUnits()
    minute.add(call("a", Result.LOST), recent)
    minute.add(call("b"), recent)
    assert Minute.from_row(minute.row()).row() == minute.row()
