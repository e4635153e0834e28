"""Reading the log in stretches accepts nothing that reading it row by row would not."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from cohort.kernel.audit import joined, verify
from cohort.kernel.audit.merkle import leaf_hash
from cohort.kernel.audit.store import Rows
from support_audit import change, fill, open_room

SIZE = 300


@pytest.fixture
def room(sqlite_database, tmp_path):
    room = open_room(sqlite_database, tmp_path)
    fill(room, SIZE)
    return room


def row(database, index):
    with database.read() as connection:
        return Rows(connection).row(index)


def test_a_stretch_is_what_the_rows_are(room, sqlite_database):
    found = joined.read(sqlite_database, 5, SIZE)
    with sqlite_database.read() as connection:
        rows = Rows(connection).entries(5, SIZE)
    assert list(found.entries) == [b"\x00" + entry for _, entry, _ in rows]
    assert found.leaves == b"".join(leaf for _, _, leaf in rows)


def test_it_does_not_care_which_other_indexes_there_are(room, sqlite_database):
    before = joined.read(sqlite_database, 0, SIZE)
    change(sqlite_database, ("CREATE INDEX other ON audit_entries (leaf, entry)", []))
    assert joined.read(sqlite_database, 0, SIZE) == before


def test_records_that_are_missing_are_no_stretch(room, sqlite_database):
    assert joined.read(sqlite_database, 0, SIZE + 1) is None
    change(sqlite_database, ("DELETE FROM audit_entries WHERE idx = 7", []))
    assert joined.read(sqlite_database, 0, SIZE) is None
    assert joined.read(sqlite_database, 8, SIZE) is not None


def test_two_records_cannot_pass_for_one_with_a_line_feed(room, sqlite_database):
    """Where a column may be NULL, which a changed file can allow, one row could hold what belongs into two."""
    both = row(sqlite_database, 3).entry + b"\n\x00" + row(sqlite_database, 4).entry
    nullable = "UPDATE sqlite_schema SET sql = replace(sql, 'entry BLOB NOT NULL', 'entry BLOB') WHERE name = 'audit_entries'"
    with sqlite_database.write() as connection:
        connection.execute(text("PRAGMA writable_schema = ON"))
        Rows(connection).execute(nullable)
    with sqlite_database.write() as connection:
        connection.execute(text("PRAGMA writable_schema = RESET"))
    change(
        sqlite_database,
        ("UPDATE audit_entries SET entry = ? WHERE idx = 3", [both]),
        ("UPDATE audit_entries SET entry = NULL WHERE idx = 4", []),
    )
    assert joined.read(sqlite_database, 0, SIZE) is None


def test_leaf_hashes_cannot_borrow_from_each_other(room, sqlite_database):
    one, two = row(sqlite_database, 3).leaf, row(sqlite_database, 4).leaf
    change(
        sqlite_database,
        ("UPDATE audit_entries SET leaf = ? WHERE idx = 3", [one + two[:1]]),
        ("UPDATE audit_entries SET leaf = ? WHERE idx = 4", [two[1:]]),
    )
    assert joined.read(sqlite_database, 0, SIZE) is None
    answer = room.desk.verify()
    assert (answer.integrity, answer.first_bad) == ("broken", 3)


def test_a_record_with_a_line_feed_is_read_by_itself_and_judged(room, sqlite_database):
    entry = row(sqlite_database, 3).entry.replace(b',"body"', b',\n"body"')
    change(sqlite_database, ("UPDATE audit_entries SET entry = ?, leaf = ? WHERE idx = 3", [entry, leaf_hash(entry)]))
    assert joined.read(sqlite_database, 0, SIZE) is None
    answer = room.desk.verify()
    assert (answer.integrity, answer.first_bad) == ("broken", 3)


@pytest.mark.parametrize("place", [0, 1, verify.ROWS_AT_ONCE - 1, verify.ROWS_AT_ONCE, verify.ROWS_AT_ONCE + 40])
def test_a_change_is_found_in_every_stretch(sqlite_database, tmp_path, place):
    room = open_room(sqlite_database, tmp_path)
    for start in range(0, verify.ROWS_AT_ONCE + 50, 1000):
        fill(room, min(1000, verify.ROWS_AT_ONCE + 50 - start), start)
    assert room.desk.verify().integrity == "verified"
    change(sqlite_database, ("UPDATE audit_entries SET entry = replace(entry, 'files', 'Files') WHERE idx = ?", [place]))
    answer = room.desk.verify()
    assert (answer.integrity, answer.first_bad) == ("broken", place)
