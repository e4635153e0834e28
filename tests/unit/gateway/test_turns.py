"""What a turn of the loop writes: records before bytes, all of it in order, within every limit of the spool."""

from __future__ import annotations

import asyncio
import io
import socket
from pathlib import Path

import pytest
import uvloop

from cohort.base.clock import ManualClock
from cohort.gateway.assignment import Salt
from cohort.gateway.contract import Call, Cursor, bucket, decode_batch, encode_call
from cohort.gateway.log import Log
from cohort.gateway.randomness import PIECE_BYTES, Randomness
from cohort.gateway.settings import Limits
from cohort.gateway.spool import Spool
from cohort.gateway.turns import HELD_BYTES_MAX, Turn


def record(seq: int) -> bytes:
    return encode_call(Call("call", "gw", 1, seq, seq, "s", "rel", "unit"))


def spool(directory: Path, **limits: int) -> Spool:
    clock = ManualClock()
    made = Spool(directory, "gw", 1, Limits(**limits), clock, Log("gw", clock, io.StringIO()))
    made.open()
    return made


def seqs(made: Spool) -> list[int]:
    data = made.read(Cursor(), 1000)
    return [] if data is None else [one.seq for one in decode_batch(data).records]


def test_bytes_leave_at_the_end_of_the_turn_and_records_are_on_disk_by_then(tmp_path: Path) -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        made = spool(tmp_path)
        turn = Turn(loop, made)
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        turn.record(record(1))
        turn.send(transport, b"one ")
        turn.record(record(2))
        turn.send(transport, b"two")
        assert seqs(made) == []
        received = b""
        while len(received) < 7:
            received += await loop.sock_recv(theirs, 100)
            assert seqs(made) == [1, 2]
        assert received == b"one two"
        turn.send(transport, b"never")
        transport.abort()
        turn.flush()
        assert await loop.sock_recv(theirs, 100) == b""
        theirs.close()
        made.close()

    uvloop.run(scene())


def test_a_turn_that_holds_much_lets_it_go_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        made = spool(tmp_path)
        turn = Turn(loop, made)
        ours, theirs = socket.socketpair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        turn.record(record(1))
        turn.send(transport, bytes(HELD_BYTES_MAX - 1))
        assert seqs(made) == []
        turn.send(transport, b"1")
        assert seqs(made) == [1]
        transport.abort()
        theirs.close()
        made.close()

    uvloop.run(scene())


def test_a_record_written_at_once_stays_behind_those_held_back(tmp_path: Path) -> None:
    made = spool(tmp_path)
    made.add(record(1))
    assert made.append(record(2))
    made.add(record(3))
    made.close()
    assert seqs(made) == [1, 2, 3]
    assert made.written == 3


def test_what_a_record_says_was_done_is_done_when_it_is_on_disk(tmp_path: Path) -> None:
    """A turn's end, a record written at once, and a stop: each way by which records get to the disk."""
    made = spool(tmp_path)
    begun: list[int] = []
    done: list[list[int]] = []

    def before() -> None:
        done.append([*begun, len(seqs(made))])

    made.before_write = before
    for seq, write in enumerate((made.flush, lambda: made.append(record(99)), made.hand_over)):
        begun.append(seq)
        made.add(record(seq))
        write()
        assert done[-1][:-1] == begun, "what is done with this record"
        assert done[-1][-1] == len(seqs(made)) - (2 if seq == 1 else 1), "before the record is there"
    made.before_write = lambda: begun.remove(99)
    made.add(record(3))
    with pytest.raises(ValueError, match="not in list"):
        made.flush()
    assert seqs(made)[-1] == 3
    made.before_write = None
    made.close()


def test_no_more_is_held_back_than_a_limit(tmp_path: Path) -> None:
    made = spool(tmp_path)
    for seq in range(1, 1001):
        made.add(record(seq))
    assert len(seqs(made)) > 500
    made.flush()
    assert seqs(made) == list(range(1, 1001))


def test_of_records_that_do_not_all_fit_those_that_do_are_kept_and_the_others_counted(tmp_path: Path) -> None:
    made = spool(tmp_path, spool_bytes_max=900)
    for seq in range(1, 11):
        made.add(record(seq))
    made.flush()
    kept = seqs(made)
    assert kept == list(range(1, len(kept) + 1))
    assert 1 <= len(kept) < 10
    assert (made.written, made.dropped) == (len(kept), 10 - len(kept))
    assert made.problem is not None


def test_a_salt_begun_once_gives_the_buckets_of_the_contract() -> None:
    for salt in (b"", b"s", b"x" * 64, b"y" * 65, bytes(range(200))):
        assert all(Salt(salt).bucket(f"unit {n}") == bucket(salt, f"unit {n}") for n in range(50))
        pairs = [Salt(salt).two_buckets(f"unit {n}") for n in range(400)]
        assert [first for first, _ in pairs[:50]] == [bucket(salt, f"unit {n}") for n in range(50)]
        assert sum(first < 0.5 for first, _ in pairs) in range(160, 240)
        assert sum((first < 0.5) == (second < 0.5) for first, second in pairs) in range(160, 240)


def test_randomness_is_asked_for_in_pieces_and_never_given_twice() -> None:
    asked: list[int] = []

    def source(count: int) -> bytes:
        asked.append(count)
        return b"".join(n.to_bytes(2, "big") for n in range(len(asked) * count, len(asked) * count + count // 2))

    randomness = Randomness(source)
    given = [randomness(16) for _ in range(PIECE_BYTES // 16 * 2)]
    assert asked == [PIECE_BYTES, PIECE_BYTES]
    assert len(set(given)) == len(given)
    assert {len(piece) for piece in given} == {16}
