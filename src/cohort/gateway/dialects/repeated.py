"""Fields that stand twice in one JSON object: which of the two holds is each reader's choice (RFC 8259, section 4).

The gateway reads the last one; an upstream that gets the caller's bytes may read the first. What the gateway decides on must be what is asked.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from cohort.gateway.dialects.face import Refused, Withheld

MODEL = b'"model"'
ESCAPED_LETTERS = b"\\u006"
"""A letter from `a` to `o` by its number: nobody writes so but who hides a name."""
_TOO_DEEP = "the body is nested too deeply"


class _Pairs:
    """Takes the objects of a document as they end, the outermost last."""

    __slots__ = ("inner", "outer")

    def __init__(self) -> None:
        self.inner: str | None = None
        self.outer: str | None = None

    def __call__(self, pairs: list[tuple[str, Any]]) -> None:
        self.inner = self.inner or self.outer
        self.outer = None
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            self.outer = next(name for at, name in enumerate(names) if name in names[:at])


def check_every_field_once(body: bytes, fields: dict[str, Any]) -> bool:
    """Whether the body is byte for byte what `fields` are written as, which it was read as; most clients write no spaces.

    Raises:
        Refused 400: a field stands twice, at any depth; it is named.
    """
    try:
        if orjson.dumps(fields) == body:  # nothing was left out
            return True
    except TypeError as error:
        raise Refused(400, _TOO_DEEP, "invalid_json") from error
    found = _scanned(body)
    if found.outer is not None or found.inner is not None:
        raise _repeated(found.outer or found.inner or "")
    return False


def repeated_name(body: bytes) -> str | None:
    """A name that stands twice in one object of a JSON document, at any depth."""
    found = _scanned(body)
    return found.outer or found.inner


def check_model_once(body: bytes) -> None:
    """Raises Refused 400 for a body that names its model twice, which is to be called only where that may be."""
    if (body.count(MODEL) > 1 or ESCAPED_LETTERS in body) and _scanned(body).outer == "model":
        raise _repeated("model")


def _scanned(body: bytes) -> _Pairs:
    """The body was read as JSON before; numbers, which may be of any length, are left as text."""
    found = _Pairs()
    try:
        json.loads(body, object_pairs_hook=found, parse_int=str, parse_float=str, parse_constant=str)
    except RecursionError as error:
        raise Refused(400, _TOO_DEEP, "invalid_json") from error
    return found


def _repeated(name: str) -> Withheld:
    return Withheld(400, f"the field {name[:100]!r} stands twice in one object; send it once", "field_repeated", name[:100])
