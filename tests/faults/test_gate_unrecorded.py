"""Outcomes that a full disk kept out of the log: they are in it once there is room, while control runs, and only once."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError, Retry
from cohort.base.ids import ActionId
from cohort.kernel.actions import unrecorded
from cohort.kernel.actions.unrecorded import Unrecorded
from cohort.kernel.face import Entry
from cohort.kernel.model import Outcome, Position, Record, RecordKind
from support_gate_rooms import Kernel

SMALL_BYTES = 6 << 20
CONTENT = "x" * 500_000
WITHIN_S = 20.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is small, and is the one expected."""
    path = tmp_path / "small"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", path], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"this machine does not let us mount a small file system: {done.stderr.strip()}")
    try:
        found = os.statvfs(path)
        assert found.f_blocks * found.f_frsize == SMALL_BYTES
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as opened:
        for _ in range(SMALL_BYTES // 4096 + 1):
            try:
                opened.write(bytes(4096))
            except OSError:
                return
    raise AssertionError("the disk did not fill")


class Filling:
    """A gate's step at which the disk under the log fills, once."""

    def __init__(self, ballast: Path) -> None:
        self.ballast, self.armed = ballast, False

    def __call__(self, step: str) -> None:
        if self.armed and step == "executed":
            self.armed = False
            fill(self.ballast)


@pytest.fixture
def filled(small_disk: Path, tmp_path: Path) -> Iterator[tuple[Kernel, str, ActionId]]:
    """A kernel whose agent has read a file while the disk filled, with the token and the action."""
    filling = Filling(small_disk / "ballast")
    kernel = Kernel(tmp_path, audit_folder=small_disk, at=filling)
    try:
        token = kernel.agent()
        assert kernel.ask(token, "files.write", path="a", content=CONTENT).outcome is Outcome.DONE
        filling.armed = True
        answer = kernel.ask(token, "files.read", key="once", path="a")
        assert (answer.outcome, answer.code, answer.result) == (Outcome.UNKNOWN, "OUTCOME_UNKNOWN", {})
        assert len(kernel.gate.unrecorded) == 1
        yield kernel, token, answer.action_id
    finally:
        (small_disk / "ballast").unlink(missing_ok=True)
        kernel.close()


def outcomes(kernel: Kernel, action: ActionId) -> list[str]:
    return [entry.body["body"]["outcome"] for entry in kernel.entries(action) if entry.body["kind"] == "outcome"]


def test_the_outcome_is_recorded_by_itself_once_there_is_room(filled: tuple[Kernel, str, ActionId], small_disk: Path) -> None:
    kernel, token, action = filled
    assert kernel.gate.unrecorded.settle() == 1, "the disk is still full"
    assert outcomes(kernel, action) == []
    (small_disk / "ballast").unlink()
    waited = threading.Event()
    for _ in range(int(WITHIN_S / 0.05)):
        if not len(kernel.gate.unrecorded):
            break
        waited.wait(0.05)
    assert outcomes(kernel, action) == ["done"]
    assert kernel.gate.result(action).outcome is Outcome.DONE
    again = kernel.ask(token, "files.read", key="once", path="a")
    assert (again.action_id, again.outcome) == (action, Outcome.DONE)
    assert kernel.audit.desk.verify().complete


def test_what_still_waits_at_the_end_is_offered_once_more(filled: tuple[Kernel, str, ActionId], small_disk: Path) -> None:
    kernel, _, action = filled
    (small_disk / "ballast").unlink()
    kernel.gate.close()
    assert outcomes(kernel, action) == ["done"]


class Log:
    """A log that refuses until it is told not to; `late`: it takes the record, and the answer is lost."""

    def __init__(self) -> None:
        self.error: CohortError | None = CohortError("AUDIT_UNAVAILABLE", "the disk is full", retry=Retry.SAFE)
        self.records: list[Record] = []
        self.late = False

    def append(self, record: Record) -> Position:
        if self.late:
            self.late = False
            self.records.append(record)
            raise CohortError("OUTCOME_UNKNOWN", "no answer", retry=Retry.CHECK_FIRST)
        if self.error is not None:
            raise self.error
        self.records.append(record)
        return Position(len(self.records) - 1, "", 0)

    def entries(self, action: ActionId) -> list[Entry]:
        return [Entry(0, "", {"kind": one.kind.value}) for one in self.records if one.action == action]


def outcome(number: int, text: str = "") -> tuple[ActionId, Record]:
    action = ActionId(f"act_{number}")
    return action, Record(RecordKind.OUTCOME, {}, action=action, private={"result": text} if text else {})


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def waiting(log: Log, clock: ManualClock) -> Iterator[Unrecorded]:
    made = Unrecorded(log, log.entries, clock)
    yield made
    made.stop()


def test_they_are_recorded_in_their_order_and_those_who_wait_are_told(log: Log, waiting: Unrecorded) -> None:
    told: list[int] = []
    for number in range(3):
        assert waiting.add(*outcome(number), lambda position: told.append(position.index))
    assert (waiting.settle(), told) == (3, [])
    log.error = None
    assert (waiting.settle(), told) == (0, [0, 1, 2])
    assert [record.action for record in log.records] == ["act_0", "act_1", "act_2"]


def test_one_that_was_taken_without_an_answer_is_not_recorded_twice(log: Log, waiting: Unrecorded) -> None:
    waiting.add(*outcome(0), lambda _: None)
    log.late = True
    assert waiting.settle() == 1
    log.error = None
    assert waiting.settle() == 0
    assert len(log.records) == 1


def test_one_that_the_log_will_never_take_does_not_hold_up_the_others(log: Log, waiting: Unrecorded) -> None:
    for number in range(2):
        waiting.add(*outcome(number), lambda _: None)
    log.error = CohortError("RECORD_TOO_LARGE", "too large", retry=Retry.NEVER)
    assert waiting.settle() == 0
    assert log.records == []


def test_it_is_given_up_before_another_process_ends_the_action(log: Log, waiting: Unrecorded, clock: ManualClock) -> None:
    waiting.add(*outcome(0), lambda _: None)
    clock.advance(unrecorded.GIVE_UP_S - 1)
    assert waiting.settle() == 1
    clock.advance(1)
    assert waiting.settle() == 0


def test_there_is_room_for_so_many_and_so_much(log: Log, clock: ManualClock) -> None:
    waiting = Unrecorded(log, log.entries, clock, waiting_max=3, bytes_max=10)
    assert waiting.add(*outcome(0, "12345"), lambda _: None)
    assert not waiting.add(*outcome(1, "123456"), lambda _: None)
    assert waiting.add(*outcome(2, "12345"), lambda _: None)
    assert waiting.add(*outcome(3), lambda _: None)
    assert not waiting.add(*outcome(4), lambda _: None)
    assert len(waiting) == 3
    waiting.stop()


def test_after_the_end_nothing_is_taken(log: Log, waiting: Unrecorded) -> None:
    waiting.stop()
    assert not waiting.add(*outcome(0), lambda _: None)
