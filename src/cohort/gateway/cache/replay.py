"""A kept answer as a stream of server-sent events, in the order in which a model would have sent it. Pure."""

from __future__ import annotations

from typing import Any

import orjson

from cohort.gateway.openai import DONE

PIECE_CHARS = 400
"""Text goes out in pieces, so that a client that shows text as it comes shows it in steps."""


def events(body: bytes, usage: bool) -> bytes:
    """The whole stream. `usage`: with a last chunk of usage, as `stream_options.include_usage` asks for."""
    fields = orjson.loads(body)
    shared = {name: value for name, value in fields.items() if name not in ("choices", "usage", "object")}
    shared["object"] = "chat.completion.chunk"
    parts = []
    for at, choice in enumerate(fields["choices"]):
        parts += _choice_events(shared, {"index": at, **choice}, usage)
    if usage:
        parts.append(_event({**shared, "choices": [], "usage": fields.get("usage")}))
    return b"".join(parts) + DONE + b"\n\n"


def _choice_events(shared: dict[str, Any], choice: dict[str, Any], usage: bool) -> list[bytes]:
    index, message = choice["index"], dict(choice["message"])
    rest = {name: value for name, value in choice.items() if name not in ("index", "message", "finish_reason", "logprobs")}
    ending = {"usage": None} if usage else {}

    def event(delta: dict[str, Any], finish: Any = None, **more: Any) -> bytes:
        return _event({**shared, "choices": [{"index": index, "delta": delta, "finish_reason": finish, **more}], **ending})

    content, tools = message.pop("content", None), message.pop("tool_calls", None)
    pieces = [content[at : at + PIECE_CHARS] for at in range(0, len(content), PIECE_CHARS)] if isinstance(content, str) else []
    logprobs = {"logprobs": choice["logprobs"]} if choice.get("logprobs") is not None else {}
    sent = [event({**message, "content": "" if isinstance(content, str) else None}, **logprobs)]
    sent += [event({"content": piece}) for piece in pieces]
    if isinstance(tools, list) and tools:
        sent.append(event({"tool_calls": [{"index": at, **call} for at, call in enumerate(tools)]}))
    sent.append(event({}, choice["finish_reason"], **rest))
    return sent


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"
