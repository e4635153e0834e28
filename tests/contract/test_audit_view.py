"""The view `audit_logs`, for people who know SQL."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from cohort.kernel.model import Record, RecordKind
from support_audit import open_room, record

COLUMNS = "id, agent_id, timestamp, action_type, target, parameters, result, user_approved, risk_level, hash, previous_hash, created_at"


@pytest.fixture
def room(database, tmp_path, clock):
    return open_room(database, tmp_path, clock)


def shown(database):
    with database.read() as connection:
        return connection.execute(text(f"SELECT {COLUMNS} FROM audit_logs ORDER BY id")).mappings().all()


def test_each_record_is_a_row_chained_to_the_one_before(room, database):
    first = room.log.append(record(1))
    body = {"operation": "http.request", "resource": "https://a:443", "arguments": {"n": 1}, "grant": "ap_x", "risk_level": "high"}
    second = room.log.append(Record(RecordKind.INTENT, body, agent="ag_two", action="act_2"))
    room.log.append(Record(RecordKind.OUTCOME, {"outcome": "done"}, action="act_2"))
    one, two, three = shown(database)
    assert (one["id"], one["agent_id"], one["action_type"], one["target"]) == (0, "ag_one", "files.write", "ws_one/1.txt")
    assert (one["hash"], one["previous_hash"], two["previous_hash"]) == (first.leaf, None, first.leaf)
    assert three["previous_hash"] == second.leaf
    assert [bool(row["user_approved"]) for row in (one, two, three)] == [False, True, False]
    assert (two["risk_level"], three["action_type"], three["result"]) == ("high", "outcome", "done")
    arguments = two["parameters"]
    assert (json.loads(arguments) if isinstance(arguments, str) else arguments) == {"n": 1}
    assert str(one["timestamp"]).replace(" ", "T").startswith("2023-11-14T22:13:20")


def test_a_hostile_record_does_not_break_the_view(room, database):
    room.log.append(Record(RecordKind.DECISION, {"operation": "files.read", "resource": "a\x00b\\u0000", "arguments": {"\x00": "\x00"}}))
    assert len(shown(database)) == 1
