"""Does a kept answer say what the model says now? Judged by structure, letters and rules, without another model. Pure but for numpy.

OTHER is said only where something shows it. What merely cannot be shown to be the same is UNCLEAR.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import orjson

from cohort.gateway.cache.semantic.acceptance import Grade
from cohort.gateway.cache.semantic.embedding import NoVector, lexical
from cohort.gateway.cache.semantic.text import TEXT_CHARS_MAX, Features, features

SAME_COSINE = 0.8
ATOMIC_WORDS = 3
"""Answers of so few words name one thing: another word that carries meaning is another answer."""
SHORT_WORDS = 8
"""In answers of so few words a negation turns what is said; in longer ones it may turn anything."""
DEPTH_MAX = 32
LEAVES_MAX = 2000
CHARS_MAX = 20_000
"""Of an answer; longer ones are the same only when equal. It is the event loop that compares."""
UNEQUAL_TEXTS_MAX = 12
"""Texts of two documents that are read because they are not equal; more leave it open."""
_FENCE = re.compile(r"\A\s*```\w*\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)
_LAYOUT = re.compile(r"(?m)^#{1,6}\s+|`+|(?<!\w)[*_]{1,3}(?=\w)|(?<=[\w.!?])[*_]{1,3}(?!\w)")
_BULLET = re.compile(r"(?m)^\s*[-*+\u2022]\s+")
_NUMBER = re.compile(r"(?m)^\s*(\d{1,3})[.)]\s+")
_SIGNS = re.compile(r"[<>=\u2260\u2264\u2265\u00b1%^~]|(?<!\w)[-+\u2212](?=[\d.])")
_PUNCTUATION = re.compile(r"(?<!\d)[.,;:!?\"'()\u201c-\u201e\u00ab\u00bb\u2026]|[.,;:!?\"'()\u201c-\u201e\u00ab\u00bb\u2026](?!\d)")
"""Of sentences only. What stands between digits, and signs that may mean something (-, <, %, +), stay."""


def grade(kept: str, fresh: str) -> Grade:
    """Documents are compared by their values, texts by what they say."""
    if kept == fresh:
        return Grade.SAME
    if max(len(kept), len(fresh)) > CHARS_MAX:
        return Grade.UNCLEAR
    one, other = _document(kept), _document(fresh)
    if one is not None and other is not None:
        try:
            return _documents(one, other)
        except (RecursionError, TypeError):  # nested too deeply to be compared, or written
            return Grade.UNCLEAR
    if one is not None or other is not None:
        return Grade.OTHER  # who reads the one cannot read the other
    return _texts(kept, fresh)


def _texts(kept: str, fresh: str) -> Grade:
    one, other = _laid_out(kept), _laid_out(fresh)
    if one == other or _plain(one) == _plain(other) != []:
        return Grade.SAME
    said = features(one), features(other)
    for verdict in (_facts(*said), _atoms(one, other, said)):
        if verdict is not Grade.SAME:
            return verdict
    if sorted(_SIGNS.findall(one)) != sorted(_SIGNS.findall(other)):
        return Grade.UNCLEAR
    try:
        cosine = float(lexical(one) @ lexical(other))
    except NoVector:
        return Grade.UNCLEAR
    only_beginnings = max(len(one), len(other)) > TEXT_CHARS_MAX
    return Grade.SAME if cosine >= SAME_COSINE and not only_beginnings else Grade.UNCLEAR


def _facts(one: Features, other: Features) -> Grade:
    """By numbers, identifiers, opposites and negations. One that says more than the other is not thereby wrong."""
    for mine, theirs in ((set(one.numbers), set(other.numbers)), (one.identifiers, other.identifiers)):
        if mine - theirs and theirs - mine:
            return Grade.OTHER
        if mine != theirs:
            return Grade.UNCLEAR
    words = max(one.words, other.words)
    if (one.negations == 0) != (other.negations == 0) or one.sides != other.sides or one.members != other.members:
        return Grade.OTHER if words <= SHORT_WORDS else Grade.UNCLEAR
    return Grade.SAME


def _atoms(one: str, other: str, said: tuple[Features, Features]) -> Grade:
    """Of answers that name one thing: by the words that carry meaning, or by all where none does."""
    mine, theirs = (set(features.content) or set(_plain(text)) for text, features in zip((one, other), said, strict=True))
    if max(part.words for part in said) > ATOMIC_WORDS or mine == theirs:
        return Grade.SAME
    return Grade.OTHER if mine and theirs else Grade.UNCLEAR


def _laid_out(text: str) -> str:
    """Without what only lays a text out: emphasis, headings, bullets, and numbers of a list where they count from one."""
    text = _LAYOUT.sub("", unicodedata.normalize("NFC", text))
    if len(_BULLET.findall(text)) > 1:
        text = _BULLET.sub("", text)
    numbers = [int(found) for found in _NUMBER.findall(text)]
    if len(numbers) > 1 and numbers == list(range(1, len(numbers) + 1)):
        text = _NUMBER.sub("", text)
    return " ".join(text.split())


def _plain(text: str) -> list[str]:
    """Its words, case and the punctuation of sentences left out."""
    return _PUNCTUATION.sub("", text.casefold()).split()


# --- documents -----------------------------------------------------------------------------------------------------------------


def _document(text: str) -> Any:
    """The JSON object or list that a text is, as itself or as one block of code; None where it is none."""
    found = _FENCE.match(text)
    inner = (found.group(1) if found else text).strip()
    if not inner.startswith(("{", "[")):
        return None
    try:
        return orjson.loads(inner)
    except orjson.JSONDecodeError:
        return None


def _leaves(one: Any, other: Any) -> list[tuple[Any, Any]]:
    """Pairs of values in the same place; a pair of unequal kinds where the two have another shape."""
    found: list[tuple[Any, Any]] = []
    waiting = [(one, other, 0)]
    while waiting and len(found) <= LEAVES_MAX:
        left, right, depth = waiting.pop()
        if depth > DEPTH_MAX:
            raise RecursionError(f"nested deeper than {DEPTH_MAX}")
        if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
            waiting += [(left[name], right[name], depth + 1) for name in left]
        elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
            waiting += [(mine, theirs, depth + 1) for mine, theirs in zip(left, right, strict=True)]
        else:
            found.append((left, right))
    return [*found, *((left, right) for left, right, _ in waiting)][: LEAVES_MAX + 1]


def _documents(one: Any, other: Any) -> Grade:
    pairs = _leaves(one, other)
    unequal = [pair for pair in pairs if not _equal(*pair)]
    if not all(isinstance(mine, str) and isinstance(theirs, str) for mine, theirs in unequal):
        return Grade.OTHER
    if len(pairs) > LEAVES_MAX:
        written = (orjson.dumps(value, option=orjson.OPT_SORT_KEYS) for value in (one, other))
        return Grade.SAME if next(written) == next(written) else Grade.UNCLEAR
    if len(unequal) > UNEQUAL_TEXTS_MAX:
        return Grade.UNCLEAR
    return _worst([_texts(mine, theirs) for mine, theirs in unequal])


def _equal(one: Any, other: Any) -> bool:
    """`true` is not 1."""
    return one is other if isinstance(one, bool) or isinstance(other, bool) else bool(one == other)


def _worst(grades: list[Grade]) -> Grade:
    if Grade.OTHER in grades:
        return Grade.OTHER
    return Grade.UNCLEAR if Grade.UNCLEAR in grades else Grade.SAME
