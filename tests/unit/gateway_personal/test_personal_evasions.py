"""Personal data written so that it is easily overlooked: behind other numbers, by other signs, within texts in texts, as names and numbers."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cohort.gateway.dialects.face import Refused
from cohort.gateway.dialects.openai_same import parse_chat, parse_plain
from cohort.gateway.dialects.operations import CHAT, MESSAGES
from cohort.gateway.personal.cards import cards, is_card
from cohort.gateway.personal.detector import LOOKS_MAX, Detector, TooMuch
from cohort.gateway.personal.guard import guard_of

CARD, SSN, MAIL, IBAN = "4111 1111 1111 1111", "123-45-6789", "jane@example.com", "DE89 3704 0044 0532 0130 00"
UNUSED: Any = None


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"2024 {CARD}", "2024 [card]"),
        (f"2024-11-21 {CARD} 42", "2024-11-21 [card] 42"),
        (f"order 12 {CARD} 3 pieces", "order 12 [card] 3 pieces"),
        (f"12/26 {CARD}", "12/26 [card]"),
        ("5500 0000 0000 0004 4111 1111 1111 1111", "[card] [card]"),
        ("4111.1111.1111.1111", "[card]"),
        ("4111/1111/1111/1111", "[card]"),
        ("no_4111_1111_1111_1111", "no_[card]"),
        ("4111  1111 - 1111 1111", "[card]"),
        ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "[card]"),
        ("41 11 11 11 11 11 11 11", "[card]"),
        ("3782 822463 10005", "[card]"),
        (f"AB12 {IBAN}", "AB12 [iban]"),
        ("de89 3704 0044 0532 0130 00", "[iban]"),
        ("DE89-3704-0044-0532-0130-00", "[iban]"),
        ("jane@exämple.com", "[email]"),
        ("jürgen.müller@example.com", "[email]"),
        ("cgk_" + "a" * 43, "[secret]"),
        ("hf_" + "a" * 34, "[secret]"),
    ],
)
def test_what_stands_beside_a_number_or_between_its_groups_does_not_hide_it(detector: Detector, text: str, left: str) -> None:
    assert detector.redact(text)[0] == left
    assert detector.may_hold(json.dumps({"a": text}).encode())
    assert detector.may_hold(json.dumps({"a": text}, ensure_ascii=False).encode())


@pytest.mark.parametrize(
    "text",
    [
        "x4111111111111111", "4111111111111111x", "3.141592653589793238", "12.5000000000000016", "1700000000000000", "2026-11-21 18:40:05.123456",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 5 5 5 5 5", "411 22 33 44 55 66 77 88 99 00 11", "to20 be or not to be, that is",
    ],
)  # fmt: skip
def test_numbers_that_are_something_else_stay(detector: Detector, text: str) -> None:
    assert detector.redact(text) == (text, {})


@pytest.mark.parametrize(
    "text",
    [
        "４１１１ １１１１ １１１１ １１１１", "４１１１１１１１１１１１１１１１", "4111\u00a01111\u00a01111\u00a01111", "4111\u20111111\u20111111\u20111111",
        "4111\u200b1111\u200b1111\u200b1111", "41\u00ad11111111\u00ad111111", "٤١١١ ١١١١ ١١١١ ١١١١", "४१११ ११११ ११११ ११११", "𝟒𝟏𝟏𝟏 𝟏𝟏𝟏𝟏 𝟏𝟏𝟏𝟏 𝟏𝟏𝟏𝟏",
        "123\u201145\u20116789", "123\u221245\u22126789",
        "jane\u200b@example.com", "jane＠example.com", "jane@exa\u200bmple.com", "ｊａｎｅ@ｅｘａｍｐｌｅ.com",
        "DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000",
        "\u202a4111 1111 1111 1111\u202c",
    ],
)  # fmt: skip
def test_other_signs_for_the_same_hide_nothing(detector: Detector, text: str) -> None:
    assert detector.redact(text)[1] != {}
    for sent in (text, f"Wörter {text} und mehr", f"字{text}字"):
        assert detector.may_hold(json.dumps({"a": sent}, ensure_ascii=False).encode())


@pytest.mark.parametrize(
    "text",
    ["我们在２０２４年见面，好吗？", "Prix\u00a0: 12\u00a0000\u00a0€", "семья 👩\u200d👩\u200d👧 дома", "2024\u20132025", "Ａ社の売上"],
)
def test_texts_in_other_scripts_stay_sign_for_sign(detector: Detector, text: str) -> None:
    assert detector.redact(text) == (text, {})


@pytest.mark.parametrize(
    "arguments",
    [
        '{"text":"line\\n4111 1111 1111 1111"}',
        '{"text":"jane\\u0040example.com"}',
        '{"a":{"id":"123-45-6789\\n"}}',
        '{"card":4111111111111111,"a":"\\n"}',
        '[{"jane@example.com":"\\t"}]',
        '{"deep":"{\\"deeper\\":\\"x\\\\n4111 1111 1111 1111\\"}"}',
        'print("\\n4111 1111 1111 1111")',
        '{"broken": "\\n123-45-6789',
    ],
)
def test_a_text_within_a_text_is_looked_through(detector: Detector, arguments: str) -> None:
    body = {"messages": [{"role": "assistant", "tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": arguments}}]}]}
    assert detector.may_hold(json.dumps(body).encode())
    cleaned, found = detector.redact_value(body)
    assert sum(found.values()) == 1
    said = json.dumps(cleaned)
    assert not any(hidden in said for hidden in ("1111 1111", "4111111111111111", "6789", "example.com", "0040"))


def test_a_text_within_a_text_stays_as_it_is_where_nothing_is_found(detector: Detector) -> None:
    body = {"arguments": '{ "a" : "line\\nline",  "b": 1.50 }'}
    assert detector.redact_value(body) == (body, {})


@pytest.mark.parametrize(
    ("value", "cleaned"),
    [
        ({"input": {"id": SSN}}, {"input": {"id": "[ssn]"}}),
        ({"metadata": {"type": MAIL, "role": SSN, "model": CARD}}, {"metadata": {"type": "[email]", "role": "[ssn]", "model": "[card]"}}),
        ({"input": {"number": 4111111111111111}}, {"input": {"number": "[card]"}}),
        ({"input": {"number": 4111111111111112, "yes": True, "share": 4111111111111111.0}}, None),
        ({"input": {MAIL: 1, "joe@example.com": 2, "[email]": 3}}, {"input": {"[email]": 1, "[email] 2": 2, "[email] 3": 3}}),
        ({"model": "a@example.com", "seed": 4111111111111111}, None),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": SSN}]}]},
         {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "[ssn]"}]}]}),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": SSN}]}]}]},
         {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "[ssn]"}]}]}]}),
        ({"input": [{"type": "function_call_output", "call_id": "call_4111111111111111", "output": SSN}]},
         {"input": [{"type": "function_call_output", "call_id": "call_4111111111111111", "output": "[ssn]"}]}),
        ({"messages": [{"content": [{"type": "tool_use", "id": "toolu_1", "input": {"id": SSN, "type": "x"}}]}]},
         {"messages": [{"content": [{"type": "tool_use", "id": "toolu_1", "input": {"id": "[ssn]", "type": "x"}}]}]}),
    ],
)  # fmt: skip
def test_names_of_the_protocol_stay_where_they_are_its_names_only(detector: Detector, value: Any, cleaned: Any) -> None:
    assert detector.redact_value(value)[0] == (value if cleaned is None else cleaned)


def test_every_item_of_a_request_of_either_dialect_is_looked_through() -> None:
    guard = guard_of("redact", ("ssn", "email", "card"))
    assert guard is not None
    native = {
        "model": "s",
        "max_tokens": 5,
        "system": f"Ask {MAIL}",
        "tools": [{"name": "f", "description": SSN, "input_schema": {"type": "object", "properties": {MAIL: {"type": "string"}}}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": SSN}, {"type": "document", "source": {"type": "text", "data": MAIL}}]},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"id": SSN, "n": 4111111111111111}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": SSN}]}]},
        ],
    }
    made = guard.apply(MESSAGES.parse(MESSAGES, json.dumps(native).encode()), lambda *_: None)
    for said in (made.body.decode(), json.dumps(made.fields)):
        assert not any(hidden in said for hidden in (SSN, MAIL, "4111"))
        assert said.count("toolu_1") == 2


# --- limits ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["411 " * 60_000, "9.9.9.9 " * (LOOKS_MAX + 1), "2" * 300_000, "DE12 " * 60_000, "a@b.cc " * (LOOKS_MAX + 1)]
)
def test_more_than_is_looked_at_is_refused_and_not_passed_on_unseen(detector: Detector, text: str) -> None:
    with pytest.raises(TooMuch):
        detector.redact(text)
    guard = guard_of("redact", ("card", "email", "iban", "ip"))
    assert guard is not None
    with pytest.raises(Refused) as refused:
        guard.apply(parse_plain(CHAT, json.dumps({"model": "m", "messages": text}).encode()), lambda *_: None)
    assert (refused.value.status, refused.value.code) == (400, "personal_data_unclear")


groups = st.lists(st.from_regex(r"\A[0-9]{1,6}\Z"), max_size=8)


@given(groups, groups, st.sampled_from([" ", "-"]))
def test_a_card_among_any_numbers_is_found(before: list[str], behind: list[str], separator: str) -> None:
    run = separator.join([*before, "4111", "1111", "1111", "1111", *behind])
    covered = "".join(run[start:end] for start, end in cards(run, True, True)[0])
    assert "1111" + separator + "1111" in covered


@given(st.from_regex(r"\A[0-9](?:[ -]?[0-9]){12,40}\Z"))
def test_what_is_taken_for_a_card_lies_within_the_run_in_order_and_apart(run: str) -> None:
    spans, looks = cards(run, True, True)
    assert looks >= 1
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    for start, end in spans:
        assert run[start].isdigit()
        assert run[end - 1].isdigit()


@given(st.from_regex(r"\A[2-6][0-9]{11,17}\Z"))
def test_every_number_with_its_check_digit_is_a_card(digits: str) -> None:
    assume(len(set(digits)) > 1)
    numbers = [digits + str(last) for last in range(10)]
    assert sum(map(is_card, numbers)) == 1


def test_a_request_of_a_guarded_service_is_looked_through_by_its_chat() -> None:
    guard = guard_of("refuse", ("card",))
    assert guard is not None
    with pytest.raises(Refused, match="card") as refused:
        guard.apply(
            parse_chat(CHAT, json.dumps({"model": "m", "messages": [{"role": "user", "content": f"2024 {CARD}"}]}).encode()),
            lambda *_: None,
        )
    assert refused.value.code == "personal_data_refused"
