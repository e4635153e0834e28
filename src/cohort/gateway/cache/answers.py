"""Which answers may be kept, and how they are kept: whole, whether they came whole or as a stream. Pure.

Kept is only what ended as the model meant it to: every choice with finish reason `stop` or a tool call. An error, a refusal, what a filter
or the token limit cut off, and a stream that broke are not answers to the next one who asks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

FINISHED = frozenset({"stop", "tool_calls", "function_call"})
CHOICES_MAX = 128
_new = tuple.__new__  # a named tuple's own constructor takes three times as long


class Answer(NamedTuple):
    """A whole chat completion. `has_usage`: false when it came as a stream whose client did not ask for usage."""

    body: bytes
    has_usage: bool
    saved_usd_micro: int = 0
    tokens_out: int = 0
    calls_tools: bool = False

    def serves(self, stream: bool, usage: bool) -> bool:
        """It has all that is asked for: a whole answer names its usage, a stream only when asked to."""
        return self.has_usage or (stream and not usage)


def of_whole(body: bytes, saved_usd_micro: int | None) -> Answer | None:
    """The answer in `body`, as it came; None when it is not one to keep."""
    return of_fields(body, _object(body), saved_usd_micro)


def of_fields(body: bytes, fields: Any, saved_usd_micro: int | None) -> Answer | None:
    """As `of_whole`, where `body` was read as `fields` already."""
    if not isinstance(fields, dict) or not _finished(fields):
        return None
    return _new(Answer, (body, True, saved_usd_micro or 0, _tokens_out(fields), _calls_tools(fields)))


def of_stream(events: bytes, saved_usd_micro: int | None) -> Answer | None:
    """The answer that a stream of server-sent events carried; None when it is incomplete, not one to keep, or not fully understood."""
    fields = _assembled(events)
    if fields is None or not _finished(fields):
        return None
    return Answer(orjson.dumps(fields), "usage" in fields, saved_usd_micro or 0, _tokens_out(fields), _calls_tools(fields))


def content_of(body: bytes) -> str | None:
    """The text of a kept answer with one choice; None when it is not one text."""
    fields = _object(body)
    choices = fields.get("choices") if fields else None
    if not isinstance(choices, list) or len(choices) != 1:
        return None
    message = choices[0].get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else None


def _finished(fields: dict[str, Any]) -> bool:
    choices = fields.get("choices")
    if not isinstance(choices, list) or not 0 < len(choices) <= CHOICES_MAX or "error" in fields:
        return False
    return all(map(_well, choices))


def _well(choice: Any) -> bool:
    message = choice.get("message") if isinstance(choice, dict) else None
    return isinstance(message, dict) and choice.get("finish_reason") in FINISHED and not message.get("refusal")


def _calls_tools(fields: dict[str, Any]) -> bool:
    return any(map(_calls_tool, fields["choices"]))


def _calls_tool(choice: dict[str, Any]) -> bool:
    message = choice["message"]
    return bool(message.get("tool_calls") or message.get("function_call"))


def _tokens_out(fields: dict[str, Any]) -> int:
    usage = fields.get("usage")
    count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return count if type(count) is int and count >= 0 else 0


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return fields if isinstance(fields, dict) else None


class _NotUnderstood(Exception):
    """A chunk says something that cannot be put together with certainty."""


def _assembled(events: bytes) -> dict[str, Any] | None:
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    done = False
    try:
        for data in data_lines(events):
            done = data == b"[DONE]"
            if not done:
                _take(whole, choices, _chunk(data))
    except _NotUnderstood:
        return None
    if not done or not choices or sorted(choices) != list(range(len(choices))):
        return None
    whole["object"] = "chat.completion"
    whole["choices"] = [_choice(index, choices[index]) for index in range(len(choices))]
    if whole.get("usage") is None:
        whole.pop("usage", None)
    return whole


def data_lines(events: bytes) -> list[bytes]:
    """The data of each event; one event is one line in this dialect, and comments are no data."""
    return [line[5:].strip() for line in events.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n") if line.startswith(b"data:")]


def _chunk(data: bytes) -> dict[str, Any]:
    chunk = _object(data)
    if chunk is None or "error" in chunk:
        raise _NotUnderstood
    return chunk


def _take(whole: dict[str, Any], choices: dict[int, dict[str, Any]], chunk: dict[str, Any]) -> None:
    for name, value in chunk.items():
        if name != "choices" and (value is not None or name not in whole):
            whole[name] = value
    parts = chunk.get("choices") or []
    for part in parts:
        index = part.get("index") if isinstance(part, dict) else None
        if type(index) is not int or not 0 <= index < CHOICES_MAX:
            raise _NotUnderstood
        _take_part(choices.setdefault(index, {"message": {}}), part)


def _take_part(choice: dict[str, Any], part: dict[str, Any]) -> None:
    for name, value in part.items():
        if name == "delta":
            _merge(choice["message"], value)
        elif name == "logprobs":
            choice["logprobs"] = _joined(choice.get("logprobs"), value)
        elif name != "index" and (value is not None or name not in choice):
            choice[name] = value


def _merge(message: dict[str, Any], delta: Any) -> None:
    """Text grows; `role` and the like are said once; tool calls grow by their index."""
    if not isinstance(delta, dict):
        raise _NotUnderstood
    for name, value in delta.items():
        if name == "tool_calls":
            _merge_tools(message, value)
        elif name == "function_call" and isinstance(value, dict):
            _merge(message.setdefault(name, {}), value)
        elif message.get(name) is None:
            message[name] = value
        elif value is None or name == "role":
            continue
        elif isinstance(value, str) and isinstance(message[name], str):
            message[name] += value
        else:
            raise _NotUnderstood


def _merge_tools(message: dict[str, Any], parts: Any) -> None:
    calls = message.setdefault("tool_calls", [])
    if not isinstance(parts, list):
        raise _NotUnderstood
    for part in parts:
        index = part.get("index") if isinstance(part, dict) else None
        if type(index) is not int or not 0 <= index <= len(calls) or index >= CHOICES_MAX:
            raise _NotUnderstood
        if index == len(calls):
            calls.append({"function": {}})
        _merge_tool(calls[index], part)


def _merge_tool(call: dict[str, Any], part: dict[str, Any]) -> None:
    for name, value in part.items():
        if name == "function" and isinstance(value, dict):
            _merge(call["function"], value)
        elif name != "index" and value is not None:
            if call.get(name, value) != value:
                raise _NotUnderstood
            call[name] = value


def _joined(known: Any, more: Any) -> Any:
    if known is None or more is None:
        return more if known is None else known
    if not isinstance(known, dict) or not isinstance(more, dict):
        raise _NotUnderstood
    return {name: (known.get(name) or []) + (more.get(name) or []) for name in {**known, **more}}


def _choice(index: int, choice: dict[str, Any]) -> dict[str, Any]:
    message = choice["message"]
    message.setdefault("role", "assistant")
    message.setdefault("content", None)
    return {"index": index, **choice, "message": message}
