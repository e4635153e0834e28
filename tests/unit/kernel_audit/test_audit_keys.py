"""Changing the log's keys: old checkpoints stay verifiable, and no single key can speak for the others."""

from __future__ import annotations

import base64
import secrets
import subprocess
import sys

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.audit import log as log_module
from cohort.kernel.audit.keys import Change, Keys, read_keys, write_keys
from cohort.kernel.audit.notes import Checkpoint, Signer, open_checkpoint
from cohort.kernel.audit.ring import Ring, Term
from cohort.kernel.audit.store import Head, Rows
from cohort.kernel.audit.witness import open_witness
from support_audit import ORIGIN, change, fill, open_room, record

FIRST, SECOND, THIRD = (Signer.of(ORIGIN, bytes([number]) * 32) for number in range(3))


@pytest.fixture
def room(sqlite_database, tmp_path, clock):
    room = open_room(sqlite_database, tmp_path, clock)
    fill(room, 10)
    yield room
    room.stop()


def refused(call, *values):
    with pytest.raises(CohortError) as caught:
        call(*values)
    return caught.value


def ids(note):
    return {line.split(" ")[2][:5] for line in note.splitlines() if line.startswith("— ")}


def verified(room):
    answer = room.desk.verify()
    return answer.integrity, answer.why


def thief(room):
    """Whoever has copied the secret that is now the oldest."""
    return room.log.keys.held[0].secret


def resigned(database, signer, size, root=None):
    """The newest checkpoint replaced by one over the same records, or others, that only `signer` has signed."""
    with database.write() as connection:
        rows = Rows(connection)
        checkpoint = Checkpoint(ORIGIN, size, root or rows.tree().root(size))
        rows.execute("DELETE FROM audit_checkpoints WHERE size >= ?", [size])
        rows.add_checkpoint(Head(size, checkpoint.root, str(checkpoint.signed(signer)), 0), None)


def test_a_rotation_is_in_the_log_and_both_keys_sign_from_there_on(room):
    first = room.desk.vkey
    made = room.desk.rotate_key("ana")
    body = room.desk.entry(10).body
    assert (body["kind"], body["body"]) == ("key", {"event": "audit_key_added", "vkey": made.vkey, "actor": "ana"})
    assert (made.since, made.active, room.desk.vkey) == (11, True, made.vkey)
    assert len(ids(room.desk.checkpoint())) == 2
    assert open_checkpoint(room.desk.checkpoint(), room.log.keys.held[1].secret.verifier).size == 11
    fill(room, 3, 20)
    assert len(ids(room.desk.checkpoint())) == 2
    assert [key.vkey for key in room.desk.signing_keys()] == [made.vkey, first]
    assert verified(room) == ("verified", "")


def test_a_retired_key_signs_nothing_more_and_its_secret_is_gone(room, tmp_path):
    secret = (tmp_path / "audit.key").read_text().split()[0]
    room.desk.rotate_key("ana")
    fill(room, 3, 20)
    ended = room.desk.retire_key(None, "ana")
    assert (ended.active, ended.since, ended.until) == (False, 0, 14)
    assert len(ids(room.desk.checkpoint())) == 1
    assert secret not in (tmp_path / "audit.key").read_text()
    assert (tmp_path / "audit.key").stat().st_mode & 0o777 == 0o600
    assert verified(room) == ("verified", "")
    assert room.desk.verify(full=False).integrity == "verified"


def test_the_newer_of_two_keys_can_be_the_one_that_ends(room):
    made = room.desk.rotate_key("ana")
    assert room.desk.retire_key(made.id, "ana").id == made.id
    fill(room, 1, 20)
    assert verified(room) == ("verified", "")
    assert room.desk.rotate_key("ana").active


def test_there_are_never_more_than_two_active_keys_nor_none(room):
    assert refused(room.desk.retire_key, None, "ana").code == "AUDIT_KEY_REFUSED"
    room.desk.rotate_key("ana")
    assert refused(room.desk.rotate_key, "ana").code == "AUDIT_KEY_REFUSED"
    assert refused(room.desk.retire_key, "00000000", "ana").code == "NOT_FOUND"
    assert room.desk.size() == 11, "a refusal changes nothing"


def test_the_last_checkpoint_of_the_old_keys_is_kept(room, sqlite_database):
    room.desk.rotate_key("ana")
    room.desk.retire_key(None, "ana")
    fill(room, 5, 20)
    with sqlite_database.read() as connection:
        kept = Rows(connection).checkpoints(100)
    assert [head.size for head in kept] == [10, 11, 17], "the last by the first key, the last by both, the newest"


