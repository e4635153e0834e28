"""While a worker ends what it has begun, its successor has the file of what comparisons taught: the old one changes nothing in it any more."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

from cohort.base.clock import ManualClock
from cohort.gateway.cache.meaning import NOTHING, Meaning
from cohort.gateway.cache.semantic.acceptance import Grade
from cohort.gateway.cache.semantic.baselines import Baselines
from cohort.gateway.cache.semantic.labels import LabelBook
from cohort.gateway.cache.semantic.semantic import Semantic, Taught
from cohort.gateway.cache.semantic.store import Store
from cohort.gateway.log import Log

OLD, NEW, UNIT, TTL_S = b"o" * 16, b"n" * 16, "a" * 32, 60.0


def _never(error: OSError) -> None:
    raise error


def _worker(folder: Path, clock: ManualClock) -> tuple[Semantic, Taught]:
    taught = Taught(LabelBook(folder / "own", 8, clock, _never), LabelBook(folder / "pooled", 8, clock, _never), Baselines(folder / "base"))
    taught.own.load()
    taught.pooled.load()
    semantic = Semantic(Store(1 << 20, 10, clock), cast(Any, None), taught, lambda: 0.5, Log("gw", clock, io.StringIO()))
    return semantic, taught


def test_what_a_successor_learned_is_not_cleared_away_by_the_worker_before_it(tmp_path: Path, clock: ManualClock) -> None:
    draining, before = _worker(tmp_path, clock)
    before.own.add(OLD, UNIT, Grade.SAME, TTL_S)
    draining.retire()
    successor, taught = _worker(tmp_path, clock)
    clock.advance(TTL_S)
    successor.sweep()
    taught.own.add(NEW, UNIT, Grade.OTHER, TTL_S)  # in the place of what is over its time
    draining.sweep()
    draining.sync()
    assert _worker(tmp_path, clock)[1].own.find(NEW).against == 1


def test_a_tier_that_is_first_needed_while_its_worker_drains_changes_nothing_either(tmp_path: Path, clock: ManualClock) -> None:
    made: list[Taught] = []

    def make() -> Semantic:
        semantic, taught = _worker(tmp_path, clock)
        made.append(taught)
        return semantic

    meaning = Meaning(make, left=False)
    meaning.retire()
    assert (meaning.erase(UNIT), meaning.sweep(), meaning.state(), made) == (0, [], NOTHING, [])
    assert meaning.needed().state() == NOTHING == meaning.state()
    made[0].own.add(OLD, UNIT, Grade.OTHER, TTL_S)
    meaning.sync()
    assert not (tmp_path / "own").exists()


def test_what_a_former_worker_learned_is_there_before_anybody_asks_so_that_it_can_be_erased(tmp_path: Path, clock: ManualClock) -> None:
    _worker(tmp_path, clock)[1].own.add(OLD, UNIT, Grade.OTHER, TTL_S)
    meaning = Meaning(lambda: _worker(tmp_path, clock)[0], left=True)
    assert meaning.state()["labels"] == 1
    meaning.erase(UNIT)
    meaning.sync()
    assert _worker(tmp_path, clock)[1].own.find(OLD).against == 0


def test_a_comparison_that_ends_while_a_worker_drains_overwrites_nothing(tmp_path: Path, clock: ManualClock) -> None:
    draining, before = _worker(tmp_path, clock)
    draining.retire()
    _, taught = _worker(tmp_path, clock)
    taught.pooled.add(NEW, UNIT, Grade.OTHER, TTL_S)
    before.pooled.add(OLD, UNIT, Grade.SAME, TTL_S)
    found = _worker(tmp_path, clock)[1].pooled
    assert (found.find(NEW).against, found.find(OLD).same) == (1, 0)
