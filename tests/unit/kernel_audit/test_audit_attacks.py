"""What somebody with the database can do to the log, and that `verify` names each.

An attacker here can write every table, knows every format, and recomputes whatever needs no key.
"""

from __future__ import annotations

import secrets
import shutil

import pytest
from sqlalchemy import text

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.kernel.audit import entries
from cohort.kernel.audit.merkle import Frontier, leaf_hash
from cohort.kernel.audit.notes import Checkpoint, Signer
from cohort.kernel.audit.store import Head, Rows
from cohort.kernel.face import AuditQuery
from cohort.kernel.model import RecordKind
from support_audit import ORIGIN, change, fill, open_room, record

SIZE = 600


@pytest.fixture
def room(sqlite_database, tmp_path):
    room = open_room(sqlite_database, tmp_path, anchors=[f"file:{tmp_path}/anchor"])
    fill(room, SIZE)
    return room


def stored(database, index):
    with database.read() as connection:
        return Rows(connection).row(index)


def forged(database, index):
    """Another entry for that place, with everything about it right but what it says."""
    entry = stored(database, index).entry.replace(b"number ", b"Number ")
    return entry, leaf_hash(entry)


def told(room, full=True):
    answer = room.desk.verify(full=full)
    assert answer.integrity == "broken"
    return answer.first_bad, answer.why


def rebuild(database, entries, signer=None):
    """The whole log made anew from entries chained as they should be; signed if there is a key, else under the old note."""
    frontier, previous, rows, nodes = Frontier(), bytes(32), [], []
    for index, entry in enumerate(entries):
        at = entry.index(b'"prev":"') + 8
        entry = entry[:at] + previous.hex().encode() + entry[at + 64 :]
        previous = leaf_hash(entry)
        nodes += frontier.append(previous)
        value = entries_value(entry)
        rows.append((index, entry, previous, value["at_us"], value["kind"], value["agent"], value["action"]))
    with database.write() as connection:
        tables = Rows(connection)
        head = tables.head()
        for table in ("audit_entries", "audit_nodes", "audit_checkpoints"):
            tables.execute(f"DELETE FROM {table}")
        tables.add_entries(rows)
        tables.add_nodes(nodes)
        checkpoint = Checkpoint(ORIGIN, frontier.size, frontier.root())
        note = str(checkpoint.signed(signer)) if signer else head.note
        tables.add_checkpoint(Head(checkpoint.size, checkpoint.root, note, head.at_us), None)


def entries_value(entry):
    return entries.parse(entry)


def all_entries(database):
    with database.read() as connection:
        return [row[1] for row in Rows(connection).entries(0, 1 << 40)]


@pytest.mark.parametrize("index", [0, 255, 300, 511, 512, 599])
def test_an_edited_entry(room, sqlite_database, index):
    entry, _ = forged(sqlite_database, index)
    change(sqlite_database, ("UPDATE audit_entries SET entry = ? WHERE idx = ?", [entry, index]))
    assert told(room) == (index, f"record {index} was edited: its entry is not the one that was signed")


@pytest.mark.parametrize("index", [0, 255, 300, 511, 512, 598])
def test_an_entry_edited_together_with_its_leaf_hash(room, sqlite_database, index):
    change(sqlite_database, ("UPDATE audit_entries SET entry = ?, leaf = ? WHERE idx = ?", [*forged(sqlite_database, index), index]))
    first, why = told(room)
    assert first == index
    assert "edited together with its leaf hash" in why


def test_the_last_entry_edited_together_with_its_leaf_hash(room, sqlite_database):
    """No entry follows that could name it; the checkpoint still says that one of the last tile is wrong."""
    change(sqlite_database, ("UPDATE audit_entries SET entry = ?, leaf = ? WHERE idx = 599", forged(sqlite_database, 599)))
    first, why = told(room)
    assert first is not None
    assert first <= 599
    assert "are not those that the checkpoint of 600 records states" in why


@pytest.mark.parametrize("index", [0, 300, 599])
def test_a_changed_leaf_hash(room, sqlite_database, index):
    change(sqlite_database, ("UPDATE audit_entries SET leaf = ? WHERE idx = ?", [bytes(32), index]))
    first, why = told(room)
    assert first == index
    assert "leaf hash beside record" in why


@pytest.mark.parametrize("index", [0, 255, 300, 599])
def test_a_deleted_entry(room, sqlite_database, index):
    change(sqlite_database, ("DELETE FROM audit_entries WHERE idx = ?", [index]))
    first, why = told(room)
    assert first == index
    assert "missing" in why or "cut off" in why


