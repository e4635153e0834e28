"""Whoever names runs and agents can push out nobody else's: what is remembered is given up only when it is settled and long untouched."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.base.clock import ManualClock
from cohort.gateway.spend.accounts import LabelsFull, LedgerFull, Limit, Room
from cohort.gateway.spend.ledger import Ledger

HOUR_S, DAY_S = 3601.0, 86_401.0


FEW = Room(accounts_max=16, labels_max=8, labels_of_one_max=4)


@pytest.fixture
def ledger(tmp_path: Path, clock: ManualClock) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "spend", clock, FEW)
    yield made
    made.close()


def run(name: str, opener: str = "one", most: int = 1000) -> list[Limit]:
    return [Limit(f"run\0{name}\0", most, name, opener)]


def spend(ledger: Ledger, name: str, opener: str = "one", amount: int = 7) -> None:
    ledger.settle(ledger.reserve(run(name, opener), amount, 60.0), amount)


def test_a_caller_that_names_runs_without_end_is_refused_and_keeps_nobody_from_anything(ledger: Ledger, clock: ManualClock) -> None:
    spend(ledger, "victim", "two")
    for number in range(4):
        spend(ledger, f"run-{number}")
    for number in range(4, 50):
        clock.advance(60)
        with pytest.raises(LabelsFull, match="4 runs and agents of this caller"):
            spend(ledger, f"run-{number}")
    assert ledger.balance("run\0victim\0") == ledger.balance("run\0run-0\0") == (7, 0)
    spend(ledger, "another", "two")
    clock.advance(HOUR_S)
    spend(ledger, "run-4")
    assert ledger.balance("run\0victim\0") == (7, 0), "an hour makes room among one's own"
    assert [ledger.balance(f"run\0run-{number}\0")[0] for number in range(5)] == [0, 7, 7, 7, 7]


def test_others_runs_make_room_after_a_day_and_what_is_held_never(ledger: Ledger, clock: ManualClock) -> None:
    held = ledger.reserve(run("held", "two"), 5, 10 * DAY_S)
    spend(ledger, "victim", "two")
    for opener in ("three", "four"):
        for number in range(3):
            spend(ledger, f"{opener}-{number}", opener)
    clock.advance(HOUR_S)
    with pytest.raises(LabelsFull, match="8 runs and agents are remembered"):
        spend(ledger, "more", "five")
    spend(ledger, "mine", "three")  # in the place of one of its own
    assert ledger.balance("run\0victim\0") == (7, 0)
    clock.advance(DAY_S)
    for number in range(4):
        spend(ledger, f"five-{number}", "five")
    assert ledger.balance("run\0held\0") == (0, 5)
    ledger.settle(held, 5)
    assert ledger.balance("run\0held\0") == (5, 0)


def test_runs_leave_room_for_what_people_set_up(ledger: Ledger, clock: ManualClock) -> None:
    for opener in ("one", "two"):
        for number in range(4):
            spend(ledger, f"{opener}-{number}", opener)
    for number in range(6):
        ledger.settle(ledger.reserve([Limit(f"team-{number}", 1000, "team")], 5, 60.0), 5)
    with pytest.raises(LedgerFull, match="16 accounts"):
        ledger.reserve([Limit("team-6", 1000, "team")], 5, 60.0)
    clock.advance(9 * DAY_S)
    ledger.settle(ledger.reserve([Limit("team-6", 1000, "team")], 5, 60.0), 5)
    assert ledger.balance("team-6") == (5, 0)


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 1), st.sampled_from([0.0, 60.0, HOUR_S, DAY_S])), max_size=80
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_whatever_callers_name_no_account_is_lost_before_its_time_and_both_workers_agree(steps: list[tuple[str, int, int, float]]) -> None:
    clock = ManualClock()
    with tempfile.TemporaryDirectory() as folder:
        workers = [Ledger(Path(folder), clock, FEW) for _ in range(2)]
        spent: dict[tuple[str, int], int] = {}
        touched: dict[tuple[str, int], float] = {}
        for opener, number, worker, wait_s in steps:
            clock.advance(wait_s)
            name = f"{opener}-{number}"
            before = workers[worker].balance(f"run\0{name}\0")[0]
            known = spent.get((opener, number), 0)
            assert before in (known, 0)
            if before != known:
                assert clock.monotonic_s() - touched[(opener, number)] > 3600.0, "given up before its hour was over"
            try:
                spend(workers[worker], name, opener)
            except LabelsFull:
                continue
            spent[(opener, number)], touched[(opener, number)] = before + 7, clock.monotonic_s()
            assert [each.balance(f"run\0{name}\0") for each in workers] == [(before + 7, 0)] * 2
        for opener in "abc":
            alive = sum(workers[0].balance(f"run\0{opener}-{number}\0")[0] > 0 for number in range(10))
            assert alive == workers[1].balance(f"labels\0{opener}")[0] <= 4
        for each in workers:
            each.close()
