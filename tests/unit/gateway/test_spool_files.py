"""The spool: what is written is read, once, in order, whatever the sizes."""

from __future__ import annotations

import io
import os
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.base.clock import ManualClock
from cohort.gateway import segments
from cohort.gateway.contract import Batch, Call, Cursor, decode_batch, encode_call
from cohort.gateway.log import Log
from cohort.gateway.settings import Limits
from cohort.gateway.spool import Spool
from cohort.gateway.spool_reading import epoch_after


def record(seq: int, epoch: int = 1) -> bytes:
    return encode_call(Call("call", "gw", epoch, seq, seq, "s", "rel", "unit"))


def spool(directory: Path, epoch: int = 1, **limits: int) -> Spool:
    clock = ManualClock()
    made = Spool(directory, "gw", epoch, Limits(**limits), clock, Log("gw", clock, io.StringIO()))
    made.open()
    return made


def take(made: Spool, after: Cursor, records_max: int = 100) -> Batch | None:
    data = made.read(after, records_max)
    return None if data is None else decode_batch(data)


def take_all(made: Spool, records_max: int = 100) -> tuple[list[int], list[str]]:
    seqs: list[int] = []
    damaged: list[str] = []
    cursor = Cursor()
    while (batch := take(made, cursor, records_max)) is not None:
        seqs.extend(r.seq for r in batch.records)
        damaged.extend(batch.damaged)
        cursor = batch.next
    return seqs, damaged


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 40), st.integers(1, 7), st.integers(150, 3000), st.integers(300, 3000))
def test_every_record_is_read_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, count: int, records_max: int, segment_bytes: int, bytes_max: int
) -> None:
    made = spool(tmp_path_factory.mktemp("spool"), spool_segment_bytes=segment_bytes, outcomes_bytes_max=bytes_max)
    for seq in range(count):
        assert made.append(record(seq))
    assert take_all(made, records_max) == (list(range(count)), [])
    made.close()


def test_reading_is_repeatable_until_it_is_acknowledged(tmp_path: Path) -> None:
    made = spool(tmp_path, spool_segment_bytes=200)
    for seq in range(6):
        made.append(record(seq))
    first = take(made, Cursor(), 4)
    assert first == take(made, Cursor(), 4)
    made.acknowledge(first.next)
    assert [r.seq for r in take(made, first.next).records] == [4, 5]
    assert made.bytes == sum(p.stat().st_size for p in tmp_path.glob("*.log"))


def test_an_acknowledgement_ahead_of_what_was_written_is_refused(tmp_path: Path) -> None:
    made = spool(tmp_path)
    made.append(record(1))
    for cursor in (Cursor(2, 0), Cursor(1, 10_000)):
        with pytest.raises(ValueError, match="acknowledged up to"):
            made.acknowledge(cursor)
    assert take(made, Cursor()).records


def test_what_an_earlier_process_left_comes_first_and_its_torn_end_is_no_damage(tmp_path: Path) -> None:
    old = spool(tmp_path)
    old.append(record(1))
    with (tmp_path / "0000000001.log").open("ab") as file:
        file.write(segments.frame(record(2))[:-7])
    os.close(old._fd)  # as of a process that was killed
    made = spool(tmp_path, epoch=2)
    made.append(record(1, epoch=2))
    batch = take(made, Cursor())
    assert [(r.epoch, r.seq) for r in batch.records] == [(1, 1), (2, 1)]
    assert (batch.damaged, batch.epoch, batch.next.segment) == ((), 2, 2)


def test_what_an_earlier_process_still_ends_comes_before_what_its_successor_writes(tmp_path: Path) -> None:
    old = spool(tmp_path, spool_segment_bytes=200)
    old.append(record(1))
    old.hand_over()
    made = spool(tmp_path, epoch=2)
    made.append(record(1, epoch=2))
    seen, cursor = [], Cursor()
    for seq in range(2, 8):
        old.append(record(seq))  # more than a segment, in the one it has
        batch = take(made, cursor)
        assert batch is not None
        assert batch.behind > 0
        seen += [(r.epoch, r.seq) for r in batch.records]
        cursor = batch.next
        assert take(made, cursor) is None
    made.acknowledge(cursor)
    assert made.bytes == sum(path.stat().st_size for path in tmp_path.glob("*.log"))
    old.append(record(8))
    old.close()
    batch = take(made, cursor)
    assert batch is not None
    assert [*seen, *((r.epoch, r.seq) for r in batch.records)] == [*((1, seq) for seq in range(1, 9)), (2, 1)]
    assert (batch.behind, batch.damaged) == (0, ())
    made.acknowledge(batch.next)
    assert [path.name for path in tmp_path.glob("*.log")] == [f"{made._current:010d}.log"]
    made.close()


