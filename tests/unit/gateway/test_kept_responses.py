"""Responses kept on disk: limits, age, other workers, what cannot be read or written."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError, Retry
from cohort.gateway.kept_responses import RESCAN_S, KeptResponses
from cohort.gateway.log import Log
from cohort.gateway.settings import Limits

UNIT, OTHER = "a" * 32, "b" * 32
MESSAGES = [{"role": "user", "content": "hi"}]


def name(number: int) -> str:
    return f"resp_{number:032x}"


def made(folder: Path, clock: ManualClock, **limits: Any) -> tuple[KeptResponses, io.StringIO]:
    lines = io.StringIO()
    return KeptResponses(folder / "responses", Limits(**limits), clock, Log("gw", clock, lines)), lines


def keep(kept: KeptResponses, number: int, unit: str = UNIT, text: str = "") -> None:
    kept.keep(name(number), unit, "owner", MESSAGES, {"id": name(number), "text": text}, kept.now_s())


def touch(folder: Path, clock: ManualClock) -> None:
    """Give every file the clock's time, as files written by a process with this clock would have."""
    for path in (folder / "responses").iterdir():
        os.utime(path, (clock.now_us() / 1e6,) * 2)


def test_what_is_kept_is_found_again_by_any_worker(tmp_path: Path) -> None:
    clock = ManualClock()
    kept, _ = made(tmp_path, clock)
    keep(kept, 1)
    touch(tmp_path, clock)
    again, _ = made(tmp_path, clock)
    assert again.get(name(1)) == {"unit": UNIT, "owner": "owner", "messages": MESSAGES, "response": {"id": name(1), "text": ""}}
    keep(kept, 2)
    touch(tmp_path, clock)
    assert again.get(name(2)) is None
    clock.advance(RESCAN_S)
    assert again.get(name(2)) is not None
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "responses").iterdir()} == {0o600}


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
    keep(kept, 7)
    assert [path.name for path in (tmp_path / "responses").iterdir()] == [f"{name(7)}.{UNIT}"]
    small, _ = made(tmp_path / "small", clock, responses_bytes_max=400)
    (tmp_path / "small").mkdir()
    for number in range(5):
        keep(small, number)
    assert 1 <= len(list((tmp_path / "small" / "responses").iterdir())) < 5


def test_a_unit_s_responses_are_erased_and_no_other_s(tmp_path: Path) -> None:
    kept, _ = made(tmp_path, ManualClock())
    for number, unit in enumerate((UNIT, OTHER, UNIT)):
        keep(kept, number, unit)
    assert kept.erase(UNIT) == 2
    assert [path.name for path in (tmp_path / "responses").iterdir()] == [f"{name(1)}.{OTHER}"]
    assert kept.erase(UNIT) == 0


def test_the_response_of_a_call_under_way_is_not_kept_once_its_unit_was_erased(tmp_path: Path) -> None:
    clock = ManualClock()
    kept, _ = made(tmp_path, clock)
    began_s = kept.now_s()
    clock.advance(1)
    assert kept.erase(UNIT) == 0
    for number, unit in enumerate((UNIT, OTHER)):
        kept.keep(name(number), unit, "owner", MESSAGES, {}, began_s)
    assert [path.name for path in (tmp_path / "responses").iterdir()] == [f"{name(1)}.{OTHER}"]
    clock.advance(1)
    keep(kept, 2)
    assert kept.get(name(2)) is not None


def test_what_cannot_be_erased_is_said(tmp_path: Path) -> None:
    kept, _ = made(tmp_path, ManualClock())
    assert kept.erase(UNIT) == 0
    (tmp_path / "responses" / f"{name(1)}.{UNIT}").mkdir(parents=True)  # it cannot be removed as a file is
    with pytest.raises(CohortError) as caught:
        kept.erase(UNIT)
    assert (caught.value.code, caught.value.retry) == ("CACHE_NOT_ERASED", Retry.SAFE)
    (tmp_path / "responses" / f"{name(1)}.{UNIT}").rmdir()
    (tmp_path / "responses").rmdir()
    (tmp_path / "responses").write_text("a file where the folder should be")
    with pytest.raises(CohortError):
        kept.erase(UNIT)


def test_what_cannot_be_read_is_not_there_and_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    clock = ManualClock()
    kept, lines = made(tmp_path, clock)
    keep(kept, 1)
    (tmp_path / "responses" / f"{name(1)}.{UNIT}").write_bytes(b"{torn")
    assert kept.get(name(1)) is None
    assert kept.get("resp_../../etc/passwd") is None
    blocked, lines = made(tmp_path / "blocked", clock)
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "responses").write_text("a file where the folder should be")
    keep(blocked, 1)
    assert "response_not_kept" in lines.getvalue()


@pytest.mark.parametrize("number", [1, 2])
def test_a_deleted_response_is_gone(tmp_path: Path, number: int) -> None:
    kept, _ = made(tmp_path, ManualClock())
    keep(kept, 1)
    assert kept.delete(name(number)) is (number == 1)
    assert not kept.delete(name(1)) or number == 2
