"""What a start verifies before any action runs: everything since the log was last found whole."""

from __future__ import annotations

import base64

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.audit.desk import MARK_EVERY_S
from cohort.kernel.audit.merkle import leaf_hash
from cohort.kernel.audit.notes import Checkpoint, Signer
from cohort.kernel.audit.store import Head, Rows
from support_audit import ORIGIN, change, fill, open_room, record

WHOLE = 700
SIZE = 1000


@pytest.fixture
def away(sqlite_database, tmp_path, clock):
    """A log that was found whole at 700 records and then grew, while nothing runs."""
    room = open_room(sqlite_database, tmp_path, clock)
    fill(room, WHOLE)
    assert room.desk.verify().integrity == "verified"
    fill(room, SIZE - WHOLE, WHOLE)
    room.stop()
    return sqlite_database


@pytest.fixture
def start(away, tmp_path, clock):
    def started():
        room = open_room(away, tmp_path, clock)
        room.start()
        room.stop()
        return room.log.trouble.message if room.log.trouble else None

    return started


def mark_of(folder):
    return (folder / "audit.verified").read_text()


def rewritten(database, index, signer=None):
    """The records from `index` on written anew with another text at `index`; signed when there is a key."""
    with database.write() as connection:
        rows = Rows(connection)
        entries = [entry for _, entry, _ in rows.entries(index, SIZE)]
        previous = rows.row(index).entry[rows.row(index).entry.index(b'"prev":"') + 8 :][:64]
        entries[0] = entries[0].replace(b"number", b"Number")
        tree = rows.frontier(index)
        for place, entry in enumerate(entries, index):
            at = entry.index(b'"prev":"') + 8
            whole = entry[:at] + previous + entry[at + 64 :]
            leaf = leaf_hash(whole)
            previous = leaf.hex().encode()
            for node in tree.append(leaf):
                rows.execute("UPDATE audit_nodes SET hash = ? WHERE level = ? AND idx = ?", [node.hash, node.height, node.index])
            rows.execute("UPDATE audit_entries SET entry = ?, leaf = ? WHERE idx = ?", [whole, leaf, place])
        if signer is not None:
            rows.execute("DELETE FROM audit_checkpoints")
            note = str(Checkpoint(ORIGIN, SIZE, tree.root()).signed(signer))
            rows.add_checkpoint(Head(SIZE, tree.root(), note, 0), None)


@pytest.mark.parametrize("index", [WHOLE, WHOLE + 50, 767, 768, SIZE - 1])
def test_a_record_that_was_edited_since_is_found_before_an_action_could_run(away, start, index):
    change(away, ("UPDATE audit_entries SET entry = replace(entry, 'number', 'Number') WHERE idx = ?", [index]))
    assert f"record {index}" in start()


def test_after_such_a_start_nothing_can_be_recorded(away, tmp_path, clock):
    change(away, ("UPDATE audit_entries SET entry = replace(entry, 'number', 'Number') WHERE idx = 800", []))
    room = open_room(away, tmp_path, clock)
    room.start()
    with pytest.raises(CohortError) as caught:
        room.log.append(record(1))
    assert caught.value.code == "AUDIT_BROKEN"
    room.stop()


def test_records_found_whole_before_are_not_read_again_and_a_full_verification_reads_them(away, start, tmp_path, clock):
    change(away, ("UPDATE audit_entries SET entry = replace(entry, 'number', 'Number') WHERE idx = 600", []))
    assert start() is None
    room = open_room(away, tmp_path, clock)
    assert "not read again" in room.desk.verify(full=False).why
    assert room.desk.verify().first_bad == 600


def test_without_a_mark_only_the_last_tile_is_read(away, start, tmp_path):
    (tmp_path / "audit.verified").unlink()
    change(away, ("UPDATE audit_entries SET entry = replace(entry, 'number', 'Number') WHERE idx = 750", []))
    assert start() is None
    change(away, ("UPDATE audit_entries SET entry = replace(entry, 'number', 'Number') WHERE idx = 800", []))
    assert "record 800" in start()


