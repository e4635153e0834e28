"""Which calls may be answered by meaning, and what their question is: one turn of a person, everything else the same. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cohort.gateway.cache.asking import exact_key
from cohort.gateway.cache.semantic.text import TEXT_CHARS_MAX

INSTRUCTIONS = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Question:
    """`partition`: hash of tenant, release and everything of the request but the text. Only questions of one partition are compared."""

    partition: bytes
    text: str


def question(tenant: str, service: str, release: str, route: str, operation: str, fields: Mapping[str, Any]) -> Question | None:
    """The question of a call; None where the last turn does not stand for itself: a conversation, other than text, very long."""
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages or fields.get("n") not in (None, 1):
        return None
    *before, last = messages
    if any(not isinstance(message, dict) or message.get("role") not in INSTRUCTIONS for message in before):
        return None
    text = _text(last)
    if text is None or not text.strip() or len(text) > TEXT_CHARS_MAX:
        return None
    rest = {name: value for name, value in last.items() if name != "content"}
    partition = exact_key(tenant, service, release, route, operation, {**fields, "messages": [*before, rest]})
    return Question(partition, text) if partition is not None else None


def _text(message: Any) -> str | None:
    """The text of a person's turn, written plainly or as one part."""
    if not isinstance(message, dict) or message.get("role") != "user":
        return None
    content = message.get("content")
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict) and content[0].get("type") == "text":
        content = content[0].get("text")
    return content if isinstance(content, str) else None
