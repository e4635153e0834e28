"""Section 6.6: the interval for p1/p0 agrees with the tests it inverts."""

import random
from itertools import pairwise

import pytest

from cohort.stats import LabelFailures, RatioInterval, log_threshold
from cohort.stats.interval import GRID, SHARES_MAX


def labels(relative_rate, share, failures, seed):
    rng = random.Random(seed)
    true_share = share * relative_rate / (share * relative_rate + 1 - share)
    return [1 if rng.random() < true_share else 0 for _ in range(failures)]


def test_the_grid_is_logarithmic_from_one_thirty_second_to_thirty_two():
    assert len(GRID) == 65
    assert (GRID[0], GRID[32], GRID[64]) == (1 / 32, 1.0, 32.0)
    assert all(upper / lower == pytest.approx(2 ** (5 / 32)) for lower, upper in pairwise(GRID))


def test_nothing_seen_bounds_nothing():
    interval = RatioInterval(0.05)
    assert (interval.low, interval.high) == (None, None)


@pytest.mark.parametrize(("relative_rate", "share"), [(1.0, 0.5), (3.0, 0.25), (0.3, 0.25), (8.0, 0.05)])
def test_the_limits_are_the_margins_that_full_tests_reject(relative_rate, share):
    interval = RatioInterval(0.05)
    below = [LabelFailures(margin) for margin in GRID]
    above = [LabelFailures(1 / margin) for margin in GRID]  # with the arms swapped: p0 <= p1 / m
    for arm in labels(relative_rate, share, 400, seed=3):
        interval.update(arm, share)
        for test in below:
            test.update(arm, share)
        for test in above:
            test.update(1 - arm, 1 - share)
    threshold = log_threshold(0.025)
    low = [margin for margin, test in zip(GRID, below, strict=True) if test.peak_log_e >= threshold]
    high = [margin for margin, test in zip(GRID, above, strict=True) if test.peak_log_e >= threshold]
    assert interval.low == (max(low) if low else None)
    assert interval.high == (min(high) if high else None)
    assert low or high  # something was rejected, or this test shows nothing


def test_the_true_ratio_is_inside_at_all_times_in_nearly_every_run():
    missed = 0
    for seed in range(200):
        interval = RatioInterval(0.1)
        for arm in labels(2.0, 0.25, 150, seed):
            interval.update(arm, 0.25)
        missed += (interval.low is not None and interval.low >= 2.0) or (interval.high is not None and interval.high <= 2.0)
    assert missed <= 20


def test_many_different_shares_are_folded_and_give_the_same_interval():
    shares = [0.1 + 0.01 * step for step in range(3 * SHARES_MAX)]
    folding = RatioInterval(0.05)
    below = {margin: LabelFailures(margin) for margin in GRID}
    for number, arm in enumerate(labels(12.0, 0.3, 600, seed=5)):
        share = shares[number % len(shares)]
        folding.update(arm, share)
        for test in below.values():
            test.update(arm, share)
    rejected = [margin for margin, test in below.items() if test.peak_log_e >= log_threshold(0.025)]
    assert folding.to_state()["folded_low"] is not None
    assert len(folding.to_state()["shares"]) <= SHARES_MAX
    assert folding.low == max(rejected)
