"""Section 6.5 and the certificate for a stage with no stable arm."""

import math

import pytest

from cohort.stats import LimitCertificate, OneSample, log_threshold


def test_a_failure_multiplies_each_bet_by_its_ratio():
    process = OneSample(0.01)
    process.update(True)
    assert math.exp(process.log_e) == pytest.approx(0.28 * 1.5 + 0.27 * 2.2 + 0.2 * 4 + 0.15 * 8 + 0.1 * 14, rel=1e-12)


def test_a_success_lowers_the_evidence_by_hand():
    process = OneSample(0.05)
    process.update(False)
    expected = (0.28 * (1 - 0.075) + 0.27 * (1 - 0.11) + 0.2 * 0.8 + 0.15 * 0.6 + 0.1 * 0.3) / 0.95
    assert math.exp(process.log_e) == pytest.approx(expected, rel=1e-12)
    assert (process.units, process.failures) == (1, 0)


def test_no_bet_expects_more_than_the_cap():
    process = OneSample(0.5)
    process.update(True)  # .75, then .95 four times
    assert math.exp(process.log_e) == pytest.approx(0.28 * 1.5 + 0.72 * 1.9, rel=1e-12)


def test_a_failure_rate_far_above_the_limit_is_found_and_one_at_the_limit_is_not():
    harmful, fine = OneSample(0.01), OneSample(0.01)
    for number in range(1, 2001):
        harmful.update(number % 20 == 0)
        fine.update(number % 100 == 0)
    assert harmful.peak_log_e > log_threshold(0.001)
    assert fine.peak_log_e < log_threshold(0.1)


def test_successes_earn_the_limit_certificate_by_hand():
    process = LimitCertificate(0.1)
    process.update(False)
    expected = (0.3 * 0.99 + 0.2 * 0.98 + 0.2 * 0.96 + 0.15 * 0.94 + 0.15 * 0.92) / 0.9
    assert math.exp(process.log_e) == pytest.approx(expected, rel=1e-12)
    process.update(True)
    expected = (0.3 * 0.99 * 0.1 + 0.2 * 0.98 * 0.2 + 0.2 * 0.96 * 0.4 + 0.15 * 0.94 * 0.6 + 0.15 * 0.92 * 0.8) / 0.9
    assert math.exp(process.log_e) == pytest.approx(expected, rel=1e-12)


def test_a_failure_rate_at_the_limit_is_never_certified_here_and_one_far_below_is():
    at, below = LimitCertificate(0.05), LimitCertificate(0.05)
    for number in range(1, 1001):
        at.update(number % 20 == 0)
        below.update(number % 100 == 0)
    assert at.peak_log_e < log_threshold(0.05) < below.peak_log_e


@pytest.mark.parametrize("limit", [0.0, -0.1, 0.95, 1.0, math.nan])
def test_a_limit_that_is_no_rate_is_refused(limit):
    with pytest.raises(ValueError, match="limit is"):
        OneSample(limit)


@pytest.mark.parametrize("limit", [0.0, 1.0, math.nan])
def test_a_certificate_limit_that_is_no_rate_is_refused(limit):
    with pytest.raises(ValueError, match="limit is"):
        LimitCertificate(limit)