def test_a_deleted_entry_with_those_behind_it_moved_up(room, sqlite_database):
    change(
        sqlite_database,
        ("DELETE FROM audit_entries WHERE idx = 300", []),
        ("UPDATE audit_entries SET idx = -idx WHERE idx > 300", []),
        ("UPDATE audit_entries SET idx = -idx - 1 WHERE idx < 0", []),
    )
    first, why = told(room)
    assert first in (299, 300)
    assert "record 300 does not follow" in why


def swap(database, one, two, columns):
    first, second = stored(database, one), stored(database, two)
    values = {"entry": (first.entry, second.entry), "leaf": (first.leaf, second.leaf)}
    for name in columns:
        change(
            database,
            (f"UPDATE audit_entries SET {name} = ? WHERE idx = ?", [values[name][1], one]),
            (f"UPDATE audit_entries SET {name} = ? WHERE idx = ?", [values[name][0], two]),
        )


@pytest.mark.parametrize(("one", "two"), [(300, 301), (10, 200), (255, 256), (0, 1)])
@pytest.mark.parametrize("columns", [("entry",), ("entry", "leaf")])
def test_reordered_entries(room, sqlite_database, one, two, columns):
    swap(sqlite_database, one, two, columns)
    first, why = told(room)
    assert first == one
    assert "reordered" in why


def test_a_tail_cut_off(room, sqlite_database):
    change(sqlite_database, ("DELETE FROM audit_entries WHERE idx >= 500", []))
    assert told(room) == (500, "the log ends after 500 records, and its last checkpoint covers 600: its tail was cut off")
    assert open_room(sqlite_database, room_folder(room)).log.trouble.code == "AUDIT_BROKEN"


def room_folder(room):
    return room.anchors._places[0]._path.parent


