"""Anthropic's answers as OpenAI's: whole, and event by event."""

from __future__ import annotations

from typing import Any

import orjson

from cohort.gateway import openai
from cohort.gateway.dialects.events import MISSHAPEN, Translated, loaded
from cohort.gateway.dialects.face import Chat, Untranslatable, Usage
from cohort.gateway.dialects.messages_same import usage_in
from cohort.gateway.dialects.refusals import told_instead

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def completion_of(chat: Chat, body: bytes) -> tuple[bytes, Usage]:
    """A message as a chat completion; raises Untranslatable."""
    message = loaded(body)
    try:
        usage = message.get("usage") or {}
        return orjson.dumps(_completion(chat, message, usage)), usage_in(usage)
    except MISSHAPEN as error:
        raise Untranslatable(told_instead(body) or f"the upstream's answer is not a message: {type(error).__name__}") from error


def _completion(chat: Chat, message: dict[str, Any], usage: dict[str, Any]) -> dict[str, Any]:
    blocks = message["content"]
    said: dict[str, Any] = {"role": "assistant", "content": "".join(b["text"] for b in blocks if b["type"] == "text") or None}
    if thought := "".join(b["thinking"] for b in blocks if b["type"] == "thinking"):
        said["reasoning_content"] = thought
    calls = [_call(b["id"], b["name"], orjson.dumps(b["input"]).decode()) for b in blocks if b["type"] == "tool_use"]
    if calls:
        said["tool_calls"] = calls
    said["refusal"] = None
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": finish_of(message.get("stop_reason"))}
    return {**_begun(chat, message, "chat.completion"), "choices": [choice], "usage": openai_usage(usage)}


def _call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _begun(chat: Chat, message: dict[str, Any], kind: str) -> dict[str, Any]:
    model = message.get("model") or chat.service
    return {"id": message.get("id") or "", "object": kind, "created": chat.at_us // 1_000_000, "model": model}


def finish_of(reason: str | None) -> str:
    return FINISH_REASONS.get(reason or "end_turn", "stop")


def openai_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """OpenAI counts what was read from a cache within the prompt, Anthropic beside it."""
    tokens_in, tokens_out, detail = usage_in(usage) if usage else Usage(0, 0)
    return {
        "prompt_tokens": tokens_in or 0,
        "completion_tokens": tokens_out or 0,
        "total_tokens": (tokens_in or 0) + (tokens_out or 0),
        "prompt_tokens_details": {"cached_tokens": detail.cached if detail else 0},
    }


class ChunksFlow(Translated):
    """Anthropic's events in, chunks of a chat completion out."""

    def __init__(self, chat: Chat) -> None:
        super().__init__()
        self._chat = chat
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._calls = -1
        self._unfilled = False  # the open block is a call without a piece of its arguments yet
        self._finish = "stop"

    def usage(self) -> Usage:
        return usage_in(self._usage)

    def _said(self, event: bytes) -> bytes:
        fields = loaded(event)
        match fields.get("type"):
            case "message_start":
                return self._start(fields["message"])
            case "content_block_start":
                return self._block(fields["content_block"])
            case "content_block_delta":
                return self._delta(fields["delta"])
            case "content_block_stop":
                return self._filled()
            case "message_delta":
                self._count(fields.get("usage"))
                self._finish = finish_of(fields["delta"].get("stop_reason"))
            case "message_stop":
                return self._finished()
            case "error":
                self.failed = True
                return b"data: " + openai_error(fields) + b"\n\n"
            case "ping":
                return b": ping\n\n"  # a comment: what is between keeps the connection for it
            case _:  # what may be added
                pass
        return b""

    def _start(self, message: dict[str, Any]) -> bytes:
        self._head = _begun(self._chat, message, "chat.completion.chunk")
        self._count(message.get("usage"))
        return self._chunk({"role": "assistant", "content": ""})

    def _block(self, block: dict[str, Any]) -> bytes:
        if block["type"] == "tool_use":
            self._calls += 1
            self._unfilled = True
            return self._chunk({"tool_calls": [{"index": self._calls, **_call(block["id"], block["name"], "")}]})
        text = block.get("text") if block["type"] == "text" else None
        return self._chunk({"content": text}) if text else b""

    def _delta(self, delta: dict[str, Any]) -> bytes:
        match delta["type"]:
            case "text_delta":
                return self._chunk({"content": delta["text"]})
            case "thinking_delta":
                return self._chunk({"reasoning_content": delta["thinking"]})
            case "input_json_delta" if delta["partial_json"] and self._calls >= 0:
                self._unfilled = False
                return self._arguments(delta["partial_json"])
        return b""

    def _filled(self) -> bytes:
        """A call without arguments is streamed without a piece of them; OpenAI's callers expect an empty object."""
        if not self._unfilled:
            return b""
        self._unfilled = False
        return self._arguments("{}")

    def _arguments(self, piece: str) -> bytes:
        return self._chunk({"tool_calls": [{"index": self._calls, "function": {"arguments": piece}}]})

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        if not self._head:
            raise Untranslatable("the stream does not begin with `message_start`")
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return b"data: " + orjson.dumps({**self._head, "choices": [choice]}) + b"\n\n"

    def _finished(self) -> bytes:
        said = self._chunk({}, self._finish)
        options = self._chat.fields.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage"):
            said += b"data: " + orjson.dumps({**self._head, "choices": [], "usage": openai_usage(self._usage)}) + b"\n\n"
        self.done = True
        return said + openai.DONE + b"\n\n"

    def _count(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self._usage.update({name: value for name, value in usage.items() if value is not None})


def openai_error(fields: dict[str, Any]) -> bytes:
    """Anthropic's error, its type as OpenAI's code."""
    error = fields.get("error") if isinstance(fields.get("error"), dict) else {}
    kind = error.get("type") if isinstance(error, dict) else None
    words = error.get("message") if isinstance(error, dict) else None
    return openai.error(str(words or "the upstream reported an error"), str(kind or "upstream_error"), kind=str(kind or "upstream_error"))
