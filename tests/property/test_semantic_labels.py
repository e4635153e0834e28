"""What comparisons taught outlives the process: the book of labels against a plain dictionary, over restarts, torn places and clocks set back."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cohort.base.clock import ManualClock
from cohort.gateway.cache.semantic.acceptance import Grade, Labels, refused
from cohort.gateway.cache.semantic.labels import PLACE, LabelBook

PLACES_MAX = 6
KEYS = st.sampled_from([bytes([n]) * 16 for n in range(1, 10)])
UNITS = st.sampled_from(["a" * 32, "b" * 32])


def never(error: OSError) -> None:
    raise error


class Books(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "labels"
        self.clock = ManualClock()
        self.book = self.opened()
        self.told: dict[bytes, tuple[str, int, int, float]] = {}  # in the order of their last change

    def opened(self) -> LabelBook:
        book = LabelBook(self.path, PLACES_MAX, self.clock, never)
        book.load()
        return book

    def teardown(self) -> None:
        self.book.close()
        shutil.rmtree(self.folder)

    @rule(key=KEYS, unit=UNITS, grade=st.sampled_from(Grade), ttl_s=st.integers(5, 50))
    def add(self, key: bytes, unit: str, grade: Grade, ttl_s: int) -> None:
        self.clock.advance(0.001)
        self.book.add(key, unit, grade, ttl_s)
        _, same, against, until_s = self.told.pop(key, (unit, 0, 0, 0.0))
        if self.clock.monotonic_s() >= until_s:
            same = against = 0
        if len(self.told) == PLACES_MAX:
            del self.told[next(iter(self.told))]
        self.told[key] = (unit, same + (grade is Grade.SAME), against + (grade is not Grade.SAME), self.clock.monotonic_s() + ttl_s)

    @rule()
    def kill(self) -> None:
        """The process ends without a word; another one begins."""
        self.book = self.opened()
        self.told = {key: told for key, told in self.told.items() if told[3] > self.clock.monotonic_s()}

    @rule(unit=UNITS)
    def erase(self, unit: str) -> None:
        self.book.erase(unit)
        self.book.sync()
        self.told = {key: told for key, told in self.told.items() if told[0] != unit}
        assert not self.path.exists() or bytes.fromhex(unit) not in self.path.read_bytes()

    @rule(seconds=st.integers(1, 20))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        self.book.sweep()
        self.told = {key: told for key, told in self.told.items() if told[3] > self.clock.monotonic_s()}

    @invariant()
    def it_knows_what_was_told_and_is_bounded(self) -> None:
        assert len(self.book) <= PLACES_MAX
        now_s = self.clock.monotonic_s()
        for key, (_, same, against, until_s) in self.told.items():
            found = self.book.find(key)
            assert (found.same, found.against) == ((same, against) if now_s < until_s else (0, 0))
        if self.path.exists():
            assert self.path.stat().st_size <= PLACES_MAX * PLACE.size


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@settings(max_examples=50)
@given(st.integers(0, 3 * PLACE.size - 1), st.integers(0, 255))
def test_a_torn_place_is_as_if_never_written_and_no_other_suffers(at: int, byte: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, clock = Path(folder) / "labels", ManualClock()
        book = LabelBook(path, PLACES_MAX, clock, never)
        keys = [bytes([n]) * 16 for n in range(1, 4)]
        for key in keys:
            book.add(key, "a" * 32, Grade.SAME, 60)
        book.close()
        data = bytearray(path.read_bytes())
        whole = data[at] == byte
        data[at] = byte
        path.write_bytes(data)
        again = LabelBook(path, PLACES_MAX, clock, never)
        again.load()
        assert [again.find(key).same for key in keys] == [0 if n == at // PLACE.size and not whole else 1 for n in range(3)]
        assert again.damaged == (not whole)
        again.close()


def test_a_clock_set_back_prolongs_nothing(tmp_path: Path) -> None:
    clock = ManualClock()
    book = LabelBook(tmp_path / "labels", PLACES_MAX, clock, never)
    book.add(b"k" * 16, "a" * 32, Grade.SAME, 60)
    book.close()
    earlier = LabelBook(tmp_path / "labels", PLACES_MAX, ManualClock(clock.now_us() - 120_000_000), never)
    earlier.load()
    assert len(earlier) == 0


def test_what_cannot_be_cleared_on_disk_is_said_until_it_is(tmp_path: Path) -> None:
    said: list[OSError] = []
    book = LabelBook(tmp_path / "labels", PLACES_MAX, ManualClock(), said.append)
    book.add(b"k" * 16, "a" * 32, Grade.SAME, 60)
    book.close()
    (tmp_path / "labels").rename(tmp_path / "elsewhere")
    (tmp_path / "labels").mkdir()
    assert book.erase("a" * 32) == 1
    assert len(said) == 1
    with pytest.raises(OSError, match="directory"):
        book.sync()
    (tmp_path / "labels").rmdir()
    (tmp_path / "elsewhere").rename(tmp_path / "labels")
    book.sync()
    assert bytes.fromhex("a" * 32) not in (tmp_path / "labels").read_bytes()
    book.close()


@given(st.integers(0, 2000), st.integers(0, 50))
def test_an_entry_leaves_for_being_wrong_often_not_for_being_asked_often(same: int, against: int) -> None:
    assert refused(Labels(same, against)) == (against >= 2 and against > 0.02 * (same + against))
    assert not refused(Labels(same, min(against, 1)))
