"""Personal data and secrets in text: what is found, and what only looks like it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.gateway.contract_personal import KINDS
from cohort.gateway.personal.detector import DEPTH_MAX, Detector
from cohort.gateway.personal.rules import IBAN_LENGTHS, iban

FOUND = {
    "card": ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005"],
    "email": ["jane.doe+x@example.co.uk", "o'brien@example.com"[2:]],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "NO9386011117947"],
    "ip": ["8.8.8.8", "203.0.114.7"],
    "phone": ["+49 (0)30 1234567", "(212) 555-2368", "212.555.2368", "+442071838750"],
    "secret": [
        "sk-proj-abcdefghijklmnopqrstuv", "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a" * 36, "xoxb-123456789012-abc",
        "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeKKF2QT4", "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    ],
    "ssn": ["123-45-6789"],
}  # fmt: skip
NOT_FOUND = [
    "4111 1111 1111 1112",  # the check digit
    "1234567890123452",  # no card begins so
    "4444444444444444" + "4444",  # too long
    "GB83 WEST 1234 5698 7654 32",  # the check digits
    "XX89370400440532013000",  # no such country
    "DE89370400440532013000X",  # longer than its country's
    "jane@" + "a" * 250 + ".com",  # a domain of more than 253
    "000-12-3456", "666-12-3456", "900-12-3456", "123-00-6789", "123-45-0000",
    "10.0.0.1", "127.0.0.1", "192.168.1.1", "999.1.1.1", "1.2.3",
    "jane@example", "@example.com", "jane@-example.com", "2026-11-21 12:30", "59.90", "+1234", "112-555-2368", "212-155-2368", "sk-short", "version 1.2.3",
]  # fmt: skip


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_what_is_personal_is_found_and_only_that_is_taken_out(detector: Detector, kind: str, text: str) -> None:
    assert detector.redact(f"before: {text}, after") == (f"before: [{kind}], after", {kind: 1})
    assert detector.may_hold(json.dumps({"a": f"before {text} after"}).encode())


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_only_looks_like_it_stays(detector: Detector, text: str) -> None:
    assert detector.redact(f"a {text} b") == (f"a {text} b", {})


def test_what_follows_a_number_does_not_hide_it(detector: Detector) -> None:
    assert detector.redact("4111 1111 1111 1111 12 pieces")[0] == "[card] 12 pieces"
    assert detector.redact("GB82WEST12345698765432 AND NOW")[0] == "[iban] AND NOW"


def test_every_kind_has_a_rule_an_example_and_a_switch(detector: Detector) -> None:
    assert set(FOUND) == set(KINDS)
    text = " | ".join(texts[0] for texts in FOUND.values())
    assert set(detector.redact(text)[1]) == set(KINDS)
    for kind in KINDS:
        assert set(Detector((kind,)).redact(text)[1]) == {kind}


def test_no_country_is_shorter_or_longer_than_the_pattern() -> None:
    assert all(15 <= length <= 34 for length in IBAN_LENGTHS.values())
    assert iban("") == 0


# --- values ---


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=20,
    )
)
def test_a_value_without_personal_data_is_equal_and_any_value_is_taken(value: Any) -> None:
    cleaned, found = Detector().redact_value(value)
    assert found or cleaned == value
    assert json.dumps(cleaned) is not None


@given(st.lists(st.sampled_from([text for texts in FOUND.values() for text in texts] + ["a word", "ünïcode", ""]), max_size=4))
def test_a_request_that_surely_holds_nothing_holds_nothing(texts: list[str]) -> None:
    detector = Detector()
    fields = {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}
    for body in (json.dumps(fields).encode(), json.dumps(fields, ensure_ascii=False).encode()):
        if not detector.may_hold(body):
            assert detector.redact_value(json.loads(body))[1] == {}


def test_escaped_letters_hide_nothing(detector: Detector) -> None:
    body = rb'{"messages":[{"role":"user","content":"jane\u0040example.com"}]}'
    assert detector.may_hold(body)
    assert detector.redact_value(json.loads(body))[0]["messages"][0]["content"] == "[email]"


def test_what_names_parts_of_the_protocol_stays(detector: Detector) -> None:
    value = {"model": "a@example.com", "tool_call_id": "call_4111111111111111", "arguments": '{"to": "a@example.com"}'}
    assert detector.redact_value(value)[0] == {**value, "arguments": '{"to": "[email]"}'}


def test_an_encoded_picture_is_not_read_and_numbers_stay_numbers(detector: Detector) -> None:
    value = {"url": "data:image/png;base64,4111111111111111", "seed": 4111111111111111}
    assert detector.redact_value(value) == (value, {})


def test_what_is_nested_too_deeply_to_be_looked_at_is_taken_out(detector: Detector) -> None:
    value: Any = "a@example.com"
    for _ in range(DEPTH_MAX + 5):
        value = [value]
    cleaned, found = detector.redact_value(value)
    assert "example" not in json.dumps(cleaned)
    assert found == {"unseen": 1}


def test_a_long_text_takes_time_in_proportion_only(detector: Detector) -> None:
    """The classic trap for an engine that backtracks; it would not end."""
    assert detector.redact("a" * 200_000 + "@")[1] == {}
    assert detector.redact("1 " * 100_000)[1] == {}


def test_what_is_found_in_several_texts_is_counted_in_all(detector: Detector) -> None:
    assert detector.redact_value(["jane@example.com", ["joe@example.com"]])[1] == {"email": 2}


def test_a_card_does_not_end_within_a_group_of_digits(detector: Detector) -> None:
    assert detector.redact("41111111111111112") == ("41111111111111112", {})