def test_records_added_behind_the_checkpoint(room, sqlite_database):
    extra = stored(sqlite_database, 599)
    values = [600, extra.entry, extra.leaf, extra.at_us, extra.kind, extra.agent, extra.action]
    change(
        sqlite_database, ("INSERT INTO audit_entries (idx, entry, leaf, at_us, kind, agent, action) VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    )
    first, why = told(room)
    assert first == 600
    assert "under no checkpoint" in why


def test_a_database_rolled_back_is_seen_by_the_anchor(room, sqlite_database, tmp_path):
    with sqlite_database.read() as connection:
        assert connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)")).scalar() is not None
    old = all_entries(sqlite_database)
    fill(room, 50, SIZE)
    assert room.desk.anchor()[0]["ok"]
    signer = room.log.keys.held[0].secret
    rebuild(sqlite_database, old, signer)  # exactly what a restored backup holds: signed by the right key
    first, why = told(open_room(sqlite_database, tmp_path, anchors=[f"file:{tmp_path}/anchor"]))
    assert first == 600
    assert "vouches for 650 records, and the log ends after 600" in why


def test_a_rolled_back_log_is_sealed_before_it_signs_anything_that_contradicts_the_anchor(room, sqlite_database, tmp_path):
    old = all_entries(sqlite_database)
    fill(room, 50, SIZE)
    room.desk.anchor()
    rebuild(sqlite_database, old, room.log.keys.held[0].secret)
    again = open_room(sqlite_database, tmp_path, anchors=[f"file:{tmp_path}/anchor"])
    result = again.desk.anchor()[0]
    assert not result["ok"]
    assert again.log.trouble.code == "AUDIT_BROKEN"
    with pytest.raises(Exception, match="650 records"):
        again.log.append(record(1))
    assert len((tmp_path / "anchor").read_text().splitlines()) == 1


def test_the_whole_log_replaced_under_another_key(room, sqlite_database):
    other = [entry.replace(b"number", b"Number") for entry in all_entries(sqlite_database)]
    rebuild(sqlite_database, other, Signer.of(ORIGIN, secrets.token_bytes(32)))
    first, why = told(room)
    assert first is None
    assert "not signed by the log's key" in why


def test_the_whole_log_replaced_under_another_name(room, sqlite_database):
    rebuild(sqlite_database, all_entries(sqlite_database), Signer.of("other.example/audit", bytes(32)))
    assert "cannot be trusted" in told(room)[1]


def test_the_log_signed_again_with_a_former_key(room, sqlite_database, tmp_path):
    """The key of an earlier log of this installation, from a backup: the name is right, the key is not."""
    former = Signer.of(ORIGIN, b"former key of this installation.")
    rebuild(sqlite_database, all_entries(sqlite_database)[:500], former)
    assert "not signed by the log's key" in told(room)[1]
    assert open_room(sqlite_database, tmp_path).log.trouble.code == "AUDIT_BROKEN"


def test_the_whole_log_replaced_with_the_stolen_key_is_seen_by_the_anchor(room, sqlite_database):
    room.desk.anchor()
    other = all_entries(sqlite_database)
    other[300] = other[300].replace(b"number", b"Number")
    rebuild(sqlite_database, other, room.log.keys.held[0].secret)
    first, why = told(room)
    assert first is not None
    assert first <= 300
    assert "that file:" in why


def test_a_checkpoint_signed_over_another_tree_contradicts_the_earlier_one(sqlite_database, tmp_path, clock):
    room = open_room(sqlite_database, tmp_path, clock)
    fill(room, 300)
    clock.advance(2 * 3600)
    fill(room, 300, 300)
    with sqlite_database.read() as connection:
        early = Rows(connection).checkpoints(600)[0]
    assert early.size == 300
    other = all_entries(sqlite_database)
    other[10] = other[10].replace(b"number", b"Number")
    rebuild(sqlite_database, other, room.log.keys.held[0].secret)
    with sqlite_database.write() as connection:
        Rows(connection).add_checkpoint(early, None)
    first, why = told(room)
    assert first is not None
    assert first <= 10
    assert "the checkpoint of 300 records states" in why


def test_a_changed_checkpoint_row(room, sqlite_database):
    change(sqlite_database, ("UPDATE audit_checkpoints SET root = ? WHERE size = 600", [bytes(32)]))
    assert "its note says something else" in told(room)[1]


def test_an_everything_recomputed_log_under_the_old_note(room, sqlite_database):
    other = all_entries(sqlite_database)
    other[42] = other[42].replace(b"number", b"Number")
    rebuild(sqlite_database, other)
    assert "cannot be trusted" in told(room)[1]


@pytest.mark.parametrize("statement", ["hash = zeroblob(32)", "hash = 'a text'", "level = 16"])
def test_a_changed_inner_hash(room, sqlite_database, statement):
    change(sqlite_database, (f"UPDATE audit_nodes SET {statement} WHERE idx = 1", []))
    first, why = told(room)
    assert first == 256
    assert "the records themselves are whole" in why


@pytest.mark.parametrize("column", ["kind = 'note'", "agent = 'ag_other'", "action = NULL", "at_us = 1"])
def test_a_changed_column_that_searches_use(room, sqlite_database, column):
    change(sqlite_database, (f"UPDATE audit_entries SET {column} WHERE idx = 77", []))
    first, why = told(room)
    assert first == 77
    assert "not what its entry says" in why


def test_an_entry_that_is_no_longer_json(room, sqlite_database):
    change(sqlite_database, ("UPDATE audit_entries SET entry = ? WHERE idx = 77", [b"\xff{"]))
    assert told(room)[0] == 77
    assert "unreadable" in room.desk.entry(77).body


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET entry = 'a text' WHERE idx = 77",
        "UPDATE audit_entries SET entry = 5 WHERE idx = 77",
        "UPDATE audit_entries SET leaf = 'a text' WHERE idx = 77",
        "UPDATE audit_entries SET leaf = CAST(x'ff' AS TEXT) WHERE idx = 77",
        "UPDATE audit_entries SET at_us = 'never' WHERE idx = 599",
        "UPDATE audit_entries SET kind = 5 WHERE idx = 77",
        "UPDATE audit_entries SET agent = CAST(x'ff' AS TEXT) WHERE idx = 77",
        "UPDATE audit_checkpoints SET root = 'a text'",
        "UPDATE audit_checkpoints SET note = x'00ff'",
        "UPDATE audit_checkpoints SET note = ''",
        "UPDATE audit_checkpoints SET at_us = 'never', size = 599",
        "UPDATE audit_checkpoints SET size = -1",
    ],
)
def test_values_of_a_wrong_type_are_wrong_and_break_nothing_else(room, sqlite_database, tmp_path, statement):
    change(sqlite_database, (statement, []))
    told(room)
    room.desk.search(AuditQuery(text="a text"))
    again = open_room(sqlite_database, tmp_path)
    assert again.desk.verify().integrity == "broken"
    again.start()
    again.stop()


def test_an_emptied_log(room, sqlite_database):
    room.desk.anchor()
    for table in ("audit_entries", "audit_nodes", "audit_checkpoints", "audit_anchors"):
        change(sqlite_database, (f"DELETE FROM {table}", []))
    first, why = told(room)
    assert first == 0
    assert "vouches for 600 records" in why


def test_the_quick_verification_sees_what_was_changed_since(room, sqlite_database):
    assert room.desk.verify().integrity == "verified"
    fill(room, 3, SIZE)
    assert room.desk.verify(full=False).integrity == "verified"
    fill(room, 3, SIZE + 3)
    entry, _ = forged(sqlite_database, 604)
    change(sqlite_database, ("UPDATE audit_entries SET entry = ? WHERE idx = 604", [entry]))
    assert told(room, full=False)[0] == 604


