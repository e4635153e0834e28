"""A worker that the settings no longer have, or that has another name by now: what control had not taken of its records is taken, once."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from cohort.delivery.left_spools import LeftSpools
from cohort.gateway.contract import Batch, Cursor, decode_batch
from cohort.gateway.log import Log
from cohort.gateway.metrics import Metrics
from cohort.gateway.records import Recorder
from cohort.gateway.settings import Limits
from cohort.gateway.spool import Spool
from cohort.gateway.spool_reading import SpoolReading
from support_engine import House, MemoryGateway, plan_text, unit_name

HALF = plan_text("- {traffic_pct: 50, floor: 1h}\n- {traffic_pct: 100, floor: 1h}")
SMALL = Limits(spool_segment_bytes=4096)


class Worker(MemoryGateway):
    """A gateway whose records are in a real spool."""

    def __init__(self, house: House, directory: Path, name: str) -> None:
        super().__init__(house.clock, name=name)
        self.snapshot = house.gateway.snapshot
        self.spool = Spool(directory, name, self.epoch, SMALL, house.clock, Log(name, house.clock, io.StringIO()))
        self.spool.open()
        self.recorder = Recorder(name, self.epoch, self.spool, Metrics(), house.clock, 10)

    def serve(self, units: range) -> None:
        for number in units:
            self.clock.advance(0.001)
            self.call(unit_name(number))

    def pull(self, after: Cursor, *, records_max: int, wait_ms: int) -> Batch:
        return decode_batch(self.spool.batch(after, records_max))

    def acknowledge(self, upto: Cursor) -> None:
        self.spool.acknowledge(upto)


def calls(house: House) -> int:
    """Calls that were counted, of all services and releases."""
    with house.store.database.read() as connection:
        return sum(row["calls"] for row in house.store.traffic(connection, "support", 0))


def segments(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.log"))


def settled(house: House) -> None:
    """Rounds enough for everything that lies in a spool, some time after the last call."""
    house.clock.advance(1)
    house.tick(4)


def test_what_a_removed_worker_left_is_taken_once_with_its_place_in_the_evidence(house: House, tmp_path: Path) -> None:
    rollout = house.start(HALF)
    worker = Worker(house, tmp_path / "2", "gw_memory-2")
    worker.serve(range(60))
    house.traffic(range(60, 90))
    worker.spool.close()
    assert len(segments(tmp_path / "2")) > 3
    house.left_folders = [tmp_path / "2"]
    house.crash()
    settled(house)
    assert (calls(house), house.evidence(rollout.id).taken) == (90, 90)
    assert house.controller.passed_over == (0, 0), "none was too late for the evidence"
    assert len(segments(tmp_path / "2")) == 1, "what was taken is deleted, but for the segment in which the place is"
    house.crash()
    settled(house)
    assert calls(house) == 90


def test_a_worker_that_is_still_ending_is_followed_until_it_has(house: House, tmp_path: Path) -> None:
    rollout = house.start(HALF)
    worker = Worker(house, tmp_path / "2", "gw_memory-2")
    worker.serve(range(30))
    house.left_folders = [tmp_path / "2"]
    house.crash()
    settled(house)
    assert calls(house) == 30
    assert len(segments(tmp_path / "2")) > 1, "nothing is deleted under a process that writes"
    worker.serve(range(30, 60))
    settled(house)
    assert calls(house) == 60
    worker.serve(range(60, 70))
    worker.assign("support", unit_name(70))
    worker.spool.close()
    settled(house)
    assert calls(house) == 70
    assert house.evidence(rollout.id).taken == 71, "a call that was in the process when it ended is lost, and waited for no longer"
    assert house.controller.left.taps(()) == []


def test_what_a_worker_writes_and_ends_while_its_directory_is_looked_at_is_taken(
    lone: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lone.start(HALF)
    worker = Worker(lone, tmp_path / "2", "gw_memory-2")
    worker.serve(range(30))
    lone.left_folders = [tmp_path / "2"]
    lone.crash()
    settled(lone)
    follow = SpoolReading._follow

    def ends_meanwhile(reading: SpoolReading, before: Any) -> Any:
        monkeypatch.setattr(SpoolReading, "_follow", follow)
        worker.serve(range(30, 60))
        worker.spool.close()
        return follow(reading, before)

    monkeypatch.setattr(SpoolReading, "_follow", ends_meanwhile)
    settled(lone)
    assert calls(lone) == 60


def test_what_was_taken_while_a_worker_was_ending_is_deleted_when_it_has(lone: House, tmp_path: Path) -> None:
    lone.start(HALF)
    worker = Worker(lone, tmp_path / "2", "gw_memory-2")
    worker.serve(range(60))
    lone.left_folders = [tmp_path / "2"]
    lone.crash()
    settled(lone)
    assert len(segments(tmp_path / "2")) > 3
    worker.spool.close()
    settled(lone)
    assert len(segments(tmp_path / "2")) == 1


def test_evidence_waits_for_what_is_still_in_a_spool_that_was_left(lone: House, tmp_path: Path) -> None:
    """Its calls came before those of the worker that goes on, and it takes many rounds to read."""
    rollout = lone.start(HALF)
    worker = Worker(lone, tmp_path / "2", "gw_memory-2")
    worker.serve(range(60))
    worker.spool.close()
    lone.crash()
    lone.controller.left = LeftSpools([tmp_path / "2"], Limits(outcomes_bytes_max=4000))
    lone.traffic(range(60, 90))
    lone.clock.advance(1)
    lone.tick(3)
    assert 0 < calls(lone) < 90
    lone.tick(40)
    assert (lone.evidence(rollout.id).taken, lone.controller.passed_over) == (90, (0, 0))


def test_a_call_of_which_nothing_more_will_come_is_lost_although_the_spool_holds_nothing_new(lone: House, tmp_path: Path) -> None:
    rollout = lone.start(HALF)
    worker = Worker(lone, tmp_path / "2", "gw_memory-2")
    worker.assign("support", unit_name(1))
    lone.left_folders = [tmp_path / "2"]
    lone.crash()
    settled(lone)
    assert lone.evidence(rollout.id).taken == 0
    worker.spool.close()
    lone.crash()
    settled(lone)
    assert lone.evidence(rollout.id).taken == 1


def test_a_transaction_that_fails_between_the_rounds_in_which_an_ended_spool_is_heard_does_not_cost_what_they_say(
    lone: House, tmp_path: Path
) -> None:
    rollout = lone.start(HALF)
    worker = Worker(lone, tmp_path / "2", "gw_memory-2")
    worker.assign("support", unit_name(1))
    lone.left_folders = [tmp_path / "2"]
    lone.crash()
    settled(lone)
    worker.spool.close()
    lone.crash()
    lone.tick()
    with pytest.raises(RuntimeError), lone.controller.transaction():
        raise RuntimeError("the database went away")
    settled(lone)
    assert lone.evidence(rollout.id).taken == 1


def test_a_worker_that_comes_back_goes_on_where_its_records_were_taken(house: House, tmp_path: Path) -> None:
    house.start(HALF)
    first = Worker(house, tmp_path / "2", "gw_memory-2")
    first.serve(range(20))
    first.spool.close()
    house.left_folders = [tmp_path / "2"]
    house.crash()
    settled(house)
    house.clock.advance(1)
    again = Worker(house, tmp_path / "2", "gw_memory-2")
    again.serve(range(20, 30))
    again.spool.close()
    house.crash()
    settled(house)
    assert calls(house) == 30
    assert house.controller.damages == 0


@pytest.mark.parametrize("left", [False, True])
def test_under_another_name_nothing_is_taken_twice_and_nothing_is_lost(lone: House, tmp_path: Path, left: bool) -> None:
    """The gateway was renamed between two processes. `left`: and then removed."""
    rollout = lone.start(HALF)
    before = Worker(lone, tmp_path / "spool", "gw_before")
    lone.gateway = before
    lone.crash()
    lone.tick()
    before.serve(range(20))
    before.assign("support", unit_name(20))
    lone.tick(2)
    before.serve(range(21, 31))
    before.spool.close()
    lone.clock.advance(1)
    after = Worker(lone, tmp_path / "spool", "gw_after")
    after.serve(range(31, 41))
    if left:
        after.spool.close()
        lone.gateway, lone.left_folders = MemoryGateway(lone.clock, name="gw_memory"), [tmp_path / "spool"]
        lone.gateway.snapshot = after.snapshot
    else:
        lone.gateway = after
    lone.crash()
    settled(lone)
    assert calls(lone) == 40
    assert lone.evidence(rollout.id).taken == 41, "the call that died with the process of the old name is lost"
    lone.crash()
    settled(lone)
    assert calls(lone) == 40
    if not left:
        after.spool.close()
    again = Worker(lone, tmp_path / "spool", "gw_before")
    again.serve(range(41, 51))
    if left:
        again.spool.close()
    else:
        lone.gateway = again
    lone.crash()
    settled(lone)
    assert calls(lone) == 50, "the first name came back, and finds what was taken under the second"


def unmarked(directory: Path) -> bytes:
    """Damage the header of the only segment; what stood there."""
    path = directory / segments(directory)[-1]
    whole = path.read_bytes()
    path.write_bytes(b"x" + whole[1:])
    return whole


def test_one_that_cannot_be_read_is_said_and_holds_nothing_up_and_is_taken_when_it_can(lone: House, tmp_path: Path) -> None:
    rollout = lone.start(HALF)
    worker = Worker(lone, tmp_path / "2", "gw_memory-2")
    worker.serve(range(5))
    worker.spool.close()
    whole = unmarked(tmp_path / "2")
    (tmp_path / "3").write_text("not a folder")
    lone.left_folders = [tmp_path / "2", tmp_path / "3", tmp_path / "4"]
    lone.crash()
    lone.traffic(range(5, 15))
    settled(lone)
    assert (calls(lone), lone.evidence(rollout.id).taken) == (10, 10)
    first, second = lone.controller.left.troubles
    assert first == f"{tmp_path / '2'} cannot be read: no segment says whose it is"
    assert second == f"{tmp_path / '3'} cannot be read: Not a directory"
    (tmp_path / "2" / segments(tmp_path / "2")[-1]).write_bytes(whole)
    settled(lone)
    assert calls(lone) == 15
    assert len(lone.controller.left.troubles) == 1


def test_one_that_cannot_be_read_is_logged_once_and_forgotten_when_it_is_taken_away(
    lone: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lone.start(HALF)
    worker = Worker(lone, tmp_path / "2", "gw_memory-2")
    worker.serve(range(5))
    worker.spool.close()
    unmarked(tmp_path / "2")
    lone.left_folders = [tmp_path / "2"]
    lone.crash()
    settled(lone)
    settled(lone)
    assert len([record for record in caplog.records if "whose it is" in record.getMessage()]) == 1
    (tmp_path / "2").rename(tmp_path / "away")
    settled(lone)
    assert not lone.controller.left.troubles


def test_one_that_bears_the_name_of_a_worker_is_not_mixed_up_with_it(lone: House, tmp_path: Path) -> None:
    lone.start(HALF)
    worker = Worker(lone, tmp_path / "2", lone.gateway.name)
    worker.serve(range(5))
    worker.spool.close()
    lone.left_folders = [tmp_path / "2"]
    lone.crash()
    lone.traffic(range(5, 15))
    settled(lone)
    assert calls(lone) == 10
    assert "another worker's name" in lone.controller.left.troubles[0]


def test_damage_in_one_is_passed_over_and_said(lone: House, tmp_path: Path) -> None:
    lone.start(HALF)
    worker = Worker(lone, tmp_path / "2", "gw_memory-2")
    worker.serve(range(5))
    worker.spool.close()
    path = tmp_path / "2" / segments(tmp_path / "2")[0]
    whole: Any = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*whole[:2], b"damaged", *whole[3:-1], b"torn"]))
    lone.left_folders = [tmp_path / "2"]
    lone.crash()
    settled(lone)
    assert (calls(lone), lone.controller.damages) == (4, 1)
    assert "bytes damaged, set aside" in str(lone.controller.damage)
    assert lone.controller.left.taps(()) == [], "a torn line at the end holds nothing up"
