"""The dynamic programme, checked by enumerating every sequence, and then used as the oracle of the implementation."""

import math
import random

import pytest

from cohort.stats import LabelFailures, log_threshold
from cohort.stats.exact import LABELS_MAX, crossing
from cohort.stats.failures import RATIOS, WEIGHTS


def enumerated(process, share, true_share, threshold, labels):
    """(probability of crossing, expected labels until then or the end), by following the implementation down both branches."""
    if process.peak_log_e >= threshold:
        return 1.0, 0.0
    if labels == 0:
        return 0.0, 0.0
    probability, mean = 0.0, 1.0
    for arm, part in ((1, true_share), (0, 1 - true_share)):
        branch = LabelFailures.from_state(process.to_state())
        branch.update(arm, share)
        crossed, further = enumerated(branch, share, true_share, threshold, labels - 1)
        probability += part * crossed
        mean += part * further
    return probability, mean


@pytest.mark.parametrize(("share", "true_share", "alpha"), [(0.25, 0.25, 0.2), (0.5, 0.7, 0.15), (0.05, 0.05, 0.05), (0.05, 0.3, 0.01)])
def test_the_programme_equals_the_enumeration_of_every_sequence(share, true_share, alpha):
    expected = enumerated(LabelFailures(), share, true_share, log_threshold(alpha), 11)
    found = crossing(RATIOS, WEIGHTS, share, true_share, log_threshold(alpha), 11)
    assert found.probability == pytest.approx(expected[0], rel=1e-12)
    assert found.mean_labels == pytest.approx(expected[1], rel=1e-12)
    assert found.probability > 0


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_the_false_alarm_probability_is_below_alpha_and_not_wastefully_so(share, alpha):
    false_alarm = crossing(RATIOS, WEIGHTS, share, share, log_threshold(alpha), 3000).probability
    assert alpha / 3 < false_alarm <= alpha


def test_simulating_the_implementation_agrees_with_the_programme():
    runs, labels, share, threshold = 3000, 120, 0.25, log_threshold(0.05)
    rng = random.Random(20)
    crossed = 0
    for _ in range(runs):
        process = LabelFailures()
        for _ in range(labels):
            process.update(1 if rng.random() < share else 0, share)
            if process.peak_log_e >= threshold:
                crossed += 1
                break
    exact = crossing(RATIOS, WEIGHTS, share, share, threshold, labels).probability
    assert abs(crossed / runs - exact) < 4 * math.sqrt(exact * (1 - exact) / runs)


def test_the_exact_threshold_of_section_6_10_is_lower_than_the_one_of_ville():
    at_80 = crossing(RATIOS, WEIGHTS, 0.05, 0.05, math.log(80), 5000).probability
    assert at_80 < 0.01  # so 100 is not needed for this horizon


@pytest.mark.parametrize("labels", [0, LABELS_MAX + 1])
def test_a_horizon_out_of_range_is_refused(labels):
    with pytest.raises(ValueError, match="labels"):
        crossing(RATIOS, WEIGHTS, 0.5, 0.5, 1.0, labels)
