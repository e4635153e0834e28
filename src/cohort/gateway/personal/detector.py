"""Finds personal data and secrets in a request: one scan of the raw bytes, and exact rules only where it finds something.

RE2 (google-re2, BSD-3-Clause) matches in time linear in the text whatever the text is; the standard library's engine does not. It is
imported when the first detector is made, which a gateway without shadow copies and without a policy never does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import orjson

from cohort.gateway.contract_personal import KINDS
from cohort.gateway.personal.cards import CARD_BEGINS, is_card
from cohort.gateway.personal.rules import RULES, Span
from cohort.gateway.personal.writing import ODD_BYTES, masked, plain

DEPTH_MAX = 64
"""Of nested values looked into; deeper ones are taken out whole, as nobody has looked."""
LOOKS_MAX = 50_000
"""Places of one request that exact rules look at; each takes a few microseconds, and all of them hold up every other call."""
MEMORY_BYTES_MAX = 8 << 20
"""For one compiled pattern."""
_VENDORS = (
    r"\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{20,200}|\bA[KS]IA[0-9A-Z]{16}\b|\bgh[oprsu]_[A-Za-z0-9]{36,255}|\bgithub_pat_[A-Za-z0-9_]{22,255}"
    r"|\bxox[abeoprs]-[A-Za-z0-9-]{10,255}|\bglpat-[A-Za-z0-9_-]{20,64}|\bAIza[A-Za-z0-9_-]{35}\b|\b(?:hf|gsk|npm)_[A-Za-z0-9]{30,100}"
    r"|\bxai-[A-Za-z0-9]{40,100}|\bc(?:g)?k_[A-Za-z0-9_-]{40,100}"
)
PATTERNS: Mapping[str, str] = {
    "secret": (
        _VENDORS + r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"
        r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:[A-Za-z0-9+/=\s]*-----END [A-Z ]{0,30}PRIVATE KEY-----)?"
    ),
    "email": r"[\pL\pN._%+-]+@[\pL\pN.-]+\.\pL{2,24}",
    "iban": r"\b[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,}|\b[a-z]{2}[0-9]{2}(?:[ -]?[a-z0-9]){11,}",
    "card": r"[0-9](?:[ ./_-]{0,3}[0-9]){12,}",
    "ssn": r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b",
    "phone": r"\+[0-9](?:[ ()./-]{0,3}[0-9]){7,14}\b|\(?\b[0-9]{3}\)?[-. ][0-9]{3}[-. ][0-9]{4}\b",
    "ip": r"\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b",
}
"""In the order in which they are looked for: what one has taken out, the next does not see."""
_RAW: Mapping[str, str] = {
    **PATTERNS,
    "email": r"[A-Za-z0-9._%+\x80-\xff-]@[A-Za-z0-9.\x80-\xff-]+\.[A-Za-z\x80-\xff]",
    "iban": r"\b[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11}|\b[a-z]{2}[0-9]{2}(?:[ -]?[a-z0-9]){11}",
    "card": r"(?:^|[^A-Za-z0-9])[2-6](?:[ ./_-]{0,3}[0-9]){12}",
}
"""For the bytes of a document: what the patterns above find and perhaps more."""
_NAMES = frozenset({"model", "role", "type", "id", "tool_call_id", "tool_use_id", "call_id", "previous_response_id"})
"""Fields that name things of the protocol, where they stand in it: taking something out of them would change what is asked."""
_HOLDERS = frozenset({"messages", "content", "tool_calls", "input"})
"""Fields whose lists hold further parts of the protocol. What else is nested, such as the arguments of a tool, is the caller's own."""

_ESCAPE = re.compile(rb'\\[bfnrt"/\\]')
_ESCAPED_WITHIN = re.compile(rb'\\\\+[bfnrt"/]?')
"""An escape of a text within a text."""
_ENCODED = re.compile(r"data:[A-Za-z0-9.+/;=_-]{0,200};base64,[A-Za-z0-9+/=]*")
"""An image or a file, and nothing beside it. Both are read in linear time: each of their steps has one way to go on."""


class TooMuch(Exception):
    """More places look like personal data than are looked at."""


class Detector:
    """Looks for some kinds. Thread-safe."""

    def __init__(self, kinds: Sequence[str] = KINDS) -> None:
        import re2

        raw = re2.Options()
        raw.max_mem, raw.log_errors, raw.encoding = MEMORY_BYTES_MAX, False, re2.Options.Encoding.LATIN1
        self._wanted = [kind for kind in PATTERNS if kind in kinds]
        self._raw = re2.compile("|".join(_RAW[kind] for kind in self._wanted).encode() or b"[^\\x00-\\xff]", raw)
        self._odd = re2.compile(ODD_BYTES, raw)

    @cached_property
    def _patterns(self) -> Mapping[str, Any]:
        """Compiled at the first request that may hold something: they take as much memory as all else that a detector needs."""
        import re2

        options = re2.Options()
        options.max_mem, options.log_errors = MEMORY_BYTES_MAX, False
        return {kind: re2.compile(PATTERNS[kind], options) for kind in self._wanted}

    def may_hold(self, body: bytes) -> bool:
        """Whether the bytes of a JSON document may hold something; False is certain. Letters written by their number are not looked through.

        Of the other escapes only that they end what stands before them matters: `\\n1` begins a line with a digit, not a word with `n1`.
        """
        if not body.isascii() and self._odd.search(body) is not None:
            return True
        if b"\\" in body:
            if b"\\u" in body:
                return True
            if b"\\\\" in body and self._raw.search(_ESCAPED_WITHIN.sub(b" ", body)) is not None:
                return True
            body = _ESCAPE.sub(b" ", body)
        return self._raw.search(body) is not None

    def redact(self, text: str) -> tuple[str, dict[str, int]]:
        """The text with `[kind]` where something was, and how often each kind was found; raises TooMuch."""
        look = Look(self._patterns)
        return look.text(text), look.found

    def redact_value(self, value: Any) -> tuple[Any, dict[str, int]]:
        """As `redact`, of every text, name and long number in a JSON value; the value itself is not changed. Raises TooMuch."""
        look = Look(self._patterns)
        return look.value(value, 0, protocol=True), look.found


