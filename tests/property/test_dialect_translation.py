"""The translations between dialects: for any request, any answer, and any way a stream may be cut."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.gateway.dialects import chat_as_messages, messages_to_chat
from cohort.gateway.dialects.chat_from_messages import ChunksFlow, completion_of
from cohort.gateway.dialects.chat_to_messages import MessagesFlow, message_of
from cohort.gateway.dialects.events import EVENT_BYTES_MAX, Events
from cohort.gateway.dialects.face import Chat, Detail, Flow, Refused, Untranslatable, Usage
from cohort.gateway.dialects.messages_same import MessagesTail
from cohort.gateway.dialects.operations import CHAT
from cohort.gateway.dialects.responses_answer import Said, Turn, ended, said_in
from cohort.gateway.dialects.responses_request import translate as from_responses
from cohort.gateway.dialects.responses_stream import ResponsesFlow
from support_vendor import ANTHROPIC_USAGE, USAGE, _chunks, _events

texts = st.text(max_size=20)
filled = st.text(min_size=1, max_size=20)
names = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(names, json_values, max_size=3)
CALL = Chat(b"", {"stream_options": {"include_usage": True}}, "service", True, CHAT, {}, at_us=1_000_000)


# --- answers ---------------------------------------------------------------------------------------------------------------------


@st.composite
def openai_messages(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    """A message as it stands in a chat completion, and its reason to stop."""
    message: dict[str, Any] = {"role": "assistant", "content": draw(st.none() | filled)}
    if draw(st.booleans()):
        message["reasoning_content"] = draw(filled)
    calls = draw(st.lists(st.tuples(names, objects), max_size=3))
    if calls:
        message["tool_calls"] = [
            {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for n, (name, arguments) in enumerate(calls)
        ]
    return message, "tool_calls" if calls else draw(st.sampled_from(["stop", "length", "content_filter"]))


@st.composite
def anthropic_contents(draw: st.DrawFn) -> tuple[list[dict[str, Any]], str]:
    """The content of a message, and its reason to stop."""
    thinking = [{"type": "thinking", "thinking": t, "signature": "c2ln"} for t in draw(st.lists(filled, max_size=1))]
    text = [{"type": "text", "text": t} for t in draw(st.lists(filled, max_size=2))]
    calls = draw(st.lists(st.tuples(names, objects), max_size=3))
    uses = [{"type": "tool_use", "id": f"toolu_{n}", "name": name, "input": value} for n, (name, value) in enumerate(calls)]
    return [*thinking, *text, *uses], "tool_use" if uses else draw(st.sampled_from(["end_turn", "max_tokens", "refusal", "stop_sequence"]))


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return (data[a:b] for a, b in itertools.pairwise(edges) if b > a)


def said(flow: Flow, pieces: Iterator[bytes]) -> tuple[bytes, str | None, bool, bool, Any]:
    heard = b"".join([flow.feed(piece) for piece in pieces])
    heard += flow.end()
    return heard, flow.problem, flow.done, flow.failed, flow.usage()


places = st.lists(st.integers(0, 10_000), max_size=12)
TURN = Turn("resp_1", [], True)


def responses_flow(kept: list[Said] | None = None) -> Flow:
    return ResponsesFlow(CALL, TURN, lambda _chat, _turn, said: kept.append(said) if kept is not None else None)


FLOWS: tuple[Callable[[], Flow], ...] = (lambda: MessagesFlow("service"), lambda: ChunksFlow(CALL), responses_flow, MessagesTail)


@given(openai_messages(), places, st.booleans())
def test_an_openai_stream_becomes_the_same_events_wherever_it_is_cut(
    message: tuple[dict[str, Any], str], at: list[int], crlf: bool
) -> None:
    stream = b"".join(_chunks(*message, True))
    once = said(MessagesFlow("service"), iter([stream]))
    assert said(MessagesFlow("service"), cut(stream.replace(b"\n", b"\r\n") if crlf else stream, at)) == once
    assert (once[1], once[2], once[4]) == (None, True, Usage(21, 9, Detail(cached=4)))


@given(anthropic_contents(), places, st.booleans())
def test_an_anthropic_stream_becomes_the_same_chunks_wherever_it_is_cut(content: tuple[list[Any], str], at: list[int], crlf: bool) -> None:
    stream = b"".join(_events(*content))
    once = said(ChunksFlow(CALL), iter([stream]))
    assert said(ChunksFlow(CALL), cut(stream.replace(b"\n", b"\r\n") if crlf else stream, at)) == once
    assert (once[1], once[2], once[4]) == (None, True, Usage(21, 9, Detail(cached=4)))


@given(openai_messages())
def test_a_translated_stream_and_a_translated_answer_say_the_same_to_anthropic_s_callers(message: tuple[dict[str, Any], str]) -> None:
    said_whole, finish = message
    choice = {"index": 0, "message": said_whole, "finish_reason": finish}
    whole = json.loads(message_of(CALL, json.dumps({"id": "chatcmpl-7", "model": "big", "choices": [choice], "usage": USAGE}).encode()))
    streamed = _accumulated(said(MessagesFlow("service"), iter(_chunks(said_whole, finish, True)))[0])
    assert streamed == whole


@given(openai_messages(), places)
def test_a_streamed_response_ends_as_the_whole_one_wherever_it_is_cut(message: tuple[dict[str, Any], str], at: list[int]) -> None:
    said_whole, finish = message
    choice = {"index": 0, "message": said_whole, "finish_reason": finish}
    whole = ended(CALL, TURN, said_in({"model": "big", "choices": [choice], "usage": USAGE}))
    stream = b"".join(_chunks(said_whole, finish, True))
    kept: list[Said] = []
    once = said(responses_flow(kept), iter([stream]))
    assert said(responses_flow(), cut(stream, at)) == once
    events = [json.loads(data) for data in Events().feed(once[0])]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    last = events[-1]["response"]
    for item in [*last["output"], *whole["output"]]:
        item.pop("status", None)
    assert last == whole
    assert [(k.text, k.reasoning, k.calls or []) for k in kept] == [
        (said_whole["content"] or "", said_whole.get("reasoning_content", ""), said_whole.get("tool_calls", []))
    ]


def _accumulated(stream: bytes) -> dict[str, Any]:
    """A message put together as Anthropic's documentation says."""
    message: dict[str, Any] = {}
    partial: dict[int, str] = {}
    for data in Events().feed(stream):
        event = json.loads(data)
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
            case "content_block_delta":
                delta, block = event["delta"], message["content"][event["index"]]
                if delta["type"] == "input_json_delta":
                    partial[event["index"]] = partial.get(event["index"], "") + delta["partial_json"]
                else:
                    name = delta["type"].removesuffix("_delta")
                    block[name] += delta[name]
            case "message_delta":
                message.update(event["delta"])
                message["usage"] = event["usage"]
    for index, text in partial.items():
        message["content"][index]["input"] = json.loads(text)
    return message


