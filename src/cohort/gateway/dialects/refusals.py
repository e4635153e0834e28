"""An upstream's error, whatever shape its server gives it, in the shape that OpenAI's clients read.

Known are OpenAI's own, the same within a list (Gemini), a text alone (Ollama, LM Studio), one without a frame (vLLM of old, Azure's front),
FastAPI's `detail`, Anthropic's, and any of them as an event of a stream that came with the status of an error (LiteLLM).
"""

from __future__ import annotations

from typing import Any

import orjson

from cohort.gateway import openai

WORDS_MAX = 2000
"""Characters of a message that is put together or taken from where none is promised."""


def error_in(body: bytes) -> dict[str, Any] | None:
    """The error that `body` reports, with `message` a text; None where nothing in it says what is wrong."""
    fields = _loaded(body)
    if isinstance(fields, list) and fields:
        fields = fields[0]
    if not isinstance(fields, dict):
        return None
    error = fields.get("error")
    if isinstance(error, dict):
        return error if isinstance(error.get("message"), str) else {**error, "message": _words(error) or "the upstream refused the request"}
    words = error if isinstance(error, str) else _words(fields)
    return {**fields, "message": words[:WORDS_MAX]} if words else None


def as_openai(body: bytes) -> bytes | None:
    """`body` as OpenAI's clients can read it: itself where they can already; None where it says nothing."""
    if openai.is_error(body):
        return body
    error = error_in(body)
    if error is None:
        return None
    kind, code, param = (error.get(name) for name in ("type", "code", "param"))
    return openai.error(
        error["message"], _name(code) or "upstream_error", param if isinstance(param, str) else None, _name(kind) or "upstream_error"
    )


def told_instead(body: bytes) -> str | None:
    """What an upstream says is wrong in an answer whose status says that nothing is (OpenRouter); None for an answer."""
    fields = _loaded(body)
    if not isinstance(fields, dict) or not fields.get("error") or fields.get("choices"):
        return None
    error = error_in(body)
    return None if error is None else f"the upstream answered with an error: {error['message'][:WORDS_MAX]}"


def _name(value: Any) -> str:
    """A word of the upstream's for a kind of error; empty for a number, which repeats the status."""
    return value if isinstance(value, str) else ""


def _words(fields: dict[str, Any]) -> str:
    for name in ("message", "detail", "title"):
        found = fields.get(name)
        if isinstance(found, str) and found:
            return found
        if isinstance(found, list):  # FastAPI's, of fields that are wrong
            return "; ".join(f"{_place(item.get('loc'))}: {item.get('msg')}" for item in found if isinstance(item, dict))
    return ""


def _place(loc: Any) -> str:
    return ".".join(map(str, loc)) if isinstance(loc, list) else str(loc)


def _loaded(body: bytes) -> Any:
    """JSON, or that of the first event of a stream; None for anything else."""
    for text in (body, _first_event(body)):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            continue
    return None


def _first_event(body: bytes) -> bytes:
    at = body.find(b"data:")
    return body[at + 5 :].split(b"\n", 1)[0].strip() if at >= 0 else b""
