"""Words in the place of others: which texts differ by that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.gateway.cache.semantic.guards import Difference, Kind, difference
from cohort.gateway.cache.semantic.text import features


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ("How do I delete a file?", "How can I delete a folder, please?", ("fold", "file")),
        ("Where is my parcel?", "Where is my refund?", ("parcel", "refund")),
        ("¿Cómo limpio el filtro?", "¿Cómo cambio el filtro?", ("limpio", "cambio")),
        ("Is this film suitable for adults?", "Is this film unsuitable for adults?", ("suitabl", "unsuitabl")),
        ("Wie schalte ich das Mikrofon stumm?", "Wie schalte ich das Mikrofon laut?", ("stumm", "laut")),
        ("water the red plant", "plant the red water flower", None),
        ("How do I delete a file?", "What is the way to delete a file?", None),
        ("Do you ship to Canada?", "Is shipping to Canada possible?", None),
        ("¿Qué métodos de pago aceptan?", "¿Cuáles son los métodos de pago aceptados?", None),
        ("reset my password", "how do I reset the password?", None),
        ("delete the old file", "archive the old folder", ("delet", "file", "archiv", "fold")),
        ("How do I contact support?", "How do I get in touch with the customer support?", None),
        ("", "Where is my parcel?", None),
    ],
)
def test_words_for_others_are_told_from_forms_of_one_word_and_from_rewording(one: str, other: str, words: tuple[str, ...] | None) -> None:
    found = difference(features(one), features(other))
    assert (set(found.words), found.kind is Kind.EXCHANGED) == (set(words or ()), words is not None)


WORDS = st.lists(st.sampled_from(["file", "folder", "parcel", "package", "filter", "warranty", "insurance", "invoice"]), max_size=5)


@given(WORDS, WORDS)
def test_the_words_are_the_same_whichever_text_was_first(one: list[str], other: list[str]) -> None:
    asked, known = features(" ".join(one)), features(" ".join(other))
    found = difference(asked, known)
    assert found == difference(known, asked)
    assert difference(asked, asked) == Difference()
    if found.kind is Kind.EXCHANGED:
        half = len(found.words) // 2
        assert len(found.words) == 2 * half > 0
        assert not set(found.words[:half]) & set(found.words[half:])
        assert len(asked.content) == len(known.content)


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("Can I return shoes?", "Can I return shoes I have already worn?", Kind.ADDED),
        ("Kann ich getragene Schuhe zurückgeben?", "Kann ich Schuhe zurückgeben?", Kind.ADDED),
        ("Where is the station?", "Where is the station?", Kind.ALIKE),
        ("I want my money back", "Can I get a refund?", Kind.ALIKE),
        ("Reset my password", "How can I reset the password, please?", Kind.ALIKE),
    ],
)
def test_a_text_that_says_more_is_told_from_one_that_says_it_otherwise(one: str, other: str, kind: Kind) -> None:
    assert difference(features(one), features(other)).kind is kind
