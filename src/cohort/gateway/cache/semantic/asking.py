"""Which calls may be answered by meaning, and what their question is: the last turn of a person, everything else the same. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cohort.gateway.cache.asking import exact_key
from cohort.gateway.cache.semantic.text import TEXT_CHARS_MAX

INSTRUCTIONS = ("system", "developer")
TEXT_PARTS = ("text", "input_text")


@dataclass(frozen=True, slots=True)
class Question:
    """`partition`: hash of tenant, release and everything of the request but the text, what was said before it included.

    Only questions of one partition are compared. `follows`: something was said before it.
    """

    partition: bytes
    text: str
    tenant: str = ""
    follows: bool = False


def question(tenant: str, service: str, release: str, route: str, operation: str, fields: Mapping[str, Any]) -> Question | None:
    """The question of a call; None where its last turn is not a person's text, or very long."""
    place = "messages" if "messages" in fields else "input"
    turns = fields.get(place)
    if isinstance(turns, str) and place == "input":
        turns = [{"role": "user", "content": turns}]
    if not isinstance(turns, list) or not turns or fields.get("n") not in (None, 1):
        return None
    *before, last = turns
    text, rest = _text(last)
    if text is None or not text.strip() or len(text) > TEXT_CHARS_MAX or not all(isinstance(turn, dict) for turn in before):
        return None
    partition = exact_key(tenant, service, release, route, operation, {**fields, place: [*before, rest]})
    if partition is None:
        return None
    follows = any(turn.get("role") not in INSTRUCTIONS for turn in before) or fields.get("previous_response_id") is not None
    return Question(partition, text, tenant, follows)


def _text(turn: Any) -> tuple[str | None, dict[str, Any]]:
    """The text of a person's turn, written plainly or as one part, and what else the turn says; None where it is none."""
    if not isinstance(turn, dict) or turn.get("role") != "user":
        return None, {}
    content, rest = turn.get("content"), {name: value for name, value in turn.items() if name != "content"}
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict) and content[0].get("type") in TEXT_PARTS:
        part = content[0]
        content, rest["content"] = part.get("text"), {name: value for name, value in part.items() if name not in ("type", "text")} or None
    return content if isinstance(content, str) else None, {name: value for name, value in rest.items() if value is not None}