class Look:
    """One look through one request. `found`: how often each kind was."""

    def __init__(self, patterns: Mapping[str, Any]) -> None:
        self._patterns = patterns
        self._looks = 0
        self.found: dict[str, int] = {}

    def value(self, value: Any, depth: int, *, protocol: bool) -> Any:
        """`protocol`: the names in this value are the protocol's own, not a caller's."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict | list) and depth >= DEPTH_MAX:
            self._note("unseen")
            return "[unseen]"
        if isinstance(value, dict):
            return self._named(value, depth, protocol)
        if isinstance(value, list):
            return [self.value(part, depth + 1, protocol=protocol) for part in value]
        return value if protocol or not isinstance(value, int) or isinstance(value, bool) else self._number(value)

    def _named(self, fields: dict[str, Any], depth: int, protocol: bool) -> dict[str, Any]:
        cleaned: dict[str, Any] = {}
        for name, part in fields.items():
            if protocol and name in _NAMES and isinstance(part, str):
                cleaned[name] = part
                continue
            inner = protocol and (name in _HOLDERS if isinstance(part, list) else not isinstance(part, dict))
            said = name if name.isidentifier() and name.isascii() else self.text(name)
            cleaned[_unlike(said, cleaned)] = self.value(part, depth + 1, protocol=inner)
        return cleaned

    def _number(self, number: int) -> int | str:
        """A card's number without quotation marks."""
        digits = str(number)
        if "card" not in self._patterns or digits[0] not in CARD_BEGINS or not is_card(digits):
            return number
        self._note("card")
        return "[card]"

    def text(self, text: str) -> str:
        if text.startswith("data:") and _ENCODED.fullmatch(text):
            return text
        text = self._document(text) if text[:1] in "{[" and "\\" in text else text
        cleaned = self._looked_through(text, text)
        if "\\" in cleaned:
            cleaned = self._looked_through(cleaned, masked(cleaned))
        if not cleaned.isascii():
            ascii_only = plain(cleaned)
            again = self._looked_through(ascii_only, ascii_only) if ascii_only != cleaned else ascii_only
            if again != ascii_only:
                return again
        return cleaned

    def _document(self, text: str) -> str:
        """JSON within a text, such as the arguments of a tool's call: its escapes hide nothing either."""
        try:
            inner = orjson.loads(text)
            cleaned = self.value(inner, 1, protocol=False)
            return text if cleaned == inner else orjson.dumps(cleaned).decode()
        except (orjson.JSONDecodeError, TypeError):
            return text

    def _looked_through(self, text: str, seen: str) -> str:
        """`seen`: as long as the text, what to look at instead."""
        taken: list[tuple[Span, str]] = []
        for kind, pattern in self._patterns.items():
            spans = list(self._spans(kind, pattern, seen))
            for start, end in spans:
                self._note(kind)
                taken.append(((start, end), kind))
            if spans:
                seen = _blanked(seen, spans)
        return _replaced(text, taken) if taken else text

    def _spans(self, kind: str, pattern: Any, seen: str) -> Iterator[Span]:
        rule = RULES[kind]
        for match in pattern.finditer(seen):
            start, end = match.span()
            found, looks = rule(match.group(), seen[start - 1 : start], seen[end : end + 1])
            self._looks += looks
            if self._looks > LOOKS_MAX:
                raise TooMuch
            for first, last in found:
                yield start + first, start + last

    def _note(self, kind: str) -> None:
        self.found[kind] = self.found.get(kind, 0) + 1


def _blanked(text: str, spans: Sequence[Span]) -> str:
    """As long as before, and no letter where something was found."""
    pieces, at = [], 0
    for start, end in spans:
        pieces += [text[at:start], "\0" * (end - start)]
        at = end
    return "".join([*pieces, text[at:]])


def _replaced(text: str, taken: list[tuple[Span, str]]) -> str:
    pieces, at = [], 0
    for (start, end), kind in sorted(taken):
        pieces += [text[at:start], f"[{kind}]"]
        at = end
    return "".join([*pieces, text[at:]])


def _unlike(name: str, others: Mapping[str, Any]) -> str:
    """Two names of which the same is left must not become one field."""
    number, made = 1, name
    while made in others:
        number += 1
        made = f"{name} {number}"
    return made
