"""State, for all inputs: saved and restored anywhere, a test goes on bit for bit; nothing in, nothing out."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.stats import (
    GlobalAlarm,
    LabelBinary,
    LabelFailures,
    LabelOrdered,
    LabelSign,
    LimitCertificate,
    OneSample,
    RatioInterval,
    SafetyCertificate,
    Sketch,
    SplitAudit,
)

patient = settings(deadline=None, max_examples=60)  # no deadline: other work may share the machine

arms = st.integers(0, 1)
shares = st.one_of(st.sampled_from([0.0, 0.05, 0.25, 1.0]), st.floats(0.0, 1.0))
fails = st.booleans()
values = st.one_of(st.just(0.0), st.floats(0.0, 1e300))
logs = st.floats(-700.0, 700.0)

label = st.tuples(arms, shares)
label_failed = st.tuples(arms, shares, fails)
label_value = st.tuples(arms, shares, values)
failed = st.tuples(fails)

CASES = {
    "LabelFailures": (lambda: LabelFailures(1.05), label),
    "LabelBinary": (LabelBinary, label_failed),
    "LabelBinary, prior rate": (lambda: LabelBinary(prior_rate=0.2), label_failed),
    "LabelOrdered": (LabelOrdered, label_value),
    "LabelOrdered, scores": (lambda: LabelOrdered(1.02, lower_is_worse=True), label_value),
    "LabelSign": (LabelSign, failed),
    "OneSample": (lambda: OneSample(0.01), failed),
    "LimitCertificate": (lambda: LimitCertificate(0.02), failed),
    "SafetyCertificate": (lambda: SafetyCertificate(3.0), label),
    "RatioInterval": (lambda: RatioInterval(0.05), label),
    "SplitAudit": (SplitAudit, label),
    "GlobalAlarm": (lambda: GlobalAlarm((0.5, 0.3, 0.2)), st.tuples(st.tuples(logs, logs, logs))),
}
cases = pytest.mark.parametrize(("make", "events"), CASES.values(), ids=CASES.keys())


def feed(process, events):
    for event in events:
        process.update(*event)
    return process


def saved(process):
    return orjson.dumps(process.to_state())


def restored(process):
    return type(process).from_state(orjson.loads(saved(process)))


@cases
@patient
@given(data=st.data())
def test_a_restored_test_goes_on_bit_for_bit(make, events, data):
    before, further = data.draw(st.lists(events, max_size=25)), data.draw(st.lists(events, max_size=25))
    straight = feed(make(), before + further)
    interrupted = feed(restored(feed(make(), before)), further)
    assert saved(interrupted) == saved(straight)


@cases
@patient
@given(data=st.data())
def test_saving_changes_nothing(make, events, data):
    process = feed(make(), data.draw(st.lists(events, max_size=25)))
    first = saved(process)
    assert saved(process) == first == saved(restored(process))


@cases
def test_without_updates_there_is_no_evidence(make, events):
    process = make()
    for one in (process, restored(process)):
        if isinstance(one, RatioInterval):
            assert (one.low, one.high) == (None, None)
        else:
            assert (one.log_e, one.peak_log_e) == (0.0, 0.0)


CERTAIN = {name: case for name, case in CASES.items() if case[1] in (label, label_failed, label_value) and name != "SplitAudit"}


@pytest.mark.parametrize(("make", "events"), CERTAIN.values(), ids=CERTAIN.keys())
@patient
@given(data=st.data())
def test_an_assignment_that_was_certain_changes_nothing(make, events, data):
    process = feed(make(), data.draw(st.lists(events, max_size=15)))
    before = saved(process)
    arm, _, *rest = data.draw(events)
    process.update(arm, data.draw(st.sampled_from([0.0, 1.0])), *rest)
    assert saved(process) == before


@patient
@given(st.lists(label_value, max_size=40))
def test_the_peak_is_the_largest_evidence_so_far(events):
    process, top = LabelOrdered(), 0.0
    for event in events:
        process.update(*event)
        top = max(top, process.log_e)
        assert process.peak_log_e == top


@patient
@given(st.lists(values, max_size=40), st.lists(values, max_size=40))
def test_a_restored_sketch_goes_on_bit_for_bit(before, further):
    straight, first = Sketch(), Sketch()
    for value in before:
        straight.add(value)
        first.add(value)
    second = restored(first)
    for value in further:
        assert second.rank(value) == straight.rank(value)
        straight.add(value)
        second.add(value)
    assert saved(second) == saved(straight)
