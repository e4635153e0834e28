"""What is held comes back and what is spent adds up, whatever calls, cancellations, deaths and clocks do."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.base.clock import ManualClock, SystemClock
from cohort.gateway.log import Log
from cohort.gateway.shared.face import open_shared
from cohort.gateway.spend.accounts import LedgerFull, Limit
from cohort.gateway.spend.book import HEADER_WORDS, JOURNAL, JOURNAL_COUNT, Book
from cohort.gateway.spend.ledger import HOLDS_MAX, WORDS, Exceeded, Hold, Ledger
from cohort.gateway.spend.lockout import WORDS as LOCKOUT_WORDS
from support_gateway import SRC

LIFE_S = 60.0


@pytest.fixture
def ledger(tmp_path: Path, clock: ManualClock) -> Any:
    made = Ledger(tmp_path / "spend", clock)
    yield made
    made.close()


def limits(*most: int) -> list[Limit]:
    return [Limit(f"account-{number}", value, f"budget {number}") for number, value in enumerate(most)]


def test_a_thousand_calls_at_once_cancelled_at_random_leave_nothing_held_and_add_up(ledger: Ledger) -> None:
    draw = random.Random(7)
    named = [Limit("key", 40_000, "key"), Limit("team", 70_000, "team"), Limit("all", 10**9, "all")]
    open_holds: list[Hold] = []
    settled, refused = 0, 0
    for _ in range(1000):
        asked = draw.randint(1, 200)
        try:
            open_holds.append(ledger.reserve(draw.choice([named[:1] + named[2:], named]), asked, LIFE_S))
        except Exceeded:
            refused += 1
        spent, held = ledger.balance("key")
        assert spent + held <= 40_000
        if draw.random() < 0.4 and open_holds:
            hold = open_holds.pop(draw.randrange(len(open_holds)))
            actual = 0 if draw.random() < 0.3 else draw.randint(0, hold.amount)
            settled += actual
            ledger.settle(hold, actual)
    for hold in open_holds:
        settled += hold.amount
        ledger.settle(hold, hold.amount)
    assert refused > 0
    assert ledger.balance("key") == (settled, 0)
    assert ledger.balance("all") == (settled, 0)
    assert ledger.holds() == 0


STEPS = st.lists(st.tuples(st.sampled_from(["reserve", "settle", "later", "cancel", "expire", "die"]), st.integers(0, 300)), max_size=60)


@settings(max_examples=25)
@given(STEPS)
def test_the_books_add_up_after_any_sequence(steps: list[tuple[str, int]]) -> None:
    clock = ManualClock()
    with tempfile.TemporaryDirectory() as folder:
        watcher, ledger = Ledger(Path(folder), clock), Ledger(Path(folder), clock)
        holds: list[Hold] = []
        settled = waiting = 0
        for step, number in steps:
            if step == "reserve":
                held = ledger.balance("account-1")[1]
                settled, waiting = settled + waiting, 0
                fits = settled + held + max(number, 1) <= 500
                try:
                    holds.append(ledger.reserve(limits(1000, 500), number, LIFE_S))
                except Exceeded:
                    assert not fits
                else:
                    assert fits
            elif step == "expire":
                clock.advance(LIFE_S)
                ledger.sweep()
            elif step == "die":
                _die(ledger)
                watcher.sweep()
                holds, waiting, ledger = [], 0, Ledger(Path(folder), clock)
            elif step == "later" and holds:
                hold = holds.pop(number % len(holds))
                waiting += number
                ledger.settle_later(hold, number)
            elif holds:
                hold = holds.pop(number % len(holds))
                actual = min(number, hold.amount) if step == "settle" else 0
                settled, waiting = settled + waiting + actual, 0
                ledger.settle(hold, actual)
            assert watcher.balance("account-0")[0] == settled
        settled += waiting
        for hold in holds:
            ledger.settle_later(hold, 0)
        ledger.settle_waiting()
        assert watcher.balance("account-0") == watcher.balance("account-1") == (settled, 0)
        for each in (ledger, watcher):
            each.close()


def _die(ledger: Ledger) -> None:
    """As a process that is killed: its files are closed, nothing is given back."""
    os.close(ledger._region_fd)
    ledger._book.close()


def test_calls_that_wait_to_be_settled_are_settled_by_the_next_that_needs_their_room(ledger: Ledger) -> None:
    """More of them than one change can take."""
    holds = [ledger.reserve(limits(HOLDS_MAX), 1, LIFE_S) for _ in range(HOLDS_MAX)]
    with pytest.raises(LedgerFull):
        ledger.reserve(limits(10**9), 1, LIFE_S)
    for hold in holds[:-1]:
        ledger.settle_later(hold, 0)
    ledger.settle_later(holds[-1], 1)
    last = ledger.reserve(limits(HOLDS_MAX), HOLDS_MAX - 1, LIFE_S)
    assert ledger.balance("account-0") == (1, HOLDS_MAX - 1)
    ledger.settle(last, 0)
    assert ledger.holds() == 0


def test_a_reservation_is_given_back_once_however_often_it_is_settled(ledger: Ledger) -> None:
    hold = ledger.reserve(limits(1000, 1000), 100, LIFE_S)
    ledger.settle_later(hold, 60)
    ledger.settle_later(hold, 7)
    ledger.settle_waiting()
    assert ledger.balance("account-0") == ledger.balance("account-1") == (67, 0)
    assert ledger.holds() == 0


def test_a_worker_that_stops_settles_what_waits(ledger: Ledger, tmp_path: Path, clock: ManualClock) -> None:
    other = Ledger(tmp_path / "spend", clock)
    other.settle_later(other.reserve(limits(1000), 100, LIFE_S), 60)
    other.close()
    assert ledger.balance("account-0") == (60, 0)


def test_a_budget_of_zero_refuses_what_costs_nothing(ledger: Ledger) -> None:
    with pytest.raises(Exceeded):
        ledger.reserve(limits(0), 0, LIFE_S)


def test_none_is_held_where_one_does_not_fit(ledger: Ledger) -> None:
    with pytest.raises(Exceeded) as caught:
        ledger.reserve(limits(1000, 10), 11, LIFE_S)
    assert caught.value.limit.told == "budget 1"
    assert ledger.balance("account-0") == (0, 0)


def test_a_call_that_ends_after_its_reservation_expired_still_counts(ledger: Ledger, clock: ManualClock) -> None:
    hold = ledger.reserve(limits(1000), 100, LIFE_S)
    clock.advance(LIFE_S)
    ledger.sweep()
    assert ledger.balance("account-0") == (0, 0)
    other = ledger.reserve(limits(1000), 50, LIFE_S)
    ledger.settle(hold, 70)
    assert ledger.balance("account-0") == (70, 50)
    ledger.settle(other, 50)
    assert ledger.balance("account-0") == (120, 0)


def test_a_change_that_was_begun_is_finished_by_the_next(tmp_path: Path) -> None:
    """Killed behind the commit point, before the change was applied."""
    book = Book(tmp_path / "ledger", WORDS)
    book.words[JOURNAL], book.words[JOURNAL + 1] = 300, 77
    book.words[JOURNAL_COUNT] = 1
    book.close()
    book = Book(tmp_path / "ledger", WORDS)
    book.lock()
    assert (book.words[300], book.words[JOURNAL_COUNT]) == (77, 0)
    book.unlock()
    book.close()


def test_what_was_spent_is_there_after_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    first = Ledger(tmp_path, clock)
    first.settle(first.reserve(limits(1000), 100, LIFE_S), 60)
    first.close()
    second = Ledger(tmp_path, clock)
    assert second.balance("account-0") == (60, 0)
    second.close()


HOLDER = """
import sys
from pathlib import Path
from cohort.base.clock import SystemClock
from cohort.gateway.spend.accounts import Limit
from cohort.gateway.spend.ledger import Exceeded, Ledger
ledger = Ledger(Path(sys.argv[1]), SystemClock())
limits = [Limit("key", 10**12, "key"), Limit("all", 10**12, "all")]
settled = 0
print("ready", flush=True)
for number in range(10**9):
    holds = [ledger.reserve(limits, 10, 60) for _ in range(5)]
    for hold in holds[:2]:
        ledger.settle(hold, 7)
        settled += 7
        print(settled, flush=True)
    for hold in holds[3:]:
        ledger.settle_later(hold, 7)
    ledger.settle_waiting()
    settled += 14
    print(settled, flush=True)
    if number % 50 == 49:
        ledger.settle(holds[2], 0)
