"""How much a call may cost at most, before it is made, and what it came to where the upstream did not say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cohort.gateway.contract import Price
from cohort.gateway.dialects.face import Chat

BYTES_PER_TOKEN_MIN = 2
"""Texts have three to four bytes a token; dense code and other scripts fewer. Half of that is a bound with few exceptions."""
BYTES_PER_TOKEN = 3.5
"""For what is charged where the upstream did not say."""
OUTPUT_TOKENS_MAX = 4096
"""Reserved for an answer whose length neither the caller nor the release bounds."""
ATTACHMENT_TOKENS = 2000
"""Reserved for a picture or a file; counted by the bytes of its text it would be a hundred times that."""
WALKED_BYTES_MIN = 16 << 10
_OUTPUT_NAMES = ("max_completion_tokens", "max_tokens", "max_output_tokens")


def prompt_tokens_max(chat: Chat) -> int:
    """A bound on what the caller sent."""
    size = len(chat.body)
    if size >= WALKED_BYTES_MIN and b";base64," in chat.body:
        size = _text_bytes(chat.fields)
        return size // BYTES_PER_TOKEN_MIN + ATTACHMENT_TOKENS * chat.body.count(b";base64,")
    return size // BYTES_PER_TOKEN_MIN


def output_tokens_max(chat: Chat, parameters: Mapping[str, Any]) -> int:
    """A bound on the answer: what the caller says, else the release, else a default; times the answers asked for."""
    if not chat.operation.conversational and chat.operation.name != "completions":
        return 0
    said = _first(chat.fields, parameters)
    answers = chat.fields.get("n")
    return said * (answers if type(answers) is int and 0 < answers <= 128 else 1)


def bound_usd_micro(price: Price, tokens_in: int, tokens_out: int) -> int:
    """Millionths of a dollar, rounded up."""
    return -int(-(tokens_in * price.input_usd_per_mtok + tokens_out * price.output_usd_per_mtok) // 1)


def charged_usd_micro(price: Price, body_bytes: int, tokens_out: int) -> int:
    """What a call is taken to have cost whose usage nobody said."""
    return round(body_bytes / BYTES_PER_TOKEN * price.input_usd_per_mtok + tokens_out * price.output_usd_per_mtok)


def _first(fields: Mapping[str, Any], parameters: Mapping[str, Any]) -> int:
    for source in (fields, parameters):
        for name in _OUTPUT_NAMES:
            value = source.get(name)
            if type(value) is int and value > 0:
                return value
    return OUTPUT_TOKENS_MAX


def _text_bytes(value: Any) -> int:
    """Bytes of the text in a request, without what is attached to it."""
    if isinstance(value, str):
        return 0 if ";base64," in value[:200] else len(value.encode("utf-8", "replace"))
    inner: Iterable[Any] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(_text_bytes, inner))
