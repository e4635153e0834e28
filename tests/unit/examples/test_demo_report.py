"""The demo's report: nothing counts as happened unless it was seen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))
from rehearsal.clients import Met, met_by
from rehearsal.outcomes import gate_is, taken_back_text
from rehearsal.report import Report


def test_a_check_that_was_never_reached_did_not_happen():
    report = Report(("first", "second"))
    report.add("first", True, "seen", units=3)
    body = report.to_json()
    assert (body["ok"], body["not_happened"]) == (False, ["second"])
    assert body["checks"]["first"] == {"ok": True, "text": "seen", "units": 3}
    assert body["checks"]["second"]["text"] == "was not reached"


def test_trouble_outweighs_every_check_and_an_unknown_check_is_a_mistake():
    report = Report(("only",))
    report.add("only", True, "seen")
    assert report.ok
    report.trouble = "the gateway did not start"
    assert not report.ok
    with pytest.raises(KeyError, match="other is not among"):
        report.add("other", True, "")


def counts(requests: int, failures: int, drawn: int, **errors: int) -> dict:
    return {"requests": requests, "failures": failures, "failures_other": failures - drawn, "connection_errors": 0, "errors": errors}


def test_what_clients_met_is_the_difference_and_tells_drawn_failures_from_others():
    before, after = counts(100, 3, 3, drawn_500=3), counts(180, 9, 8, drawn_500=8, timeout=1)
    met = Met.between(before, after)
    assert (met.requests, met.failures, met.other) == (80, 6, 1)
    assert met.errors == {"drawn_500": 5, "timeout": 1}


def test_a_release_that_nobody_met_has_met_nobody():
    assert met_by({"releases": {}}, "2.0.0")["units"] == 0


@pytest.mark.parametrize(
    ("check", "metric", "found"), [("failures", "failures", True), ("latency", "failures", False), ("latency", "latency", True)]
)
def test_the_gate_that_rolled_back_is_read_from_the_alarm(check: str, metric: str, found: bool):
    view = {"events": [{"kind": "started"}, {"kind": "alarm", "detail": {"check": check}, "reason": "..."}]}
    assert gate_is(view, metric) is found


def test_no_alarm_is_no_gate():
    assert not gate_is({"events": [{"kind": "promoted"}]}, "failures")


def test_the_words_about_a_rollback_carry_its_figures():
    figures = {
        "taken_back": True,
        "stage": "5 %",
        "check": "failures",
        "users_that_met_a_failure": 7,
        "units_on_the_candidate": 39,
        "verdict_to_traffic_moved_ms": 16.3,
        "verdict_to_last_candidate_ms": 0.0,
        "serving_now": "1.1.0",
    }
    words = taken_back_text(figures)
    assert "after 39 units; 7 users met a failure; traffic moved 16 ms after the verdict" in words
    assert "the last candidate assignment was before the verdict; 1.1.0 serves" in words
