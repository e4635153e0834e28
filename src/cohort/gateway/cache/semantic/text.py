"""What guards need to know of a text: its numbers, identifiers, negations, names, their order, its language. Pure; a text is read once."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from cohort.gateway.cache.semantic.words import EXCLUSIVE, FROM, LANGUAGES, NEGATIONS, NUMBERS, OPPOSITES, STOP, TO, UNITS

TEXT_CHARS_MAX = 4000
WHOLE_WORD_CHARS = 3
"""A stem of so few letters stands for itself only."""
STEM_CHARS_MIN = 4
_TOKEN = re.compile(r"https?://\S+|\w+@[\w.-]+\w|[/~][\w./-]*\w|\d+(?:[.,:]\d+)*|\w+(?:[-'’._/#+]\w+)*[+#]*|[%€$£°]\w?", re.UNICODE)
_PARTS = re.compile(r"['-]")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_THOUSANDS = re.compile(r"(?<=\d)[.,](?=\d{3}(?!\d))")
_CODE = re.compile(r"`([^`]{1,200})`|\"([^\"]{1,200})\"|“([^”]{1,200})”|«([^»]{1,200})»|„([^“”]{1,200})[“”]")
_SENTENCE_END = re.compile(r"[.!?:;\n]\s*$")
_SUFFIXES = (
    *("ungen", "ations", "ation", "ingly", "mente", "ments", "ing", "ung", "ment", "ies", "ers", "est"),
    *("es", "en", "er", "ed", "em", "ar", "ir", "s", "e", "n", "r"),
)
_CONTRACTED = frozenset(("do", "does", "did", "is", "are", "ca", "wo", "would", "should", "could", "have", "has", "was"))
_NE = frozenset(("ne", "n"))
_PAS = frozenset(("pas", "jamais", "rien", "aucun", "aucune"))


@dataclass(frozen=True, slots=True)
class Features:
    """One text. `content`: the stems of its words that are neither grammar nor politeness, in order."""

    numbers: tuple[str, ...]
    identifiers: frozenset[str]
    negations: int
    sides: frozenset[tuple[int, int]]
    members: frozenset[tuple[int, int]]
    names: tuple[str, ...]
    roles: frozenset[tuple[str, str]]
    content: tuple[str, ...]
    language: str
    script: str
    words: int


def features(text: str) -> Features:
    """What there is in a text; only its first TEXT_CHARS_MAX characters are looked at."""
    text = unicodedata.normalize("NFC", text[:TEXT_CHARS_MAX])
    spans = [(match.group(), match.start()) for match in _TOKEN.finditer(text)]
    raw = [token for token, _ in spans]
    low = [_folded(token) for token in raw]
    told = language(low)
    content = tuple(stem(word) for word in low if not _is_stop(word, told) and word not in NEGATIONS)
    return Features(
        numbers=_numbers(low),
        identifiers=frozenset(_identifiers(text, raw)),
        negations=_negations(low, told),
        sides=frozenset(_sides(low)),
        members=frozenset(_members(low)),
        names=_names(text, spans, told),
        roles=frozenset(_roles(low, told)),
        content=content,
        language=told,
        script=_script(text),
        words=len(raw),
    )


def language(words: list[str]) -> str:
    """The language whose grammar words there are most of; empty when there are none, or two languages are level."""
    parts = [part for word in words for part in _PARTS.split(word)]
    counts = Counter({name: sum(part in STOP[name] for part in parts) for name in LANGUAGES})
    (best, most), (_, second) = counts.most_common(2)
    return best if most > second else ""


def stem(word: str) -> str:
    """The word without its commonest endings: crude, the same for every language."""
    for suffix in _SUFFIXES:
        if len(word) - len(suffix) >= STEM_CHARS_MIN and word.endswith(suffix):
            return word[: -len(suffix)]
    return word


def _folded(token: str) -> str:
    return token.casefold().replace("’", "'").replace("n't", "nt") if not token.isascii() or "'" in token else token.lower()


def _is_stop(word: str, told: str) -> bool:
    if told:
        return word in STOP[told] or all(part in STOP[told] for part in _PARTS.split(word))
    return any(word in STOP[name] for name in LANGUAGES)


def _numbers(words: list[str]) -> tuple[str, ...]:
    """Every number with its unit, in any notation, sorted."""
    found = []
    for at, word in enumerate(words):
        value = _value(word) or NUMBERS.get(word)
        if value is None:
            continue
        following = words[at + 1] if at + 1 < len(words) else ""
        before = words[at - 1] if at else ""
        unit = following if following in UNITS else before if before in UNITS and len(before) == 1 else ""
        found.append(value + unit)
    return tuple(sorted(found))


def _value(word: str) -> str | None:
    match = _NUMBER.fullmatch(word)
    if match is None:
        return None
    plain = _THOUSANDS.sub("", word).replace(",", ".")
    return plain.rstrip("0").rstrip(".") or "0" if "." in plain else plain.lstrip("0") or "0"


def _identifiers(text: str, raw: list[str]) -> list[str]:
    """Words that name one exact thing: with digits and letters, in capitals or camel case, with marks inside, quoted, addresses and paths."""
    quoted = [next(part for part in match if part) for match in _CODE.findall(text)]
    found = []
    for token in raw:
        letters, digits = any(c.isalpha() for c in token), any(c.isdigit() for c in token)
        mixed = letters and digits
        camel = re.search(r"[a-z][A-Z]", token) is not None
        capitals = len(token) > 1 and token.isupper() and letters
        marked = letters and re.search(r"[_/#+@]|\w\.\w", token) is not None
        if mixed or camel or capitals or marked:
            found.append(token.lower())
    return [*found, *(part.strip().lower() for part in quoted)]


def _negations(words: list[str], told: str) -> int:
    """How many there are; French `ne ... pas` is one, and Portuguese `no` is none."""
    count = sum(word in NEGATIONS or (word.endswith("nt") and word[:-2] in _CONTRACTED) for word in words)
    if told == "pt":
        count -= words.count("no")
    elided = sum(word.startswith("n'") for word in words)
    pairs = min(sum(word in _NE for word in words) + elided, sum(word in _PAS for word in words))
    return count + elided - pairs


_STEMS: dict[str, list[tuple[str, int, int]]] = {}
for _pair, _two in enumerate(OPPOSITES):
    for _side, _stems in enumerate(_two):
        for _stem in _stems:
            _STEMS.setdefault(_stem[:3], []).append((_stem, _pair, _side))
_MEMBERS = {word: (group, member) for group, members in enumerate(EXCLUSIVE) for member, words in enumerate(members) for word in words}


def _sides(words: list[str]) -> list[tuple[int, int]]:
    """On which side of which opposites the words stand; of two stems that fit, the longer is meant."""
    found = []
    for word in words:
        fitting = [entry for entry in (*_STEMS.get(word[:3], ()), *_STEMS.get(word[:2], ())) if _fits(word, entry[0])]
        longest = max((len(entry[0]) for entry in fitting), default=0)
        found += [(pair, side) for known, pair, side in fitting if len(known) == longest]
    return found


def _fits(word: str, known: str) -> bool:
    return word == known if len(known) <= WHOLE_WORD_CHARS else word.startswith(known)


def _members(words: list[str]) -> list[tuple[int, int]]:
    return [_MEMBERS[word] for word in words if word in _MEMBERS]


def _names(text: str, spans: list[tuple[str, int]], told: str) -> tuple[str, ...]:
    """Words with a capital that do not begin a sentence, in their order. German writes every noun so: there they are nouns."""
    found = []
    for token, at in spans:
        if (
            not token[0].isupper()
            or at == 0
            or _SENTENCE_END.search(text[:at])
            or text[:at].rstrip().endswith(("¿", "¡", '"', "“", "„", "«"))
        ):
            continue
        word = _folded(token)
        if len(token) > 1 and not _is_stop(word, told):
            found.append(stem(word))
    return tuple(found)


def _roles(words: list[str], told: str) -> list[tuple[str, str]]:
    """What stands behind `from` and behind `to`: a direction, whatever the order of its two ends."""
    found = []
    origin, goal = FROM[told or "en"], TO[told or "en"]
    for at, word in enumerate(words[:-1]):
        if word in origin:
            found.append(("from", words[at + 1]))
        elif word in goal:
            found.append(("to", words[at + 1]))
    return [(role, word) for role, word in found if not _is_stop(word, told)]


def _script(text: str) -> str:
    """The script most letters are of, by the first word of their Unicode names; empty without letters."""
    counts = Counter(unicodedata.name(c, "?").split()[0] for c in text[:200] if c.isalpha())
    return counts.most_common(1)[0][0] if counts else ""
