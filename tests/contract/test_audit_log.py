"""The audit log on each store: append, read, prove, verify."""

from __future__ import annotations

import json

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.audit.merkle import leaf_hash
from cohort.kernel.audit.notes import parse_vkey
from cohort.kernel.audit.proofs import verify_proof
from cohort.kernel.face import AuditQuery
from cohort.kernel.model import RecordKind
from support_audit import change, fill, open_room, pair, record


@pytest.fixture
def room(database, tmp_path, clock):
    room = open_room(database, tmp_path, clock)
    yield room
    room.stop()


def test_an_empty_log_is_no_data_and_not_verified(room):
    answer = room.desk.verify()
    assert (answer.integrity, answer.size, answer.root, answer.complete) == ("no data", 0, None, True)
    assert room.desk.verify(full=False).integrity == "no data"
    with pytest.raises(CohortError) as caught:
        room.desk.checkpoint()
    assert caught.value.code == "NOT_FOUND"


def test_a_record_is_in_the_log_when_append_returns(room, clock):
    position = room.log.append(record(7))
    assert (position.index, position.at_us) == (0, clock.now_us())
    entry = room.desk.entry(0)
    assert entry.leaf == position.leaf
    assert entry.body["body"]["operation"] == "files.write"
    assert (entry.body["kind"], entry.body["agent"], entry.body["action"], entry.body["v"]) == ("intent", "ag_one", "act_7", 1)
    assert entry.body["prev"] == "0" * 64
    assert room.desk.size() == 1


def test_the_leaf_is_the_hash_of_the_canonical_entry(room):
    position = room.log.append(record(7))
    proof = room.desk.prove(0)
    assert leaf_hash(proof.entry).hex() == position.leaf
    assert json.dumps(json.loads(proof.entry), sort_keys=True, separators=(",", ":")).encode() == proof.entry


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 600])
def test_every_record_can_be_proven_and_the_log_verifies(room, count):
    fill(room, count)
    answer = room.desk.verify()
    assert (answer.integrity, answer.size, answer.why, answer.complete) == ("verified", count, "", True)
    key = parse_vkey(room.desk.vkey)
    for index in {0, count // 2, count - 1}:
        assert verify_proof(room.desk.prove(index).text, key).size == count


def test_the_log_goes_on_where_the_last_process_ended(room, database, tmp_path):
    fill(room, 300)
    room.stop()
    again = open_room(database, tmp_path)
    assert again.log.trouble is None
    assert again.log.append(record(300)).index == 300
    assert again.desk.verify().integrity == "verified"


def test_two_processes_on_one_database_share_one_log(database, tmp_path):
    first, second = open_room(database, tmp_path), open_room(database, tmp_path)
    for number in range(6):
        (first, second)[number % 2].log.append(record(number, RecordKind.OUTCOME))
    for room in (first, second):
        assert (room.desk.verify().integrity, room.desk.size()) == ("verified", 6)


def test_what_is_looked_for_is_found_newest_first(room, clock):
    for number in range(5):
        for one in pair(number, agent=f"ag_{number % 2}"):
            room.log.append(one)
        clock.advance(10)
    found = room.desk.search(AuditQuery(agent="ag_1"))
    assert [entry.index for entry in found] == [7, 6, 3, 2]
    assert [entry.index for entry in room.desk.search(AuditQuery(kind="outcome", before=9, limit=2))] == [7, 5]
    assert [entry.index for entry in room.desk.search(AuditQuery(action="act_3"))] == [7, 6]
    assert [entry.index for entry in room.desk.search(AuditQuery(text="ws_one/3.txt"))] == [7, 6]
    assert room.desk.search(AuditQuery(text="nothing like it")) == []
    since = clock.now_us() - 30_000_000
    assert [entry.index for entry in room.desk.search(AuditQuery(since_us=since, until_us=since + 10_000_000))] == [5, 4]


@pytest.mark.parametrize("text", ['with "quotes"', "back\\slash", "grün", "line\nbreak", "100%", "?"])
def test_text_is_found_as_it_was_written(room, text):
    room.log.append(record(0))
    room.log.append(record(1, session="se_two", private={}))
    index = room.desk.note(text, "ada")
    assert [entry.index for entry in room.desk.search(AuditQuery(text=text))] == [index]


@pytest.mark.parametrize("query", [AuditQuery(limit=0), AuditQuery(limit=1001), AuditQuery(text=""), AuditQuery(text="x" * 201)])
def test_a_search_without_bounds_is_refused(room, query):
    with pytest.raises(CohortError) as caught:
        room.desk.search(query)
    assert caught.value.code == "FIELD_INVALID"


@pytest.mark.parametrize("index", [-1, 1, 1 << 62, 1 << 70])
def test_a_record_that_is_not_there_is_said_not_to_be(room, index):
    room.log.append(record(0))
    for ask in (room.desk.entry, room.desk.prove):
        with pytest.raises(CohortError) as caught:
            ask(index)
        assert caught.value.code == "NOT_FOUND"


def test_an_action_without_an_outcome_is_open_until_it_has_one(room):
    for one in pair(1):
        room.log.append(one)
    room.log.append(record(2))
    answer = room.desk.verify()
    assert (answer.integrity, answer.complete, answer.open_intents) == ("verified", False, ("act_2",))
    room.log.append(record(2, RecordKind.OUTCOME))
    assert room.desk.verify(full=False).complete
    assert room.desk.verify().complete


@pytest.mark.parametrize(
    ("statement", "first_bad", "why"),
    [
        ("UPDATE audit_entries SET kind = 'note' WHERE idx = 77", 77, "what is searched of record 77"),
        ("UPDATE audit_entries SET agent = NULL WHERE idx = 77", 77, "what is searched of record 77"),
        ("UPDATE audit_entries SET at_us = at_us + 1 WHERE idx = 299", 299, "what is searched of record 299"),
        ("UPDATE audit_entries SET entry = leaf WHERE idx = 77", 77, "record 77 was edited"),
        ("UPDATE audit_entries SET leaf = entry WHERE idx = 77", 77, "the leaf hash beside record 77"),
        ("DELETE FROM audit_entries WHERE idx = 77", 77, "record 77 is missing"),
        ("DELETE FROM audit_entries WHERE idx > 270", 271, "its tail was cut off"),
        ("DELETE FROM audit_nodes", 0, "the inner hash over records 0 to 255"),
        ("UPDATE audit_checkpoints SET note = 'x'", None, "cannot be trusted"),
    ],
)
def test_a_change_behind_the_log_s_back_is_named_on_each_store(room, database, statement, first_bad, why):
    fill(room, 300)
    change(database, (statement, []))
    answer = room.desk.verify()
    assert (answer.integrity, answer.first_bad) == ("broken", first_bad)
    assert why in answer.why


@pytest.mark.parametrize(
    "fields", [{"session": None}, {"agent": None, "action": None}, {"session": "se_" + "a" * 16}, {"private": {"kind": "x", "prev": "y"}}]
)
def test_records_of_every_shape_verify(room, fields):
    room.log.append(record(1, RecordKind.OUTCOME, **fields))
    room.log.append(record(2, RecordKind.OUTCOME))
    answer = room.desk.verify()
    assert (answer.integrity, answer.why) == ("verified", "")
