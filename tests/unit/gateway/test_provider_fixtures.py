"""What each provider's documentation, or its server, says that it answers, read for callers of all three dialects.

Written after: OpenAI's API reference, Anthropic's, Azure OpenAI's (content filtering), Gemini's OpenAI compatibility, vLLM's and Ollama's OpenAI
servers, LM Studio's, OpenRouter's (streaming, errors); llama.cpp and LiteLLM as they answered in `make compat`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from cohort.gateway.dialects import chat_as_messages
from cohort.gateway.dialects.events import Events
from cohort.gateway.dialects.face import Chat, Operation, Passage, Untranslatable, Usage
from cohort.gateway.dialects.operations import operations
from cohort.gateway.openai import usage_in
from cohort.gateway.reliability.first_event import fault_of_first_event
from cohort.gateway.reliability.retrying import Fault


class NoMemory:
    """Neither keeps responses nor notes ids of upstreams."""

    def get(self, response_id: str) -> None:
        return None

    def now_s(self) -> float:
        return 0.0

    def keep(self, *said: Any) -> None:
        return None

    def holds(self, *parts: str) -> bool:
        return False

    def add(self, *parts: str) -> bool:
        return True


OPERATIONS: Mapping[bytes, Operation] = operations(NoMemory(), NoMemory(), lambda: "resp_" + "0" * 32)
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}], "stream_options": {"include_usage": True}},
    "/v1/messages": {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
    "/v1/responses": {"input": "hi"},
}


def passage(path: str, provider: str, stream: bool) -> tuple[Chat, Passage]:
    operation = OPERATIONS[path.encode()]
    chat = operation.parse(operation, json.dumps({"model": "service", "stream": stream, **ASKED[path]}).encode())
    return chat, operation.passage(provider)


def sse(*events: Any, named: bool = False) -> bytes:
    """Events, each a value or a line as it stands."""
    lines = []
    for event in events:
        if isinstance(event, str):
            lines.append(f"{event}\n\n")
            continue
        name = f"event: {event['type']}\n" if named else ""
        lines.append(f"{name}data: {json.dumps(event)}\n\n")
    return "".join(lines).encode()


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, *, bare: bool = False, **fields: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta if delta is not None else {}, "finish_reason": finish}]
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [] if bare else choices, **fields}


def call(index: int | None, call_id: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = {"function": {"name": name, "arguments": arguments} if name else {"arguments": arguments}}
    return {**({"index": index} if index is not None else {}), **({"id": call_id, "type": "function"} if call_id else {}), **found}


@dataclass(frozen=True)
class Told:
    """What every caller must be told. `calls`: name and arguments."""

    text: str = ""
    thought: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    finish: str = "stop"
    usage: tuple[int, int] | None = (7, 3)


THOUGHTS_IN_TOTAL = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 10}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
FILTERED = {"hate": {"filtered": False, "severity": "safe"}, "jailbreak": {"filtered": False, "detected": False}}
SAID = (("weather", '{"city":"Bern"}'), ("weather", '{"city":"Rome"}'))
BERN, ROME = ("weather", {"city": "Bern"}), ("weather", {"city": "Rome"})
DONE = "data: [DONE]"

STREAMS: dict[str, tuple[str, bytes, Told]] = {
    "OpenAI": (
        "openai",
        sse(
            chunk({"role": "assistant", "content": "", "refusal": None}, usage=None, service_tier="default", obfuscation="x1"),
            chunk({"content": "Hel"}, usage=None),
            chunk({"content": "lo"}, usage=None),
            chunk({}, "stop", usage=None),
            chunk(bare=True, usage={**USAGE, "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0}}),
            DONE,
        ),
        Told("Hello"),
    ),
    "OpenAI, tools": (
        "openai",
        sse(
            chunk({"role": "assistant", "content": None, "tool_calls": [call(0, "call_a", "weather", "")], "refusal": None}),
            chunk({"tool_calls": [call(0, None, None, '{"city":')]}),
            chunk({"tool_calls": [call(0, None, None, '"Bern"}')]}),
            chunk({"tool_calls": [call(1, "call_b", "weather", "")]}),
            chunk({"tool_calls": [call(1, None, None, '{"city":"Rome"}')]}),
            chunk({}, "tool_calls"),
            chunk(bare=True, usage=USAGE),
            DONE,
        ),
        Told(calls=[BERN, ROME], finish="tool_calls"),
    ),
    "Anthropic": (
        "anthropic",
        sse(
            {
                "type": "message_start",
                "message": {"id": "msg_1", "model": "m", "content": [], "usage": {"input_tokens": 7, "output_tokens": 1}},
            },
            {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
            {"type": "ping"},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "EqQB"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hello"}},
            {"type": "content_block_stop", "index": 1},
            {
                "type": "content_block_start",
                "index": 2,
                "content_block": {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
            },
            {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}},
            {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"city": "Be'}},
            {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": 'rn"}'}},
            {"type": "content_block_stop", "index": 2},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": {"output_tokens": 3}},
            {"type": "message_stop"},
            named=True,
        ),
        Told("Hello", "Hm.", [BERN], "tool_calls"),
    ),
    "Anthropic, refused": (
        "anthropic",
        sse(
            {
                "type": "message_start",
                "message": {"id": "msg_1", "model": "m", "content": [], "usage": {"input_tokens": 7, "output_tokens": 1}},
            },
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_sequence": None}, "usage": {"output_tokens": 3}},
            {"type": "message_stop"},
            named=True,
        ),
        Told("Hel", finish="content_filter"),
    ),
    "Azure, filtered in the midst": (
        "openai",
        sse(
            {
                "choices": [],
                "created": 0,
                "id": "",
                "model": "",
                "object": "",
                "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FILTERED}],
            },
            chunk({"role": "assistant", "content": "", "refusal": None}, usage=None),
            {
                **chunk(usage=None),
                "choices": [{"index": 0, "delta": {"content": "Hel"}, "content_filter_results": FILTERED, "finish_reason": None}],
            },
            {
                **chunk(usage=None),
                "choices": [{"index": 0, "content_filter_results": FILTERED, "content_filter_offsets": {}, "finish_reason": None}],
            },
            chunk({}, "content_filter", usage=None),
            chunk(bare=True, usage=USAGE),
            DONE,
        ),
        Told("Hel", finish="content_filter"),
    ),
    "Gemini, calls that share an index": (
        "openai",
        sse(
            chunk(
                {
                    "role": "assistant",
                    "tool_calls": [
                        {**call(0, "fc-1", "weather", '{"city":"Bern"}'), "extra_content": {"google": {"thought_signature": "x"}}}
                    ],
                }
            ),
            chunk(
                {"role": "assistant", "tool_calls": [call(0, "fc-2", "weather", '{"city":"Rome"}')]}, "tool_calls", usage=THOUGHTS_IN_TOTAL
            ),
            DONE,
        ),
        Told(calls=[BERN, ROME], finish="tool_calls"),
    ),
    "vLLM, with usage in each chunk": (
        "openai",
        sse(
            chunk(
                {"role": "assistant", "content": "", "reasoning": "Hm."},
                usage={"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8},
            ),
            chunk({"content": "Hello"}, usage={"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}),
            {
                **chunk(usage=USAGE),
                "choices": [
                    {
                        "index": 0,
                        "delta": {"content": ""},
                        "logprobs": None,
                        "finish_reason": "stop",
                        "stop_reason": None,
                        "token_ids": None,
                    }
                ],
            },
            chunk(bare=True, usage=USAGE),
            DONE,
        ),
        Told("Hello", "Hm."),
    ),
    "Ollama, calls without an index": (
        "openai",
        sse(
            chunk({"role": "assistant", "content": "", "tool_calls": [call(None, "call_1", "weather", '{"city":"Bern"}')]}),
            chunk({"role": "assistant", "content": "", "tool_calls": [call(None, "call_2", "weather", '{"city":"Rome"}')]}),
            chunk({"role": "assistant", "content": ""}, "tool_calls"),
            chunk(bare=True, usage=USAGE),
            DONE,
        ),
        Told(calls=[BERN, ROME], finish="tool_calls"),
    ),
    "OpenRouter, waiting": (
        "openai",
        sse(
            ": OPENROUTER PROCESSING",
            ": OPENROUTER PROCESSING",
            chunk(
                {"role": "assistant", "content": "", "reasoning": "Hm.", "reasoning_details": []}, provider="X", native_finish_reason=None
            ),
            ": OPENROUTER PROCESSING",
            chunk({"role": "assistant", "content": "Hello"}, provider="X"),
            chunk({"role": "assistant", "content": ""}, "length", provider="X", native_finish_reason="max_tokens"),
            chunk({"role": "assistant", "content": ""}, usage={**USAGE, "cost": 0.0001, "cost_details": {"upstream_inference_cost": None}}),
            DONE,
        ),
        Told("Hello", "Hm.", finish="length"),
    ),
    "OpenRouter, as Anthropic": (
        "anthropic",
        sse(
            ": OPENROUTER PROCESSING",
            'event: message_start\ndata: {"type":"message_start","message":{"id":"gen-1","model":"m","content":[],"usage":{"input_tokens":7}}}',
            'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
            'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}',
            'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}',
            'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3}}',
            'event: message_stop\ndata: {"type":"message_stop"}',
            "event: data\ndata: [DONE]",
        ),
        Told("Hello"),
    ),
    "llama.cpp": (
        "openai",
        sse(
            chunk({"role": "assistant", "content": None}, system_fingerprint="b0"),
            chunk({"reasoning_content": "Hm."}, system_fingerprint="b0"),
            chunk({"content": "Hello"}, system_fingerprint="b0"),
            chunk({}, "stop", system_fingerprint="b0"),
            chunk(
                bare=True, usage={**USAGE, "prompt_tokens_details": {"cached_tokens": 0}}, timings={"cache_n": 25, "predicted_ms": 20.655}
            ),
            DONE,
        ),
        Told("Hello", "Hm."),
    ),
    "LM Studio, without an end mark and usage": (
        "openai",
        sse(chunk({"role": "assistant", "content": "Hel"}), chunk({"content": "lo"}), chunk({}, "stop"), DONE),
        Told("Hello", usage=None),
    ),
    "LiteLLM": (
        "openai",
        sse(
            chunk({"role": "assistant", "content": "Hel"}),
            chunk({"content": "lo"}),
            chunk({}, "stop"),
            {
                **chunk({}, usage={**USAGE, "completion_tokens_details": {"reasoning_tokens": 0}, "cost": 0.00007}),
                "choices": [{"index": 0, "delta": {}}],
            },
            DONE,
        ),
        Told("Hello"),
    ),
}


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("name", STREAMS)
def test_a_provider_s_stream_tells_every_caller_the_same(name: str, path: str) -> None:
    provider, stream, told = STREAMS[name]
    chat, way = passage(path, provider, stream=True)
    flow = way.flow(chat)
    pieces = [stream[at : at + 61] for at in range(0, len(stream), 61)]
    said = b"".join([*map(flow.feed, pieces), flow.end()])
    assert (flow.problem, flow.failed, flow.done) == (None, False, True)
    assert fault_of_first_event(stream) is Fault.NONE
    assert flow.usage() == (Usage(*told.usage) if told.usage else Usage())
    assert READERS[path]([json.loads(data) for data in Events().feed(said) if data != b"[DONE]"]) == (
        told.text,
        told.thought,
        told.calls,
        told.finish,
    )


Read = tuple[str, str, list[tuple[str, dict[str, Any]]], str]


def chat_read(events: list[dict[str, Any]]) -> Read:
    """As a client puts chunks together that takes each id for a call of its own."""
    deltas = [(choice.get("delta") or {}, choice.get("finish_reason")) for event in events for choice in event["choices"]]
    calls: dict[str, list[str]] = {}
    for delta, _ in deltas:
        for piece in delta.get("tool_calls") or ():
            if piece.get("id"):
                calls[piece["id"]] = [piece["function"]["name"], ""]
            calls[list(calls)[-1]][1] += piece["function"].get("arguments") or ""
    text = "".join(delta.get("content") or "" for delta, _ in deltas)
    thought = "".join(delta.get("reasoning_content") or delta.get("reasoning") or "" for delta, _ in deltas)
    return text, thought, [(name, json.loads(said)) for name, said in calls.values()], [finish for _, finish in deltas if finish][-1]


def messages_read(events: list[dict[str, Any]]) -> Read:
    said = {"text": "", "thinking": "", "partial_json": ""}
    calls: list[list[str]] = []
    for event in events:
        block = event.get("content_block") or {}
        if block.get("type") == "tool_use":
            calls.append([block["name"], ""])
        for name, value in (event.get("delta") or {}).items():
            if name == "partial_json":
                calls[-1][1] += value
            elif name in said:
                said[name] += value
    reasons = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls", "refusal": "content_filter"}
    stop = next(event["delta"]["stop_reason"] for event in events if event["type"] == "message_delta")
    assert next(event["message"]["id"] for event in events if event["type"] == "message_start")
    return said["text"], said["thinking"], [(name, json.loads(text)) for name, text in calls], reasons[stop]


def responses_read(events: list[dict[str, Any]]) -> Read:
    response = events[-1]["response"]
    said: dict[str, str] = {"message": "", "reasoning": ""}
    calls = []
    for item in response["output"]:
        if item["type"] == "function_call":
            calls.append((item["name"], json.loads(item["arguments"])))
        else:
            said[item["type"]] += "".join(part.get("text", "") for part in item["content"])
    reasons = {"max_output_tokens": "length", "content_filter": "content_filter"}
    whole = "tool_calls" if calls else "stop"
    finish = reasons[response["incomplete_details"]["reason"]] if response["status"] == "incomplete" else whole
    assert response["output"][-1]["status"] == response["status"]
    return said["message"], said["reasoning"], calls, finish


READERS = {"/v1/chat/completions": chat_read, "/v1/messages": messages_read, "/v1/responses": responses_read}


def message(finish: str, usage: dict[str, Any] | None = None, **said: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage or USAGE}


ANSWERS: dict[str, tuple[str, dict[str, Any], Told]] = {
    "OpenAI, tools": (
        "openai",
        message("tool_calls", content=None, tool_calls=[call(None, f"call_{n}", *said) for n, said in enumerate(SAID)]),
        Told(calls=[BERN, ROME], finish="tool_calls"),
    ),
    "OpenAI, refused": ("openai", message("stop", content=None, refusal="No."), Told("No.", finish="refusal")),
    "Anthropic": (
        "anthropic",
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"},
                {"type": "redacted_thinking", "data": "EmwK"},
                {"type": "text", "text": "Hello", "citations": None},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Bern"}},
            ],
            "stop_reason": "tool_use",
            "stop_sequence": None,
            "usage": {
                "input_tokens": 5,
                "cache_creation_input_tokens": 1,
                "cache_read_input_tokens": 1,
                "output_tokens": 3,
                "service_tier": "standard",
            },
        },
        Told("Hello", "Hm.", [BERN], "tool_calls"),
    ),
    "Azure, filtered": (
        "openai",
        {**message("content_filter"), "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FILTERED}]},
        Told(finish="content_filter"),
    ),
    "Gemini, all of it thought": ("openai", message("length", {"prompt_tokens": 7, "total_tokens": 10}), Told(finish="length")),
    "vLLM": (
        "openai",
        {
            **message("stop", content="Hello", reasoning="Hm.", tool_calls=[], function_call=None),
            "prompt_logprobs": None,
            "kv_transfer_params": None,
        },
        Told("Hello", "Hm."),
    ),
    "Ollama, LM Studio": (
        "openai",
        {**message("stop", content="Hello", reasoning_content="Hm."), "stats": {}, "system_fingerprint": "fp_ollama"},
        Told("Hello", "Hm."),
    ),
    "OpenRouter": (
        "openai",
        {
            **message("stop", {**USAGE, "cost": 0.0001}, content="Hello", refusal=None, reasoning="Hm.", reasoning_details=[]),
            "provider": "X",
        },
        Told("Hello", "Hm."),
    ),
}


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("name", ANSWERS)
def test_a_provider_s_whole_answer_tells_every_caller_the_same(name: str, path: str) -> None:
    provider, body, told = ANSWERS[name]
    chat, way = passage(path, provider, stream=False)
    said, usage = way.answer(chat, json.dumps(body).encode())
    assert (usage.tokens_in, usage.tokens_out) == told.usage
    assert WHOLE_READERS[path](json.loads(said)) == (told.text, told.thought, told.calls, told.finish)


def chat_whole(answer: dict[str, Any]) -> Read:
    choice = answer["choices"][0]
    said = choice["message"]
    calls = [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in said.get("tool_calls") or ()]
    finish = "refusal" if said.get("refusal") else choice["finish_reason"]
    return said.get("content") or said.get("refusal") or "", said.get("reasoning_content") or said.get("reasoning") or "", calls, finish


def messages_whole(answer: dict[str, Any]) -> Read:
    blocks = answer["content"]
    text = "".join(block.get("text", "") for block in blocks)
    thought = "".join(block.get("thinking", "") for block in blocks)
    calls = [(block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"]
    reasons = {
        "end_turn": "stop",
        "max_tokens": "length",
        "tool_use": "tool_calls",
        "refusal": "refusal" if text == "No." else "content_filter",
    }
    assert sum(value for value in answer["usage"].values() if isinstance(value, int)) == 10
    return text, thought, calls, reasons[answer["stop_reason"]]


def responses_whole(answer: dict[str, Any]) -> Read:
    text, thought, calls, finish = responses_read([{"response": answer}])
    refused = "".join(part.get("refusal", "") for item in answer["output"] for part in item.get("content") or ())
    assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"], answer["usage"]["total_tokens"]) == (7, 3, 10)
    return text or refused, thought, calls, "refusal" if refused else finish


WHOLE_READERS = {"/v1/chat/completions": chat_whole, "/v1/messages": messages_whole, "/v1/responses": responses_whole}


def test_responses_of_openai_are_counted_whole_and_streamed() -> None:
    usage = {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    response = {"id": "resp_1", "object": "response", "status": "completed", "output": [], "usage": {**usage, "total_tokens": 10}}
    chat, way = passage("/v1/responses", "openai-responses", stream=True)
    assert way.answer(chat, json.dumps(response).encode())[1][:2] == (7, 3)
    events = sse(
        {"type": "response.created", "sequence_number": 0, "response": {**response, "status": "in_progress", "usage": None}},
        {"type": "response.refusal.delta", "sequence_number": 1, "item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": "No."},
        {"type": "response.completed", "sequence_number": 2, "response": response},
        named=True,
    )
    flow = way.flow(chat)
    assert flow.feed(events) == events
    assert (flow.done, flow.failed, flow.usage()[:2]) == (True, False, (7, 3))
    broken = way.flow(chat)
    broken.feed(
        sse({"type": "response.failed", "response": {**response, "status": "failed", "error": {"code": "server_error"}}}, named=True)
    )
    assert broken.failed


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 20, "completion_tokens": 424, "total_tokens": 1016}, (20, 996)),
        ({"prompt_tokens": 20, "total_tokens": 500}, (20, 480)),
        ({"prompt_tokens": 5, "total_tokens": 5}, (5, 0)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 4}, (7, 3)),
        ({"prompt_tokens": 7, "completion_tokens": 3}, (7, 3)),
        ({"prompt_tokens": 7, "completion_tokens": "3", "total_tokens": 10}, (7, None)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10**30}, (7, 3)),
        ({"completion_tokens": 3, "total_tokens": 10}, (None, 3)),
    ],
)
def test_thoughts_that_stand_in_the_total_only_are_counted_as_written(usage: dict[str, Any], counted: tuple[Any, Any]) -> None:
    assert usage_in({"usage": usage})[:2] == counted


def test_a_temperature_that_is_no_number_is_the_upstream_s_to_refuse() -> None:
    assert chat_as_messages.translate({**ASKED["/v1/chat/completions"], "temperature": "hot"})["temperature"] == "hot"
    assert chat_as_messages.translate({**ASKED["/v1/chat/completions"], "temperature": 1.5})["temperature"] == 1


# --- errors ----------------------------------------------------------------------------------------------------------------------

REFUSALS: dict[str, tuple[str, int, Any, str]] = {
    "OpenAI": (
        "openai",
        429,
        {"error": {"message": "Rate limit reached", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}},
        "rate_limit_exceeded",
    ),
    "Anthropic": (
        "anthropic",
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"},
        "overloaded_error",
    ),
    "Azure, filtered": (
        "openai",
        400,
        {
            "error": {
                "message": "The response was filtered",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": FILTERED},
            }
        },
        "content_filter",
    ),
    "Azure's front": ("openai", 404, {"statusCode": 404, "message": "Resource not found"}, ""),
    "Gemini": ("openai", 400, [{"error": {"code": 400, "message": "Invalid value", "status": "INVALID_ARGUMENT"}}], ""),
    "vLLM": ("openai", 400, {"error": {"message": "maximum context length", "type": "BadRequestError", "param": None, "code": 400}}, ""),
    "vLLM of old": ("openai", 400, {"object": "error", "message": "maximum context length", "type": "BadRequestError", "code": 400}, ""),
    "Ollama": ("openai", 404, {"error": {"message": "model 'x' not found", "type": "not_found_error", "param": None, "code": None}}, ""),
    "Ollama, plain": ("openai", 500, {"error": "llama runner process has terminated"}, ""),
    "LM Studio": ("openai", 400, {"error": "No models loaded"}, ""),
    "OpenRouter": ("openai", 402, {"error": {"code": 402, "message": "Insufficient credits", "metadata": {}}, "user_id": "u"}, ""),
    "llama.cpp": (
        "openai",
        400,
        {"error": {"code": 400, "message": "exceeds the available context size", "type": "exceed_context_size_error", "n_ctx": 2048}},
        "",
    ),
    "llama.cpp, asked as Anthropic": (
        "anthropic",
        400,
        {"error": {"code": 400, "message": "exceeds the available context size", "type": "exceed_context_size_error"}},
        "",
    ),
    "LiteLLM, to a stream": (
        "openai",
        500,
        b'data: {"error": {"message": "Error processing stream start", "type": "internal_server_error", "param": null, "code": "500"}}\n\n'
        b"data: [DONE]\n\n",
        "500",
    ),
    "FastAPI": ("openai", 422, {"detail": [{"loc": ["body", "messages"], "msg": "Field required", "type": "missing"}]}, ""),
}
WORDS = {"FastAPI": "body.messages: Field required", "LiteLLM, to a stream": "Error processing stream start"}


def words_of(name: str, body: Any) -> str:
    if name in WORDS:
        return WORDS[name]
    fields = body[0] if isinstance(body, list) else body
    error = fields.get("error", fields)
    return str(error if isinstance(error, str) else error["message"])


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("name", REFUSALS)
def test_a_provider_s_refusal_reaches_every_caller_in_its_dialect(name: str, path: str) -> None:
    provider, status, body, code = REFUSALS[name]
    _, way = passage(path, provider, stream=True)
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    said = way.refusal(status, sent)
    assert said is not None
    fields = json.loads(said)
    assert fields["error"]["message"] == words_of(name, body)
    if path == "/v1/messages":
        assert fields["type"] == "error"
        assert isinstance(fields["error"]["type"], str)
        assert fields["error"].get("code", fields["error"]["type"]) == (code or fields["error"]["type"])
    elif code:
        assert fields["error"]["code"] == code


@pytest.mark.parametrize("body", [b"", b"<h1>Bad Gateway</h1>", b"[]", b"{}", b'{"error": null}', b"data: nonsense\n\n"])
@pytest.mark.parametrize("path", ASKED)
def test_a_refusal_that_says_nothing_is_none(path: str, body: bytes) -> None:
    for provider in ("openai", "anthropic"):
        assert passage(path, provider, stream=False)[1].refusal(502, body) is None


CUT_OFF: dict[str, tuple[str, bytes]] = {
    "OpenAI": ("openai", sse(chunk({"content": "Hel"}), {"error": {"message": "Sorry about that", "type": "server_error"}})),
    "Anthropic": (
        "anthropic",
        sse(
            {"type": "message_start", "message": {"id": "msg_1", "model": "m", "content": [], "usage": {"input_tokens": 7}}},
            {"type": "error", "error": {"type": "overloaded_error", "message": "Sorry about that"}},
            named=True,
        ),
    ),
    "vLLM": ("openai", sse(chunk({"content": "Hel"}), {"error": {"message": "Sorry about that", "type": "X", "code": 500}}, DONE)),
    "Ollama": ("openai", sse(chunk({"content": "Hel"}), {"error": "Sorry about that"})),
    "LM Studio": ("openai", sse(chunk({"content": "Hel"}), 'event: error\ndata: {"error":{"message":"Sorry about that"}}')),
    "OpenRouter": (
        "openai",
        sse(
            ": OPENROUTER PROCESSING",
            chunk({"content": "Hel"}),
            chunk({"content": ""}, "error", provider="X", error={"code": "server_error", "message": "Sorry about that"}),
            DONE,
        ),
    ),
}


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("name", CUT_OFF)
def test_an_error_in_the_midst_of_a_provider_s_stream_is_one_for_every_caller(name: str, path: str) -> None:
    provider, stream = CUT_OFF[name]
    chat, way = passage(path, provider, stream=True)
    flow = way.flow(chat)
    said = flow.feed(stream)
    assert (flow.failed, flow.problem) == (True, None)
    assert b"Sorry about that" in said


@pytest.mark.parametrize(
    "first", [b'data: {"error":{"code":502,"message":"x"}}\n\n', b'data: {"id":"g","error":{"code":502}}\n\n', b"event: error\n"]
)
@pytest.mark.parametrize("before", [b"", b": OPENROUTER PROCESSING\n\n", b": a\n: b\r\n\r\n"])
def test_an_error_before_anything_else_may_go_to_another_route(before: bytes, first: bytes) -> None:
    assert fault_of_first_event(before + first) is Fault.UNCERTAIN
    assert fault_of_first_event(before) is Fault.NONE


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_an_error_in_place_of_an_answer_is_not_passed_on_as_one(path: str, provider: str) -> None:
    """OpenRouter answers 200 once a model has begun, whatever comes of it."""
    chat, way = passage(path, provider, stream=False)
    body = json.dumps({"error": {"code": 502, "message": "Provider returned error"}, "user_id": "u"}).encode()
    with pytest.raises(Untranslatable, match="Provider returned error"):
        way.answer(chat, body)