def test_the_log_goes_on_after_a_restart_at_every_step(room, sqlite_database, tmp_path, clock):
    for step in ("rotate", "retire", "rotate", "retire"):
        room = open_room(sqlite_database, tmp_path, clock)
        assert room.log.trouble is None
        room.desk.rotate_key("ana") if step == "rotate" else room.desk.retire_key(None, "ana")
        fill(room, 2, 30)
        assert verified(open_room(sqlite_database, tmp_path, clock)) == ("verified", "")
    assert len(read_keys(tmp_path / "audit.key").held) == 3


@pytest.mark.parametrize("root", [None, bytes(32)])
def test_resigning_with_a_retired_key_is_found(room, sqlite_database, tmp_path, root):
    stolen = thief(room)
    room.desk.rotate_key("ana")
    room.desk.retire_key(None, "ana")
    fill(room, 3, 20)
    resigned(sqlite_database, stolen, 15, root)
    answer = room.desk.verify()
    assert answer.integrity == "broken"
    assert "which was retired after 11 records" in answer.why
    assert room.desk.verify(full=False).integrity == "broken"
    assert "which was retired" in open_room(sqlite_database, tmp_path).log.trouble.message


def test_one_of_two_active_keys_is_not_enough(room, sqlite_database, tmp_path):
    stolen = thief(room)
    room.desk.rotate_key("ana")
    resigned(sqlite_database, stolen, 11)
    assert "it is not signed by the log's key" in room.desk.verify().why
    assert open_room(sqlite_database, tmp_path).log.trouble.code == "AUDIT_BROKEN"


@pytest.mark.parametrize("retired", [False, True])
def test_a_log_taken_back_to_before_its_keys_changed_is_found_without_an_anchor(room, sqlite_database, tmp_path, retired):
    stolen = thief(room)
    room.desk.rotate_key("ana")
    if retired:
        room.desk.retire_key(None, "ana")
    change(sqlite_database, ("DELETE FROM audit_entries WHERE idx >= 8", []))
    resigned(sqlite_database, stolen, 8)
    answer = room.desk.verify()
    assert answer.first_bad == 8
    assert f"its keys were changed when it had {12 if retired else 11} records, and it ends after 8" in answer.why
    quick = open_room(sqlite_database, tmp_path).desk.verify(full=False)
    assert (quick.integrity, quick.first_bad) == ("broken", 8)
    assert "rolled back" in open_room(sqlite_database, tmp_path).log.trouble.message


def test_a_key_that_only_the_log_knows_is_not_believed(room, sqlite_database, tmp_path):
    """Who has stolen a key can write that another was added or retired; the key file knows nothing of it."""
    thief_s = Signer.of(ORIGIN, secrets.token_bytes(32))
    with sqlite_database.read() as connection:
        head = Rows(connection).head()
    note = Checkpoint(ORIGIN, head.size, head.root).signed(thief(room), thief_s)
    change(sqlite_database, ("UPDATE audit_checkpoints SET note = ? WHERE size = ?", [str(note), head.size]))
    assert "not known here" in room.desk.verify().why
    assert "not known here" in open_room(sqlite_database, tmp_path).log.trouble.message


def test_a_rotation_that_was_only_marked_did_not_happen(room, sqlite_database, tmp_path):
    keys = read_keys(tmp_path / "audit.key")
    write_keys(tmp_path / "audit.key", keys.adding(THIRD, 10))
    again = open_room(sqlite_database, tmp_path)
    assert read_keys(tmp_path / "audit.key") == again.log.keys == keys
    assert verified(again) == ("verified", "")


@pytest.mark.parametrize("step", [Change.ADDING, Change.RETIRING])
def test_a_change_that_was_recorded_and_not_noted_is_noted_at_the_next_start(room, sqlite_database, tmp_path, step):
    path, before = tmp_path / "audit.key", None
    for one in (Change.ADDING, Change.RETIRING)[: 1 if step is Change.ADDING else 2]:
        size, before = room.desk.size(), room.log.keys
        changed = room.desk.rotate_key("ana") if one is Change.ADDING else room.desk.retire_key(None, "ana")
    after = read_keys(path)
    verifier = next(held.term.verifier for held in after.held if held.term.verifier.id.hex() == changed.id)
    secret = after.find(verifier).secret
    write_keys(path, before.adding(secret, size) if step is Change.ADDING else before.retiring(verifier, size))
    again = open_room(sqlite_database, tmp_path)
    assert (again.log.trouble, read_keys(path)) == (None, after)
    assert verified(again) == ("verified", "")


