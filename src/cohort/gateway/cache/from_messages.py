"""Anthropic's answers to callers whom no chat completion passes on its way: kept as one, where one says all that the message says. Pure.

A kept answer is a chat completion for every caller's dialect. A message with thinking, citations, tools of the vendor's own or several texts
says more than that, and is not kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from cohort.gateway.cache import answers
from cohort.gateway.cache.answers import Answer
from cohort.gateway.dialects.chat_from_messages import ChunksFlow, completion_of
from cohort.gateway.dialects.face import Chat, Untranslatable

ENDED = frozenset({"end_turn", "tool_use"})
FIELDS = {"text": frozenset({"type", "text", "citations"}), "tool_use": frozenset({"type", "id", "name", "input", "caller"})}
DELTAS = frozenset({"text_delta", "input_json_delta"})


def of_whole(chat: Chat, body: bytes, saved_usd_micro: int | None) -> Answer | None:
    """The message in `body`; None when it is not one to keep."""
    fields = _object(body)
    if fields.get("stop_reason") not in ENDED or not _plain(fields.get("content")):
        return None
    try:
        completion, _ = completion_of(chat, body)
    except Untranslatable:
        return None
    return answers.of_whole(completion, saved_usd_micro)


def of_stream(chat: Chat, events: bytes, saved_usd_micro: int | None) -> Answer | None:
    """The message that a stream carried; None when it is incomplete, or not one to keep."""
    blocks: list[Any] = []
    ended = None
    for data in answers.data_lines(events):
        fields = _object(data)
        if fields.get("type") == "content_block_start":
            blocks.append(fields.get("content_block"))
        elif fields.get("type") == "content_block_delta" and _inner(fields, "type") not in DELTAS:
            return None
        elif fields.get("type") == "message_delta":
            ended = _inner(fields, "stop_reason")
    if ended not in ENDED or not _plain(blocks):
        return None
    flow = ChunksFlow(replace(chat, fields={"stream_options": {"include_usage": True}}))
    chunks = flow.feed(events) + flow.end()
    return answers.of_stream(chunks, saved_usd_micro) if flow.problem is None and not flow.failed else None


def _plain(blocks: Any) -> bool:
    """One text at most, then calls of tools, and nothing that a chat completion has no place for."""
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        return False
    kinds = [block.get("type") for block in blocks]
    if any(kind not in FIELDS for kind in kinds) or "text" in kinds[1:]:
        return False
    return all(set(block) <= FIELDS[block["type"]] and not block.get("citations") and _called_here(block) for block in blocks)


def _called_here(block: dict[str, Any]) -> bool:
    """Not by a program that runs at the vendor's."""
    return block.get("caller") in (None, {"type": "direct"})


def _inner(fields: dict[str, Any], name: str) -> Any:
    delta = fields.get("delta")
    return delta.get(name) if isinstance(delta, dict) else None


def _object(data: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}
