"""Chunks of a chat completion as the events of OpenAI's Responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from cohort.gateway.dialects.calls import Calls
from cohort.gateway.dialects.events import DONE, Translated, is_preface, loaded
from cohort.gateway.dialects.face import Chat, Untranslatable, Usage
from cohort.gateway.dialects.responses_answer import (
    INCOMPLETE,
    Said,
    Turn,
    begun,
    call_item,
    ended,
    message_item,
    reasoning_item,
    text_part,
)
from cohort.gateway.openai import usage_in

_EMPTY: dict[str, dict[str, Any]] = {
    "text": text_part(""),
    "refusal": {"type": "refusal", "refusal": ""},
    "reasoning": {"type": "reasoning_text", "text": ""},
}


class ResponsesFlow(Translated):
    """One output item at a time, each done before the next is added. `keep` is told what was said before the caller hears that it is all."""

    def __init__(self, chat: Chat, turn: Turn, keep: Callable[[Chat, Turn, Said], None]) -> None:
        super().__init__()
        self._chat = chat
        self._turn = turn
        self._keep = keep
        self._calls: list[dict[str, Any]] = []
        self._numbering = Calls()
        self._whole = Said(calls=self._calls)
        self._started = False
        self._tier: Any = None
        self._stop: str | None = None
        self._numbers = 0
        self._items = -1
        self._output: list[dict[str, Any]] = []
        self._open: tuple[str, int] | None = None  # kind of item or of its part, and which
        self._held = Said()  # what the open item says

    def usage(self) -> Usage:
        return usage_in({"usage": self._whole.usage, "service_tier": self._tier})

    def end(self) -> bytes:
        """Some servers leave `[DONE]` out: a reason to stop is an end as well."""
        if self._stop is not None and not (self.done or self.failed or self.problem):
            return self._finished()
        return super().end()

    def _said(self, event: bytes) -> bytes:
        if event == DONE:
            return self._finished()
        chunk = loaded(event)
        if error := chunk.get("error"):
            self.failed = True
            error = error if isinstance(error, dict) else {"message": error}
            return error_event(str(error.get("message") or "the upstream reported an error"), error.get("code"), self._numbers)
        if not self._started and is_preface(chunk):
            return b""
        said = [] if self._started else self._start(chunk)
        if isinstance(chunk.get("usage"), dict):
            self._whole.usage, self._tier = chunk["usage"], chunk.get("service_tier")
        for choice in chunk.get("choices") or ():
            if not choice.get("index"):
                said += self._delta(choice.get("delta") or {})
                self._stop = choice.get("finish_reason") or self._stop
        return b"".join(said)

    def _start(self, chunk: dict[str, Any]) -> list[bytes]:
        self._started = True
        self._whole.model = chunk.get("model") or ""
        response = begun(self._chat, self._turn, self._whole)
        return [self._event("response.created", response=response), self._event("response.in_progress", response=response)]

    def _delta(self, delta: dict[str, Any]) -> list[bytes]:
        said: list[bytes] = []
        if text := delta.get("reasoning_content") or delta.get("reasoning"):
            said += self._begin("reasoning")
            self._held.reasoning += text
            said.append(self._piece("response.reasoning_text.delta", text))
        if text := delta.get("content"):
            said += self._begin("text")
            self._held.text += text
            said.append(self._piece("response.output_text.delta", text, logprobs=[]))
        if text := delta.get("refusal"):
            said += self._begin("refusal")
            self._held.refusal += text
            said.append(self._piece("response.refusal.delta", text))
        for call in delta.get("tool_calls") or ():
            said += self._call(call)
        return said

    def _call(self, call: dict[str, Any]) -> list[bytes]:
        number, function = self._numbering.number(call), call.get("function") or {}
        said: list[bytes] = []
        calls = self._calls
        if self._open != ("call", number):
            if number < len(calls):
                raise Untranslatable("the pieces of several tool calls come mixed")
            said += self._close()
            calls.append({"id": call["id"], "type": "function", "function": {"name": function["name"], "arguments": ""}})
            said += self._begin("call", number)
        if arguments := function.get("arguments"):
            calls[-1]["function"]["arguments"] += arguments
            item = call_item(self._turn, self._items, calls[-1], "in_progress")
            said.append(
                self._event("response.function_call_arguments.delta", item_id=item["id"], output_index=self._items, delta=arguments)
            )
        return said

    # --- items -----------------------------------------------------------------------------------------------------------------

    def _begin(self, kind: str, number: int = 0) -> list[bytes]:
        """Add an item, unless the open one is meant."""
        if self._open == (kind, number):
            return []
        said = self._close()
        self._items += 1
        self._open, self._held = (kind, number), Said()
        item = self._item("in_progress")
        if kind == "call":
            return [*said, self._event("response.output_item.added", output_index=self._items, item={**item, "arguments": ""})]
        said.append(self._event("response.output_item.added", output_index=self._items, item={**item, "content": []}))
        return [*said, self._part_event("response.content_part.added", item, _EMPTY[kind])]

    def _close(self, status: str = "completed") -> list[bytes]:
        """The open item is all there is of it."""
        if self._open is None:
            return []
        kind, item = self._open[0], self._item(status)
        place = {"item_id": item["id"], "output_index": self._items}
        if kind == "call":
            name, arguments = item["name"], item["arguments"]
            said = [self._event("response.function_call_arguments.done", **place, name=name, arguments=arguments)]
        else:
            said = [self._all_said(kind, place), self._part_event("response.content_part.done", item, item["content"][0])]
        self._whole.text += self._held.text
        self._whole.refusal += self._held.refusal
        self._whole.reasoning += self._held.reasoning
        self._open = None
        self._output.append(item)
        return [*said, self._event("response.output_item.done", output_index=self._items, item=item)]

    def _all_said(self, kind: str, place: dict[str, Any]) -> bytes:
        match kind:
            case "reasoning":
                return self._event("response.reasoning_text.done", **place, content_index=0, text=self._held.reasoning)
            case "refusal":
                return self._event("response.refusal.done", **place, content_index=0, refusal=self._held.refusal)
            case _:
                return self._event("response.output_text.done", **place, content_index=0, text=self._held.text, logprobs=[])

    def _item(self, status: str) -> dict[str, Any]:
        """The open item as far as it is said."""
        kind = self._open[0] if self._open is not None else "text"
        if kind == "call":
            return call_item(self._turn, self._items, self._calls[-1], status)
        if kind == "reasoning":
            return reasoning_item(self._turn, self._items, self._held.reasoning)
        return message_item(self._turn, self._items, self._held, status)

    def _part_event(self, kind: str, item: dict[str, Any], part: dict[str, Any]) -> bytes:
        return self._event(kind, item_id=item["id"], output_index=self._items, content_index=0, part=part)

    def _piece(self, kind: str, delta: str, **fields: Any) -> bytes:
        item = self._item("in_progress")
        return self._event(kind, item_id=item["id"], output_index=self._items, content_index=0, delta=delta, **fields)

    def _finished(self) -> bytes:
        if not self._started:
            raise Untranslatable("the stream ended before it began")
        self._whole.finish = self._stop or "stop"
        status = "incomplete" if self._whole.finish in INCOMPLETE else "completed"
        said = self._close(status) if self._items >= 0 else [*self._begin("text"), *self._close(status)]
        response = {**ended(self._chat, self._turn, self._whole), "output": self._output}
        self._keep(self._chat, self._turn, self._whole)
        self.done = True
        return b"".join([*said, self._event(f"response.{response['status']}", response=response)])

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._numbers = self._numbers, self._numbers + 1
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps({"type": kind, "sequence_number": number, **fields}))


def error_event(message: str, code: Any, number: int) -> bytes:
    """The event of an error; `error` beside its documented fields is what makes OpenAI's clients raise."""
    code = code if isinstance(code, str) else "server_error"
    fields = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": number}
    return (
        b"event: error\ndata: " + orjson.dumps({**fields, "error": {"message": message, "code": code, "type": "upstream_error"}}) + b"\n\n"
    )
