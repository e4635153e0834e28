"""How hard a request looks, from what is cheap to see. Pure; no model is asked. The same request has the same score everywhere.

A conversation is as hard as its hardest turn so far: the client sends the whole of it with each request, and no feature counts against
difficulty, so the score of a conversation of up to `TURNS_READ_MAX` turns only goes up, also after a restart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from math import exp, log1p
from operator import itemgetter, mul
from typing import Any

from cohort.gateway.contract_routing import FEATURE_LEVELS, FEATURES, WEIGHTS

TURNS_READ_MAX = 32
"""User turns looked at, the newest first."""
TURN_CHARS_READ_MAX = 8_192
"""Of one turn. What lies behind counts for its length only."""
LENGTH_CHARS = 2_000.0
CONTEXT_CHARS = 20_000.0
_LENGTH, _CONTEXT, _SIX, _SIXTEEN, _FORTY = (math.log1p(full) for full in (LENGTH_CHARS, CONTEXT_CHARS, 6.0, 16.0, 40.0))
_CODE = b"{}[]();=<>`_\\|&"
_DIGITS = b"0123456789+-*/^%$"
_PLAIN = bytes(set(range(256)) - set(_CODE + _DIGITS + b"?\n"))
_KINDS = bytes.maketrans(_CODE + _DIGITS, b"c" * len(_CODE) + b"d" * len(_DIGITS))
_HEXADECIMAL = "0123456789abcdef"

Features = tuple[float, ...]
"""In the order of FEATURES, each from 0 to 1."""
_NOTHING: Features = (0.0,) * len(FEATURES)
_difficulty = itemgetter(0)


class Scorer:
    """Difficulty by a logistic model over the features, with the weights of one release."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """`weights`: those that differ from WEIGHTS, by feature, and `bias`."""
        merged = {**WEIGHTS, **weights}
        self._bias = merged["bias"]
        self._weights = tuple(merged[name] for name in FEATURES)

    def difficulty(self, features: Features) -> float:
        """From 0 to 1: how likely the weak model is not enough, as far as the weights know."""
        total = self._bias
        for part in map(mul, self._weights, features):
            total += part
        held = total if -30.0 < total < 30.0 else math.copysign(30.0, total)
        return 1.0 / (1.0 + exp(-held))

    def hardest(self, fields: Mapping[str, Any]) -> tuple[float, Features]:
        """The difficulty of a chat request and the features of its hardest turn."""
        found = turns(fields) or [_NOTHING]
        if len(found) == 1:
            return self.difficulty(found[0]), found[0]
        return max([(self.difficulty(features), features) for features in found], key=_difficulty)


def turns(fields: Mapping[str, Any]) -> list[Features]:
    """The features of each of the newest user turns of a chat request; what is not in the shape of one is passed over."""
    messages = fields.get("messages")
    if not isinstance(messages, list):
        return []
    texts = _user_texts(messages)
    context = _grade(sum(map(len, texts)), _CONTEXT)
    tools = _tools(fields["tools"]) if "tools" in fields else 0.0
    form = _format(fields["response_format"]) if "response_format" in fields else 0.0
    return [_turn(text, context, tools, form) for text in texts[-TURNS_READ_MAX:]]


def encode(features: Features) -> str:
    """One hexadecimal digit for each feature."""
    return "".join([_HEXADECIMAL[round(value * FEATURE_LEVELS)] if value else "0" for value in features])


def decode(text: str) -> Features:
    """The features in `text`, as exactly as they were reported; raises ValueError when it is not a report of them."""
    if len(text) != len(FEATURES):
        raise ValueError(f"expected {len(FEATURES)} hexadecimal digits, found {text[:40]!r}")
    return tuple(int(digit, 16) / FEATURE_LEVELS for digit in text)


def _turn(text: str, context: float, tools: float, form: float) -> Features:
    read = text[:TURN_CHARS_READ_MAX]
    size, data = len(read) or 1, read.encode("utf-8", "surrogatepass")
    signs = data.translate(_KINDS, _PLAIN)  # one pass over what is long; the rest is about little
    code, figures, asked, lines = signs.count(b"c"), signs.count(b"d"), signs.count(b"?"), signs.count(b"\n")
    if len(data) != len(read):
        figures += read.count("€") + read.count("£")
        asked += read.count("？") + read.count("؟")
    questions, structure = _grade(asked, _SIX) if asked else 0.0, _grade(lines, _FORTY) if lines else 0.0
    return (_grade(len(text), _LENGTH), context, _part(code / size * 8.0), _part(figures / size * 6.0), questions, structure, tools, form)


def _part(value: float) -> float:
    return value if value < 1.0 else 1.0


def _grade(count: int, full: float) -> float:
    """0 for nothing, 1 from where its logarithm is `full`: the first hundred characters say more than the last."""
    value = log1p(count) / full
    return value if value < 1.0 else 1.0


def _tools(tools: Any) -> float:
    return _grade(len(tools), _SIXTEEN) if isinstance(tools, list) else 0.0


def _format(form: Any) -> float:
    return 1.0 if isinstance(form, dict) and form.get("type") not in (None, "text") else 0.0


def _user_texts(messages: Sequence[Any]) -> list[str]:
    """What the user's messages say, one after the other."""
    texts = []
    for message in messages:
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                texts.append(content)
            elif isinstance(content, list):
                texts.append("\n".join(_parts(content)))
    return texts


def _parts(content: Sequence[Any]) -> list[str]:
    return [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
