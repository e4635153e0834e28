"""Section 6.2 and 6.7: values worked out by hand, the exact reference of section 8, and refusals."""

import math

import pytest

from cohort.stats import LabelFailures, LabelSign, log_threshold
from cohort.stats.exact import crossing, mixture_log_e
from cohort.stats.failures import RATIOS, WEIGHTS
from cohort.stats.mixture import tolerated_share

# At w = 1/2 a candidate failure multiplies the bet on r by 2r/(1+r), a stable one by 2/(1+r).
ONE_CANDIDATE = 0.28 * 1.2 + 0.27 * 1.375 + 0.20 * 1.6 + 0.15 * 16 / 9 + 0.10 * 28 / 15
ONE_STABLE = 0.28 * 0.8 + 0.27 * 0.625 + 0.20 * 0.4 + 0.15 * 2 / 9 + 0.10 * 2 / 15
ONE_OF_EACH = 0.28 * 0.96 + 0.27 * 0.859375 + 0.20 * 0.64 + 0.15 * 32 / 81 + 0.10 * 56 / 225


@pytest.mark.parametrize(
    ("arms", "expected"), [((), 1.0), ((1,), ONE_CANDIDATE), ((0,), ONE_STABLE), ((1, 0), ONE_OF_EACH), ((0, 1), ONE_OF_EACH)]
)
def test_the_mixture_equals_the_value_worked_out_by_hand(arms, expected):
    process = LabelFailures()
    for arm in arms:
        process.update(arm, 0.5)
    assert math.exp(process.log_e) == pytest.approx(expected, rel=1e-14)


def test_a_margin_shifts_the_share_that_is_betted_against():
    process = LabelFailures(margin=3.0, ratios=(2.0,), weights=(1.0,))
    process.update(1, 0.25)  # w_m = .75/(.75 + .75) = 1/2, so the factor is 2/(1 + 1/2)
    assert process.log_e == pytest.approx(math.log(2 / 1.5), rel=1e-14)


def test_the_share_may_change_with_every_event():
    process = LabelFailures(ratios=(3.0,), weights=(1.0,))
    process.update(1, 0.1)  # 3/(1 + .2)
    process.update(0, 0.5)  # 1/(1 + 1)
    process.update(1, 0.1)
    assert process.log_e == pytest.approx(math.log(2.5 * 0.5 * 2.5), rel=1e-14)
    assert (process.failures_stable, process.failures_candidate) == (1, 2)


def test_the_peak_stays_when_the_evidence_falls():
    process = LabelFailures()
    process.update(1, 0.05)
    top = process.log_e
    process.update(0, 0.05)
    assert process.log_e < top == process.peak_log_e


def test_failures_of_stable_alone_never_raise_the_peak_above_its_start():
    process = LabelFailures()
    for _ in range(50):
        process.update(0, 0.25)
    assert process.peak_log_e == 0.0
    assert process.log_e < 0.0


# gates.md section 8, "label e-process of 6.2 (exact)": mean candidate units, alpha = 1 %.
BATTERY = [
    (0.01, 0.02, 0.05, 1520),
    (0.01, 0.02, 0.25, 1994),
    (0.01, 0.05, 0.05, 161),
    (0.01, 0.05, 0.25, 228),
    (0.01, 0.10, 0.05, 52),
    (0.01, 0.10, 0.25, 81),
    (0.02, 0.03, 0.05, 2743),
    (0.02, 0.03, 0.25, 3543),
]


@pytest.mark.parametrize(("stable", "candidate", "share", "units"), BATTERY)
def test_mean_candidate_units_to_detect_are_those_of_the_battery(stable, candidate, share, units):
    mean = share * candidate + (1 - share) * stable
    found = crossing(RATIOS, WEIGHTS, share, share * candidate / mean, log_threshold(0.01), 20_000, tail=1e-6)
    assert found.mean_labels / mean * share == pytest.approx(units, abs=0.51)


@pytest.mark.parametrize(("margin", "units"), [(1.05, 1736), (1.2, 2664)])
def test_the_cost_of_a_margin_is_that_of_section_6_2(margin, units):
    share, mean = 0.05, 0.05 * 0.02 + 0.95 * 0.01
    null = tolerated_share(share, margin)
    found = crossing(RATIOS, WEIGHTS, null, share * 0.02 / mean, log_threshold(0.01), 20_000, tail=1e-5)
    assert found.mean_labels / mean * share == pytest.approx(units, rel=1e-3)


def test_the_class_agrees_with_the_closed_form_after_many_updates():
    process = LabelFailures(margin=1.05)
    for number in range(5000):
        process.update(1 if number % 13 == 0 else 0, 0.05)
    expected = mixture_log_e(RATIOS, WEIGHTS, tolerated_share(0.05, 1.05), 5000, process.failures_candidate)
    assert process.log_e == pytest.approx(expected, rel=1e-11)


def test_a_sign_is_a_label_at_one_half():
    sign = LabelSign()
    for worse in (True, True, False, True):
        sign.update(worse)
    # each pair multiplies the bet on r by 2r/(1+r) or 2/(1+r)
    expected = sum(
        w * (2 * r / (1 + r)) ** 3 * 2 / (1 + r) for r, w in zip((1.25, 1.5, 2.2, 4, 8), (0.25, 0.25, 0.25, 0.15, 0.1), strict=True)
    )
    assert math.exp(sign.log_e) == pytest.approx(expected, rel=1e-14)
    assert (sign.pairs_worse, sign.pairs_better) == (3, 1)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_a_level_that_is_no_probability_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        log_threshold(alpha)


def test_the_threshold_is_the_logarithm_of_one_over_alpha():
    assert log_threshold(0.01) == pytest.approx(math.log(100), rel=1e-15)


@pytest.mark.parametrize(
    ("arm", "share", "word"),
    [(2, 0.5, "arm"), (-1, 0.5, "arm"), (1, -0.1, "share"), (1, 1.1, "share"), (0, math.nan, "share"), (2, 0.0, "arm")],
)
def test_an_event_that_cannot_be_is_refused_and_changes_nothing(arm, share, word):
    process = LabelFailures()
    before = process.to_state()
    with pytest.raises(ValueError, match=word):
        process.update(arm, share)
    assert process.to_state() == before


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (lambda: LabelFailures(margin=0.0), "margin"),
        (lambda: LabelFailures(margin=math.inf), "margin"),
        (lambda: LabelFailures(ratios=(1.0,), weights=(1.0,)), "ratios"),
        (lambda: LabelFailures(ratios=(2.0, math.nan), weights=(0.5, 0.5)), "ratio"),
        (lambda: LabelFailures(ratios=(2.0,), weights=(0.5, 0.5)), "as many"),
        (lambda: LabelFailures(ratios=(2.0, 3.0), weights=(0.5, 0.6)), "weights"),
        (lambda: LabelFailures(ratios=(2.0, 3.0), weights=(1.5, -0.5)), "weights"),
    ],
)
def test_settings_that_would_break_the_theorem_are_refused(made, word):
    with pytest.raises(ValueError, match=word):
        made()


def test_the_state_of_another_class_is_refused():
    with pytest.raises(ValueError, match="label_sign"):
        LabelFailures.from_state(LabelSign().to_state())


def test_an_incomplete_state_is_refused_by_the_name_of_what_is_missing():
    state = LabelFailures().to_state()
    del state["failures_stable"]
    with pytest.raises(ValueError, match="failures_stable"):
        LabelFailures.from_state(state)
