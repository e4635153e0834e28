"""The interval for p1/p0, for all inputs."""

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.stats import LabelFailures, RatioInterval, log_threshold

patient = settings(deadline=None, max_examples=60)  # no deadline: other work may share the machine

labels = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.05, 0.25, 0.5, 0.9])), max_size=60)


def limits(interval):
    low, high = interval.low, interval.high
    return (0.0 if low is None else low), (float("inf") if high is None else high)


@patient
@given(labels)
def test_it_only_ever_narrows(events):
    interval = RatioInterval(0.1)
    low, high = limits(interval)
    for event in events:
        interval.update(*event)
        new_low, new_high = limits(interval)
        assert new_low >= low
        assert new_high <= high
        low, high = new_low, new_high


@patient
@given(labels)
def test_less_certainty_is_never_wider(events):
    strict, loose = RatioInterval(0.01), RatioInterval(0.2)
    for event in events:
        strict.update(*event)
        loose.update(*event)
    assert limits(loose)[0] >= limits(strict)[0]
    assert limits(loose)[1] <= limits(strict)[1]


@patient
@given(labels)
def test_swapping_the_arms_mirrors_it(events):
    interval, mirrored = RatioInterval(0.1), RatioInterval(0.1)
    for arm, share in events:
        interval.update(arm, share)
        mirrored.update(1 - arm, 1 - share)
    low, high = limits(interval)
    assert abs(low * limits(mirrored)[1] - 1) < 1e-12 or low == 0.0
    assert (low == 0.0) == (mirrored.high is None)
    assert (interval.high is None) == (mirrored.low is None)
    assert high > 0.0


@patient
@given(labels)
def test_it_says_more_than_stable_exactly_when_the_failure_test_alarms(events):
    interval, test = RatioInterval(0.1), LabelFailures()
    for event in events:
        interval.update(*event)
        test.update(*event)
    assert (interval.low is not None and interval.low >= 1.0) == (test.peak_log_e >= log_threshold(0.05))


@patient
@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0.01, 0.99)), min_size=20, max_size=40), st.integers(0, 40))
def test_it_is_restored_bit_for_bit_after_folding(events, cut):
    straight, first = RatioInterval(0.1), RatioInterval(0.1)
    for event in events:
        straight.update(*event)
    for event in events[:cut]:
        first.update(*event)
    second = RatioInterval.from_state(orjson.loads(orjson.dumps(first.to_state())))
    for event in events[cut:]:
        second.update(*event)
    assert second.to_state() == straight.to_state()
