"""Other processes hash the log: what they say is what reading it row by row says, and nothing hangs on them."""

from __future__ import annotations

import io
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest

from cohort.kernel.audit import beside, hasher, hashing
from cohort.kernel.audit.hashing import Hashing
from cohort.kernel.audit.merkle import complete
from cohort.kernel.audit.store import Rows
from support_audit import change, fill, open_room

STRETCH = 512
SIZE = 4 * STRETCH + 300


class Started:
    """The processes that were started: each notes its id, and is the program itself then."""

    def __init__(self, folder):
        self._ids, self.program = folder / "started", folder / "noting.py"
        noted = f"open({str(self._ids)!r}, 'a').write(f'{{os.getpid()}}\\n')"
        self.program.write_text(f"import os, runpy\n{noted}\nrunpy.run_path({hasher.__file__!r}, run_name='__main__')\n")

    def ids(self):
        return [int(line) for line in self._ids.read_text().splitlines()] if self._ids.exists() else []

    def all_ended(self):
        return not [number for number in self.ids() if os.path.exists(f"/proc/{number}")]


@pytest.fixture
def started(tmp_path):
    return Started(tmp_path)


@pytest.fixture
def how(started):
    return Hashing(records_min=1, stretch=STRETCH, program=str(started.program))


@pytest.fixture
def room(sqlite_database, tmp_path, how):
    """A log of five stretches, the last of them not whole."""
    room = open_room(sqlite_database, tmp_path, hashing=how)
    fill(room, SIZE)
    return room


def told(room):
    answer = room.desk.verify()
    return answer.integrity, answer.first_bad, answer.root


def entries_of(database, low, high):
    with database.read() as connection:
        return Rows(connection).entries(low, high)


def test_each_stretch_comes_with_the_hashes_that_its_rows_have(room, sqlite_database, started, how):
    with hashing.hashers(sqlite_database, SIZE, how) as hashed:
        for low in range(0, SIZE, STRETCH):
            leaves = [leaf for _, _, leaf in entries_of(sqlite_database, low, min(SIZE, low + STRETCH))]
            found = hashed.get(low)
            assert found.leaves == leaves
            assert found.tiles == [complete(tile) for tile in hashing.tiles_of(leaves) if len(tile) == 256]
    assert len(started.ids()) == hashing.PROCESSES
    assert started.all_ended()


def test_the_answer_is_the_same_with_and_without_them(room, sqlite_database, tmp_path, started, how):
    with_them = told(room)
    assert told(open_room(sqlite_database, tmp_path, hashing=replace(how, records_min=SIZE + 1))) == with_them
    assert with_them[0] == "verified"
    assert len(started.ids()) == hashing.PROCESSES


@pytest.mark.parametrize("place", [0, 1, STRETCH - 1, STRETCH, 2 * STRETCH + 40, SIZE - 1])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET entry = replace(entry, 'files', 'Files') WHERE idx = ?",
        "DELETE FROM audit_entries WHERE idx = ?",
        "UPDATE audit_entries SET leaf = randomblob(32) WHERE idx = ?",
    ],
)
def test_the_first_wrong_record_is_named_in_every_stretch(room, sqlite_database, statement, place):
    change(sqlite_database, (statement, [place]), (statement, [min(SIZE - 1, place + STRETCH)]))
    assert told(room)[:2] == ("broken", place)


def test_leaf_hashes_cannot_borrow_from_each_other(room, sqlite_database):
    one, two = (leaf for _, _, leaf in entries_of(sqlite_database, 3, 5))
    change(
        sqlite_database,
        ("UPDATE audit_entries SET leaf = ? WHERE idx = 3", [one + two[:1]]),
        ("UPDATE audit_entries SET leaf = ? WHERE idx = 4", [two[1:]]),
    )
    assert told(room)[:2] == ("broken", 3)


