"""Section 6.4: the shapes, ranks and margins, and which values are outcomes at all."""

import math
from itertools import pairwise
from statistics import NormalDist

import pytest

from cohort.stats import LabelOrdered, Sketch, log_threshold
from cohort.stats.ordered import SHAPE_WEIGHTS, likelihood_ratios
from cohort.stats.sketch import VALUE_MAX


def test_there_are_twelve_shapes_with_the_weights_of_the_specification():
    assert len(SHAPE_WEIGHTS) == len(likelihood_ratios(0.5)) == 12
    assert list(SHAPE_WEIGHTS) == pytest.approx([0.11, 0.10, 0.10, 0.08, 0.08, 0.06, 0.08, 0.08, 0.08, 0.08, 0.075, 0.075])


def test_the_shapes_at_one_rank_equal_the_formulas():
    u = 0.8
    z = NormalDist().inv_cdf(u)

    def shift(eta):
        return math.exp(eta * z - eta**2 / 2)

    expected = [shift(eta) for eta in (0.15, 0.35, 0.7, 1.3)]
    for eta, eps in ((1, 0.1), (1, 0.35), (2, 0.05), (2, 0.2), (3.2, 0.03), (3.2, 0.12)):
        expected.append(1 - eps + eps * shift(eta))
    expected += [0.85 * 0.2**-0.15, 0.6 * 0.2**-0.4]
    assert likelihood_ratios(u) == pytest.approx(expected, rel=1e-12)


def test_every_shape_has_mean_one_over_uniform_ranks():
    cells = 200_000
    sums = [0.0] * 12
    for cell in range(cells):
        for shape, rho in enumerate(likelihood_ratios((cell + 0.5) / cells)):
            sums[shape] += rho / cells
    assert sums == pytest.approx([1.0] * 12, abs=0.01)  # the midpoint rule misses a little of the steepest tails


def test_every_shape_increases_with_the_rank():
    rows = [likelihood_ratios(cell / 1000) for cell in range(1, 1000)]
    for lower, higher in pairwise(rows):
        assert all(a < b for a, b in zip(lower, higher, strict=True))


def test_the_first_outcome_has_rank_one_half():
    process = LabelOrdered()
    process.update(1, 0.25, 123.0)
    expected = sum(w * rho / (0.75 + 0.25 * rho) for w, rho in zip(SHAPE_WEIGHTS, likelihood_ratios(0.5), strict=True))
    assert math.exp(process.log_e) == pytest.approx(expected, rel=1e-13)


def test_ranks_are_taken_among_the_past_only():
    process = LabelOrdered()
    for value in (10.0, 20.0, 30.0):
        process.warm(value)
    process.update(1, 0.5, 25.0)  # two of three below: (2 * 2 + 0 + 1) / (2 * 3 + 2)
    expected = sum(w * 2 * rho / (1 + rho) for w, rho in zip(SHAPE_WEIGHTS, likelihood_ratios(5 / 8), strict=True))
    assert math.exp(process.log_e) == pytest.approx(expected, rel=1e-13)
    assert process.ranked == 4


def test_warming_moves_no_evidence():
    process = LabelOrdered()
    history = Sketch()
    for value in range(1, 500):
        history.add(float(value))
    process.warm_from(history)
    process.warm(7.0)
    assert (process.log_e, process.peak_log_e, process.ranked) == (0.0, 0.0, 500)


def test_a_history_of_another_resolution_warms_as_well():
    history = Sketch(0.05)
    for value in (1.0, 10.0, 100.0, 1000.0):
        history.add(value, 25)
    process = LabelOrdered()
    process.warm_from(history)
    process.update(1, 0.5, 5000.0)
    assert process.ranked == 101
    assert process.log_e > math.log(1.4)  # the highest of a hundred


def test_a_margin_divides_what_the_candidate_took():
    tolerant, plain = LabelOrdered(margin=1.1), LabelOrdered()
    for process in (tolerant, plain):
        for value in range(100, 200):
            process.warm(float(value))
    tolerant.update(1, 0.5, 165.0)
    plain.update(1, 0.5, 150.0)
    assert tolerant.log_e == plain.log_e
    tolerant.update(0, 0.5, 158.0)  # stable's outcomes are taken as they are, and ranked among adjusted ones
    plain.update(0, 0.5, 158.0)
    assert tolerant.log_e == plain.log_e


def test_a_score_is_worse_when_it_is_lower():
    low, high = LabelOrdered(lower_is_worse=True), LabelOrdered(lower_is_worse=True)
    for process in (low, high):
        for value in range(1, 101):
            process.warm(float(value))
    low.update(1, 0.5, 1.0)
    high.update(1, 0.5, 100.0)
    assert low.log_e > 0.0 > high.log_e


def test_a_margin_on_scores_raises_what_the_candidate_got():
    tolerant, plain = LabelOrdered(margin=1.25, lower_is_worse=True), LabelOrdered(lower_is_worse=True)
    for process in (tolerant, plain):
        for value in range(1, 101):
            process.warm(float(value))
    tolerant.update(1, 0.5, 40.0)
    plain.update(1, 0.5, 50.0)
    assert tolerant.log_e == plain.log_e


@pytest.mark.parametrize("value", [0.0, 5e-324, 1e-12, VALUE_MAX, 1.7976931348623157e308])
@pytest.mark.parametrize("settings", [{}, {"margin": 0.5}, {"margin": 2.0, "lower_is_worse": True}])
def test_zero_and_huge_values_are_outcomes(value, settings):
    process = LabelOrdered(**settings)
    process.warm(10.0)
    process.update(1, 0.05, value)
    process.update(0, 0.05, value)
    assert math.isfinite(process.log_e)
    assert process.ranked == 3


@pytest.mark.parametrize("value", [-1.0, -5e-324, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("arm", [0, 1])
def test_what_is_no_outcome_is_refused_and_changes_nothing(arm, value):
    process = LabelOrdered(margin=1.05)
    process.update(0, 0.5, 3.0)
    before = process.to_state()
    with pytest.raises(ValueError, match="value is"):
        process.update(arm, 0.5, value)
    assert process.to_state() == before


def test_outcomes_that_are_all_the_same_say_nothing_harmful():
    process = LabelOrdered()
    for number in range(3000):
        process.update(1 if number % 4 == 0 else 0, 0.25, 0.0)
    assert process.peak_log_e < log_threshold(0.5)
