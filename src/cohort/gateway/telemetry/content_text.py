"""What of a call's content a sample holds: texts, personal data and credentials taken out of each as a whole, the newest first. Pure.

A text is looked through whole or not kept: a number that is cut in two is no card's number, and would be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

TEXT_CHARS_MAX = 16 << 10
"""Of one text; a longer one is not kept. Looking a text through takes 2 to 3 microseconds for each character."""
TEXTS_MAX = 200
Redact = Callable[[str], tuple[str, Mapping[str, int]]]
"""A text without what may not be kept, and how often each kind was found."""


def asked_texts(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Who says what in a request, newest first: role and text."""
    messages = fields.get("messages")
    if isinstance(messages, list):
        for message in messages[:-TEXTS_MAX:-1]:
            if isinstance(message, dict):
                yield _word(message.get("role")), _text_of(message)
        return
    given = fields.get("input", fields.get("prompt"))
    if given is not None:
        yield "input", given if isinstance(given, str) else _json(given)


def answered_text(data: bytes, streamed: bool) -> str:
    """What an answer says, in the dialects of a tape; empty where it is not understood."""
    if not streamed:
        fields = _object(data)
        return "" if fields is None else _said(fields)
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    chunks = (_object(line[5:].strip()) for line in lines if line.startswith(b"data:"))
    texts: dict[tuple[str, ...], list[str]] = {}
    for chunk in chunks:
        for place, text in _pieces(chunk or {}):
            texts.setdefault(place, []).append(text)
    return "\n".join("".join(pieces) for pieces in texts.values())


def kept_request(fields: Mapping[str, Any], redact: Redact, bytes_max: int) -> tuple[list[dict[str, str]], dict[str, int]]:
    """The newest texts that fit, in their order, and what was taken out of them."""
    rows: list[dict[str, str]] = []
    found: dict[str, int] = {}
    left = bytes_max
    for role, text in asked_texts(fields):
        if left <= 0:
            rows.append({"role": "", "text": "[what came before is not kept]"})
            break
        kept, more = kept_text(text, redact, left)
        left -= len(kept.encode())
        rows.append({"role": role, "text": kept})
        for kind, count in more.items():
            found[kind] = found.get(kind, 0) + count
    return rows[::-1], found


def kept_text(text: str, redact: Redact, bytes_max: int) -> tuple[str, Mapping[str, int]]:
    """One text as it may be kept: redacted, then cut."""
    if len(text) > TEXT_CHARS_MAX:
        return f"[{len(text)} characters, more than are looked through]", {}
    clean, found = redact(text)
    data = clean.encode("utf-8", "replace")
    if len(data) <= bytes_max:
        return clean, found
    return data[:bytes_max].decode("utf-8", "ignore") + " [cut]", found


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    said = content if isinstance(content, str) else "" if content is None else _parts(content)
    calls = message.get("tool_calls")
    return f"{said}\n{_json(calls)}".strip() if calls else said


def _parts(content: Any) -> str:
    if not isinstance(content, list):
        return _json(content)
    return "\n".join(part["text"] if _is_text(part) else f"[{_word(part.get('type'))}]" for part in content if isinstance(part, dict))


def _is_text(part: Mapping[str, Any]) -> bool:
    return isinstance(part.get("text"), str)


def _said(fields: Mapping[str, Any]) -> str:
    """Of a whole answer: a chat completion's, Anthropic's, or what else there is."""
    choices = fields.get("choices")
    if isinstance(choices, list):
        messages = [choice.get("message") for choice in choices if isinstance(choice, dict)]
        return "\n".join(_text_of(message) for message in messages if isinstance(message, dict))
    content = fields.get("content")
    return _parts(content) if isinstance(content, list) else ""


def _pieces(chunk: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Of one event of a stream: each piece of a text, and which text it goes on. Answers that come side by side must not cut each other's."""
    choices = chunk.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict):
                yield from _delta_pieces(_number(choice), choice.get("delta"))
        return
    yield from _delta_pieces(f"{_number(chunk)}.{chunk.get('output_index')}", chunk.get("delta"))


def _delta_pieces(of: str, delta: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(delta, str):
        yield (of,), delta
    if not isinstance(delta, dict):
        return
    for name in ("content", "text", "partial_json"):
        if isinstance(text := delta.get(name), str):
            yield (of, name), text
    calls = delta.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(text := function.get("arguments"), str):
            yield (of, "call", _number(call)), text


def _number(fields: Mapping[str, Any]) -> str:
    """Which of several it is of; the first where nothing says so."""
    return str(fields.get("index") or 0)


def _word(value: Any) -> str:
    """A role or a type: one of the protocol's words, not a text."""
    return value if isinstance(value, str) and value.isidentifier() and len(value) <= 20 else "other"


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return ""


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return fields if isinstance(fields, dict) else None