def test_what_the_first_of_three_processes_still_ends_is_not_passed_over(tmp_path: Path) -> None:
    first = spool(tmp_path)
    first.append(record(1))
    first.hand_over()
    second = spool(tmp_path, epoch=2)
    second.append(record(1, epoch=2))
    second.hand_over()
    third = spool(tmp_path, epoch=3)
    third.append(record(1, epoch=3))
    batch = take(third, Cursor())
    assert [(r.epoch, r.seq) for r in batch.records] == [(1, 1)]
    assert take(third, batch.next) is None
    second.close()
    first.append(record(2))
    first.close()
    batch = take(third, batch.next)
    assert [(r.epoch, r.seq) for r in batch.records] == [(1, 2), (2, 1), (3, 1)]
    assert (batch.behind, batch.damaged) == (0, ())
    third.close()


def test_an_end_torn_off_within_one_process_is_damage(tmp_path: Path) -> None:
    old = spool(tmp_path, spool_segment_bytes=200)
    for seq in range(4):
        old.append(record(seq))
    path = tmp_path / "0000000001.log"
    path.write_bytes(path.read_bytes()[:-5])
    seqs, damaged = take_all(spool(tmp_path, epoch=2))
    assert len(seqs) == 3
    assert len(damaged) == 1
    assert (tmp_path / "0000000001.log.damaged").exists()


def test_a_stretch_without_a_line_is_passed_over_in_pieces(tmp_path: Path) -> None:
    old = spool(tmp_path)
    old.append(record(1))
    with (tmp_path / "0000000001.log").open("ab") as file:
        file.write(b"\0" * 5000 + b"\n" + segments.frame(record(2)))
    made = spool(tmp_path, epoch=2, outcomes_bytes_max=1000)
    seqs, damaged = take_all(made)
    assert seqs == [1, 2]
    assert damaged


def test_a_cursor_of_another_spool_starts_from_the_oldest_and_says_so(tmp_path: Path) -> None:
    made = spool(tmp_path)
    made.append(record(1))
    batch = take(made, Cursor(77, 5))
    assert [r.seq for r in batch.records] == [1]
    assert "reading from the oldest" in batch.damaged[0]


def test_a_flipped_byte_anywhere_in_a_line_is_found() -> None:
    line = segments.frame(b'{"seq":1}')[:-1]
    assert segments.unframe(line) == b'{"seq":1}'
    for at in range(len(line)):
        assert segments.unframe(line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]) is None


def test_a_gap_is_told_in_words() -> None:
    data = segments.frame(b'{"header":1}') + segments.frame(segments.gap(3, 10, 20, "full")) + segments.frame(orjson.dumps({"seq": 1}))
    found = segments.scan(data, 0, 10)
    assert found.gaps == ("3 records from 10 to 20 (us) were not written: full",)
    assert found.payloads == (b'{"seq":1}',)
    assert found.end == len(data)


def test_a_new_epoch_is_later_than_every_record_even_with_the_clock_set_back(tmp_path: Path) -> None:
    made = spool(tmp_path, epoch=500)
    assert epoch_after(tmp_path, 9_000) == 9_000
    for seq in (700, 800, 750):
        made.append(record(seq))
    assert epoch_after(tmp_path, 100) == 801
    assert epoch_after(tmp_path / "none", 100) == 100


def test_nothing_is_behind_where_nothing_was_written_yet_not_even_a_header(tmp_path: Path) -> None:
    """Control waits for what is behind: for that of an idle process it would wait until its first call."""
    made = spool(tmp_path)
    first = decode_batch(made.batch(Cursor(), 10))
    assert (first.records, first.behind) == ((), 0)
    made.append(record(0))
    assert [r.seq for r in decode_batch(made.batch(first.next, 10)).records] == [0]
    made.close()
    again = spool(tmp_path, epoch=2)
    at = decode_batch(again.batch(decode_batch(again.batch(first.next, 10)).next, 10))
    assert (at.behind, at.next.segment) == (0, 2)
    again.close()
