"""Output made safe to show: nothing acts on a terminal, nothing hides or reorders what is read."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.kernel.actions.display import decoded, neutral


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\rb", "a\\u{d}b"),
        ("a\r\nb", "a\nb"),
        ("a\x08b\x00", "a\\u{8}b\\u{0}"),
        ("user\u202etxt.exe", "user\\u{202e}txt.exe"),
        ("zero\u200bwidth", "zero\\u{200b}width"),
        ("line\u2028end", "line\\u{2028}end"),
        ("\x9b2Jx", "x"),
        ("\x1bPq#payload\x1b\\x", "x"),
        ("é中🙂", "é中🙂"),
        ("\x1b[", ""),
        ("\x1b", "\\u{1b}"),
    ],
)
def test_what_acts_is_taken_out_and_what_hides_is_shown(text: str, shown: str) -> None:
    assert neutral(text) == shown


@given(st.text(alphabet=st.characters(), max_size=200))
def test_nothing_that_acts_or_hides_is_ever_left(text: str) -> None:
    for letter in neutral(text):
        assert letter in "\t\n" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs")


@given(st.text(alphabet=st.characters(exclude_categories=["C", "Z"]), max_size=100))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert neutral(text) == text


@given(st.binary(max_size=100), st.integers(0, 100))
def test_any_bytes_can_be_shown_and_the_cut_is_told(data: bytes, bytes_max: int) -> None:
    text, cut = decoded(data, bytes_max)
    assert cut == (len(data) > bytes_max)
    assert neutral(text) == text