@pytest.mark.parametrize(
    "program",
    [
        "",
        "raise SystemExit(1)",
        "print(end='x')",
        "import sys; sys.stdin.readline(); print(end=chr(1) + 'half')",
        "import os; os.kill(os.getpid(), 9)",
    ],
)
def test_a_process_that_gives_no_whole_answer_is_done_without(room, started, program):
    note = started.program.read_text().partition("runpy.run_path")[0]
    started.program.write_text(note + program)
    assert told(room)[0] == "verified"
    assert started.all_ended()


def test_a_process_that_says_a_stretch_is_whole_cannot_make_it_so(room, started):
    """The tree is built of what it says: a wrong hash does not lead to the signed root."""
    started.program.write_text(
        "import sys\nfor line in sys.stdin:\n low, high = map(int, line.split())\n n = high - low\n"
        " sys.stdout.buffer.write(b'\\x01' + bytes(32 * (n + n // 256)))\n sys.stdout.buffer.flush()\n"
    )
    assert told(room)[0] == "broken"


def test_without_a_python_to_start_nothing_is_missing(room, sqlite_database, tmp_path, started, how):
    for python in ("/nowhere/python", ""):
        assert told(open_room(sqlite_database, tmp_path, hashing=replace(how, python=python)))[0] == "verified"
    assert not started.ids()


def test_they_end_when_the_verification_is_broken_off(room, started):
    class Enough(Exception):
        pass

    def stop(done, count):
        assert count == SIZE
        raise Enough

    with pytest.raises(Enough):
        room.desk.verify(progress=stop)
    assert started.ids()
    assert started.all_ended()


def test_it_ends_by_itself_when_whoever_asked_has_been_killed(room, sqlite_database):
    file = hashing._file(sqlite_database)
    process = subprocess.Popen([sys.executable, hasher.__file__, file], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={})
    process.stdin.close()
    assert process.wait(30) == 0


def test_a_file_without_a_log_beside_it_is_read_without_making_one(room, sqlite_database, tmp_path):
    sqlite_database.close()
    file = hashing._file(sqlite_database)
    sqlite_database.close()
    assert not os.path.exists(f"{file}-wal")
    connection = hasher.connected(hasher.Path(file))
    assert connection.execute("SELECT count(*) FROM audit_entries").fetchone() == (SIZE,)
    assert not os.path.exists(f"{file}-wal")
    with pytest.raises(sqlite3.OperationalError):
        connection.execute("DELETE FROM audit_entries")


def test_what_the_program_says(monkeypatch, room, sqlite_database, capsysbinary):
    rows = [(entry, leaf) for _, entry, leaf in entries_of(sqlite_database, 0, 300)]
    monkeypatch.setattr(sys, "argv", ["hasher.py", hashing._file(sqlite_database)])
    monkeypatch.setattr(sys, "stdin", io.StringIO("0 300\n0 301\n5 400000\n"))
    before = hasher.signal.getsignal(hasher.signal.SIGINT)
    hasher.main()
    hasher.signal.signal(hasher.signal.SIGINT, before)
    whole = b"".join([b"\x01", *(leaf for _, leaf in rows), complete([leaf for _, leaf in rows[:256]])])
    following = b"".join(leaf for _, _, leaf in entries_of(sqlite_database, 300, 301))
    longer = whole[: 1 + 300 * 32] + following + whole[1 + 300 * 32 :]
    assert capsysbinary.readouterr().out == whole + longer + b"\x00"


def test_how_far_it_is_can_be_asked_while_it_runs_and_nothing_runs_afterwards(room):
    seen = []
    room.desk.verify(progress=lambda done, count: seen.append((done, count, room.desk.verifying())))
    assert [done for done, _, _ in seen] == [512, 1024, 1536, 2048, SIZE]
    assert all(asked == (done, count) for done, count, asked in seen)
    assert room.desk.verifying() is None


def test_what_is_compared_beside_it_is_broken_off_with_it(room, sqlite_database):
    change(sqlite_database, ("UPDATE audit_entries SET kind = 'note' WHERE idx = 3", []))
    assert beside.check(sqlite_database, SIZE)[0].index == 3
    assert beside.check(sqlite_database, SIZE, lambda: True) == (None, ())
