"""Section 7: the closed forms against the bound of section 8 and against exact crossing times."""

import math

import pytest

from cohort.stats import expected_units_to_certificate, expected_units_to_detect, log_threshold, smallest_ratio_detected
from cohort.stats.exact import crossing
from cohort.stats.failures import RATIOS, WEIGHTS
from cohort.stats.planning import information

BOUND = [
    (0.01, 2.0, 0.05, 1256),
    (0.01, 2.0, 0.25, 1678),
    (0.01, 5.0, 0.05, 123),
    (0.01, 5.0, 0.25, 180),
    (0.01, 10.0, 0.05, 36),
    (0.01, 10.0, 0.25, 57),
    (0.02, 1.5, 0.05, 2205),
    (0.02, 1.5, 0.25, 2875),
]


@pytest.mark.parametrize(("base", "ratio", "share", "units"), BOUND)
def test_the_information_bound_is_that_of_section_8(base, ratio, share, units):
    assert share * log_threshold(0.01) / information(base, ratio, share) == pytest.approx(units, abs=1)


@pytest.mark.parametrize(("base", "ratio", "share", "units"), BOUND)
def test_the_forecast_is_close_to_the_exact_mean(base, ratio, share, units):
    mean = base * (share * ratio + 1 - share)
    exact = crossing(RATIOS, WEIGHTS, share, share * base * ratio / mean, log_threshold(0.01), 20_000, tail=1e-5).mean_labels / mean
    assert expected_units_to_detect(base, ratio, share, 0.01) == pytest.approx(exact, rel=0.2)


@pytest.mark.parametrize(("base", "share", "units"), [(0.01, 0.05, 40_000), (0.01, 0.25, 8_000), (0.02, 0.5, 3_000)])
def test_the_smallest_ratio_is_detected_about_four_times_in_five(base, share, units):
    ratio = smallest_ratio_detected(base, share, 0.01, units)
    mean = base * (share * ratio + 1 - share)
    failures = round(units * mean)
    found = crossing(RATIOS, WEIGHTS, share, share * base * ratio / mean, log_threshold(0.01), failures)
    assert found.probability == pytest.approx(0.8, abs=0.1)


def test_more_units_and_less_power_detect_smaller_ratios():
    few, many = smallest_ratio_detected(0.01, 0.05, 0.01, 5_000), smallest_ratio_detected(0.01, 0.05, 0.01, 50_000)
    assert many < few
    assert smallest_ratio_detected(0.01, 0.05, 0.01, 5_000, power=0.5) < few


@pytest.mark.parametrize(
    ("base", "share", "units"), [(0.01, 0.05, 0), (0.01, 0.05, 1), (0.01, 0.0, 1e6), (0.01, 1.0, 1e6), (0.0, 0.5, 1e6)]
)
def test_too_little_to_see_anything_is_none_and_not_a_number(base, share, units):
    assert smallest_ratio_detected(base, share, 0.01, units) is None


@pytest.mark.parametrize(("base", "ratio", "share"), [(0.0, 2.0, 0.5), (0.01, 1.0, 0.5), (0.01, 2.0, 0.0), (0.01, 2.0, 1.0)])
def test_what_can_never_be_seen_takes_for_ever(base, ratio, share):
    assert expected_units_to_detect(base, ratio, share, 0.01) == math.inf
    assert expected_units_to_certificate(base, ratio, share, 0.05) == math.inf


@pytest.mark.parametrize("ratio", [50.0, 100.0, 1e9])
def test_a_ratio_beyond_certain_failure_is_read_as_certain_failure(ratio):
    assert 0 < expected_units_to_detect(0.02, ratio, 0.05, 0.01) < 1000


@pytest.mark.parametrize(("base", "share"), [(-0.1, 0.5), (1.0, 0.5), (math.nan, 0.5), (0.1, -1.0), (0.1, math.nan)])
def test_rates_that_are_none_are_refused(base, share):
    with pytest.raises(ValueError, match=r"base_rate|share"):
        expected_units_to_detect(base, 2.0, share, 0.01)
