"""Section 6.6: the roles are swapped, and the certificate is earned by failures of stable."""

import math

import pytest

from cohort.stats import SafetyCertificate, expected_units_to_certificate, log_threshold
from cohort.stats.certificate import CERTIFICATE_WEIGHTS, certificate_ratios, stable_share
from cohort.stats.exact import crossing


def test_one_failure_of_each_arm_by_hand():
    process = SafetyCertificate(4.0)  # w = 1/5: W = .8/(.8 + .8) = 1/2; bets 2, 4, 12
    process.update(0, 0.2)
    assert math.exp(process.log_e) == pytest.approx(0.2 * 4 / 3 + 0.55 * 8 / 5 + 0.25 * 24 / 13, rel=1e-13)
    process.update(1, 0.2)
    assert math.exp(process.log_e) == pytest.approx(0.2 * 8 / 9 + 0.55 * 16 / 25 + 0.25 * 48 / 169, rel=1e-13)
    assert (process.failures_stable, process.failures_candidate) == (1, 1)


def test_nothing_happening_certifies_nothing():
    assert SafetyCertificate(3.0).log_e == 0.0


def expected_failures(ratio, share, relative_rate, beta=0.05):
    """Mean failures until a candidate with `relative_rate` times stable's failure rate is certified."""
    true_share = (1 - share) / (1 - share + share * relative_rate)
    null = stable_share(share, ratio)
    return crossing(certificate_ratios(ratio), CERTIFICATE_WEIGHTS, null, true_share, log_threshold(beta), 3000, tail=1e-4).mean_labels


@pytest.mark.parametrize(("ratio", "share"), [(3.0, 0.05), (2.0, 0.25), (1.5, 0.5), (10.0, 0.05)])
@pytest.mark.parametrize("relative_rate", [1.0, 0.5, 0.1])
def test_the_mixture_needs_little_more_than_the_best_single_bet(ratio, share, relative_rate):
    null = stable_share(share, ratio)
    true_share = (1 - share) / (1 - share + share * relative_rate)
    best = crossing((ratio / relative_rate,), (1.0,), null, true_share, log_threshold(0.05), 3000, tail=1e-4).mean_labels
    assert expected_failures(ratio, share, relative_rate) <= 1.4 * best + 2


@pytest.mark.parametrize(("ratio", "share"), [(3.0, 0.05), (2.0, 0.25), (1.5, 0.5), (3.0, 0.25), (6.0, 0.05)])
def test_the_closed_form_of_planning_is_close_to_the_exact_time(ratio, share):
    exact = expected_failures(ratio, share, 1.0) / 0.01
    assert expected_units_to_certificate(0.01, ratio, share, 0.05) == pytest.approx(exact, rel=0.25)


@pytest.mark.parametrize("ratio", [3.0, 2.0, 1.5])
def test_a_candidate_exactly_at_the_ratio_is_certified_with_probability_at_most_beta(ratio):
    null = stable_share(0.25, ratio)
    wrong = crossing(certificate_ratios(ratio), CERTIFICATE_WEIGHTS, null, null, log_threshold(0.05), 2000).probability
    assert 0.005 < wrong <= 0.05


@pytest.mark.parametrize("ratio", [1.0, 0.5, math.nan, math.inf])
def test_a_ratio_that_would_rule_out_nothing_is_refused(ratio):
    with pytest.raises(ValueError, match="ratio is"):
        SafetyCertificate(ratio)
