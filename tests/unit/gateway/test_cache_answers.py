"""Which answers may be kept; a stream put together to a whole answer; a whole answer taken apart to a stream."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.base.clock import ManualClock
from cohort.gateway.cache.answers import content_of, of_stream, of_whole
from cohort.gateway.cache.asking import ANYTHING, CacheControl, cache_control, is_deterministic
from cohort.gateway.cache.erasing import REMEMBERED_S, UNITS_MAX, Erased
from cohort.gateway.cache.replay import events
from cohort.gateway.cache.tape import Tape
from cohort.gateway.contract_cache import CachePolicy, EmbeddingsRoute, decode_cache


def whole(message: dict[str, Any], finish: Any = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    return orjson.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], **more})


def stream(*chunks: dict[str, Any] | str) -> bytes:
    return b"".join(b"data: " + (c.encode() if isinstance(c, str) else orjson.dumps(c)) + b"\n\n" for c in chunks)


def part(delta: Any, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": index, "delta": delta, "finish_reason": finish, **more}]}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"not json", b"[]", b"{}", b'{"choices":[]}', b'{"choices":[1]}', b'{"error":{"message":"x"}}',
        whole({"content": "Hel"}, "length"), whole({"content": "x"}, "content_filter"), whole({"content": "x"}, None),
        whole({"refusal": "No."}), whole({"content": "x"}, error={"message": "late"}),
    ],
)  # fmt: skip
def test_what_is_not_a_finished_answer_is_not_kept(body: bytes) -> None:
    assert of_whole(body, 5) is None


def test_a_whole_answer_is_kept_byte_for_byte() -> None:
    body = whole({"content": "Hello."}, usage={"prompt_tokens": 1, "completion_tokens": 7})
    answer = of_whole(body, 42)
    assert answer is not None
    assert (answer.body, answer.saved_usd_micro, answer.tokens_out, answer.has_usage, answer.calls_tools) == (body, 42, 7, True, False)
    assert content_of(body) == "Hello."


@pytest.mark.parametrize(
    "chunks",
    [
        [part({"content": "a"}, "stop")],  # no [DONE]
        [part({"content": "a"}), "[DONE]"],  # no end of the choice
        [part({"content": "a"}, "length"), "[DONE]"],
        [part({"content": "a"}, "stop"), {"error": {"message": "x"}}, "[DONE]"],
        [part({"content": "a"}, "stop"), "garbage", "[DONE]"],
        [part({"content": "a"}, "stop", index=1), "[DONE]"],  # the first choice is missing
        [part({"content": "a"}), part({"content": 5}, "stop"), "[DONE]"],
        [part("text", "stop"), "[DONE]"],
        [part({"tool_calls": [{"index": 1, "id": "b"}]}, "tool_calls"), "[DONE]"],
        [part({"tool_calls": [{"index": 0, "id": "a"}]}), part({"tool_calls": [{"index": 0, "id": "b"}]}, "tool_calls"), "[DONE]"],
        [part({"refusal": "No"}), part({}, "stop"), "[DONE]"],
        ["[DONE]", part({"content": "a"}, "stop")],
        ["[DONE]"],
    ],
)
def test_a_stream_that_is_cut_or_not_understood_is_not_kept(chunks: list[Any]) -> None:
    assert of_stream(stream(*chunks), 0) is None


def test_a_stream_is_put_together_whatever_lies_between_its_events() -> None:
    tool = {"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a"'}}
    pieces = [
        part({"role": "assistant", "content": ""}, logprobs={"content": [{"token": "H"}]}), part({"content": "Hé"}),
        part({"content": "llo"}, logprobs={"content": [{"token": "i"}]}), part({"tool_calls": [tool]}),
        part({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}), part({}, "tool_calls"),
        {"id": "c", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}},
    ]  # fmt: skip
    data = b": a comment\r\n\r\n" + stream(*pieces).replace(b"\n\n", b"\r\n\r\n") + b"data:[DONE]\r\n\r\n"
    answer = of_stream(data, 1)
    assert answer is not None
    fields = json.loads(answer.body)
    assert fields["object"] == "chat.completion"
    assert fields["choices"][0]["message"] == {
        "role": "assistant",
        "content": "Héllo",
        "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
    }
    assert fields["choices"][0]["logprobs"] == {"content": [{"token": "H"}, {"token": "i"}]}
    assert (answer.tokens_out, answer.has_usage, answer.calls_tools) == (9, True, True)


TEXTS = st.none() | st.text(max_size=900)
FUNCTIONS = st.fixed_dictionaries({"name": st.text(max_size=4), "arguments": st.text(max_size=8)})
TOOLS = st.lists(st.fixed_dictionaries({"id": st.text(max_size=4), "type": st.just("function"), "function": FUNCTIONS}), max_size=3)


@given(st.lists(st.tuples(TEXTS, TOOLS, st.sampled_from(["stop", "tool_calls"])), min_size=1, max_size=3), st.booleans())
def test_taken_apart_and_put_together_an_answer_is_itself(choices: list[tuple[Any, Any, str]], usage: bool) -> None:
    body = {
        "id": "c",
        "object": "chat.completion",
        "choices": [
            {
                "index": n,
                "message": {"role": "assistant", "content": text, **({"tool_calls": tools} if tools else {})},
                "finish_reason": why,
            }
            for n, (text, tools, why) in enumerate(choices)
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    answer = of_stream(events(orjson.dumps(body), usage), 0)
    assert answer is not None
    again = json.loads(answer.body)
    assert answer.has_usage is usage
    if not usage:
        again["usage"] = body["usage"]
    assert again == body


@pytest.mark.parametrize(
    ("header", "control"),
    [
        (None, ANYTHING), (b"", ANYTHING), (b"nonsense, max-age=x, max-age=-1", ANYTHING), (b"NO-Store", CacheControl(no_store=True)),
        (b"no-cache , max-age=5", CacheControl(no_cache=True, max_age_s=5.0)), (b'max-age="7"', CacheControl(max_age_s=7.0)),
        (b"only-if-cached,max-age=0", CacheControl(only_if_cached=True, max_age_s=0.0)), (b"\xff\xfe=\xb2", ANYTHING),
    ],
)  # fmt: skip
def test_directives_are_read_as_written_and_nonsense_asks_for_nothing(header: bytes | None, control: CacheControl) -> None:
    assert cache_control(header) == control


@pytest.mark.parametrize(
    ("fields", "parameters", "deterministic"),
    [
        ({"temperature": 0}, {}, True), ({"temperature": 0.0}, {"temperature": 1}, True), ({}, {"temperature": 0}, True),
        ({}, {}, False), ({"temperature": None}, {"temperature": 0}, False), ({"temperature": False}, {}, False), ({"temperature": "0"}, {}, False),
    ],
)  # fmt: skip
def test_a_request_is_deterministic_when_its_temperature_is_zero(fields: Any, parameters: Any, deterministic: bool) -> None:
    assert is_deterministic(fields, parameters) is deterministic


def test_a_tape_holds_what_fits_and_nothing_of_what_does_not() -> None:
    tape = Tape(5, "chat completions")
    tape.piece(b"ab")
    tape.piece(b"cde")
    assert (tape.data, tape.over, tape.streamed) == (b"abcde", False, True)
    tape.piece(b"f")
    tape.piece(b"")
    assert (tape.data, tape.over) == (b"", True)


def test_an_erasure_reaches_calls_in_flight_and_not_later_ones() -> None:
    clock = ManualClock()
    erased = Erased(clock)
    erased.add("u")
    assert erased.since("u", clock.monotonic_s())
    assert not erased.since("v", clock.monotonic_s())
    began_s = clock.monotonic_s()
    clock.advance(1)
    assert not erased.since("u", clock.monotonic_s())
    for n in range(UNITS_MAX):
        erased.add(f"u{n}")
    assert erased.since("anybody", began_s), "what is forgotten of too many erasures stands for everybody"
    clock.advance(REMEMBERED_S + 1)
    erased.add("last")
    assert not erased.since("u5", clock.monotonic_s() - 1)


@pytest.mark.parametrize(
    "entry",
    [
        {"ttl_s": "1"},
        {"ttl_s": -1},
        {"ttl_s": 1e12},
        {"exact": 1},
        {"unknown": 1},
        {"semantic": {"threshold": 2}},
        {"semantic": {"embeddings": {}}},
    ],
)
def test_a_policy_that_is_none_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        decode_cache(entry)


def test_a_policy_comes_back_as_it_was_sent() -> None:
    assert decode_cache(None) is None
    assert decode_cache({}) == CachePolicy()
    policy = decode_cache({"disk": True, "semantic": {"threshold": 0.9, "embeddings": {"base_url": "http://e/v1", "model": "e"}}})
    assert policy is not None
    assert policy.semantic is not None
    assert (policy.disk, policy.semantic.threshold, policy.semantic.embeddings) == (True, 0.9, EmbeddingsRoute("http://e/v1", "e"))
