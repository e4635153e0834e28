"""Section 6.3: values worked out by hand, and the corner where the cap would turn a bet round."""

import math

import pytest

from cohort.stats import LabelBinary


def test_the_first_failure_bets_with_the_prior_rate_of_one_in_a_hundred():
    process = LabelBinary(ratios=(3.0,), weights=(1.0,))
    process.update(1, 0.5, True)
    # pooled .01: p0 = .01/2 = .005, p1 = .015, pbar = .01, factor 1.5
    assert math.exp(process.log_e) == pytest.approx(1.5, rel=1e-13)


def test_a_success_moves_the_evidence_the_other_way():
    process = LabelBinary(ratios=(3.0,), weights=(1.0,))
    process.update(1, 0.5, False)
    assert math.exp(process.log_e) == pytest.approx(0.985 / 0.99, rel=1e-13)
    process.update(0, 0.5, False)  # pooled now 1/101
    pooled = 1 / 101
    assert math.exp(process.log_e) == pytest.approx(0.985 / 0.99 * (1 - pooled / 2) / (1 - pooled), rel=1e-13)


def test_the_bet_uses_the_past_only_and_both_arms():
    process = LabelBinary(ratios=(3.0,), weights=(1.0,))
    for arm in (0, 1):
        process.update(arm, 0.5, True)
    before = process.log_e
    process.update(0, 0.5, True)  # pooled (2 + 1)/(2 + 100); a stable failure multiplies by p0/pbar = 1/2 whatever the rate
    assert process.log_e - before == pytest.approx(math.log(0.5), rel=1e-13)
    assert (process.units_stable, process.units_candidate, process.failures_stable, process.failures_candidate) == (2, 1, 2, 1)


def test_the_candidate_rate_is_capped():
    process = LabelBinary(ratios=(8.0,), weights=(1.0,))
    for _ in range(900):
        process.update(0, 0.05, True)
    before = process.log_e
    pooled = 901 / 1000
    stable = pooled / (1 + 0.05 * 7)
    mean = 0.05 * 0.95 + 0.95 * stable
    process.update(1, 0.05, True)
    assert process.log_e - before == pytest.approx(math.log(0.95 / mean), rel=1e-9)


def test_no_bet_is_turned_round_when_nearly_everything_fails():
    process = LabelBinary()
    for _ in range(20_000):
        process.update(0, 0.001, True)
    before = process.log_e
    process.update(1, 0.001, False)  # a success of the candidate never speaks against it
    assert process.log_e <= before


def test_a_prior_rate_counts_for_a_hundred_units():
    process = LabelBinary(ratios=(3.0,), weights=(1.0,), prior_rate=0.2)
    process.update(1, 0.5, True)
    before = process.log_e
    process.update(1, 0.5, False)  # pooled (1 + 20)/(1 + 100): p0 half of it, p1 three halves
    pooled = 21 / 101
    assert process.log_e - before == pytest.approx(math.log((1 - 1.5 * pooled) / (1 - pooled)), rel=1e-12)
    assert LabelBinary.from_state(process.to_state()).to_state() == process.to_state()


@pytest.mark.parametrize("rate", [0.0, 1.0, math.nan])
def test_a_prior_rate_that_is_no_rate_is_refused(rate):
    with pytest.raises(ValueError, match="prior_rate"):
        LabelBinary(prior_rate=rate)


@pytest.mark.parametrize(("arm", "share"), [(3, 0.5), (1, 2.0), (1, math.nan)])
def test_an_event_that_cannot_be_is_refused(arm, share):
    with pytest.raises(ValueError, match=r"arm|share"):
        LabelBinary().update(arm, share, True)