def test_a_mark_does_not_let_a_thief_retire_the_other_key(room, sqlite_database, tmp_path):
    """The record stands in the log, but the checkpoint over it is not by the keys that would then be the log's."""
    keys, size = read_keys(tmp_path / "audit.key"), room.desk.size()
    room.desk.rotate_key("ana")
    write_keys(tmp_path / "audit.key", keys.adding(SECOND, size))  # another key than the one that the log names
    again = open_room(sqlite_database, tmp_path)
    assert again.log.trouble.code == "AUDIT_BROKEN"
    assert read_keys(tmp_path / "audit.key").held[-1].change is Change.ADDING, "the file is left as evidence"


def test_a_key_file_that_cannot_be_written_leaves_the_keys_as_they_are(room, tmp_path):
    (tmp_path / "audit.key.new").mkdir()  # what a full or read-only disk does to a new file
    assert refused(room.desk.rotate_key, "ana").code == "CONFIG_INVALID"
    assert (len(room.desk.signing_keys()), room.desk.size()) == (1, 10)
    (tmp_path / "audit.key.new").rmdir()
    assert room.desk.rotate_key("ana").active


def test_a_log_that_takes_no_record_keeps_its_keys(room, tmp_path):
    before = (tmp_path / "audit.key").read_text()
    room.log.close()
    assert refused(room.desk.rotate_key, "ana").code == "AUDIT_UNAVAILABLE"
    assert (tmp_path / "audit.key").read_text() == before


def test_records_in_the_same_batch_as_a_rotation_are_under_both_keys(room, tmp_path):
    keys = room.log.keys
    marked = keys.adding(SECOND, 10)
    tickets = [log_module._Ticket(log_module.entries.prepare(record(n), secrets.token_bytes)) for n in range(3)]
    tickets[1].rekey = lambda index: marked.changed(SECOND.verifier, index)
    positions = room.log._append(tickets)
    assert [position.index for position in positions] == [10, 11, 12]
    assert room.log.keys.ring.terms[1] == Term(SECOND.verifier, 12)
    assert verified(room) == ("verified", "")


# ---- a ring by itself


def ring(*terms):
    return Ring(tuple(Term(signer.verifier, *sizes) for signer, *sizes in terms))


def note(size, *signers):
    return str(Checkpoint(ORIGIN, size, bytes(32)).signed(*signers))


@pytest.mark.parametrize(
    ("size", "signers", "whole"),
    [
        (4, [FIRST], True),
        (5, [FIRST], False),
        (5, [FIRST, SECOND], True),
        (9, [FIRST, SECOND], True),
        (9, [SECOND], False),
        (10, [SECOND], True),
        (10, [FIRST, SECOND], True),
        (10, [FIRST], False),
        (4, [SECOND], False),
        (10, [SECOND, THIRD], False),
        (10, [], False),
    ],
)
def test_everyone_signs_whose_term_it_is(size, signers, whole):
    keys = ring((FIRST, 0, 9), (SECOND, 5))
    if whole:
        assert keys.open(note(size, *signers)).size == size
    else:
        assert refused(keys.open, note(size, *signers)).code == "DOCUMENT_INVALID"


def test_a_log_of_another_name_is_not_this_one():
    stranger = Checkpoint("other.example/audit", 3, bytes(32)).signed(FIRST)
    assert "its origin is other.example/audit" in refused(ring((FIRST,)).open, str(stranger)).message


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{FIRST.text} until 9",
        FIRST.verifier.vkey,
        f"{FIRST.text}\n{FIRST.text}",
        f"{FIRST.text}\n{Signer.of('other', bytes(32)).text}",
        f"{FIRST.text} adding 3",
        f"{FIRST.text} since",
        f"{FIRST.text} since -1",
        f"{FIRST.text} since 3 since",
        f"{FIRST.text} from 3",
        f"{FIRST.text}\n\n{SECOND.text}",
    ],
)
def test_a_key_file_with_an_error_is_refused_and_not_shown(tmp_path, text):
    (tmp_path / "audit.key").write_text(text)
    error = refused(read_keys, tmp_path / "audit.key")
    assert error.code == "CONFIG_INVALID"
    assert FIRST.text not in error.message


