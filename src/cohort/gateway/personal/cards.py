"""Payment cards in a run of digits: other numbers may stand before and behind one, and groups may be of any common size. Pure."""

from __future__ import annotations

import re
from bisect import bisect_left

CARD_DIGITS = range(13, 20)
CARD_BEGINS = frozenset("23456")
"""ISO/IEC 7812: travel and banking. Other numbers of such length are not cards of people."""
GROUPS_MAX = 6
GROUP_DIGITS_MIN = 3
"""Of every group but the last, where other numbers stand beside; a run that is nothing else may be grouped in any way."""
COMMON = frozenset({(4, 4, 4, 4), (4, 4, 4, 4, 1), (4, 4, 4, 4, 2), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4), (4, 4, 5), (4, 3, 3, 3)})
RUN_CHARS_MAX = 256 << 10
"""A longer one is too much to look at: its length counts as the number of its places."""
GROUPS_PER_LOOK = 8
"""To pass over a group of digits takes an eighth of what a look at a place does."""
_GROUP = re.compile("[0-9]+")
_LOOSE = frozenset({" ", "-", "  ", " -", "- ", "--", " - ", "   "})
"""What may stand between any groups; other separators (`.`, `/`, `_`) only between groups of a common size: they also divide dates and numbers."""
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
Span = tuple[int, int]


def is_card(digits: str) -> bool:
    """The check digit of ISO/IEC 7812 (Luhn), the length, the first digit; not one digit over and over."""
    if len(digits) not in CARD_DIGITS or digits[0] not in CARD_BEGINS or len(set(digits)) == 1:
        return False
    return (sum(map(int, digits[-1::-2])) + sum(_DOUBLED[int(digit)] for digit in digits[-2::-2])) % 10 == 0


def cards(run: str, free_before: bool, free_behind: bool) -> tuple[list[Span], int]:
    """Where cards stand in a run of digits and separators, and how much work it was to look.

    `free_before`, `free_behind`: no letter touches the run there; what a letter touches is part of another word.
    """
    if len(run) > RUN_CHARS_MAX:
        return [], len(run)
    groups = [found.span() for found in _GROUP.finditer(run)]
    if not free_before:
        groups = groups[1:]
    if not free_behind:
        groups = groups[:-1]
    spans: list[Span] = []
    other: list[Span] = []
    tried = 0
    for first, (start, end) in enumerate(groups):
        if run[start] in CARD_BEGINS and end - start >= GROUP_DIGITS_MIN:
            tried += 1
            _from(run, groups, first, spans, other)
    certain = _joined(spans)
    spans += [span for span in other if not _touches(span, certain)]
    if not spans and groups and is_card("".join(run[start:end] for start, end in groups)):
        spans.append((groups[0][0], groups[-1][1]))
    return _joined(spans), 1 + tried + len(groups) // GROUPS_PER_LOOK


def _from(run: str, groups: list[Span], first: int, common: list[Span], other: list[Span]) -> None:
    """Cards that begin with the group `first`."""
    digits, loose = "", True
    sizes: list[int] = []
    for at in range(first, min(first + GROUPS_MAX, len(groups))):
        start, end = groups[at]
        if sizes and sizes[-1] < GROUP_DIGITS_MIN:
            return
        loose = loose and (at == first or run[groups[at - 1][1] : start] in _LOOSE)
        digits += run[start:end]
        sizes.append(end - start)
        if len(digits) > CARD_DIGITS[-1]:
            return
        is_common = at == first or tuple(sizes) in COMMON
        if (is_common or loose) and is_card(digits):
            (common if is_common else other).append((groups[first][0], end))
            if is_common:  # what follows, such as an amount, fits by chance in one case of ten
                return


def _touches(span: Span, others: list[Span]) -> bool:
    """`others`: in order, and apart from each other."""
    at = bisect_left(others, (span[1], 0))
    return at > 0 and others[at - 1][1] > span[0]


def _joined(spans: list[Span]) -> list[Span]:
    """Where two overlap, which of them is the card cannot be told: both go."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
