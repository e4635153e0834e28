"""The theorem, for all inputs: no test here can be expected to grow while its null holds (gates.md section 6.1).

Expectations are exact sums over everything that can happen next; only rounding is allowed for.
"""

import math

import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cohort.stats import LabelBinary, LabelFailures, LabelOrdered, LabelSign, LimitCertificate, OneSample, SafetyCertificate, SplitAudit

patient = settings(deadline=None, max_examples=60)  # no deadline: other work may share the machine

shares = st.floats(0.001, 0.999)
arms = st.integers(0, 1)
rates = st.floats(0.0, 1.0)
labelled = st.lists(st.tuples(arms, shares), max_size=30)
values = st.one_of(st.just(0.0), st.floats(1e-9, 1e12))

TOLERANCE = 1e-11


def growth(process, *event):
    """By what factor the mixture grows with `event`; `process` itself stays as it is."""
    branch = type(process).from_state(orjson.loads(orjson.dumps(process.to_state())))
    branch.update(*event)
    return math.exp(branch.log_e - process.log_e)


def after(process, events):
    for event in events:
        process.update(*event)
    return process


@patient
@given(labelled, shares, st.floats(0.2, 5.0))
def test_failures_expect_exactly_one_at_the_margin(past, share, margin):
    process = after(LabelFailures(margin), past)
    candidate = share * margin / (share * margin + 1 - share)
    assert candidate * growth(process, 1, share) + (1 - candidate) * growth(process, 0, share) == pytest.approx(1.0, rel=TOLERANCE)


@patient
@given(labelled, shares, st.floats(0.2, 5.0), rates)
def test_failures_expect_no_growth_when_the_candidate_is_better_than_the_margin(past, share, margin, part):
    process = after(LabelFailures(margin), past)
    candidate = part * share * margin / (share * margin + 1 - share)
    assert candidate * growth(process, 1, share) + (1 - candidate) * growth(process, 0, share) <= 1 + TOLERANCE


@patient
@given(labelled, shares, st.floats(1.05, 20.0), st.floats(1.0, 50.0))
def test_the_certificate_expects_no_growth_when_the_candidate_is_at_least_as_bad_as_its_ratio(past, share, ratio, worse):
    process = after(SafetyCertificate(ratio), past)
    for true_ratio, exact in ((ratio, True), (ratio * worse, False)):
        stable = (1 - share) / (1 - share + share * true_ratio)
        expected = stable * growth(process, 0, share) + (1 - stable) * growth(process, 1, share)
        assert expected <= 1 + TOLERANCE
        assert not exact or expected == pytest.approx(1.0, rel=TOLERANCE)


@patient
@given(st.lists(st.tuples(arms, shares, st.booleans()), max_size=30), shares, st.booleans(), st.floats(0.001, 0.999))
def test_failures_and_successes_expect_exactly_one_for_each_outcome(past, share, failed, prior):
    process = after(LabelBinary(prior_rate=prior), past)
    assert share * growth(process, 1, share, failed) + (1 - share) * growth(process, 0, share, failed) == pytest.approx(1.0, rel=TOLERANCE)


@patient
@given(st.lists(st.tuples(arms, shares, st.booleans()), max_size=30), shares, rates, rates, st.floats(0.001, 0.999))
def test_failures_and_successes_expect_no_growth_when_the_candidate_fails_less(past, share, stable, part, prior):
    process = after(LabelBinary(prior_rate=prior), past)
    expected = 0.0
    for arm, weight, rate in ((1, share, stable * part), (0, 1 - share, stable)):
        expected += weight * (rate * growth(process, arm, share, True) + (1 - rate) * growth(process, arm, share, False))
    assert expected <= 1 + TOLERANCE


@patient
@given(st.lists(st.tuples(arms, shares, values), max_size=30), shares, values, st.booleans())
def test_ordered_outcomes_expect_exactly_one_for_each_value(past, share, value, lower_is_worse):
    process = after(LabelOrdered(lower_is_worse=lower_is_worse), past)
    assert share * growth(process, 1, share, value) + (1 - share) * growth(process, 0, share, value) == pytest.approx(1.0, rel=TOLERANCE)


