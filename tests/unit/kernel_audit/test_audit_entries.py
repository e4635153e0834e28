"""Entries: one canonical form, bounded, with salted commitments in place of private payloads."""

from __future__ import annotations

import json
import secrets
from hashlib import sha256

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from cohort.base.canonical import canonical_json
from cohort.base.errors import CohortError
from cohort.kernel.audit.entries import ENTRY_BYTES_MAX, parse, prepare
from cohort.kernel.model import Record, RecordKind

scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12)


@given(values)
@example(1e15 + 0.5)
@example(123456789012345.5)
@example(0.001)
@example({"\U00010000": 1, "\ufffd": 2, "a": {"B": 1, "a": [0.1, 1e-7, 5e-324, 1.0, -0.0]}})
@example('\x7f\u2028\ud7ff\x00\x1f\b\t\n\f\r"\\/')
def test_the_quick_way_writes_what_rfc_8785_says(value):
    assert canonical_json(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 1 << 53, -(1 << 53) - 1, 1 << 70, {1: 2}, b"bytes", object(), "\ud800", {"\ud800": 1}, {"a": {None: 1}}],
)
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(CohortError) as caught:
        prepare(Record(RecordKind.NOTE, {"value": value}), secrets.token_bytes)
    assert caught.value.code == "VALUE_NOT_CANONICAL"


@given(
    st.dictionaries(st.text(max_size=5), st.none() | st.text(), max_size=4), st.integers(0, 1 << 52), st.binary(min_size=32, max_size=32)
)
def test_an_entry_is_canonical_whatever_is_in_it(body, at_us, previous):
    record = Record(RecordKind.INTENT, body, agent="ag_one", session=None, action="act_one", private={"output": "text"})
    entry = prepare(record, secrets.token_bytes).sealed(at_us, previous)
    assert rfc8785.dumps(json.loads(entry)) == entry
    read = parse(entry)
    assert (read["at_us"], read["prev"], read["kind"], read["agent"], read["session"]) == (at_us, previous.hex(), "intent", "ag_one", None)


def test_an_entry_of_the_largest_size_is_taken_and_one_more_byte_is_not():
    empty = prepare(Record(RecordKind.NOTE, {"text": ""}), secrets.token_bytes).bytes_max
    room = ENTRY_BYTES_MAX - empty
    whole = prepare(Record(RecordKind.NOTE, {"text": "x" * room}), secrets.token_bytes)
    assert len(whole.sealed(1 << 52, bytes(32))) <= ENTRY_BYTES_MAX
    with pytest.raises(CohortError) as caught:
        prepare(Record(RecordKind.NOTE, {"text": "x" * (room + 1)}), secrets.token_bytes)
    assert caught.value.code == "RECORD_TOO_LARGE"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"private": {"output": "x" * (1 << 20) + "y"}}, "RECORD_TOO_LARGE"),
        ({"private": {str(number): "" for number in range(17)}}, "RECORD_TOO_LARGE"),
        ({"private": {"n" * 64: ""}}, "FIELD_INVALID"),
        ({"private": {"output": "\ud800"}}, "VALUE_NOT_CANONICAL"),
        ({"private": {"output": ""}, "subject": "s" * 65}, "FIELD_INVALID"),
        ({"agent": "a" * 41}, "FIELD_INVALID"),
    ],
)
def test_what_does_not_fit_the_tables_is_refused(fields, code):
    with pytest.raises(CohortError) as caught:
        prepare(Record(RecordKind.NOTE, {}, **fields), secrets.token_bytes)
    assert caught.value.code == code


def test_only_a_salted_commitment_of_a_private_payload_is_in_the_entry():
    prepared = [prepare(Record(RecordKind.OUTCOME, {}, private={"stdout": "the secret"}), secrets.token_bytes) for _ in range(2)]
    entries = [one.sealed(1, bytes(32)) for one in prepared]
    assert all(b"the secret" not in entry for entry in entries)
    payload = prepared[0].payloads[0]
    assert parse(entries[0])["private"] == {"stdout": sha256(payload.salt + b"the secret").hexdigest()}
    assert parse(entries[0])["private"] != parse(entries[1])["private"]


def test_a_value_too_deep_for_the_quick_way_is_written_by_the_slow_one():
    value: object = 1
    for _ in range(600):
        value = [value]
    assert canonical_json(value) == b"[" * 600 + b"1" + b"]" * 600