def test_what_is_written_is_read_again(tmp_path):
    keys = Keys.of(FIRST).adding(SECOND, 4).changed(SECOND.verifier, 4).retiring(FIRST.verifier, 8).changed(FIRST.verifier, 8)
    for one in (keys, keys.adding(THIRD, 12), keys.adding(THIRD, 12).changed(THIRD.verifier, 12).retiring(SECOND.verifier, 15)):
        write_keys(tmp_path / "audit.key", one)
        assert read_keys(tmp_path / "audit.key") == one
    assert keys.ring == ring((FIRST, 0, 8), (SECOND, 5))
    assert keys.ring.size_min == 9


# ---- elsewhere


def stranger(folder, *words):
    """The stand-alone verifier as somebody else runs it."""
    command = [sys.executable, "-I", str(folder / "verifier.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env={})
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def exports(room, tmp_path):
    """Three exports: by the first key, by both, by the second."""
    proof = tmp_path / "proof"
    proof.write_text(room.desk.prove(3).text)
    room.desk.export(str(tmp_path / "one"))
    room.desk.rotate_key("ana")
    room.desk.export(str(tmp_path / "both"))
    room.desk.retire_key(None, "ana")
    fill(room, 3, 20)
    room.desk.export(str(tmp_path / "two"))
    return tmp_path


def test_a_stranger_verifies_what_either_key_has_signed(room, exports):
    new, old = [key.line for key in room.desk.signing_keys()]
    for folder in ("one", "both", "two"):
        assert stranger(exports / folder, exports / folder, "--key", new, "--key", old)[0] == 0
        assert stranger(exports / folder, exports / folder)[0] == 0
    assert stranger(exports / "two", "--proof", exports / "proof", "--key", old, "--key", new)[0] == 0
    bare = old.split()[0]
    assert stranger(exports / "both", exports / "both", "--key", bare)[0] == 0
    assert stranger(exports / "two", exports / "two", "--key", bare)[0] == 3
    assert "none of the keys signs checkpoints of" in stranger(exports / "two", exports / "two", "--key", old)[1]


@pytest.mark.parametrize("words", ["since", "since x", "from 3", "since 3 until"])
def test_a_stranger_s_key_with_an_error_is_refused(room, exports, words):
    code, said = stranger(exports / "two", exports / "two", "--key", f"{room.desk.vkey} {words}")
    assert (code, "behind a key stands" in said) == (3, True)


def resign_folder(folder, *signers):
    lines = (folder / "checkpoint").read_text().split("\n")
    checkpoint = Checkpoint(ORIGIN, int(lines[1]), base64.b64decode(lines[2]))
    (folder / "checkpoint").write_text(str(checkpoint.signed(*signers)))


def test_a_stranger_finds_an_export_signed_anew_with_a_retired_key(room, sqlite_database, tmp_path, clock):
    stolen, bare = thief(room), room.desk.vkey
    room.desk.rotate_key("ana")
    room.desk.export(str(tmp_path / "both"))
    resign_folder(tmp_path / "both", stolen)
    assert "is not signed by" in stranger(tmp_path / "both", tmp_path / "both", "--key", bare)[1], "the log says who else signs"
    room.desk.retire_key(None, "ana")
    room.desk.export(str(tmp_path / "two"))
    resign_folder(tmp_path / "two", stolen)
    code, said = stranger(tmp_path / "two", tmp_path / "two", "--key", bare)
    assert (code, "signed by a key that record 11 has retired" in said) == (3, True)


def test_a_witness_goes_on_when_it_knows_both_keys(room, tmp_path, clock):
    old = room.desk.vkey
    note_before = room.desk.checkpoint()
    witness = open_witness(tmp_path / "w", "w.example", [old], clock, secrets.token_bytes)
    assert witness.add_checkpoint(f"old 0\n\n{note_before}").status == 200
    room.desk.rotate_key("ana")
    room.desk.retire_key(None, "ana")
    with room._database.read() as connection:
        path = Rows(connection).tree().consistency(10, 12)
    proof = "".join(base64.b64encode(one).decode() + "\n" for one in path)
    request = f"old 10\n{proof}\n{room.desk.checkpoint()}"
    assert witness.add_checkpoint(request).status == 403
    both = open_witness(tmp_path / "w", "w.example", [old, room.desk.vkey], clock, secrets.token_bytes)
    assert both.add_checkpoint(request).status == 200
