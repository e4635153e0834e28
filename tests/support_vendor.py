"""A vendor of models that speaks both dialects, stricter than the real ones: what its documentation forbids it refuses.

What it answers follows from the conversation: results of tools are read back, a tool is called where one is offered and the user speaks
of the weather, a schema is filled in, and `fail 429`, `cut`, `stall` and the like in the user's words do what they say.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

from support_upstream import Exchange

KEY = "vendor-key"
TEXT = "Hello, world."
REASON = "A greeting is in order."
USAGE = {"prompt_tokens": 21, "completion_tokens": 9, "total_tokens": 30, "prompt_tokens_details": {"cached_tokens": 4}}
ANTHROPIC_USAGE = {"input_tokens": 17, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4, "output_tokens": 9}
PADDING = b": nothing\n" * 100_000
"""More than a gateway reads at once: what comes behind it comes when the answer has begun."""


class Wrong(Exception):
    """What the vendor refuses, with its status."""

    def __init__(self, status: int, message: str, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


async def vendor(exchange: Exchange) -> None:
    """Answer one request of either dialect."""
    path, fields = exchange.seen.path.partition("?")[0], exchange.seen.fields
    anthropic = path.startswith("/v1/messages")
    try:
        _check_key(exchange.seen.headers, anthropic)
        if path == "/v1/chat/completions":
            await _chat(exchange, fields)
        elif path == "/v1/messages":
            if exchange.seen.headers["anthropic-version"] > "2026" and {"temperature", "top_p", "top_k"} & set(fields):
                raise Wrong(400, "temperature: Extra inputs are not permitted")
            await _messages(exchange, fields)
        elif path == "/v1/responses":
            await _responses(exchange, fields)
        elif path == "/v1/messages/count_tokens":
            _check_messages(fields, counting=True)
            exchange.whole(json.dumps({"input_tokens": 42}).encode())
        else:
            exchange.whole(json.dumps(_plain(path, fields)).encode())
    except Wrong as wrong:
        lines = [f"Retry-After: {wrong.retry_after}"] if wrong.retry_after else []
        body = _anthropic_error(wrong) if anthropic else _openai_error(wrong)
        exchange.whole(json.dumps(body).encode(), *lines, status=f"{wrong.status} Wrong")


def _check_key(headers: dict[str, str], anthropic: bool) -> None:
    given = headers.get("x-api-key") if anthropic else headers.get("authorization", "").removeprefix("Bearer ")
    if given != KEY or (anthropic and "authorization" in headers):
        raise Wrong(401, "invalid key")
    if anthropic and headers.get("anthropic-version") not in ("2023-06-01", "2026-10-21"):
        raise Wrong(400, "anthropic-version: header is required")


def _openai_error(wrong: Wrong) -> dict[str, Any]:
    code = {429: "rate_limit_exceeded", 404: "model_not_found"}.get(wrong.status, "vendor_refused")
    return {"error": {"message": str(wrong), "type": "invalid_request_error", "param": None, "code": code}}


def _anthropic_error(wrong: Wrong) -> dict[str, Any]:
    kinds = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error", 500: "api_error"}
    return {"type": "error", "error": {"type": kinds.get(wrong.status, "invalid_request_error"), "message": str(wrong)}, "request_id": "r"}


def _plain(path: str, fields: dict[str, Any]) -> dict[str, Any]:
    if fields.get("model") != "big":
        raise Wrong(404, f"no model {fields.get('model')!r}")
    if path == "/v1/embeddings":
        texts = fields["input"] if isinstance(fields["input"], list) else [fields["input"]]
        numbers = [0.25, -0.5, 1.0]
        packed = base64.b64encode(struct.pack("<3f", *numbers)).decode()
        vector = packed if fields.get("encoding_format") == "base64" else numbers
        data = [{"object": "embedding", "index": i, "embedding": vector} for i, _ in enumerate(texts)]
        return {"object": "list", "model": "big", "data": data, "usage": {"prompt_tokens": 5, "total_tokens": 5}}
    if path == "/v1/moderations":
        result = {"flagged": False, "categories": {"violence": False}, "category_scores": {"violence": 0.01}}
        return {"id": "modr-1", "model": "big", "results": [result]}
    if path == "/v1/completions":
        choice = {"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "stop"}
        return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "big", "choices": [choice], "usage": USAGE}
    raise Wrong(404, f"no path {path}")


def filled(schema: dict[str, Any]) -> Any:
    """A value that a JSON schema allows."""
    if "$ref" in schema or "anyOf" in schema:
        return filled(schema["anyOf"][0]) if "anyOf" in schema else {}
    match schema.get("type"):
        case "object":
            return {name: filled(inner) for name, inner in schema.get("properties", {}).items()}
        case "integer" | "number":
            return 3
        case "boolean":
            return True
        case "array":
            return [filled(schema.get("items", {}))]
        case _:
            return schema.get("enum", ["Bern"])[0]


async def _troubled(exchange: Exchange, words: str, begun: bytes) -> bool:
    """Whether the user asked for trouble, which is then made."""
    for status in (400, 429, 500, 503, 529):
        if f"fail {status}" in words:
            raise Wrong(status, f"asked to fail with {status}", "7" if status == 429 else None)
    if "stall" in words:
        await exchange.until_gone()
        return True
    if "wrong event" in words:
        await _sent(exchange, begun + PADDING + b"data: {broken\n\n", 64 << 10)
        return True
    if "no end" in words:
        await _sent(exchange, begun, 37)
        return True
    if "endless event" in words:
        exchange.stream()
        exchange.chunk(begun + b"data: ")
        for _ in range(9):
            exchange.chunk(b"x" * (1 << 20))
            await exchange.writer.drain()
        return True
    if "no answer" in words:
        exchange.whole(b"<h1>hello</h1>")
        return True
    if "cut" in words:
        exchange.stream()
        exchange.chunk(begun)
        await exchange.writer.drain()
        exchange.writer.transport.abort()
        return True
    return False


async def _sent(exchange: Exchange, stream: bytes, piece_bytes: int) -> None:
    """A stream in pieces that end wherever they end."""
    exchange.stream()
    for at in range(0, len(stream), piece_bytes):
        exchange.chunk(stream[at : at + piece_bytes])
        await exchange.writer.drain()
    exchange.chunk(b"")


# --- OpenAI --------------------------------------------------------------------------------------------------------------------


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content or ())


def _check_chat(fields: dict[str, Any]) -> None:
    if fields.get("model") != "big":
        raise Wrong(404, f"no model {fields.get('model')!r}")
    open_calls: set[str] = set()
    for message in fields["messages"]:
        if message["role"] not in ("system", "developer", "user", "assistant", "tool"):
            raise Wrong(400, f"messages: role {message['role']!r}")
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                raise Wrong(400, f"messages: no call {message['tool_call_id']!r} before its result")
            open_calls.discard(message["tool_call_id"])
            continue
        if open_calls:
            raise Wrong(400, "messages: a call without its result")
        if message["role"] != "assistant" and not message["content"]:
            raise Wrong(400, "messages: empty")
        open_calls = {call["id"] for call in message.get("tool_calls") or ()}
    for tool in fields.get("tools") or ():
        if tool["type"] != "function" or not isinstance(tool["function"]["name"], str):
            raise Wrong(400, "tools: not a function")


async def _chat(exchange: Exchange, fields: dict[str, Any]) -> None:
    _check_chat(fields)
    last = fields["messages"][-1]
    words = _text_of(last["content"])
    form = fields.get("response_format") or {}
    begun = _chunk({"role": "assistant", "content": "Hel"})
    if last["role"] == "user" and await _troubled(exchange, words, begun):
        return
    message: dict[str, Any] = {"role": "assistant", "content": TEXT, "refusal": None}
    finish = "stop"
    if last["role"] == "tool":
        message["content"] = f"The tool said: {words}"
    elif fields.get("tools") and ("weather" in words or fields.get("tool_choice") not in (None, "auto", "none")):
        message = {"role": "assistant", "content": None, "tool_calls": _calls(fields)}
        finish = "tool_calls"
    elif form.get("type") == "json_schema":
        message["content"] = json.dumps(filled(form["json_schema"]["schema"]))
    elif fields.get("max_completion_tokens") == 1:
        message["content"], finish = "Hello", "length"
    elif "refuse" in words:
        message["content"], message["refusal"] = None, "No."
    elif "think" in words:
        message["reasoning_content"] = REASON
    if fields.get("stream"):
        wants_usage = bool((fields.get("stream_options") or {}).get("include_usage"))
        await _sent(exchange, b"".join(_chunks(message, finish, wants_usage)), 37)
        return
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    body = {"id": "chatcmpl-7", "object": "chat.completion", "created": 1, "model": "big", "choices": [choice], "usage": USAGE}
    exchange.whole(json.dumps(body).encode())


def _calls(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """One call of each tool whose schema asks for a city, else of the first."""
    tools = [tool["function"] for tool in fields["tools"]]
    chosen = [t for t in tools if "city" in json.dumps(t.get("parameters", {}))] or tools[:1]
    return [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": tool["name"], "arguments": json.dumps(filled(tool.get("parameters") or {"type": "object"}))},
        }
        for number, tool in enumerate(chosen)
    ]


def _chunk(delta: dict[str, Any], finish: str | None = None, **extra: Any) -> bytes:
    choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    body = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 1, "model": "big", "choices": choices, **extra}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def _chunks(message: dict[str, Any], finish: str, wants_usage: bool) -> Iterator[bytes]:
    yield _chunk({"role": "assistant", "content": "" if message["content"] is not None else None})
    for name in ("reasoning_content", "content", "refusal"):
        for piece in _pieces(message.get(name) or ""):
            yield _chunk({name: piece})
    for number, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        yield _chunk({"tool_calls": [{**call, "index": number, "function": {"name": function["name"], "arguments": ""}}]})
        for piece in _pieces(function["arguments"]):
            yield _chunk({"tool_calls": [{"index": number, "function": {"arguments": piece}}]})
    yield _chunk({}, finish)
    if wants_usage:
        yield _chunk({}, None, choices=[], usage=USAGE)
    yield b"data: [DONE]\n\n"


def _pieces(text: str) -> Iterator[str]:
    return (text[at : at + 5] for at in range(0, len(text), 5))


async def _responses(exchange: Exchange, fields: dict[str, Any]) -> None:
    """A vendor that has Responses itself: only their shortest form. The metadata `as` chooses the ids, and all metadata comes back."""
    if fields.get("model") != "big":
        raise Wrong(404, f"no model {fields.get('model')!r}")
    content = [{"type": "output_text", "text": TEXT, "annotations": []}]
    metadata = fields.get("metadata") or {}
    name = metadata.get("as", "native")
    item = {"id": f"msg_{name}", "type": "message", "role": "assistant", "status": "completed", "content": content}
    details = {"input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    usage = {"input_tokens": 21, "output_tokens": 9, "total_tokens": 30, **details}
    whole = {
        "id": f"resp_{name}",
        "metadata": metadata,
        "object": "response",
        "created_at": 1,
        "model": "big",
        "status": "completed",
        "output": [item],
    }
    whole |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": usage}
    if not fields.get("stream"):
        exchange.whole(json.dumps(whole).encode())
        return
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    events = [
        _event("response.created", response=begun, sequence_number=0),
        _event("response.completed", response=whole, sequence_number=1),
    ]
    await _sent(exchange, b"".join(events), 37)


# --- Anthropic -----------------------------------------------------------------------------------------------------------------

_KNOWN = {
    *("model", "messages", "max_tokens", "system", "stop_sequences", "stream", "temperature", "top_p", "top_k", "tools", "tool_choice"),
    *("metadata", "thinking", "output_config", "service_tier", "container", "context_management", "mcp_servers", "cache_control"),
}


def _check_messages(fields: dict[str, Any], counting: bool = False) -> None:
    unknown = set(fields) - _KNOWN
    if unknown:
        raise Wrong(400, f"{min(unknown)}: Extra inputs are not permitted")
    if fields.get("model") != "big":
        raise Wrong(404, f"model: {fields.get('model')!r}")
    if not counting and type(fields.get("max_tokens")) is not int:
        raise Wrong(400, "max_tokens: Field required")
    if counting and "max_tokens" in fields:
        raise Wrong(400, "max_tokens: Extra inputs are not permitted")
    open_calls: set[str] = set()
    for message in fields["messages"]:
        if message["role"] not in ("user", "assistant"):
            raise Wrong(400, f"messages: role {message['role']!r}")
        blocks = [{"type": "text", "text": message["content"]}] if isinstance(message["content"], str) else message["content"]
        if not blocks or any(block["type"] == "text" and not block["text"] for block in blocks):
            raise Wrong(400, "messages: text content blocks must be non-empty")
        results = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        if results != open_calls:
            raise Wrong(400, f"messages: tool_use ids {sorted(open_calls)} were followed by results {sorted(results)}")
        open_calls = {block["id"] for block in blocks if block["type"] == "tool_use"}
    for tool in fields.get("tools") or ():
        if tool.get("type", "custom") == "custom" and tool["input_schema"]["type"] != "object":
            raise Wrong(400, "tools: input_schema.type")


async def _messages(exchange: Exchange, fields: dict[str, Any]) -> None:
    _check_messages(fields)
    last = fields["messages"][-1]
    blocks = [{"type": "text", "text": last["content"]}] if isinstance(last["content"], str) else last["content"]
    words = _text_of(blocks)
    results = [block for block in blocks if block["type"] == "tool_result"]
    form = (fields.get("output_config") or {}).get("format")
    begun = b"".join(list(_events([{"type": "text", "text": "Hello"}], "end_turn"))[:3])
    if await _troubled(exchange, words, begun):
        return
    said: list[dict[str, Any]] = [{"type": "text", "text": TEXT}]
    stop = "end_turn"
    choice = (fields.get("tool_choice") or {}).get("type", "auto")
    if results:
        said = [{"type": "text", "text": f"The tool said: {_text_of(results[-1].get('content', ''))}"}]
    elif fields.get("tools") and ("weather" in words or choice in ("any", "tool")):
        tool = fields["tools"][0]
        said = [{"type": "tool_use", "id": "toolu_0", "name": tool["name"], "input": filled(tool.get("input_schema", {"type": "object"}))}]
        stop = "tool_use"
    elif form:
        said[0]["text"] = json.dumps(filled(form["schema"]))
    elif fields["max_tokens"] == 1:
        said[0]["text"], stop = "Hello", "max_tokens"
    elif "refuse" in words:
        said, stop = [{"type": "text", "text": "No."}], "refusal"
    elif "think" in words:
        said.insert(0, {"type": "thinking", "thinking": REASON, "signature": "c2ln"})
    if fields.get("stream"):
        await _sent(exchange, b"".join(_events(said, stop)), 37)
        return
    exchange.whole(json.dumps({**_message(), "content": said, "stop_reason": stop, "usage": ANTHROPIC_USAGE}).encode())


def _message() -> dict[str, Any]:
    return {"id": "msg_7", "type": "message", "role": "assistant", "model": "big", "stop_sequence": None}


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def _events(blocks: list[dict[str, Any]], stop: str) -> Iterator[bytes]:
    start = {**_message(), "content": [], "stop_reason": None, "usage": {**ANTHROPIC_USAGE, "output_tokens": 1}}
    yield _event("message_start", message=start)
    yield _event("ping")
    for index, block in enumerate(blocks):
        yield from _block_events(index, block)
    yield _event("message_delta", delta={"stop_reason": stop, "stop_sequence": None}, usage={"output_tokens": 9})
    yield _event("message_stop")


def _block_events(index: int, block: dict[str, Any]) -> Iterator[bytes]:
    kind = block["type"]
    empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}[kind]
    yield _event("content_block_start", index=index, content_block={**block, **empty})
    if kind == "text":
        deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
    elif kind == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    else:
        text = json.dumps(block["input"]) if block["input"] else ""
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in _pieces(text)]
    for delta in deltas:
        yield _event("content_block_delta", index=index, delta=delta)
    yield _event("content_block_stop", index=index)
