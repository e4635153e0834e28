"""A chat completion as a response of OpenAI's Responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cohort.gateway.dialects.events import count
from cohort.gateway.dialects.face import Chat
from cohort.gateway.openai import written_of

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ECHOED = (
    "instructions", "max_output_tokens", "max_tool_calls", "metadata", "parallel_tool_calls", "previous_response_id", "prompt_cache_key",
    "safety_identifier", "temperature", "tool_choice", "tools", "top_p", "truncation", "user",
)  # fmt: skip
_DEFAULTS: dict[str, Any] = {"metadata": {}, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "truncation": "disabled"}


@dataclass(frozen=True, slots=True)
class Turn:
    """What makes a call one of Responses: the id of the answer to come, and the messages before it, without instructions.

    `earlier_owner`: whose the response is that it goes on from; None where it begins. `began_s`: when the call began, by the memory's clock.
    """

    response_id: str
    messages: list[dict[str, Any]]
    keep: bool
    earlier_owner: str | None = None
    began_s: float = 0.0


@dataclass(slots=True)
class Said:
    """What the model said, as it is known by now. `calls` are those of a chat completion."""

    text: str = ""
    refusal: str = ""
    reasoning: str = ""
    calls: list[dict[str, Any]] | None = None
    finish: str = "stop"
    model: str = ""
    usage: dict[str, Any] | None = None


def said_in(completion: dict[str, Any]) -> Said:
    """What the first choice of a chat completion says."""
    choice = completion["choices"][0]
    message = choice["message"]
    return Said(
        text=message.get("content") or "",
        refusal=message.get("refusal") or "",
        reasoning=message.get("reasoning_content") or message.get("reasoning") or "",
        calls=list(message.get("tool_calls") or ()),
        finish=choice.get("finish_reason") or "stop",
        model=completion.get("model") or "",
        usage=completion.get("usage"),
    )


def message_of(said: Said) -> dict[str, Any]:
    """The assistant's turn, for the messages of a conversation that goes on."""
    message: dict[str, Any] = {"role": "assistant", "content": said.text or said.refusal or None}
    return {**message, "tool_calls": said.calls} if said.calls else message


def begun(chat: Chat, turn: Turn, said: Said) -> dict[str, Any]:
    """The response before anything is said in it."""
    native = chat.native
    echoed = {name: native[name] if native.get(name) is not None else _DEFAULTS.get(name) for name in _ECHOED}
    reasoning = native.get("reasoning") or {}
    return {
        "id": turn.response_id,
        "object": "response",
        "created_at": chat.at_us // 1_000_000,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": said.model or chat.service,
        "output": [],
        **echoed,
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "store": turn.keep,
        "text": {**(native.get("text") or {}), "format": (native.get("text") or {}).get("format") or {"type": "text"}},
        "usage": None,
    }


def ended(chat: Chat, turn: Turn, said: Said) -> dict[str, Any]:
    """The whole response."""
    reason = INCOMPLETE.get(said.finish)
    status = "incomplete" if reason else "completed"
    return {
        **begun(chat, turn, said),
        "status": status,
        "completed_at": None if reason else chat.at_us // 1_000_000,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": items(turn, said, status),
        "usage": usage_of(said.usage),
    }


def items(turn: Turn, said: Said, status: str) -> list[dict[str, Any]]:
    """What was said, in the order in which a stream says it."""
    found: list[dict[str, Any]] = []
    if said.reasoning:
        found.append(reasoning_item(turn, len(found), said.reasoning))
    if said.text or said.refusal or not (said.calls or found):
        found.append(message_item(turn, len(found), said, status))
    for call in said.calls or ():
        found.append(call_item(turn, len(found), call, status))
    return found


def reasoning_item(turn: Turn, index: int, text: str) -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": text}] if text else []
    return {"id": item_id("rs", turn, index), "type": "reasoning", "summary": [], "content": content}


def message_item(turn: Turn, index: int, said: Said, status: str) -> dict[str, Any]:
    content = [text_part(said.text)] if said.text or not said.refusal else []
    if said.refusal:
        content.append({"type": "refusal", "refusal": said.refusal})
    return {"id": item_id("msg", turn, index), "type": "message", "status": status, "role": "assistant", "content": content}


def text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call_item(turn: Turn, index: int, call: dict[str, Any], status: str) -> dict[str, Any]:
    function = call["function"]
    return {
        "id": item_id("fc", turn, index),
        "type": "function_call",
        "status": status,
        "call_id": call["id"],
        "name": function["name"],
        "arguments": function.get("arguments") or "",
    }


def item_id(kind: str, turn: Turn, index: int) -> str:
    return f"{kind}_{turn.response_id.removeprefix('resp_')}_{index}"


def usage_of(usage: Any) -> dict[str, Any] | None:
    """The usage of a chat completion in the words of Responses; None where there is none."""
    if not isinstance(usage, dict):
        return None
    tokens_in, said_out = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    tokens_out = written_of(usage.get("prompt_tokens"), usage.get("completion_tokens"), usage.get("total_tokens")) or 0
    thought = count((usage.get("completion_tokens_details") or {}).get("reasoning_tokens")) or tokens_out - said_out
    cached = count((usage.get("prompt_tokens_details") or {}).get("cached_tokens"))
    return {
        "input_tokens": tokens_in,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": tokens_out,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": tokens_in + tokens_out,
    }
