"""The histogram behind quantiles and ranks."""

import math

import pytest

from cohort.stats import Sketch
from cohort.stats.sketch import VALUE_MAX


def filled(*values):
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


def test_an_empty_sketch_knows_no_quantile_and_ranks_in_the_middle():
    assert Sketch().quantile(0.5) is None
    assert Sketch().rank(3.0) == 0.5


@pytest.mark.parametrize(("value", "rank"), [(5.0, 1 / 10), (10.0, 2 / 10), (15.0, 3 / 10), (20.0, 5 / 10), (30.0, 8 / 10), (99.0, 9 / 10)])
def test_mid_ranks_by_hand(value, rank):
    assert filled(10.0, 20.0, 20.0, 30.0).rank(value) == pytest.approx(rank, rel=1e-15)


@pytest.mark.parametrize(("q", "value"), [(0.0, 10.0), (0.25, 10.0), (0.34, 20.0), (0.5, 20.0), (0.99, 20.0), (1.0, 30.0)])
def test_quantiles_by_hand(q, value):
    assert filled(10.0, 20.0, 20.0, 30.0).quantile(q) == pytest.approx(value, rel=0.0100001)


def test_zero_is_a_value_of_its_own():
    sketch = filled(0.0, 0.0, 0.0, 1.0)
    assert sketch.quantile(0.5) == 0.0
    assert sketch.rank(0.0) == pytest.approx(4 / 10)


def test_values_beyond_the_range_share_the_top_bin():
    sketch = filled(VALUE_MAX, 1e300)
    assert sketch.count == 2
    assert sketch.quantile(0.0) == sketch.quantile(1.0) == pytest.approx(VALUE_MAX, rel=0.03)


def test_a_count_adds_as_many():
    many, one = Sketch(), Sketch()
    many.add(7.0, 1000)
    for _ in range(1000):
        one.add(7.0)
    assert many.to_state() == one.to_state()


def test_memory_is_bounded_whatever_is_counted():
    sketch = Sketch()
    for step in range(-3000, 3000):
        sketch.add(math.exp(step / 10 if step < 7000 else 0))
    assert len(sketch.to_state()["bins"]) <= 2766


@pytest.mark.parametrize("value", [-1.0, -1e-300, math.nan, math.inf])
def test_what_is_no_value_is_refused(value):
    sketch = Sketch()
    for call in (sketch.add, sketch.rank):
        with pytest.raises(ValueError, match="value is"):
            call(value)
    assert sketch.count == 0


@pytest.mark.parametrize("count", [0, -1])
def test_a_count_below_one_is_refused(count):
    with pytest.raises(ValueError, match="count is"):
        Sketch().add(1.0, count)


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
def test_a_quantile_that_is_no_part_is_refused(q):
    with pytest.raises(ValueError, match="q is"):
        filled(1.0).quantile(q)


@pytest.mark.parametrize("error", [0.0, 0.5, math.nan])
def test_a_resolution_out_of_range_is_refused(error):
    with pytest.raises(ValueError, match="relative_error"):
        Sketch(error)


def test_sketches_of_different_resolution_are_not_merged_silently():
    with pytest.raises(ValueError, match="cannot merge"):
        Sketch(0.01).merge(Sketch(0.02))


def test_merging_a_sketch_into_itself_doubles_it():
    sketch = filled(1.0, 2.0)
    sketch.merge(sketch)
    assert sketch.count == 4


@pytest.mark.parametrize("bins", [[[-1, 2]], [[9_999_999, 1]], [[3, 0]]])
def test_a_state_with_impossible_bins_is_refused(bins):
    with pytest.raises(ValueError, match="bin"):
        Sketch.from_state({"kind": "sketch", "relative_error": 0.01, "bins": bins})
