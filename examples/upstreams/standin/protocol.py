"""OpenAI's chat protocol as bytes with times: what is sent, and how long after the request. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from standin.answers import Question, Reply, usage_of
from standin.behaviour import Behaviour, Fate

CHUNK_TOKENS = 3
REASONS = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
}


@dataclass(frozen=True, slots=True)
class Step:
    """Bytes to send, `at_s` seconds after the request was read."""

    at_s: float
    data: bytes


def json_response(status: int, body: Any, server: str, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole response with a JSON body."""
    data = orjson.dumps(body)
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: application/json\r\nserver: {server}\r\n{more}"
    head += f"content-length: {len(data)}\r\n\r\n"
    return head.encode() + data


def error_body(message: str, kind: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def failure(fate: Fate, model: str, server: str) -> bytes:
    """The error response of a call that was drawn to fail."""
    if fate.status == 429:
        body = error_body(f"Rate limit reached for {model} (drawn by this stand-in).", "requests", "rate_limit_exceeded")
        return json_response(429, body, server, {"retry-after": "1", "x-request-id": f"req_{fate.mark[:32]}"})
    body = error_body("The server had an error while processing your request (drawn by this stand-in).", "server_error")
    return json_response(500, body, server, {"x-request-id": f"req_{fate.mark[:32]}"})


def completion(question: Question, reply: Reply, fate: Fate, created_s: int, server: str) -> bytes:
    """A `chat.completion` response."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None, "annotations": []}
    if reply.tool_calls:
        message["tool_calls"] = list(reply.tool_calls)
    choices = [{"index": i, "message": message, "logprobs": None, "finish_reason": reply.finish} for i in range(question.choices)]
    body = _envelope(question, fate, created_s, "chat.completion") | {"choices": choices, "usage": usage_of(question, reply)}
    return json_response(200, body, server, {"x-request-id": f"req_{fate.mark[:32]}"})


def stream(question: Question, reply: Reply, fate: Fate, behaviour: Behaviour, created_s: int, server: str) -> tuple[Step, ...]:
    """A `chat.completion.chunk` stream: headers and role at the first token's time, the rest spread evenly to the whole latency."""
    events = list(_events(question, reply, fate, created_s))
    first_s = fate.latency_s * behaviour.first_share
    gap_s = (fate.latency_s - first_s) / max(1, len(events) - 1)
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nserver: {server}\r\n"
        f"x-request-id: req_{fate.mark[:32]}\r\ntransfer-encoding: chunked\r\n\r\n"
    ).encode()
    steps = [Step(first_s + gap_s * i, (head if i == 0 else b"") + _chunk(event)) for i, event in enumerate(events)]
    last = steps[-1]
    return (*steps[:-1], Step(last.at_s, last.data + _chunk(b"[DONE]") + b"0\r\n\r\n"))


def _envelope(question: Question, fate: Fate, created_s: int, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{fate.mark[:29]}",
        "object": kind,
        "created": created_s,
        "model": question.model,
        "service_tier": "default",
        "system_fingerprint": "fp_standin",
    }


def _events(question: Question, reply: Reply, fate: Fate, created_s: int) -> Iterator[bytes]:
    envelope = _envelope(question, fate, created_s, "chat.completion.chunk")
    usage = {"usage": None} if question.include_usage else {}

    def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choices = [{"index": i, "delta": delta, "logprobs": None, "finish_reason": finish} for i in range(question.choices)]
        return orjson.dumps(envelope | {"choices": choices} | usage)

    if reply.tool_calls:
        yield from _tool_events(reply, event)
    else:
        yield event({"role": "assistant", "content": "", "refusal": None})
        for i in range(0, len(reply.tokens), CHUNK_TOKENS):
            yield event({"content": "".join(reply.tokens[i : i + CHUNK_TOKENS])})
    yield event({}, reply.finish)
    if question.include_usage:
        yield orjson.dumps(envelope | {"choices": [], "usage": usage_of(question, reply)})


def _tool_events(reply: Reply, event: Any) -> Iterator[bytes]:
    for index, call in enumerate(reply.tool_calls):
        function = call["function"]
        opening = {"index": index, "id": call["id"], "type": "function", "function": {"name": function["name"], "arguments": ""}}
        yield event({"role": "assistant", "content": None, "tool_calls": [opening]})
        yield event({"tool_calls": [{"index": index, "function": {"arguments": function["arguments"]}}]})


def _chunk(event: bytes) -> bytes:
    line = b"data: " + event + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(line), line)


def models_body(names: list[str], owner: str, created_s: int) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": name, "object": "model", "created": created_s, "owned_by": owner} for name in names]}


def parse_json(data: bytes) -> Any:
    """The body; None when it is not JSON."""
    try:
        return orjson.loads(data)
    except json.JSONDecodeError:
        return None