@given(anthropic_contents())
def test_a_translated_stream_and_a_translated_answer_say_the_same_to_openai_s_callers(content: tuple[list[Any], str]) -> None:
    blocks, stop = content
    body = {"id": "msg_7", "model": "big", "content": blocks, "stop_reason": stop, "usage": ANTHROPIC_USAGE}
    answer, usage = completion_of(CALL, json.dumps(body).encode())
    whole = json.loads(answer)
    streamed, *_, stream_usage = said(ChunksFlow(CALL), iter(_events(blocks, stop)))
    chunks = [json.loads(data) for data in Events().feed(streamed) if data != b"[DONE]"]
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["reasoning_content"] += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", ()):
                if "id" in call:
                    message["tool_calls"].append({name: call[name] for name in ("id", "type", "function")})
                else:
                    message["tool_calls"][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    expected = whole["choices"][0]["message"]
    for call in [*message["tool_calls"], *(expected.get("tool_calls") or [])]:
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    assert {name: value for name, value in message.items() if value} == {n: v for n, v in expected.items() if v and n != "role"}
    assert (chunks[-1]["usage"], stream_usage) == (whole["usage"], usage)
    assert chunks[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]


@given(
    st.lists(st.binary(max_size=40) | json_values.map(lambda v: b"data: " + json.dumps(v).encode() + b"\n\n"), max_size=6),
    st.integers(0, 2),
)
def test_no_bytes_of_an_upstream_make_a_flow_raise(pieces: list[bytes], which: int) -> None:
    heard, problem, done, failed, _ = said(FLOWS[which](), iter(pieces))
    assert isinstance(heard, bytes)
    assert which == 3 or problem or done or failed


@given(openai_messages(), st.integers(1, 30))
def test_a_stream_that_ends_too_early_is_never_taken_for_a_whole_one(message: tuple[dict[str, Any], str], short: int) -> None:
    events = list(_chunks(*message, True))
    heard, problem, done, _, _ = said(MessagesFlow("service"), iter(events[: -2 - short]))
    assert problem is not None
    assert not done
    assert b"message_stop" not in heard


def test_an_event_without_an_end_is_not_collected_for_ever() -> None:
    flow = MessagesFlow("service")
    piece = b"x" * (1 << 20)
    for _ in range((EVENT_BYTES_MAX >> 20) + 2):
        flow.feed(piece)
    assert flow.problem is not None
    assert "larger than" in flow.problem


@given(json_values, st.sampled_from([message_of, completion_of]))
def test_an_answer_that_is_none_is_said_to_be_none(value: Any, translated: Callable[[Chat, bytes], Any]) -> None:
    with pytest.raises(Untranslatable, match="the upstream's answer is not"):
        translated(CALL, json.dumps(value).encode())


# --- requests --------------------------------------------------------------------------------------------------------------------


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """A chat completion request that Anthropic can be asked as well, in its shortest form."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": t} for t in draw(st.lists(filled, max_size=1))]
    for number in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(filled | st.lists(_parts(), min_size=2, max_size=3))})
        reply: dict[str, Any] = {"role": "assistant", "content": draw(filled)}
        calls = draw(st.lists(st.tuples(names, objects, filled), max_size=2))
        if calls:
            reply["tool_calls"] = [_call(f"c{number}_{n}", name, value) for n, (name, value, _) in enumerate(calls)]
        messages.append(reply)
        messages.extend({"role": "tool", "tool_call_id": f"c{number}_{n}", "content": text} for n, (_, _, text) in enumerate(calls))
    fields: dict[str, Any] = {"model": "m", "messages": messages, "max_completion_tokens": draw(st.integers(1, 99))}
    if draw(st.booleans()):
        tool = {"name": draw(names), "description": draw(filled), "parameters": {"type": "object", "properties": draw(objects)}}
        fields["tools"] = [{"type": "function", "function": tool}]
        fields["tool_choice"] = draw(st.sampled_from(["auto", "required", "none", {"type": "function", "function": {"name": "f"}}]))
        fields |= draw(st.sampled_from([{}, {"parallel_tool_calls": False}]))
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object"}}}
    extras = {
        "temperature": 0.5,
        "top_p": 0.5,
        "stop": ["x"],
        "user": "u",
        "response_format": schema,
        "reasoning_effort": "low",
        "top_k": 3,
    }
    return fields | {name: extras[name] for name in draw(st.sets(st.sampled_from(sorted(extras))))}


def _parts() -> st.SearchStrategy[dict[str, Any]]:
    urls = st.sampled_from(["https://example.org/a.png", "data:image/png;base64,AAAA"])
    image = urls.map(lambda url: {"type": "image_url", "image_url": {"url": url}})
    return filled.map(lambda t: {"type": "text", "text": t}) | image


def _call(call_id: str, name: str, value: Any) -> dict[str, Any]:
    arguments = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


@given(requests())
def test_a_request_comes_back_from_the_other_dialect_as_it_was(fields: dict[str, Any]) -> None:
    native = chat_as_messages.translate(fields)
    back, unsayable = messages_to_chat.translate(native)
    assert unsayable is None
    assert back == fields


@given(
    st.dictionaries(
        st.sampled_from(["messages", "system", "tools", "tool_choice", "thinking", "output_config", "metadata", "x"]), json_values
    )
)
def test_any_object_of_an_anthropic_caller_is_read_without_failing(native: dict[str, Any]) -> None:
    fields, unsayable = messages_to_chat.translate(native)
    assert "messages" in fields
    assert unsayable is None or unsayable.field in (*native, "system", "messages", "tools", "output_config")


@given(
    st.dictionaries(st.sampled_from(["messages", "tools", "tool_choice", "response_format", "n", "stop", "temperature", "x"]), json_values)
)
def test_any_object_of_an_openai_caller_is_translated_or_refused(fields: dict[str, Any]) -> None:
    try:
        status = 200 if "max_tokens" in chat_as_messages.translate(fields) else 0
    except Refused as refused:
        status = refused.status
    assert status in (200, 400)


@given(st.dictionaries(st.sampled_from(["input", "tools", "tool_choice", "text", "reasoning", "instructions", "x"]), json_values))
def test_any_object_of_a_caller_of_responses_is_read_without_failing(native: dict[str, Any]) -> None:
    fields, _, unsayable = from_responses(native, [])
    assert "messages" in fields
    assert unsayable or fields["messages"]
