"""How hard a request looks, from what is cheap to see. Pure; no model is asked. The same request has the same score everywhere.

A conversation is as hard as its hardest turn so far: the client sends the whole of it with each request, and no feature counts against
difficulty, so the score of a conversation of up to `TURNS_READ_MAX` turns only goes up, also after a restart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cohort.gateway.contract_routing import FEATURE_LEVELS, FEATURES, WEIGHTS

TURNS_READ_MAX = 32
"""User turns looked at, the newest first."""
TURN_CHARS_READ_MAX = 8_192
"""Of one turn. What lies behind counts for its length only."""
LENGTH_CHARS = 2_000.0
CONTEXT_CHARS = 20_000.0
_CODE = str.maketrans("", "", "{}[]();=<>`_\\|&")
_DIGITS = str.maketrans("", "", "0123456789+-*/^%$€£")

Features = tuple[float, ...]
"""In the order of FEATURES, each from 0 to 1."""


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
        for weight, value in zip(self._weights, features, strict=True):
            total += weight * value
        return 1.0 / (1.0 + math.exp(-min(max(total, -30.0), 30.0)))

    def hardest(self, fields: Mapping[str, Any]) -> tuple[float, Features]:
        """The difficulty of a chat request and the features of its hardest turn."""
        best = (-1.0, (0.0,) * len(FEATURES))
        for features in turns(fields):
            score = self.difficulty(features)
            if score > best[0]:
                best = (score, features)
        return (self.difficulty(best[1]), best[1]) if best[0] < 0 else best


def turns(fields: Mapping[str, Any]) -> list[Features]:
    """The features of each of the newest user turns of a chat request; what is not in the shape of one is passed over."""
    messages = fields.get("messages")
    if not isinstance(messages, list):
        return []
    texts = [text for message in messages if (text := _user_text(message)) is not None]
    whole = (_grade(sum(len(text) for text in texts), CONTEXT_CHARS), _tools(fields), _format(fields))
    return [_turn(text, *whole) for text in texts[-TURNS_READ_MAX:]]


def encode(features: Features) -> str:
    """One hexadecimal digit for each feature."""
    return "".join(f"{round(value * FEATURE_LEVELS):x}" for value in features)


def decode(text: str) -> Features:
    """The features in `text`, as exactly as they were reported; raises ValueError when it is not a report of them."""
    if len(text) != len(FEATURES):
        raise ValueError(f"expected {len(FEATURES)} hexadecimal digits, found {text[:40]!r}")
    return tuple(int(digit, 16) / FEATURE_LEVELS for digit in text)


def _turn(text: str, context: float, tools: float, form: float) -> Features:
    read = text[:TURN_CHARS_READ_MAX]
    size = max(len(read), 1)
    code = (size - len(read.translate(_CODE))) / size
    figures = (size - len(read.translate(_DIGITS))) / size
    questions = _grade(read.count("?") + read.count("？") + read.count("؟"), 6.0)
    structure = _grade(read.count("\n"), 40.0)
    return (_grade(len(text), LENGTH_CHARS), context, min(code * 8.0, 1.0), min(figures * 6.0, 1.0), questions, structure, tools, form)


def _grade(count: float, full: float) -> float:
    """0 for nothing, 1 from `full` on, by the logarithm: the first hundred characters say more than the last."""
    return min(math.log1p(count) / math.log1p(full), 1.0)


def _tools(fields: Mapping[str, Any]) -> float:
    tools = fields.get("tools")
    return _grade(len(tools), 16.0) if isinstance(tools, list) else 0.0


def _format(fields: Mapping[str, Any]) -> float:
    form = fields.get("response_format")
    return 1.0 if isinstance(form, dict) and form.get("type") not in (None, "text") else 0.0


def _user_text(message: Any) -> str | None:
    if not isinstance(message, dict) or message.get("role") != "user":
        return None
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(_parts(content)) if isinstance(content, list) else None


def _parts(content: Sequence[Any]) -> list[str]:
    return [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
