"""Drift is said only where it is certain, a baseline never changes once it is frozen, and the ring of lookups counts what it holds."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.base.clock import ManualClock
from cohort.gateway.cache.semantic.acceptance import Grade
from cohort.gateway.cache.semantic.baselines import Baselines
from cohort.gateway.cache.semantic.drift import FALSE_HITS, HITS, MEASURES, Counts, Measure, Steadiness, Watch, judge
from cohort.gateway.cache.semantic.proportion import difference
from cohort.gateway.cache.semantic.recorded import SAMPLE_MAX, Recorded
from cohort.gateway.cache.semantic.tally import Watches
from cohort.gateway.log import Log

SMALL = Measure("small", 5, 20, 10, 8, 0.1, True)
COUNTS = st.tuples(st.integers(0, 400), st.integers(0, 400)).map(lambda pair: Counts(min(pair), max(pair)))


@given(st.sampled_from(MEASURES), COUNTS, COUNTS)
def test_too_few_samples_are_never_steady_nor_drifted_and_drift_lies_beyond_the_margin(
    measure: Measure, baseline: Counts, recent: Counts
) -> None:
    found = judge(measure, baseline, recent)
    assert (found.state is Steadiness.TOO_FEW) == (min(baseline.total, recent.total) < measure.needed)
    if found.state is Steadiness.DRIFTED:
        apart = recent.count / recent.total - baseline.count / baseline.total
        assert abs(apart) > measure.margin
        assert measure.falls or apart > 0
        assert found.low <= apart <= found.high


def test_a_fall_of_hits_is_drift_and_a_fall_of_false_hits_is_none() -> None:
    assert judge(HITS, Counts(500, 1000), Counts(300, 1000)).state is Steadiness.DRIFTED
    assert judge(HITS, Counts(500, 1000), Counts(480, 1000)).state is Steadiness.STEADY
    assert judge(FALSE_HITS, Counts(2, 200), Counts(30, 200)).state is Steadiness.DRIFTED
    assert judge(FALSE_HITS, Counts(30, 200), Counts(2, 200)).state is Steadiness.STEADY


def test_equal_shares_are_seldom_called_drift() -> None:
    chance = random.Random(7)
    called = 0
    for _ in range(300):
        baseline, recent = (Counts(sum(chance.random() < 0.4 for _ in range(1000)), 1000) for _ in range(2))
        called += judge(HITS, baseline, recent).state is Steadiness.DRIFTED
    assert called == 0


@given(st.lists(st.booleans(), max_size=60))
def test_a_baseline_is_the_first_after_the_warm_up_and_the_newest_are_compared(seen: list[bool]) -> None:
    watch = Watch(SMALL)
    frozen = [watch.add(is_so) for is_so in seen]
    first, later = seen[5:25], seen[25:][-10:]
    assert watch.baseline == Counts(sum(first), len(first))
    assert watch.recent == Counts(sum(later), len(later))
    assert [at for at, is_frozen in enumerate(frozen) if is_frozen] == ([24] if len(seen) >= 25 else [])


def test_a_frozen_baseline_outlives_the_process_and_a_torn_file_is_none(tmp_path: Path) -> None:
    path = tmp_path / "labels" / "baselines"
    kept = Baselines(path)
    kept.load()
    kept.sync()
    assert not path.exists()
    kept.freeze("support", "rel_1", "hits", Counts(3, 9))
    kept.sync()
    again = Baselines(path)
    again.load()
    assert (again.find("support", "rel_1", "hits"), again.find("support", "rel_2", "hits")) == (Counts(3, 9), None)
    assert Watch(HITS, again.find("support", "rel_1", "hits")).frozen
    path.write_bytes(path.read_bytes()[:-3])
    torn = Baselines(path)
    torn.load()
    assert torn.find("support", "rel_1", "hits") is None


def test_what_begins_and_ends_to_drift_is_said_once(tmp_path: Path) -> None:
    said = io.StringIO()
    watches = Watches(Baselines(tmp_path / "baselines"), Log("gw", ManualClock(), said))

    def look(times: int, found: bool) -> list[str]:
        before = len(said.getvalue().splitlines())
        for _ in range(times):
            watches.looked("support", "rel_1", found)
        watches.judge()
        watches.judge()
        return [json.loads(line)["event"] for line in said.getvalue().splitlines()[before:]]

    assert look(HITS.warm_up + HITS.baseline, True) == []
    assert look(HITS.needed, True) == []
    assert look(HITS.needed, False) == ["cache_drifted"]
    assert look(HITS.recent, True) == ["cache_steady"]
    for grade in [Grade.SAME] * FALSE_HITS.baseline + [Grade.UNCLEAR] * 99 + [Grade.OTHER] * FALSE_HITS.needed:
        watches.drawn("support", "rel_1", grade)
    found = {drift.measure: drift for _, _, drift in watches.judge()}["false_hits"]
    assert (found.state, found.baseline, found.recent.total) == (Steadiness.DRIFTED, Counts(0, 200), FALSE_HITS.needed)


@settings(max_examples=30)
@given(st.integers(0, 2 * SAMPLE_MAX + 50), st.integers(0, 2**32))
def test_the_ring_counts_the_newest_lookups_and_forgets_the_grades_of_older_ones(count: int, seed: int) -> None:
    chance, recorded = random.Random(seed), Recorded()
    told: list[tuple[float | None, bool, Grade | None]] = []
    for _ in range(count):
        cosine = chance.choice([None, 0.72, 0.86, 0.999, 1.0])
        told.append((cosine, cosine == 0.999, None))
        ticket = recorded.add(cosine, cosine == 0.999)
        late = chance.randrange(max(len(told) - 50, 0), len(told)) if chance.random() < 0.3 else None
        if late is not None and told[late][2] is None:
            grade = chance.choice(list(Grade))
            told[late] = (*told[late][:2], grade)
            recorded.graded(ticket - (len(told) - 1 - late), grade)
    state, newest = recorded.state(), told[-SAMPLE_MAX:]
    assert state["recorded"] == len(newest)
    for band in state["bands"]:
        of = [entry for entry in newest if entry[0] is not None and min(int(entry[0] * 100 + 1e-6), 99) / 100 == band["from"]]
        assert band["found"] == len(of)
        assert band["served"] == sum(served for _, served, _ in of)
        assert [band[grade.value] for grade in Grade] == [sum(found is grade for _, _, found in of) for grade in Grade]


def test_what_lies_below_the_threshold_never_counts_as_above_it() -> None:
    recorded = Recorded()
    recorded.add(0.8549, below=0.855)
    assert [band["from"] for band in recorded.state()["bands"]] == [0.84]


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((0, 10), (0, 10), -0.2775, 0.2775)],
)
def test_the_interval_of_a_difference_is_newcombes(one: tuple[int, int], other: tuple[int, int], low: float, high: float) -> None:
    assert difference(one, other, 1.959964) == pytest.approx((low, high), abs=5e-5)
    with pytest.raises(ValueError, match="above 0"):
        difference((0, 0), other, 1.96)
