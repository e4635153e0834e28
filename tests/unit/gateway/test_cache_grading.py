"""Whether two answers say the same: values by values, texts by what they say, and "not known" wherever nothing shows it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.gateway.cache.semantic.acceptance import Grade
from cohort.gateway.cache.semantic.grading import CHARS_MAX, grade

SAME, UNCLEAR, OTHER = Grade.SAME, Grade.UNCLEAR, Grade.OTHER


@pytest.mark.parametrize(
    ("kept", "fresh", "verdict"),
    [
        ("Paris", " paris. ", SAME),
        ("**Paris**", "Paris", SAME),
        ("“Paris”!", "Paris", SAME),
        ("Paris", "London", OTHER),
        ("approve", "deny", OTHER),
        ("Yes.", "No.", OTHER),
        ("Yes, that is possible.", "No, that is not possible.", OTHER),
        ("5. Mai", "6. Mai", OTHER),
        ("-5", "5", UNCLEAR),
        ("1.5", "15", OTHER),
        ("x < y", "x > y", UNCLEAR),
        ("C#", "C", UNCLEAR),
        ("It costs 5 euros.", "It costs 6 euros.", OTHER),
        ("It costs 5 euros.", "It costs 5 euros, or 4 for 2 of them.", UNCLEAR),
        ("Run `apt-get update` first.", "Run apt-get update first.", SAME),
        ("Look at order AB-12.", "Look at order AB-13.", OTHER),
        ("1. Open the door.\n2. Go in.", "- Open the door.\n- Go in.", SAME),
        ("Sure, you can have that at any time of the day.", "Certainly it may be had whenever wanted by anybody.", UNCLEAR),
        ("Click reset and choose a new password in the form.", "Click reset, then choose a new password in the form.", SAME),
        ("👍", "👎", OTHER),
        ("...", "?!", UNCLEAR),
        ("", "", SAME),
    ],
)
def test_texts_are_judged_by_what_they_say(kept: str, fresh: str, verdict: Grade) -> None:
    assert (grade(kept, fresh), grade(fresh, kept)) == (verdict, verdict)


def test_a_negation_somewhere_in_a_long_answer_is_not_known_to_turn_it() -> None:
    long = "Open the settings, choose security, then press the button for a new password and follow the letter that arrives in your mailbox"
    assert grade(long + ".", long + ", which may not be at once.") is UNCLEAR


def test_comparing_takes_a_bounded_time_whatever_is_compared() -> None:
    many = [{"text": f"sentence {letter} of many words that are alike"} for letter in "abcdefghijklmnop"]
    turned = [{"text": entry["text"].replace("alike", "not alike")} for entry in many]
    assert grade(json.dumps(many), json.dumps(turned)) is UNCLEAR
    assert grade(json.dumps(many), json.dumps([*turned[:-1], {"text": 1}])) is OTHER
    deep = "[" + "1," * 3000 + "[" * 300 + "1" + "]" * 300 + "]"
    assert (grade(deep, deep + " "), grade("[" * 1010 + "]" * 1010, "[" * 1010 + " " + "]" * 1010)) == (UNCLEAR, UNCLEAR)
    assert grade("x" * CHARS_MAX, "x" * (CHARS_MAX + 1)) is UNCLEAR
    assert grade(json.dumps(list(range(3000))), json.dumps(list(range(3000)), indent=1)) is SAME


def test_texts_too_long_to_read_whole_are_the_same_only_when_equal() -> None:
    text = "word " * 2000
    assert grade(text, text + " ") is SAME
    assert grade(text, text + "end") is UNCLEAR


@pytest.mark.parametrize(
    ("kept", "fresh", "verdict"),
    [
        ('{"a": 1, "b": [true, null]}', '{"b":[true,null],"a":1.0}', SAME),
        ('```json\n{"a": 1}\n```', '{"a": 1}', SAME),
        ('{"a": 1}', '{"a": 2}', OTHER),
        ('{"a": true}', '{"a": 1}', OTHER),
        ('{"a": 1}', '{"a": 1, "b": 2}', OTHER),
        ("[1, 2]", "[2, 1]", OTHER),
        ("[1, 2]", "[1]", OTHER),
        ('{"a": null}', '{"a": ""}', OTHER),
        ('{"label": "spam"}', '{"label": "ham"}', OTHER),
        ('{"why": "It costs 5 euros."}', '{"why": "it costs 5 euros"}', SAME),
        ('{"why": "Sure, you can have that at any time."}', '{"why": "Certainly it may be had whenever wanted."}', UNCLEAR),
        ('{"why": "Sure, you can have that at any time.", "n": 1}', '{"why": "Certainly it may be had whenever wanted.", "n": 2}', OTHER),
        ('{"a": 1}', "a is 1", OTHER),
        ("{a}", "{a}", SAME),
        ("[" * 40 + "]" * 40, "[" * 40 + "]" * 40, SAME),
    ],
)
def test_documents_are_compared_by_their_values(kept: str, fresh: str, verdict: Grade) -> None:
    assert (grade(kept, fresh), grade(fresh, kept)) == (verdict, verdict)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=3))
def test_a_document_is_the_same_however_it_is_written(value: Any) -> None:
    turned = dict(reversed(value.items()))
    assert grade(json.dumps(value), json.dumps(turned, indent=2, ensure_ascii=False)) is SAME


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_two_texts_are_graded_and_the_same_in_either_order(one: str, other: str) -> None:
    assert grade(one, one) is SAME
    assert grade(one, other) is grade(other, one)


@given(st.integers(0, 999), st.integers(0, 999), st.sampled_from(["It costs {} euros.", "{}", "The answer is {}", '{{"n": {}}}']))
def test_another_number_is_never_the_same(one: int, other: int, pattern: str) -> None:
    assert (grade(pattern.format(one), pattern.format(other)) is SAME) == (one == other)
