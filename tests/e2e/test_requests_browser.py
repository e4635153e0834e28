"""The pages of calls in a real browser: the live tail with its filters, and one call as a waterfall."""

from __future__ import annotations

import dataclasses
from typing import Any

from test_dashboard_browser import browser, visit

from cohort.gateway.contract import Call, Result
from cohort.gateway.contract_trace import Attempt, Step
from support_delivery import house
from support_views import NOW_US

__all__ = ["browser"]

CALL = Call(
    "call", "gw-1", 7, 1, NOW_US - 5_000_000, "support", "rel_x", "ab" * 16, total_us=900_000, first_us=200_000, route="main", status=200
)
TRIED = dataclasses.replace(
    CALL,
    seq=2,
    stream=True,
    run="nightly-7",
    degraded=True,
    attempts=2,
    tries=(Attempt(1, "main", 1_000, 99_000, "status", 503, 98_000), Attempt(2, "backup", 100_000, None, "ok", 200, 90_000)),
    steps=(Step("cache", 100, 700),),
)


def widths(there: Any) -> dict[str, tuple[float, float]]:
    """Where each bar of the waterfall lies on the screen, relative to its lane."""
    script = """() => [...document.querySelectorAll('.waterfall tbody tr')].map(row => {
        const lane = row.querySelector('svg').getBoundingClientRect(), bar = row.querySelectorAll('rect')[4].getBoundingClientRect();
        return [row.querySelector('th').textContent, (bar.left - lane.left) / lane.width, bar.width / lane.width]; })"""
    return {name: (left, width) for name, left, width in there.page.evaluate(script)}


def test_a_call_is_drawn_to_scale_and_its_trace_leads_back_to_its_calls(browser: Any) -> None:
    home = house()
    home.control.accounts.recent.take([CALL, TRIED])
    with visit(browser, home) as there:
        there.open("/requests/gw-1/7/2")
        found = widths(there)
        assert list(found) == ["cache", "1. main", "2. backup", "passing on"]
        for name, left, width in (("1. main", 0.001, 0.11), ("2. backup", 0.111, 0.111), ("passing on", 0.222, 0.778)):
            assert abs(found[name][0] - left) < 0.01, found
            assert abs(found[name][1] - width) < 0.01, found
        assert "status 503" in there.text(".waterfall")
        there.page.click("a:has-text('nightly-7')")
        assert there.page.locator("#calls tbody tr").count() == 1
        assert there.page.input_value("#f-run") == "nightly-7"
        assert there.complaints == []


def test_calls_that_fit_appear_as_they_end_and_others_do_not(browser: Any) -> None:
    home = house()
    with visit(browser, home) as there:
        there.open("/requests")
        there.page.select_option("#f-result", "timeout")
        there.page.check("input[name=degraded]")
        there.page.click("button:has-text('Show')")
        there.wait_for_text("#link", "Live")
        there.wait_for_text("#calls", "No call yet that fits")
        home.control.accounts.recent.take([TRIED, dataclasses.replace(CALL, seq=3, result=Result.TIMEOUT)])
        home.control.accounts.recent.take([dataclasses.replace(TRIED, seq=4, result=Result.TIMEOUT, status=504)])
        there.wait_for_text("#calls", "timeout")
        assert there.page.locator("#calls tbody tr").count() == 1
        assert there.page.get_attribute("#calls tbody a", "href") == "/requests/gw-1/7/4"
        assert there.complaints == []
