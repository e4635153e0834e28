"""How much a call may cost at most, before it is made, and what it came to where the upstream did not say. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from cohort.gateway.contract_price import STANDARD_TIERS, Price
from cohort.gateway.dialects.face import TOKENS_MAX, Chat
from cohort.gateway.rewriting import OUTPUT_TOKENS

BYTES_PER_TOKEN_MIN = 2
"""Texts have three to four bytes a token; dense code and other scripts fewer. Half of that is a bound with few exceptions."""
BYTES_PER_TOKEN = 3.5
"""For what is charged where the upstream did not say."""
OUTPUT_TOKENS_MAX = 4096
"""Reserved for an answer whose length neither the caller nor the release bounds."""
ATTACHMENT_TOKENS = 2000
"""Reserved for a picture or a file; counted by the bytes of its text it would be a hundred times that."""
WALKED_BYTES_MIN = 16 << 10
ANSWERS_MAX = 100_000
"""More than any upstream takes, and few enough for the ledger's numbers."""
_OUTPUT_NAMES = ("max_completion_tokens", "max_tokens")
"""Of a chat completion, by which the caller sets the length. With several the longest counts: which one holds is the upstream's choice."""
_ENCODED = re.compile(r"data:[A-Za-z0-9.+/;=_-]{0,200};base64,[A-Za-z0-9+/=_-]*")


def prompt_tokens_max(chat: Chat) -> int:
    """A bound on what the caller sent. Pictures and files are in parts of their own; nothing else passes for one."""
    size, attached = len(chat.body), _attachments(chat.fields.get("messages"))
    if attached and size >= WALKED_BYTES_MIN and b";base64," in chat.body:
        size = _text_bytes(chat.fields)
    return size // BYTES_PER_TOKEN_MIN + ATTACHMENT_TOKENS * attached


def output_tokens_max(chat: Chat, parameters: Mapping[str, Any]) -> int:
    """A bound on the answer: what the caller says, else the release, else a default; times the answers asked for."""
    fields = chat.fields
    if chat.operation.conversational:
        return _longest(fields, parameters) * _answers(fields)
    if chat.operation.name != "completions":
        return 0
    prompts = fields.get("prompt")
    several = isinstance(prompts, list) and any(isinstance(prompt, str | list) for prompt in prompts)
    each = max(_answers(fields), _whole(fields.get("best_of")) or 1)
    return _longest(fields, {}) * each * (len(prompts) if isinstance(prompts, list) and several else 1)


def tier_asked(chat: Chat, parameters: Mapping[str, Any]) -> str:
    """The service tier that the caller names, else the release; empty: none, or the standard one."""
    tier = chat.native.get("service_tier")
    if tier is None and not parameters:
        return ""
    tier = str(tier if tier is not None else parameters.get("service_tier") or "")
    return "" if tier in STANDARD_TIERS else tier


def may_be_kept_long(chat: Chat, parameters: Mapping[str, Any]) -> bool:
    """Whether the provider may be asked to keep the prompt in its cache for longer than the shortest time, `ttl` or `prompt_cache_retention`.

    An escape may hide such a word: then it may be.
    """
    return _names_keeping(chat.body) or (bool(parameters) and _names_keeping(repr(parameters).encode()))


def _names_keeping(data: bytes) -> bool:
    return data.rfind(b"ttl") >= 0 or data.rfind(b"retention") >= 0 or (b"\\" in data and data.rfind(b"\\u") >= 0)


def charged_usd_micro(price: Price, body_bytes: int, tokens_out: int) -> int:
    """What a call is taken to have cost whose usage nobody said."""
    tokens_in = body_bytes / BYTES_PER_TOKEN
    step = price.of(int(tokens_in))
    return round(tokens_in * step.input_usd_per_mtok + tokens_out * step.output_usd_per_mtok)


def _longest(fields: Mapping[str, Any], parameters: Mapping[str, Any]) -> int:
    """A release's length is set only where the caller names none, whatever the caller says it is."""
    said = [fields[name] for name in _OUTPUT_NAMES if name in fields]
    if not said and parameters:
        said = [parameters[name] for name in (*_OUTPUT_NAMES, OUTPUT_TOKENS) if name in parameters]
    if not said:
        return OUTPUT_TOKENS_MAX
    known = [whole for value in said if (whole := _whole(value)) is not None]
    return max(known) if known else OUTPUT_TOKENS_MAX


def _answers(fields: Mapping[str, Any]) -> int:
    return min(_whole(fields["n"]) or 1, ANSWERS_MAX) if "n" in fields else 1


def _whole(value: Any) -> int | None:
    """A number as lenient upstreams read it, `"7"` and `7.0` included; None for what is none, or not above 0."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) <= 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return None
    return math.ceil(min(value, TOKENS_MAX))


def _attachments(messages: Any) -> int:
    """Parts of messages that are no text."""
    if not isinstance(messages, list):
        return 0
    attached = 0
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            attached += sum(isinstance(part, dict) and part.get("type") != "text" for part in content)
    return attached


def _text_bytes(value: Any) -> int:
    """Bytes of the text in a request, without what is attached to it. A list, not a recursion: requests may be nested deeper than Python."""
    total, waiting = 0, [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            total += 0 if part.startswith("data:") and _ENCODED.fullmatch(part) else len(part.encode("utf-8", "replace"))
        elif isinstance(part, dict | list):
            waiting += part.values() if isinstance(part, dict) else part
    return total