"""


def test_workers_killed_at_any_instruction_leave_whole_books(tmp_path: Path) -> None:
    """Two workers at once, killed again and again: what each said it had settled is there, once; what they held comes back."""
    draw = random.Random(3)
    watcher = Ledger(tmp_path, SystemClock())
    said = 0
    for _ in range(4):
        both = [
            subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, env={"PYTHONPATH": str(SRC)}, text=True)
            for _ in range(2)
        ]
        wanted = draw.randint(20, 400)
        heard = [_listen(child, wanted) for child in both]
        for child in both:
            child.send_signal(signal.SIGKILL)
        said += sum(max(_last(child), known) for child, known in zip(both, heard, strict=True))
        watcher.sweep()
        spent, held = watcher.balance("key")
        assert held == 0
        assert (spent, held) == watcher.balance("all")
        assert said <= spent <= said + 2 * 14  # each may have settled two more than it could say
        said = spent
    assert watcher.orphaned > 0
    watcher.close()


def _listen(child: subprocess.Popen[str], wanted: int) -> int:
    """Until it has settled so much; what it said last."""
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    settled = 0
    while settled < wanted:
        settled = int(child.stdout.readline())
    return settled


def _last(child: subprocess.Popen[str]) -> int:
    assert child.stdout is not None
    lines = [line for line in child.stdout.read().split("\n")[:-1] if line]
    child.wait()
    return int(lines[-1]) if lines else 0


def test_rates_let_a_minute_through_at_once_and_then_one_by_one(ledger: Ledger, clock: ManualClock, tmp_path: Path) -> None:
    assert [ledger.take("rate", 1, 6) for _ in range(6)] == [0.0] * 6
    wait_s = ledger.take("rate", 1, 6)
    assert wait_s == pytest.approx(10, abs=0.01)
    clock.advance(wait_s)
    assert ledger.take("rate", 1, 6) == 0.0
    assert ledger.take("rate", 1, 6) > 0
    ledger.give("rate", 3, 6)
    assert [ledger.take("rate", 1, 6) > 0 for _ in range(4)] == [False, False, False, True]
    ledger.give("rate", 2, 6)
    ledger.give("rate", 1, 6)
    ledger.settle_waiting()
    other = Ledger(tmp_path / "spend", clock)
    assert [other.take("rate", 1, 6) > 0 for _ in range(4)] == [False, False, False, True]
    other.close()
    assert ledger.take("rate", 7, 6) == float("inf")
    assert ledger.take("none", 1, 0) == float("inf")


def test_a_rate_of_another_boot_is_not_waited_for(ledger: Ledger, tmp_path: Path) -> None:
    ledger.take("rate", 6, 6)
    ledger.close()
    again = Ledger(tmp_path / "spend", ManualClock(1_000_000))
    assert 0 < again.take("rate", 1, 6) <= 10.01
    again.close()
    ledger.__init__(tmp_path / "spend", ManualClock())  # type: ignore[misc]


TAKER = """
import sys
from pathlib import Path
from cohort.base.clock import SystemClock
from cohort.gateway.log import Log
from cohort.gateway.shared.face import open_shared
from cohort.gateway.spend.ledger import Ledger
clock, folder = SystemClock(), Path(sys.argv[1])
ledger, lockout = Ledger(folder / "spend", clock), open_shared(folder, clock, Log("gw", clock)).lockout
passed = [0, 0]
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    passed[0] += ledger.take("requests", 1, 60) == 0.0
    passed[1] += 17 * (ledger.take("tokens", 17, 6000) == 0.0)
    lockout.failed(f"10.0.0.{number % 5}")
print(*passed, flush=True)
"""


def test_a_rate_holds_over_several_processes_and_every_wrong_key_is_counted(tmp_path: Path) -> None:
    """Three at once: together they pass what one might, one second's refill per second included, and no failure is lost between them."""
    command = [sys.executable, "-c", TAKER, str(tmp_path), "150"]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PYTHONPATH": str(SRC)}, text=True) for _ in range(3)
    ]
    began_s = time.monotonic()
    passed = [child.communicate("go\n", timeout=60)[0].split() for child in children]
    took_s = time.monotonic() - began_s
    requests, tokens = (sum(int(said[which]) for said in passed) for which in (0, 1))
    assert 60 <= requests <= 60 + took_s + 1
    assert 6000 - 17 < tokens <= 6000 + 100 * took_s + 17
    clock = SystemClock()
    words = Book(tmp_path / "shared" / "lockout", LOCKOUT_WORDS).words
    assert sorted(words[HEADER_WORDS + 1 :: 3].tolist())[-6:] == [0, *[90] * 5]
    lockout = open_shared(tmp_path, clock, Log("gw", clock)).lockout
    assert all(lockout.wait_s(f"10.0.0.{number}") > 0 for number in range(5))
