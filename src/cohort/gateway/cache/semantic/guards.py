"""Reasons why an answer to one text must not serve another, however alike the two look to an embedding. Pure.

A guard that is silent says nothing in favour. All that pass still have to earn acceptance, each kind of `difference` for itself: what comparisons
of rewordings have shown says nothing of texts of which one says more, and whether `parcel` and `package`, or `file` and `folder`, make one
question or two is nothing that likeness or other words' comparisons could say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from cohort.gateway.cache.semantic.text import STEM_CHARS_MIN, Features

LENGTH_RATIO_MAX = 2.5
SHARED_BEGINNING_MIN = 0.6
"""Two words that begin alike for this part of the longer one, and for STEM_CHARS_MIN letters, are taken for forms of one word."""


def first_objection(asked: Features, known: Features, lexical: bool) -> str | None:
    """The name of the first guard that objects; None when none does. `lexical`: the embedding sees letters, not meaning."""
    for name, guard in GUARDS.items():
        if guard(asked, known):
            return name
    return "content" if lexical and _content(asked, known) else None


def objections(asked: Features, known: Features) -> list[str]:
    """Every guard that objects; for measurements."""
    return [name for name, guard in {**GUARDS, "content": _content}.items() if guard(asked, known)]


class Kind(Enum):
    """How the words of content of two texts differ. ALIKE: not at all, but for forms and order, or so that both have others, and not as many."""

    ALIKE = "alike"
    ADDED = "added"
    EXCHANGED = "exchanged"


@dataclass(frozen=True, slots=True)
class Difference:
    """`words`: where they were exchanged, those of one text and then those of the other, the same whichever was asked first."""

    kind: Kind = Kind.ALIKE
    words: tuple[str, ...] = ()


NO_DIFFERENCE = Difference()


def difference(asked: Features, known: Features) -> Difference:
    """ADDED: one text has the other's words and more. EXCHANGED: each has words that the other has not, as many."""
    ours, theirs = Counter(asked.content), Counter(known.content)
    gained, lost = list((ours - theirs).elements()), list((theirs - ours).elements())
    for word in tuple(gained):
        form = next((other for other in lost if _forms_of_one(word, other)), None)
        if form is not None:
            gained.remove(word)
            lost.remove(form)
    if bool(gained) != bool(lost):
        return Difference(Kind.ADDED)
    if not gained or len(gained) != len(lost):
        return NO_DIFFERENCE
    first, second = sorted((sorted(gained), sorted(lost)))
    return Difference(Kind.EXCHANGED, (*first, *second))


def _forms_of_one(word: str, other: str) -> bool:
    shared = next((at for at, (one, two) in enumerate(zip(word, other, strict=False)) if one != two), min(len(word), len(other)))
    return shared >= max(STEM_CHARS_MIN, SHARED_BEGINNING_MIN * max(len(word), len(other)))


def _numbers(asked: Features, known: Features) -> bool:
    return asked.numbers != known.numbers


def _identifiers(asked: Features, known: Features) -> bool:
    return asked.identifiers != known.identifiers


def _polarity(asked: Features, known: Features) -> bool:
    """Another number of negations, the other side of an opposite, another member of a group whose members exclude each other."""
    if asked.negations != known.negations:
        return True
    return _opposed(asked.sides, known.sides) or _opposed(asked.members, known.members)


def _opposed(one: frozenset[tuple[int, int]], other: frozenset[tuple[int, int]]) -> bool:
    for group in {group for group, _ in one} & {group for group, _ in other}:
        if {member for at, member in one if at == group} != {member for at, member in other if at == group}:
            return True
    return False


def _names(asked: Features, known: Features) -> bool:
    """A name that the other text does not have, with or without its capital."""
    return not (set(asked.names) <= {*known.names, *known.content} and set(known.names) <= {*asked.names, *asked.content})


def _order(asked: Features, known: Features) -> bool:
    """The same things the other way round: ends of a direction exchanged, or names or all words in another order."""
    ends, others = dict(_unique(asked.roles)), dict(_unique(known.roles))
    if ends and others:
        exchanged = {role: word for role, word in ends.items() if role in others}
        if any(others[role] != word for role, word in exchanged.items()) and set(ends.values()) & set(others.values()):
            return True
        if exchanged and all(others[role] == word for role, word in exchanged.items()) and len(exchanged) > 1:
            return False
    if asked.names != known.names and Counter(asked.names) == Counter(known.names):
        return True
    if asked.language == known.language == "de":
        return False  # verbs move through a German sentence, and its nouns are names here
    return asked.content != known.content and Counter(asked.content) == Counter(known.content)


def _unique(roles: frozenset[tuple[str, str]]) -> list[tuple[str, str]]:
    count = Counter(role for role, _ in roles)
    return [(role, word) for role, word in roles if count[role] == 1]


def _language(asked: Features, known: Features) -> bool:
    return asked.script != known.script or bool(asked.language and known.language and asked.language != known.language)


def _length(asked: Features, known: Features) -> bool:
    shorter, longer = sorted((asked.words, known.words))
    return longer > LENGTH_RATIO_MAX * max(shorter, 1)


def _content(asked: Features, known: Features) -> bool:
    """Where the embedding sees letters only, another word of content is another question."""
    return set(asked.content) != set(known.content)


GUARDS: dict[str, Callable[[Features, Features], bool]] = {
    "numbers": _numbers,
    "identifiers": _identifiers,
    "polarity": _polarity,
    "names": _names,
    "order": _order,
    "language": _language,
    "length": _length,
}
