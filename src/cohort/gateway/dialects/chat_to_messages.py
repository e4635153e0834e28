"""OpenAI's answers as Anthropic's: whole, and event by event."""

from __future__ import annotations

from typing import Any

import orjson

from cohort.gateway.dialects.calls import Calls
from cohort.gateway.dialects.events import DONE, MISSHAPEN, Translated, count, is_preface, loaded
from cohort.gateway.dialects.face import Chat, Untranslatable, Usage
from cohort.gateway.dialects.refusals import told_instead
from cohort.gateway.openai import usage_in, written_of

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def message_of(chat: Chat, answer: bytes) -> bytes:
    """A chat completion as a message; raises Untranslatable. Of several choices the first."""
    try:
        return orjson.dumps(_message(chat.service, loaded(answer)))
    except MISSHAPEN as error:
        words = told_instead(answer) or f"the upstream's answer is not a chat completion: {type(error).__name__}"
        raise Untranslatable(words) from error


def _message(service: str, answer: dict[str, Any]) -> dict[str, Any]:
    choice = answer["choices"][0]
    said = choice["message"]
    content: list[dict[str, Any]] = []
    if thought := said.get("reasoning_content") or said.get("reasoning"):
        content.append({"type": "thinking", "thinking": thought, "signature": ""})
    if text := said.get("content"):
        content.append({"type": "text", "text": text})
    if refusal := said.get("refusal"):
        content.append({"type": "text", "text": refusal})
    content.extend(_tool_use(call) for call in said.get("tool_calls") or ())
    reason, sequence = stop_of(choice, refused=bool(said.get("refusal")))
    return {
        "id": answer.get("id") or "",
        "type": "message",
        "role": "assistant",
        "model": answer.get("model") or service,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": usage_of(answer.get("usage")),
    }


def _tool_use(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments_of(function.get("arguments") or "{}")}


def arguments_of(text: str) -> dict[str, Any]:
    """A call's arguments as an object. What a model wrote that is none stands under `invalid_json`, so that the conversation can go on."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {"invalid_json": text}


def stop_of(choice: dict[str, Any], refused: bool) -> tuple[str, str | None]:
    """Why it stopped, and the stop sequence where the server names it, as some do in `stop_reason`."""
    sequence = choice.get("stop_reason")
    if refused:
        return "refusal", None
    if choice.get("finish_reason") == "stop" and isinstance(sequence, str) and sequence:
        return "stop_sequence", sequence
    return STOP_REASONS.get(choice.get("finish_reason") or "", "end_turn"), None


def usage_of(usage: Any) -> dict[str, int]:
    """OpenAI counts what was read from a cache within the prompt, Anthropic beside it."""
    usage = usage if isinstance(usage, dict) else {}
    cached = count((usage.get("prompt_tokens_details") or {}).get("cached_tokens"))
    return {
        "input_tokens": max(count(usage.get("prompt_tokens")) - cached, 0),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": written_of(usage.get("prompt_tokens"), usage.get("completion_tokens"), usage.get("total_tokens")) or 0,
    }


def named(kind: str, **fields: Any) -> bytes:
    """An event of Anthropic's, which names its type twice."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


class MessagesFlow(Translated):
    """Chunks of a chat completion in, Anthropic's events out: one content block at a time, each closed before the next begins."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service
        self._started = self._refused = False
        self._index = -1
        self._open: str | int | None = None
        self._tools_seen: set[int] = set()
        self._calls = Calls()
        self._stop: tuple[str, str | None] | None = None
        self._usage: dict[str, Any] | None = None
        self._tier: Any = None

    def usage(self) -> Usage:
        return usage_in({"usage": self._usage, "service_tier": self._tier})

    def _said(self, event: bytes) -> bytes:
        if event == DONE:
            self.done = True
            return self._finished()
        chunk = loaded(event)
        if error := chunk.get("error"):
            self.failed = True
            return _error(error if isinstance(error, dict) else {"message": error})
        if not self._started and is_preface(chunk):
            return b""
        said = [] if self._started else [self._start(chunk)]
        if isinstance(chunk.get("usage"), dict):
            self._usage, self._tier = chunk["usage"], chunk.get("service_tier")
        for choice in chunk.get("choices") or ():
            if not choice.get("index"):
                said.extend(self._delta(choice.get("delta") or {}))
                if choice.get("finish_reason"):
                    self._stop = stop_of(choice, self._refused)
        return b"".join(said)

    def end(self) -> bytes:
        """Some servers leave `[DONE]` out: a reason to stop is an end as well."""
        if self._stop is not None and not (self.done or self.failed or self.problem):
            self.done = True
            return self._finished()
        return super().end()

    def _start(self, chunk: dict[str, Any]) -> bytes:
        self._started = True
        message: dict[str, Any] = {
            "id": chunk.get("id") or "",
            "type": "message",
            "role": "assistant",
            "model": chunk.get("model") or self._service,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_of(chunk.get("usage")),
        }
        return named("message_start", message=message)

    def _delta(self, delta: dict[str, Any]) -> list[bytes]:
        said: list[bytes] = []
        if thought := delta.get("reasoning_content") or delta.get("reasoning"):
            said += self._block("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            said.append(self._piece({"type": "thinking_delta", "thinking": thought}))
        for text in (delta.get("content"), delta.get("refusal")):
            if text:
                said += self._block("text", {"type": "text", "text": ""})
                said.append(self._piece({"type": "text_delta", "text": text}))
        self._refused = self._refused or bool(delta.get("refusal"))
        for call in delta.get("tool_calls") or ():
            said += self._call(call)
        return said

    def _call(self, call: dict[str, Any]) -> list[bytes]:
        number, function = self._calls.number(call), call.get("function") or {}
        said: list[bytes] = []
        if self._open != number:
            if number in self._tools_seen:
                raise Untranslatable("the pieces of several tool calls come mixed")
            self._tools_seen.add(number)
            said += self._block(number, {"type": "tool_use", "id": call["id"], "name": function["name"], "input": {}})
        if arguments := function.get("arguments"):
            said.append(self._piece({"type": "input_json_delta", "partial_json": arguments}))
        return said

    def _block(self, kind: str | int, block: dict[str, Any]) -> list[bytes]:
        """Open a block, unless the open one is of this kind."""
        if self._open == kind:
            return []
        said = self._close()
        self._index += 1
        self._open = kind
        return [*said, named("content_block_start", index=self._index, content_block=block)]

    def _piece(self, delta: dict[str, Any]) -> bytes:
        return named("content_block_delta", index=self._index, delta=delta)

    def _close(self) -> list[bytes]:
        if self._open is None:
            return []
        self._open = None
        return [named("content_block_stop", index=self._index)]

    def _finished(self) -> bytes:
        if not self._started:
            raise Untranslatable("the stream ended before it began")
        reason, sequence = self._stop or ("end_turn", None)
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        said = [*self._close(), named("message_delta", delta=delta, usage=usage_of(self._usage)), named("message_stop")]
        return b"".join(said)


def _error(error: dict[str, Any]) -> bytes:
    message, code = str(error.get("message") or "the upstream reported an error"), error.get("code")
    own: dict[str, Any] = {"type": "api_error", "message": message}
    if isinstance(code, str):
        own["code"] = code
    return named("error", error=own)
