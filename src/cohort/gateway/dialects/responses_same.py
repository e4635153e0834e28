"""OpenAI's Responses to an upstream that has them: passed on as they are. Its state is the upstream's, and of everybody who shares its account.

So the gateway notes which ids it gave to whom, and refuses the others': whoever names an id gets what it stands for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Protocol

import orjson

from cohort.gateway import openai
from cohort.gateway.dialects.events import Events
from cohort.gateway.dialects.face import Chat, Flow, Refused, Untranslatable, Usage
from cohort.gateway.dialects.openai_same import Through
from cohort.gateway.openai import Tail
from cohort.gateway.rewriting import OUTPUT_TOKENS_NAMES, Rewriting, spliced_model

_USAGE = re.compile(rb'"usage" ?: ?\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}')
_TIER = re.compile(rb'"service_tier" ?: ?"[a-z_]{1,40}"')
"""Neither can stand in what the model writes: there a quotation mark is escaped."""
_WHOLE = frozenset(("message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"))
"""Kinds of items of an input that cannot be sent without their contents."""
_NOTED = (b'"response.created"', b'"response.output_item.added"', b'"response.completed"')
_ID_CHARS_MAX = 256


class Given(Protocol):
    """Which ids of an upstream's state were given to whom. May forget: what is not there any more is refused by name."""

    def holds(self, *parts: str) -> bool:
        """Whether it was given."""
        ...

    def add(self, *parts: str) -> bool:
        """False: it could not be noted."""
        ...


class ResponsesTail(Tail):
    """The last bytes of a native stream: it ends with the whole response, usage and all."""

    __slots__ = ()

    @property
    def done(self) -> bool:
        tail = self._join()
        return b"\nevent: response.completed" in tail or b"\nevent: response.incomplete" in tail or bool(_USAGE.search(tail))

    @property
    def failed(self) -> bool:
        tail = self._join()
        return b"\nevent: error" in tail or b"\nevent: response.failed" in tail

    def usage(self) -> Usage:
        tail = self._join()
        found, tiers = _USAGE.findall(tail), _TIER.findall(tail)
        return native_usage(b"{%s}" % b",".join([*tiers[-1:], found[-1]])) if found else Usage()


def native_usage(body: bytes) -> Usage:
    """The usage of a response; nothing known when it has none."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Usage()
    usage = fields.get("usage") if isinstance(fields, dict) else None
    if not isinstance(usage, dict):
        return Usage()
    named = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens", "prompt_tokens_details": "input_tokens_details"}
    return openai.usage_in(
        {"usage": {ours: usage.get(theirs) for ours, theirs in named.items()}, "service_tier": fields.get("service_tier")}
    )


class ResponsesThrough(Through):
    """`/v1/responses` to an upstream that has it, as it is, but for what the release sets."""

    def __init__(self, given: Given) -> None:
        super().__init__(b"/responses", whole_release=False)
        self._given = given

    def request(self, chat: Chat, rewriting: Rewriting) -> bytes:
        native = chat.native
        if chat.owner:
            self._check(chat.owner, native)
        names = dict.fromkeys(OUTPUT_TOKENS_NAMES, "max_output_tokens")
        own = {names.get(entry[0], entry[0]): entry[2] for entry in rewriting.parameters}
        own = {name: value for name, value in own.items() if name not in native}
        if rewriting.prompt is not None:
            given = native.get("instructions")
            own["instructions"] = f"{rewriting.prompt}\n\n{given}" if isinstance(given, str) and given else rewriting.prompt
        if not own:
            return rewriting.apply_model(chat, native)
        body = spliced_model(chat, rewriting, orjson.dumps(own)[1:-1] + b",") if "instructions" not in native else None
        return body or rewriting.written(chat, {**native, "model": rewriting.model, **own})

    def answer(self, chat: Chat, body: bytes) -> tuple[bytes, Usage]:
        if chat.owner and not chat.shadow:
            try:
                self._note(chat.owner, orjson.loads(body))
            except orjson.JSONDecodeError:
                return body, Usage()
        return body, native_usage(body)

    def flow(self, chat: Chat) -> Flow:
        if not chat.owner or chat.shadow:
            return ResponsesTail()
        return NotedTail(lambda response: self._note(chat.owner, response))

    def _check(self, owner: str, native: dict[str, Any]) -> None:
        """Raises Refused 400 for an id that was not given to `owner`."""
        for field, name in named(native):
            if not self._given.holds(owner, name):
                words = f"{name[:100]!r} is not an id that this gateway gave to you, or that it remembers; send what it stands for instead"
                code = "previous_response_not_found" if field == "previous_response_id" else "item_not_found"
                raise Refused(400, words, code, field)

    def _note(self, owner: str, response: Any) -> None:
        for name in ids_of(response):
            self._given.add(owner, name)


class NotedTail(ResponsesTail):
    """A native stream whose ids are noted as they pass, before the caller has them."""

    __slots__ = ("_events", "_note")

    def __init__(self, note: Any) -> None:
        super().__init__()
        self._note = note
        self._events: Events | None = Events()

    def feed(self, data: bytes) -> bytes:
        if self._events is not None:
            try:
                for event in self._events.feed(data):
                    if any(kind in event for kind in _NOTED):
                        self._seen(event)
            except Untranslatable:  # an event too large to be one with an id at its beginning; nothing after it is noted
                self._events = None
        return super().feed(data)

    def _seen(self, event: bytes) -> None:
        try:
            fields = orjson.loads(event)
        except orjson.JSONDecodeError:
            return
        if not isinstance(fields, dict):
            return
        match fields.get("type"):
            case "response.created" | "response.completed":
                self._note(fields.get("response"))
            case "response.output_item.added":
                self._note({"output": [fields.get("item")]})


def named(native: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The ids of the upstream's state that a request of Responses names, each with its field."""
    previous, conversation, given = native.get("previous_response_id"), native.get("conversation"), native.get("input")
    if isinstance(previous, str):
        yield "previous_response_id", previous
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    if isinstance(conversation, str):
        yield "conversation", conversation
    for item in given if isinstance(given, list) else ():
        if isinstance(item, dict) and isinstance(item.get("id"), str) and not _is_whole(item):
            yield "input", item["id"]


def _is_whole(item: dict[str, Any]) -> bool:
    """It says all it means, so that its id names nothing that is kept elsewhere."""
    kind = item.get("type")
    return kind in _WHOLE or (kind is None and "role" in item) or (kind == "reasoning" and bool(item.get("encrypted_content")))


def ids_of(response: Any) -> Iterator[str]:
    """The ids by which a later request can name a response, what is in it, and its conversation."""
    if not isinstance(response, dict):
        return
    found: list[Any] = [response.get("id")]
    conversation, output = response.get("conversation"), response.get("output")
    if isinstance(conversation, dict):
        found.append(conversation.get("id"))
    found += [item.get("id") for item in (output if isinstance(output, list) else ()) if isinstance(item, dict)]
    yield from (name for name in found if isinstance(name, str) and 0 < len(name) <= _ID_CHARS_MAX)
