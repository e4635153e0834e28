"""Responses kept on disk: limits, age, other workers, what cannot be read or written."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError, Retry
from cohort.gateway.cache.erasing import Erased
from cohort.gateway.kept_responses import FOLDERS, UNFINISHED_S, KeptResponses
from cohort.gateway.log import Log
from cohort.gateway.settings import Limits
from cohort.gateway.shared.erasures import Erasures

UNIT, OTHER = "a" * 32, "b" * 32
MESSAGES = [{"role": "user", "content": "hi"}]


def name(number: int) -> str:
    return f"resp_{number:032x}"


def made(folder: Path, clock: ManualClock, **limits: Any) -> tuple[KeptResponses, io.StringIO]:
    lines = io.StringIO()
    erased = Erased(clock, Erasures(folder / "shared" / "erasures", clock))
    return KeptResponses(folder / "responses", Limits(**limits), clock, Log("gw", clock, lines), erased), lines


def files(folder: Path) -> list[Path]:
    return [path for path in (folder / "responses").glob("*/*") if path.is_file()]


def keep(kept: KeptResponses, number: int, unit: str = UNIT, text: str = "") -> None:
    kept.keep(name(number), unit, "owner", MESSAGES, {"id": name(number), "text": text}, kept.now_s())


def touch(folder: Path, clock: ManualClock) -> None:
    """Give every file the clock's time, as files written by a process with this clock would have."""
    for path in files(folder):
        os.utime(path, (clock.now_us() / 1e6,) * 2)


def test_what_one_worker_keeps_another_finds_at_once(tmp_path: Path) -> None:
    clock = ManualClock()
    kept, _ = made(tmp_path, clock)
    again, _ = made(tmp_path, clock)
    for number in (1, 2):
        assert again.get(name(number)) is None
        keep(kept, number)
        touch(tmp_path, clock)
        assert again.get(name(number)) == {
            "unit": UNIT,
            "owner": "owner",
            "messages": MESSAGES,
            "response": {"id": name(number), "text": ""},
        }
    assert {path.stat().st_mode & 0o777 for path in files(tmp_path)} == {0o600}
    assert again.delete(name(1))
    assert kept.get(name(1)) is None
    assert not kept.delete(name(1))


def test_the_limits_hold_for_all_workers_together(tmp_path: Path) -> None:
    clock = ManualClock()
    workers = [made(tmp_path, clock, responses_max=6)[0] for _ in range(3)]
    for number in range(30):
        keep(workers[number % 3], number << 120 | number)
        assert len(files(tmp_path)) <= 6
    assert len(files(tmp_path)) == 6


def test_number_bytes_and_age_are_limited_and_the_oldest_go_first(tmp_path: Path) -> None:
    clock = ManualClock()
    kept, lines = made(tmp_path, clock, responses_max=3, response_bytes_max=1000, responses_kept_s=60.0)
    for number in range(5):
        keep(kept, number)
    assert [number for number in range(5) if kept.get(name(number))] == [2, 3, 4]
    keep(kept, 6, text="x" * 1000)
    assert kept.get(name(6)) is None
    assert "response_bytes_max" in lines.getvalue()
    touch(tmp_path, clock)
    clock.advance(61)
    assert kept.get(name(4)) is None
    for _ in range(FOLDERS):
        kept.sweep()
    assert files(tmp_path) == []
    small, _ = made(tmp_path / "small", clock, responses_bytes_max=400)
    for number in range(5):
        keep(small, number)
    assert 1 <= len(files(tmp_path / "small")) < 5


def test_a_unit_s_responses_are_erased_and_no_other_s(tmp_path: Path) -> None:
    kept, _ = made(tmp_path, ManualClock())
    for number, unit in enumerate((UNIT, OTHER, UNIT)):
        keep(kept, number, unit)
    assert kept.erase(UNIT) == 2
    assert [path.name for path in files(tmp_path)] == [f"{name(1)}.{OTHER}"]
    assert kept.erase(UNIT) == 0


def test_the_response_of_a_call_under_way_is_not_kept_once_its_unit_was_erased(tmp_path: Path) -> None:
    clock = ManualClock()
    kept, _ = made(tmp_path, clock)
    other, _ = made(tmp_path, clock)  # another worker, which nobody told
    began_s = kept.now_s()
    clock.advance(1)
    assert kept.erase(UNIT) == 0
    for number, unit in enumerate((UNIT, OTHER)):
        other.keep(name(number), unit, "owner", MESSAGES, {}, began_s)
    assert [path.name for path in files(tmp_path)] == [f"{name(1)}.{OTHER}"]
    clock.advance(1)
    keep(kept, 2)
    assert kept.get(name(2)) is not None


def test_what_cannot_be_erased_is_said(tmp_path: Path) -> None:
    kept, _ = made(tmp_path, ManualClock())
    assert kept.erase(UNIT) == 0
    (tmp_path / "responses" / "00" / f"{name(1)}.{UNIT}").mkdir(parents=True)  # it cannot be removed as a file is
    with pytest.raises(CohortError) as caught:
        kept.erase(UNIT)
    assert (caught.value.code, caught.value.retry) == ("CACHE_NOT_ERASED", Retry.SAFE)
    shutil.rmtree(tmp_path / "responses")
    (tmp_path / "responses").write_text("a file where the folder should be")
    with pytest.raises(CohortError):
        kept.erase(UNIT)


def test_what_cannot_be_read_is_not_there_and_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    clock = ManualClock()
    kept, lines = made(tmp_path, clock)
    keep(kept, 1)
    (tmp_path / "responses" / "00" / f"{name(1)}.{UNIT}").write_bytes(b"{torn")
    assert kept.get(name(1)) is None
    assert kept.get("resp_../../etc/passwd") is None
    blocked, lines = made(tmp_path / "blocked", clock)
    (tmp_path / "blocked" / "responses").write_text("a file where the folder should be")
    keep(blocked, 1)
    assert "response_not_kept" in lines.getvalue()


@pytest.mark.parametrize("number", [1, 2])
def test_a_deleted_response_is_gone(tmp_path: Path, number: int) -> None:
    kept, _ = made(tmp_path, ManualClock())
    keep(kept, 1)
    assert kept.delete(name(number)) is (number == 1)
    assert not kept.delete(name(1)) or number == 2


def test_what_a_killed_process_left_is_removed_and_counted_right(tmp_path: Path) -> None:
    clock = ManualClock()
    kept, _ = made(tmp_path, clock, responses_max=4)
    for number in range(2):
        keep(kept, number)
    half = tmp_path / "responses" / "00" / f"{name(9)}.{UNIT}.new"
    half.write_bytes(b"{half")
    uncounted = tmp_path / "responses" / "00" / f"{name(8)}.{UNIT}"  # in its place, and its process killed before it was counted
    uncounted.write_bytes((tmp_path / "responses" / "00" / f"{name(0)}.{UNIT}").read_bytes())
    touch(tmp_path, clock)
    later, _ = made(tmp_path, clock, responses_max=4)
    for number in range(3, 6):
        keep(later, number)
    assert len(list((tmp_path / "responses" / "00").glob("*." + UNIT))) == 4
    assert later.erase(OTHER) == 0
    clock.advance(UNFINISHED_S + 1)
    for _ in range(FOLDERS):
        later.sweep()
    assert not half.exists()
    half.write_bytes(b"{half")
    assert later.erase(UNIT) == 4
    assert files(tmp_path) == []
