"""Finds personal data and secrets in a request: one scan of the raw bytes, and exact rules only where it finds something.

RE2 (google-re2, BSD-3-Clause) matches in time linear in the text whatever the text is; the standard library's engine does not. It is
imported when the first detector is made, which a gateway without shadow copies and without a policy never does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cohort.gateway.contract_personal import KINDS
from cohort.gateway.personal.rules import RULES

DEPTH_MAX = 64
"""Of nested values looked into; deeper ones are taken out whole, as nobody has looked."""
MEMORY_BYTES_MAX = 8 << 20
"""For one compiled pattern."""
PATTERNS: Mapping[str, str] = {
    "secret": (
        r"\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{20,200}|\bAKIA[0-9A-Z]{16}\b|\bgh[oprsu]_[A-Za-z0-9]{36,255}|\bgithub_pat_[A-Za-z0-9_]{22,255}"
        r"|\bxox[abeoprs]-[A-Za-z0-9-]{10,255}|\bglpat-[A-Za-z0-9_-]{20,64}|\bAIza[A-Za-z0-9_-]{35}\b"
        r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}|\bck_[A-Za-z0-9_-]{40,100}"
        r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:[A-Za-z0-9+/=\s]*-----END [A-Z ]{0,30}PRIVATE KEY-----)?"
    ),
    "email": r"\b[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,253}\.[A-Za-z]{2,24}\b",
    "iban": r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}\b",
    "card": r"\b[2-6](?:[ -]?[0-9]){12,18}\b",
    "ssn": r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b",
    "phone": r"\+[0-9](?:[ ()./-]{0,3}[0-9]){7,14}\b|\(?\b[0-9]{3}\)?[-. ][0-9]{3}[-. ][0-9]{4}\b",
    "ip": r"\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b",
}
"""In the order in which they are looked for: what one has taken out, the next does not see."""
_SKIPPED = frozenset({"model", "role", "type", "id", "tool_call_id", "call_id", "previous_response_id"})
"""Fields that name things of the protocol: taking something out of them would change what is asked."""

_ESCAPE = re.compile(rb'\\[bfnrt"/\\]')
_ENCODED = re.compile(r"data:[A-Za-z0-9.+/;=_-]{0,200};base64,[A-Za-z0-9+/=]*")
"""An image or a file, and nothing beside it. Both are read in linear time: each of their steps has one way to go on."""


class Detector:
    """Looks for some kinds. Thread-safe."""

    def __init__(self, kinds: Sequence[str] = KINDS) -> None:
        import re2

        options = re2.Options()
        options.max_mem, options.log_errors = MEMORY_BYTES_MAX, False
        raw = re2.Options()
        raw.max_mem, raw.log_errors, raw.encoding = MEMORY_BYTES_MAX, False, re2.Options.Encoding.LATIN1
        wanted = [kind for kind in PATTERNS if kind in kinds]
        self._patterns = {kind: re2.compile(PATTERNS[kind], options) for kind in wanted}
        self._raw = re2.compile("|".join(PATTERNS[kind] for kind in wanted).encode() or b"[^\\x00-\\xff]", raw)

    def may_hold(self, body: bytes) -> bool:
        """Whether the bytes of a JSON document may hold something; False is certain. Letters written by their number are not looked through.

        Of the other escapes only that they end what stands before them matters: `\\n1` begins a line with a digit, not a word with `n1`.
        """
        if b"\\" in body:
            if b"\\u" in body:
                return True
            body = _ESCAPE.sub(b" ", body)
        return self._raw.search(body) is not None

    def redact(self, text: str) -> tuple[str, dict[str, int]]:
        """The text with `[kind]` where something was, and how often each kind was found."""
        found: dict[str, int] = {}
        for kind, pattern in self._patterns.items():
            text = pattern.sub(lambda match, kind=kind: _kept_or_named(match.group(), kind, found), text)
        return text, found

    def redact_value(self, value: Any) -> tuple[Any, dict[str, int]]:
        """As `redact`, of every text in a JSON value; the value itself is not changed."""
        found: dict[str, int] = {}
        return self._walk(value, found, 0), found

    def _walk(self, value: Any, found: dict[str, int], depth: int) -> Any:
        if isinstance(value, str):
            return self._text(value, found)
        if depth >= DEPTH_MAX and isinstance(value, dict | list):
            found["unseen"] = found.get("unseen", 0) + 1
            return "[unseen]"
        if isinstance(value, dict):
            return {
                name: part if name in _SKIPPED and isinstance(part, str) else self._walk(part, found, depth + 1)
                for name, part in value.items()
            }
        if isinstance(value, list):
            return [self._walk(part, found, depth + 1) for part in value]
        return value

    def _text(self, text: str, found: dict[str, int]) -> str:
        if text.startswith("data:") and _ENCODED.fullmatch(text):
            return text
        cleaned, more = self.redact(text)
        for kind, count in more.items():
            found[kind] = found.get(kind, 0) + count
        return cleaned


def _kept_or_named(text: str, kind: str, found: dict[str, int]) -> str:
    end = RULES[kind](text)
    if not end:
        return text
    found[kind] = found.get(kind, 0) + 1
    return f"[{kind}]{text[end:]}"