def test_the_quick_verification_sees_a_log_that_was_cut_off_or_emptied(room, sqlite_database):
    assert room.desk.verify().integrity == "verified"
    change(sqlite_database, ("DELETE FROM audit_entries WHERE idx >= 500", []), ("DELETE FROM audit_checkpoints", []))
    assert told(room, full=False)[0] == 0


def test_a_running_log_that_was_changed_underneath_is_sealed(room, sqlite_database):
    old = all_entries(sqlite_database)
    rebuild(sqlite_database, old[:500], room.log.keys.held[0].secret)
    with pytest.raises(Exception, match="ended at record 600"):
        room.log.append(record(1, RecordKind.OUTCOME))
    assert room.log.trouble.code == "AUDIT_BROKEN"
    assert room.desk.trouble
    assert stored(sqlite_database, 500) is None


def test_a_copy_of_the_file_verifies_by_itself(room, sqlite_database, tmp_path):
    """The attacks above are found because of what they do, not because the log was opened twice."""
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "audit.key", copy)
    assert open_room(sqlite_database, copy, SystemClock()).desk.verify().integrity == "verified"


@pytest.mark.parametrize("full", [True, False])
def test_a_log_that_a_verification_finds_broken_is_written_no_more(sqlite_database, tmp_path, full):
    room = open_room(sqlite_database, tmp_path)
    fill(room, 5)
    change(sqlite_database, ("UPDATE audit_entries SET entry = ? WHERE idx = ?", [forged(sqlite_database, 2)[0], 2]))
    assert room.log.append(record(5)).index == 5  # nobody has looked yet: what is signed are the hashes
    assert room.desk.verify(full=full).integrity == "broken"
    with pytest.raises(CohortError) as caught:
        room.log.append(record(6))
    assert caught.value.code == "AUDIT_BROKEN"
    assert "record 2" in caught.value.message
    assert room.desk.trouble


def test_a_log_that_is_whole_again_is_written_after_a_full_verification_and_says_so(sqlite_database, tmp_path):
    room = open_room(sqlite_database, tmp_path)
    fill(room, 5)
    whole = stored(sqlite_database, 2)
    change(sqlite_database, ("UPDATE audit_entries SET entry = ? WHERE idx = ?", [forged(sqlite_database, 2)[0], 2]))
    assert room.desk.verify().integrity == "broken"
    change(sqlite_database, ("UPDATE audit_entries SET entry = ? WHERE idx = ?", [whole.entry, 2]))
    assert room.desk.verify(full=False).integrity == "verified"
    assert room.desk.trouble
    assert room.desk.verify().integrity == "verified"
    assert not room.desk.trouble
    assert room.log.append(record(5)).index == 6
    assert room.desk.entry(5).body["body"]["note"] == "whole_again"


def test_a_verification_does_not_open_a_log_that_something_else_sealed(room):
    room.log.seal("an anchor knows another")
    assert room.desk.verify().integrity == "verified"
    assert room.log.trouble is not None


def opened_after(database, tmp_path, *statements):
    change(database, *statements)
    trouble = open_room(database, tmp_path).log.trouble
    return None if trouble is None else trouble.message


def test_a_leaf_hash_that_was_changed_while_control_was_away_is_found_at_the_start(room, sqlite_database, tmp_path):
    said = opened_after(sqlite_database, tmp_path, ("UPDATE audit_entries SET leaf = zeroblob(32) WHERE idx = 590", []))
    assert "the leaf hashes beside its entries were changed" in said
    with sqlite_database.read() as connection:
        assert len(Rows(connection).run(8, 0, 9)) == 2, "what was rebuilt meanwhile is what the entries say"


def test_an_entry_that_was_changed_with_its_leaf_hash_is_found_at_the_start(room, sqlite_database, tmp_path):
    entry, leaf = forged(sqlite_database, 590)
    said = opened_after(sqlite_database, tmp_path, ("UPDATE audit_entries SET entry = ?, leaf = ? WHERE idx = 590", [entry, leaf]))
    assert "its entries do not lead to the root of the checkpoint of 600 records" in said


def test_another_process_that_wrote_other_hashes_is_found_before_the_next_record(room, sqlite_database, tmp_path):
    other = open_room(sqlite_database, tmp_path)
    fill(other, 1, SIZE)
    change(sqlite_database, ("UPDATE audit_entries SET leaf = zeroblob(32) WHERE idx = 595", []))
    with pytest.raises(CohortError, match="its hashes do not lead to the checkpoint of 601 records"):
        room.log.append(record(1))
    assert room.log.trouble.code == "AUDIT_BROKEN"