@st.composite
def no_worse(draw):
    """(value, P under stable, P under candidate) with the candidate stochastically no larger: its mass was moved downwards only."""
    points = sorted(draw(st.lists(st.floats(0.1, 1e4), min_size=2, max_size=6, unique=True)))
    masses = [draw(st.floats(0.01, 1.0)) for _ in points]
    total = math.fsum(masses)
    stable = [mass / total for mass in masses]
    candidate = list(stable)
    for place in range(1, len(points)):
        target = draw(st.integers(0, place))
        moved = candidate[place] * draw(rates)
        candidate[place] -= moved
        candidate[target] += moved
    return list(zip(points, stable, candidate, strict=True))


@patient
@given(st.lists(st.tuples(arms, shares, values), max_size=20), shares, no_worse(), st.booleans(), st.floats(1.0, 2.0))
def test_ordered_outcomes_expect_no_growth_when_the_candidate_is_stochastically_no_worse(past, share, law, lower_is_worse, margin):
    process = after(LabelOrdered(margin, lower_is_worse), past)
    if lower_is_worse:  # then the candidate has to be the larger one
        law = [(value, candidate, stable) for value, stable, candidate in law]
    expected = 0.0
    for value, stable, candidate in law:
        expected += (1 - share) * stable * growth(process, 0, share, value) + share * candidate * growth(process, 1, share, value)
    assert expected <= 1 + TOLERANCE


@patient
@given(st.lists(st.booleans(), max_size=30), st.floats(0.001, 0.9), rates)
def test_a_limit_expects_no_growth_at_or_below_it(past, limit, part):
    process = OneSample(limit)
    for failed in past:
        process.update(failed)
    for rate in (limit, limit * part):
        assert rate * growth(process, True) + (1 - rate) * growth(process, False) <= 1 + TOLERANCE
    assert limit * growth(process, True) + (1 - limit) * growth(process, False) == pytest.approx(1.0, rel=TOLERANCE)


@patient
@given(st.lists(st.booleans(), max_size=30), st.floats(0.001, 0.9), rates)
def test_a_limit_certificate_expects_no_growth_at_or_above_it(past, limit, part):
    process = LimitCertificate(limit)
    for failed in past:
        process.update(failed)
    rate = limit + (1 - limit) * part
    assert rate * growth(process, True) + (1 - rate) * growth(process, False) <= 1 + TOLERANCE
    assert limit * growth(process, True) + (1 - limit) * growth(process, False) == pytest.approx(1.0, rel=TOLERANCE)


@patient
@given(labelled, shares)
def test_the_split_audit_expects_exactly_one_for_a_sound_split(past, share):
    process = after(SplitAudit(), past)
    assert share * growth(process, 1, share) + (1 - share) * growth(process, 0, share) == pytest.approx(1.0, rel=TOLERANCE)


@patient
@given(st.lists(st.booleans(), max_size=30), st.floats(0.0, 0.5))
def test_signs_expect_no_growth_when_the_candidate_is_worse_in_at_most_half_of_the_pairs(past, rate):
    process = LabelSign()
    for worse in past:
        process.update(worse)
    assert rate * growth(process, True) + (1 - rate) * growth(process, False) <= 1 + TOLERANCE


@patient
@given(labelled, st.floats(0.3, 3.0), st.floats(1.0, 3.0))
def test_a_larger_margin_never_finds_more_harm(events, margin, more):
    assert after(LabelFailures(margin * more), events).log_e <= after(LabelFailures(margin), events).log_e + TOLERANCE


@patient
@given(st.lists(st.tuples(arms, shares, st.booleans()), min_size=1, max_size=30))
def test_a_failure_of_the_candidate_never_speaks_for_it(events):
    process = after(LabelBinary(), events)
    share = events[-1][1]
    assume(0.01 < share < 0.99)
    assert growth(process, 1, share, True) >= 1 - TOLERANCE
    assert growth(process, 1, share, False) <= 1 + TOLERANCE
