"""Figures, sentences, scales and curves: the pure half of the dashboard."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import support_views as views
from cohort.delivery.model import PointView, ScaleView, State
from cohort.delivery.plans import PRESETS
from cohort.surfaces.dashboard import charts, rendering, scales, wording


@pytest.mark.parametrize(
    ("words", "value", "text"),
    [
        (wording.share, 5.0, "5 %"),
        (wording.share, 0.5, "0.5 %"),
        (wording.share, 12.5, "12.5 %"),
        (wording.share, 100.0, "100 %"),
        (wording.rate, 0.0, "0.00 %"),
        (wording.rate, 0.0094, "0.94 %"),
        (wording.rate, 0.143, "14.3 %"),
        (wording.millis, 181.2, "181 ms"),
        (wording.millis, 2310.0, "2.31 s"),
        (wording.money, 31.4183, "$31.42"),
        (wording.money, 0.5291, "$0.5291"),
        (wording.money, 0.0, "$0.00"),
        (wording.money, 0.5, "$0.50"),
        (wording.money, 0.01, "$0.01"),
        (wording.money, 0.000049, "$0.000049"),
        (wording.count, 18204, "18,204"),
        (wording.number, 7214.4, "7,214"),
        (wording.number, 0.000004, "0.000004"),
        (wording.number, 0.031, "0.031"),
        (wording.duration, 0.0, "0 s"),
        (wording.duration, 0.143, "143 ms"),
        (wording.duration, 130.0, "2 min 10 s"),
        (wording.duration, 86_400 * 2 + 3600 * 4, "2 days 4 h"),
        (wording.duration, 86_400.0, "1 day"),
    ],
)
def test_figures_have_one_form(words: object, value: float, text: str) -> None:
    assert words(value).replace("\u00a0", " ") == text  # type: ignore[operator]


@pytest.mark.parametrize(
    "words", [wording.share, wording.rate, wording.millis, wording.money, wording.count, wording.number, wording.duration]
)
def test_no_data_is_never_a_nought(words: object) -> None:
    assert words(None) == "no data"  # type: ignore[operator]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "Rolling out v2 to 5 % of support: 1 of 4 stages done"),
        ({"stage": 0, "stages": views.stages(0)}, "Trying v2 on copies of 10 % of support: 0 of 4 stages done"),
        ({"state": State.PAUSED}, "Paused: v2 stays on 5 % of support, 1 of 4 stages done"),
        ({"state": State.AWAITING_APPROVAL}, "v2 is on 5 % of support and waits for a person’s approval, 1 of 4 stages done"),
        ({"state": State.PROMOTED}, "v2 was promoted and serves all of support"),
        ({"state": State.ROLLED_BACK}, "v2 was rolled back; v1 serves all of support"),
        ({"state": State.ABORTED}, "The rollout of v2 was aborted; v1 serves all of support"),
    ],
)
def test_a_rollout_is_one_sentence(changes: dict[str, object], text: str) -> None:
    assert wording.headline(views.rollout(**changes)).replace("\u00a0", " ") == text


def test_a_plan_promises_no_more_than_it_asks() -> None:
    assert wording.promise(PRESETS["blue-green"]).startswith("Nothing is asked")
    text = wording.promise(PRESETS["shadow-5-25-100"]).replace("\u00a0", " ")
    assert text == "A harmless release is ever rolled back with a chance of at most 1 %; a wrong certificate has at most 5 %."


def test_the_summary_says_what_users_met_and_names_what_it_does_not_know() -> None:
    summary = {
        "candidate_units": 171,
        "candidate_units_failed": 14,
        "candidate_calls": 3,
        "traffic_moved_ms": 41.2,
        "verified": True,
        "odd_s": 61.0,
        "nested": {},
    }
    found = {figure.label: figure.value.replace("\u00a0", " ") for figure in wording.figures(summary)}
    assert found == {
        "Units that met a failure of the candidate": "14 of 171",
        "Verdict to traffic moved": "41 ms",
        "The gateway confirmed it": "yes",
        "Odd": "1 min 1 s",
    }


def test_evidence_of_the_same_strength_has_the_same_length_on_every_row() -> None:
    gate = views.gates()[0]
    pair = [
        replace(gate, harmful=ScaleView(1.5, 5.7, 0.26), safe=None),
        replace(gate, harmful=ScaleView(0.0, 3.0, 0.0), safe=ScaleView(1.5, 3.0, 0.5)),
    ]
    first, second = scales.evidence_scales(pair)
    assert first.harm is not None
    assert second.safe is not None
    assert first.harm.width == pytest.approx(second.safe.width, abs=0.02)
    assert first.middle == second.middle


@given(
    st.lists(
        st.tuples(st.floats(-50, 5000), st.floats(0.5, 20), st.floats(-50, 5000), st.floats(0.5, 20), st.booleans(), st.booleans()),
        min_size=1,
        max_size=5,
    )
)
def test_scales_stay_on_the_page_and_a_bar_reaches_its_mark_exactly_when_the_threshold_is_reached(
    rows: list[tuple[float, float, float, float, bool, bool]],
) -> None:
    gates = [
        replace(
            views.gates()[0],
            harmful=ScaleView(harm, harm_at, 0.5) if can_alarm else None,
            safe=ScaleView(safe, safe_at, 0.5) if can_certify else None,
        )
        for harm, harm_at, safe, safe_at, can_alarm, can_certify in rows
    ]
    for gate, scale in zip(gates, scales.evidence_scales(gates), strict=True):
        for bar, mark, view in ((scale.harm, scale.harm_mark, gate.harmful), (scale.safe, scale.safe_mark, gate.safe)):
            if bar is None or mark is None or view is None:
                continue
            assert 0 <= bar.left <= bar.left + bar.width <= 100.02
            assert 0 < mark.at < 100
            if abs(view.log_e - view.threshold) > 0.05:
                assert (abs(bar.tip - scale.middle) >= abs(mark.at - scale.middle)) == (view.log_e >= view.threshold)


@given(st.floats(1e-6, 1e9))
def test_an_axis_holds_its_largest_value_and_wastes_little(value: float) -> None:
    top, steps = charts.nice_top(value)
    assert top >= value * 0.998
    assert top <= value * 2.01
    assert 2 <= steps <= 4


def test_charts_have_gaps_where_nothing_was_measured() -> None:
    points = [
        PointView(views.NOW_US + i * 2_000_000, "stable", 0 if i == 1 else 5, 0, None if i == 1 else 100.0, None if i == 1 else 200.0)
        for i in range(3)
    ]
    view = views.rollout(points=tuple(points), created_us=views.NOW_US, now_us=views.NOW_US + 60_000_000)
    latency = charts.rollout_charts(view)[2]
    assert latency.lines[0].path.count("M") == 2
    assert "no data" in latency.hits[1].text


def test_the_bucket_that_is_still_filling_is_not_drawn_as_a_fall() -> None:
    points = [PointView(views.NOW_US - back * 1_000_000, "stable", 10, 0, 100.0, 200.0) for back in (3, 2, 1, 0)]
    assert [point.at_us for point in charts.complete(points, 1.0, views.NOW_US)] == [point.at_us for point in points[:3]]
    assert charts.complete(points[3:], 1.0, views.NOW_US) == points[3:]


def test_evidence_beyond_all_doubt_is_still_a_short_label() -> None:
    assert scales.odds(5000.0) == "over a million to 1"
    assert scales.odds(-40.0) == "0.0 to 1"


def test_a_chart_without_points_says_so() -> None:
    for chart in charts.rollout_charts(views.empty()):
        assert not chart.lines
        assert chart.text.endswith("nothing was measured yet.")


@given(st.integers(1, 2000))
def test_a_long_rollout_is_drawn_in_few_buckets_that_lose_no_call(buckets: int) -> None:
    points = [PointView(views.NOW_US + i * 1_000_000, arm, 3, 1, 10.0, 20.0) for i in range(buckets) for arm in ("stable", "candidate")]
    grouped, bucket_s = charts.grouped(points, 1.0)
    assert len({point.at_us for point in grouped}) <= charts.BUCKETS_MAX
    assert sum(point.calls for point in grouped) == 6 * buckets
    assert bucket_s * len({point.at_us for point in grouped}) >= buckets


def test_a_share_fills_as_many_ranks_as_it_has_twentieths() -> None:
    assert rendering.ranks(5) == [1.0] + [0.0] * 19
    assert sum(rendering.ranks(33)) == pytest.approx(6.6)
    assert sum(rendering.ranks(100)) == 20


CSS = Path(rendering.HERE / "static" / "cohort.css").read_text()
PAIRS = [
    *itertools.product(("ink", "ink-2", "ink-3"), ("page", "card", "sunk")),
    *((tone, ground) for tone in ("harm", "safe", "wait") for ground in (tone + "-soft", "card", "page")),
    ("accent", "accent-soft"),
    ("accent", "card"),
    ("accent", "page"),
    ("on-accent", "accent"),
    ("ink", "harm-soft"),
    ("ink", "safe-soft"),
    ("ink", "wait-soft"),
]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(theme: int) -> None:
    block = re.findall(r":root \{(.*?)\}", CSS, re.S)[theme]
    colours = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", block))
    for text, ground in PAIRS:
        light, dark = sorted((_luminance(colours[text]), _luminance(colours[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{text} on {ground}"


def _luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance of an sRGB colour."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else math.pow((part + 0.055) / 1.055, 2.4) for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
