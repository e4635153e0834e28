"""One encoding for everything that is hashed: RFC 8785 canonical JSON, SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from types import NoneType
from typing import Any

import orjson
import rfc8785

from cohort.base.errors import CohortError

_EXACT_INTEGER = 1 << 53
_ALIKE = frozenset({str, bool, NoneType})
"""What every encoder writes alike."""


def canonical_json(value: Any) -> bytes:
    """The RFC 8785 encoding of plain JSON values; quicker for what they nearly always are: strings, whole numbers and plain fractions.

    Raises:
        CohortError VALUE_NOT_CANONICAL: a value has no canonical form (a NaN, an integer beyond 2**53, a non-string key).
    """
    try:
        if type(value) in _ALIKE or _plain(value):
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (TypeError, RecursionError):  # a key that is no text, half of a surrogate pair, or very deep; the slow way knows what to say
        return _by_the_letter(value)
    return _by_the_letter(value)


def _by_the_letter(value: Any) -> bytes:
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:  # the latter: a key with half of a surrogate pair
        raise CohortError("VALUE_NOT_CANONICAL", f"cannot be written as canonical JSON: {error}", hint="Use plain JSON values.") from error


def _plain(value: Any) -> bool:
    """Whether orjson and RFC 8785 agree on `value`: ASCII keys sort alike, and fractions of ordinary size are written alike."""
    kind = type(value)
    if kind in _ALIKE:
        return True
    if kind is dict:
        return "".join(value).isascii() and _all_plain(value.values())
    if kind is list or kind is tuple:
        return _all_plain(value)
    if kind is int:
        return bool(-_EXACT_INTEGER < value < _EXACT_INTEGER)
    return kind is float and bool(1e-3 <= abs(value) < 1e15 and value % 1 != 0)


def _all_plain(values: Iterable[Any]) -> bool:
    """Most values are strings, for which a call each would cost more than all the rest."""
    for value in values:  # noqa: SIM110 - a generator costs as much as the calls
        if type(value) not in _ALIKE and not _plain(value):
            return False
    return True


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
