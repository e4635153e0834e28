"""The sketch, for all inputs: quantiles within the stated error, merging is union, ranks agree with counting."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.stats import Sketch

patient = settings(deadline=None, max_examples=60)  # no deadline: other work may share the machine

values = st.one_of(st.just(0.0), st.floats(1e-8, 1e14))
errors = st.sampled_from([0.001, 0.0099, 0.01, 0.05])
many = st.lists(values, max_size=80)


def filled(sample, error=0.01):
    sketch = Sketch(error)
    for value in sample:
        sketch.add(value)
    return sketch


@patient
@given(st.lists(values, min_size=1, max_size=80), st.floats(0.0, 1.0), errors)
def test_a_quantile_is_within_the_relative_error_of_the_true_one(sample, q, error):
    true = sorted(sample)[int(q * (len(sample) - 1))]
    assert abs(filled(sample, error).quantile(q) - true) <= error * true * (1 + 1e-9)


@patient
@given(many, many)
def test_merging_equals_counting_both(one, other):
    merged = filled(one)
    merged.merge(filled(other))
    assert merged.to_state() == filled(one + other).to_state()
    assert merged.count == len(one) + len(other)


@patient
@given(st.lists(values, max_size=40).flatmap(lambda sample: st.tuples(st.just(sample), st.permutations(sample))))
def test_order_does_not_matter(pair):
    assert filled(pair[0]).to_state() == filled(pair[1]).to_state()


@patient
@given(many, values)
def test_a_rank_is_the_mid_rank_up_to_the_width_of_a_bin(sample, value):
    rank = filled(sample).rank(value)
    surely_below = sum(other < value * 0.979 for other in sample)
    maybe_below = sum(other <= value * 1.021 for other in sample)
    assert (surely_below + 0.5) / (len(sample) + 1) <= rank <= (maybe_below + 0.5) / (len(sample) + 1)
    assert 0.0 < rank < 1.0


@patient
@given(st.lists(st.integers(0, 6), max_size=60), st.integers(0, 6))
def test_a_rank_among_far_apart_values_is_exact(exponents, at):
    sample = [10.0**exponent for exponent in exponents]
    below, same = sum(e < at for e in exponents), sum(e == at for e in exponents)
    assert filled(sample).rank(10.0**at) == pytest.approx((below + same / 2 + 0.5) / (len(sample) + 1), rel=1e-14)


@patient
@given(many, st.lists(values, min_size=2, max_size=20))
def test_ranks_never_fall_as_values_grow(sample, at):
    sketch = filled(sample)
    ranks = [sketch.rank(value) for value in sorted(at)]
    assert ranks == sorted(ranks)
    assert all(math.isfinite(rank) for rank in ranks)


@patient
@given(many, errors)
def test_absorbing_another_resolution_counts_everything(sample, error):
    sketch = Sketch(0.02)
    sketch.absorb(filled(sample, error))
    assert sketch.count == len(sample)