@pytest.mark.parametrize("index", [5, WHOLE - 1])
def test_a_history_rewritten_with_the_stolen_key_is_not_the_one_found_whole(away, start, tmp_path, index):
    signer = open_room(away, tmp_path).log.keys.held[0].secret
    rewritten(away, index, signer)
    assert f"the first {WHOLE} records are not those that were found whole before" in start()


def test_what_came_since_can_still_be_rewritten_with_the_stolen_key(away, start, tmp_path):
    """Only an anchor tells: a mark says what was found, not what was written."""
    rewritten(away, WHOLE + 10, open_room(away, tmp_path).log.keys.held[0].secret)
    assert start() is None


def test_a_log_that_was_rolled_back_behind_the_mark_is_found_without_an_anchor(away, start, tmp_path):
    signer = open_room(away, tmp_path).log.keys.held[0].secret
    with away.write() as connection:
        rows = Rows(connection)
        root = rows.tree().root(500)
        rows.execute("DELETE FROM audit_entries WHERE idx >= 500")
        rows.execute("DELETE FROM audit_nodes WHERE level > 8 OR idx >= 1")
        rows.execute("DELETE FROM audit_checkpoints")
        rows.add_checkpoint(Head(500, root, str(Checkpoint(ORIGIN, 500, root).signed(signer)), 0), None)
    assert f"{WHOLE} records were found whole before, and the log ends after 500" in start()
    (tmp_path / "audit.verified").unlink()
    assert start() is None, "whoever restores a backup on purpose removes the mark"


def test_each_verification_moves_the_mark_and_a_quick_one_needs_little(away, tmp_path, clock):
    before = mark_of(tmp_path)
    room = open_room(away, tmp_path, clock)
    room.start()
    assert f"\n{SIZE}\n" in mark_of(tmp_path)
    assert f"\n{WHOLE}\n" in before
    fill(room, 3, SIZE)
    assert room.desk.verify(full=False).integrity == "verified"
    assert f"\n{SIZE}\n" in mark_of(tmp_path), "a mark costs two syncs: not after each of many"
    clock.advance(MARK_EVERY_S)
    assert room.desk.verify(full=False).integrity == "verified"
    assert f"\n{SIZE + 3}\n" in mark_of(tmp_path)
    room.stop()


def spoilt(text, how):
    stranger = Signer.of(ORIGIN, bytes(32))
    body = text.rpartition("\n\n")[0] + "\n"
    match how:
        case "stranger":
            return body + "\n" + stranger.sign(body).line
        case "checkpoint":
            return None
        case "size":
            return text.replace(f"\n{WHOLE}\n", f"\n{SIZE}\n")
        case "cut":
            return text[: len(text) // 2]
        case "binary":
            return "\x00\x01"
    return ""


@pytest.mark.parametrize("how", ["stranger", "checkpoint", "size", "cut", "binary", "empty"])
def test_a_mark_that_is_not_to_be_believed_is_none(away, start, tmp_path, how):
    path = tmp_path / "audit.verified"
    with away.read() as connection:
        note = Rows(connection).head().note
    text = spoilt(path.read_text(), how)
    path.write_text(note if text is None else text)
    assert start() is None


def test_a_mark_of_one_of_two_keys_is_none_until_both_have_signed(away, tmp_path, clock, start):
    room = open_room(away, tmp_path, clock)
    old = mark_of(tmp_path)
    room.desk.rotate_key("ana")
    room.desk.verify()
    assert len([line for line in mark_of(tmp_path).splitlines() if line.startswith("— ")]) == 2
    (tmp_path / "audit.verified").write_text(old)
    assert open_room(away, tmp_path, clock).desk._parts.marks.read() is None


def test_a_mark_that_cannot_be_written_stops_nothing(away, tmp_path, clock, caplog):
    (tmp_path / "audit.verified.new").mkdir()
    room = open_room(away, tmp_path, clock)
    assert room.desk.verify().integrity == "verified"
    assert "cannot be written" in caplog.text
    assert f"\n{WHOLE}\n" in mark_of(tmp_path)


def test_the_mark_is_a_statement_about_the_root(tmp_path, away):
    lines = mark_of(tmp_path).split("\n")
    with away.read() as connection:
        root = Rows(connection).tree().root(WHOLE)
    assert lines[:4] == ["found whole by cohort", ORIGIN, str(WHOLE), base64.b64encode(root).decode()]
