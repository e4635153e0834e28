"""Calls to an upstream that speaks Anthropic's protocol, from a caller that does too: bytes pass, but for what the release sets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from cohort.gateway import openai
from cohort.gateway.dialects.events import count
from cohort.gateway.dialects.face import TOKENS_MAX, UNKNOWN, Chat, Detail, Flow, Operation, Refused, Untranslatable, Usage, passed_on
from cohort.gateway.dialects.messages_to_chat import translate
from cohort.gateway.dialects.messages_voice import as_message_error
from cohort.gateway.dialects.refusals import told_instead
from cohort.gateway.openai import Tail, reports_error
from cohort.gateway.rewriting import OUTPUT_TOKENS_NAMES, Rewriting, spliced_model

VERSION = b"2023-06-01"
"""Of Anthropic's API, where the caller names none: the one that takes `temperature` and the like. From 2026-10-21 on it refuses them."""
VERSION_NAME = b"anthropic-version"
_USUAL = {VERSION_NAME: VERSION}
HEAD_BYTES = 4 << 10
_FORWARDED = frozenset({b"anthropic-beta", b"idempotency-key", b"traceparent", b"tracestate", b"x-request-id"})
_STOPPED = re.compile(rb'\nevent: ?message_stop|"type": ?"message_stop"')
"""Neither can stand in what the model writes: there a line end and a quotation mark are escaped."""
_NAMES = {**dict.fromkeys(OUTPUT_TOKENS_NAMES, "max_tokens"), "stop": "stop_sequences"}
"""What a release's parameters are called at Anthropic, where that is another name."""


def upstream_headers(headers: Mapping[bytes, bytes], forwarded: frozenset[bytes] = _FORWARDED) -> bytes:
    """Lines for Anthropic's API: its version, which it demands, and what may pass of the caller's."""
    version = passed_on(headers if VERSION_NAME in headers else _USUAL, (VERSION_NAME,))
    return version + passed_on(headers, forwarded.intersection(headers))


class MessagesTail(Tail):
    """The first and the last bytes of an Anthropic stream: what was read is reported at its beginning, what was written at its end."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        super().__init__()
        self._begun = b""

    def feed(self, data: bytes) -> bytes:
        if len(self._begun) < HEAD_BYTES:
            self._begun += data[:HEAD_BYTES]
        return super().feed(data)

    @property
    def done(self) -> bool:
        return _STOPPED.search(self._join()[-128:]) is not None

    @property
    def failed(self) -> bool:
        tail = self._join()
        return b"\nevent: error" in tail or b"\nevent:error" in tail or reports_error(tail)

    def usage(self) -> Usage:
        return usage_in({**_usage_at(self._begun, self._begun.find(b'"usage"')), **_last_usage(self._join())})


class MessagesThrough:
    """`/messages` as it is. `counting`: only the tokens of a request are counted, which takes no parameters of an answer."""

    def __init__(self, path: bytes, counting: bool = False) -> None:
        self.path = path
        self._counting = counting

    def headers(self, headers: Mapping[bytes, bytes]) -> bytes:
        return upstream_headers(headers)

    def request(self, chat: Chat, rewriting: Rewriting) -> bytes:
        own = {} if self._counting else _parameters(rewriting, chat.native)
        if rewriting.prompt is None and not own:
            return rewriting.apply_model(chat, chat.native)
        body = None
        if rewriting.prompt is None or "system" not in chat.native:
            added = own if rewriting.prompt is None else {**own, "system": rewriting.prompt}
            body = spliced_model(chat, rewriting, orjson.dumps(added)[1:-1] + b",")
        return body or rewriting.written(chat, {**chat.native, "model": rewriting.model, **own, **_system(chat.native, rewriting.prompt)})

    def answer(self, _chat: Chat, body: bytes) -> tuple[bytes, Usage]:
        if self._counting:
            return body, Usage(0, 0)  # counting costs nothing
        usage = usage_of(body)
        if usage is UNKNOWN and (wrong := told_instead(body)):
            raise Untranslatable(wrong)
        return body, usage

    def flow(self, _chat: Chat) -> Flow:
        return MessagesTail()

    def refusal(self, status: int, body: bytes) -> bytes | None:
        return as_message_error(status, body)


def parse_messages(operation: Operation, body: bytes) -> Chat:
    """A request in Anthropic's dialect; raises Refused 400: not JSON, or a wrong field, which is named."""
    native = openai.parse_object(body)
    service, messages = openai.service_of(native), native.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "`messages` must be a list with at least one message", "messages_missing", "messages")
    fields, unsayable = translate(native)
    return Chat(body, fields, service, openai.wants_stream(native), operation, native, unsayable=unsayable)


def usage_in(usage: Mapping[str, Any]) -> Usage:
    """Anthropic's usage; what was read from or written to its cache counts as read."""
    if not usage:
        return UNKNOWN
    parts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    tokens_in = _sum([usage.get(part) for part in parts])
    return Usage(tokens_in, _sum([usage.get("output_tokens")]), _detail(usage) if tokens_in else None)


def _detail(usage: Mapping[str, Any]) -> Detail | None:
    cached, created = count(usage.get("cache_read_input_tokens")), count(usage.get("cache_creation_input_tokens"))
    if not (cached or created):
        return None
    kept = usage.get("cache_creation")
    kept_long = min(count(kept.get("ephemeral_1h_input_tokens")), created) if isinstance(kept, dict) else 0
    return Detail(cached, created - kept_long, kept_long)


def _sum(said: list[Any]) -> int | None:
    """Not known when one of them is there and is no number of tokens."""
    total = sum(count(value) for value in said)
    known = total <= TOKENS_MAX and all(value is None or (type(value) is int and count(value) == value) for value in said)
    return total if known else None


def usage_of(body: bytes) -> Usage:
    """The usage of a whole message; nothing known when it is not the JSON of one."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return UNKNOWN
    usage = fields.get("usage") if isinstance(fields, dict) else None
    return usage_in(usage) if isinstance(usage, dict) else UNKNOWN


def _parameters(rewriting: Rewriting, native: Mapping[str, Any]) -> dict[str, Any]:
    """The release's parameters that the caller did not set, by Anthropic's names."""
    named = {_NAMES.get(entry[0], entry[0]): entry[2] for entry in rewriting.parameters}
    return {name: value for name, value in named.items() if name not in native}


def _system(native: Mapping[str, Any], prompt: str | None) -> dict[str, Any]:
    """The release's prompt before the caller's own."""
    if prompt is None:
        return {}
    own = native.get("system") or []
    blocks = [{"type": "text", "text": own}] if isinstance(own, str) else own
    return {"system": [{"type": "text", "text": prompt}, *blocks] if isinstance(blocks, list) and blocks else prompt}


def _last_usage(tail: bytes) -> dict[str, Any]:
    return _usage_at(tail, tail.rfind(b'"usage"'))


def _usage_at(data: bytes, at: int) -> dict[str, Any]:
    """The usage in the event around `at`."""
    start = data.rfind(b"data:", 0, max(at, 0))
    if at < 0 or start < 0:
        return {}
    try:
        event = orjson.loads(data[start + 5 :].split(b"\n", 1)[0])
    except orjson.JSONDecodeError:
        return {}
    holder = event.get("message", event) if isinstance(event, dict) else None
    usage = holder.get("usage") if isinstance(holder, dict) else None
    return {name: value for name, value in usage.items() if value is not None} if isinstance(usage, dict) else {}
