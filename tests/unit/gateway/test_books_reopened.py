"""What opening, sweeping and claiming leave behind when they cannot be finished, and what is found behind a commit point."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cohort.base.clock import ManualClock
from cohort.gateway.spend.accounts import Limit
from cohort.gateway.spend.book import HEADER_WORDS, JOURNAL_COUNT, Book, BookBusy, BookUnavailable
from cohort.gateway.spend.ledger import BUSY_PAUSE_S, Hold, Ledger

LIFE_S = 60.0
LIMITS = [Limit("account", 1000, "budget")]


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _die(ledger: Ledger) -> None:
    os.close(ledger._region_fd)
    ledger._book.close()


def _killed_behind_the_commit_point(ledger: Ledger, hold: Hold, actual: int) -> None:
    """Settle `hold`, and die with all of it in the journal and nothing of it applied."""
    book, before = ledger._book, ledger._words[:].tolist()
    ledger.settle(hold, actual)
    pairs = [number for number, value in enumerate(before) if number >= HEADER_WORDS and ledger._words[number] != value]
    book.lock()
    book.change([(number, ledger._words[number]) for number in pairs])
    for number in pairs:
        book.words[number] = before[number]
    book.words[JOURNAL_COUNT] = len(pairs)
    book.unlock()
    _die(ledger)


@pytest.mark.parametrize("content", [b"too short", b"another" * HEADER_WORDS * 8])
def test_a_file_that_cannot_be_used_stays_not_open(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "count"
    path.write_bytes(content[: HEADER_WORDS * 8])
    before = _open_files()
    for _ in range(5):
        with pytest.raises(BookUnavailable):
            Book(path, HEADER_WORDS)
    assert _open_files() == before


def test_a_directory_that_is_in_the_way_of_a_book_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "count").mkdir()
    before = _open_files()
    with pytest.raises(BookUnavailable):
        Book(tmp_path / "count", HEADER_WORDS)
    assert _open_files() == before


def test_what_a_dead_worker_held_is_given_back_by_a_later_sweep_when_the_lock_was_not_to_be_had(tmp_path: Path, clock: ManualClock) -> None:
    dead, watcher = Ledger(tmp_path, clock), Ledger(tmp_path, clock)
    dead.reserve(LIMITS, 100, LIFE_S)
    _die(dead)
    stopped = Book(tmp_path / "ledger", len(watcher._words))
    stopped.lock()
    with pytest.raises(BookBusy):
        watcher.sweep()
    stopped.unlock()
    watcher.sweep()
    assert (watcher.orphaned, watcher.balance("account")) == (100, (0, 0))
    stopped.close()
    watcher.close()


def test_a_lock_that_was_not_to_be_had_is_not_waited_for_again_at_once(tmp_path: Path, clock: ManualClock) -> None:
    """Each wait holds up the whole worker. Whoever reserves asks for the lock all the same."""
    ledger, watcher = Ledger(tmp_path, clock), Ledger(tmp_path, clock)
    first, second = ledger.reserve(LIMITS, 100, LIFE_S), ledger.reserve(LIMITS, 10, LIFE_S)
    stopped = Book(tmp_path / "ledger", len(ledger._words))
    stopped.lock()
    ledger.settle(first, 50)
    stopped.unlock()
    ledger.settle_waiting()
    assert watcher.balance("account") == (0, 110)
    clock.advance(BUSY_PAUSE_S)
    ledger.settle_waiting()
    assert watcher.balance("account") == (50, 10)
    ledger.settle(second, 10)
    for one in (stopped, watcher, ledger):
        one.close()


@pytest.mark.parametrize("by_a_successor", [False, True])
def test_a_reservation_settled_by_a_worker_killed_before_it_was_applied_is_given_back_once(
    tmp_path: Path, clock: ManualClock, by_a_successor: bool
) -> None:
    dead = Ledger(tmp_path, clock)
    watcher = None if by_a_successor else Ledger(tmp_path, clock)
    hold = dead.reserve(LIMITS, 100, LIFE_S)
    dead.reserve(LIMITS, 5, LIFE_S)
    _killed_behind_the_commit_point(dead, hold, 60)
    watcher = watcher or Ledger(tmp_path, clock)
    watcher.sweep()
    assert watcher.balance("account") == (60, 0)
    watcher.close()


def test_whoever_opens_does_not_wait_for_good_for_a_process_that_was_stopped(tmp_path: Path) -> None:
    stopped = Book(tmp_path / "count", HEADER_WORDS)
    stopped.lock()
    before = _open_files()
    with pytest.raises(BookUnavailable, match="lock was not to be had"):
        Book(tmp_path / "count", HEADER_WORDS)
    assert _open_files() == before
    stopped.close()
    Book(tmp_path / "count", HEADER_WORDS).close()
