"""Upstreams that say absurd numbers or words of a protocol, and callers who understate what they ask for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cohort.gateway import openai
from cohort.gateway.compiled import compile_table
from cohort.gateway.contract import decode_table
from cohort.gateway.dialects.face import UNKNOWN, Chat, Usage
from cohort.gateway.dialects.messages_same import MessagesTail
from cohort.gateway.dialects.messages_same import usage_of as anthropic_usage
from cohort.gateway.dialects.openai_same import parse_chat
from cohort.gateway.dialects.operations import CHAT, operations
from cohort.gateway.dialects.responses_same import ResponsesTail, native_usage
from cohort.gateway.spend import estimates
from support_gateway import release, table

ABSURD = [10**9 + 1, 2**31, 2**63, 2**64, 10**30, -1, 1.5, "7", True]
STORED_MAX = 2**31 - 1
UNUSED: Any = None


@pytest.mark.parametrize("said", ABSURD)
def test_a_number_of_tokens_that_cannot_be_is_no_number(said: object) -> None:
    body = json.dumps({"usage": {"prompt_tokens": said, "completion_tokens": 1}}).encode()
    assert openai.usage_of(body) == Usage(None, 1)
    body = json.dumps({"usage": {"input_tokens": said, "cache_read_input_tokens": said, "output_tokens": said}}).encode()
    for usage in (native_usage(body), anthropic_usage(body)):
        assert all(tokens is None or 0 <= tokens <= STORED_MAX for tokens in usage)


def test_embeddings_have_no_output_to_pay() -> None:
    assert openai.usage_of(b'{"usage":{"prompt_tokens":7,"total_tokens":7}}') == Usage(7, 0)
    assert openai.usage_of(b'{"usage":{"prompt_tokens":7,"total_tokens":9}}') == Usage(7, 2)  # thoughts, and nothing said


@pytest.mark.parametrize("words", ["event: error", "event: response.failed", "event: response.incomplete", "message_stop"])
def test_what_a_model_writes_does_not_end_its_stream(words: str) -> None:
    said = b"event: x\ndata: " + json.dumps({"type": "content_block_delta", "delta": {"text": words}}).encode() + b"\n\n"
    for tail in (MessagesTail(), ResponsesTail()):
        tail.feed(said)
        assert not tail.failed
        assert not tail.done


def test_streams_end_by_their_own_events() -> None:
    for tail, event, kind in (
        (MessagesTail(), b"message_stop", "done"),
        (MessagesTail(), b"error", "failed"),
        (ResponsesTail(), b"response.completed", "done"),
        (ResponsesTail(), b"response.incomplete", "done"),
        (ResponsesTail(), b"response.failed", "failed"),
        (ResponsesTail(), b"error", "failed"),
    ):
        tail.feed(b"event: " + event + b'\ndata: {"type":"' + event + b'"}\n\n')
        assert getattr(tail, kind), event


def asked(**fields: Any) -> Chat:
    return parse_chat(CHAT, json.dumps({"model": "well", "messages": [{"role": "user", "content": "Hi"}], **fields}).encode())


@pytest.mark.parametrize(
    ("fields", "parameters", "least"),
    [
        ({"max_completion_tokens": 1, "max_tokens": 9000}, {}, 9000),
        ({"max_output_tokens": 1}, {}, estimates.OUTPUT_TOKENS_MAX),  # no name of a chat completion: upstreams pass it over
        ({"max_tokens": None}, {"max_output_tokens": 5}, estimates.OUTPUT_TOKENS_MAX),  # the release's is not set then
        ({"max_tokens": 9000.0}, {}, 9000),
        ({"max_tokens": "9000"}, {"max_output_tokens": 5}, 9000),
        ({"max_tokens": 10, "n": 500}, {}, 5000),
        ({"max_tokens": 10, "n": 3.0}, {}, 30),
        ({"max_tokens": 10, "n": "4"}, {}, 40),
        ({"max_tokens": 10**30, "n": 10**30}, {}, 10**6),
    ],
)
def test_an_answer_cannot_be_longer_than_its_bound(fields: dict[str, Any], parameters: dict[str, Any], least: int) -> None:
    assert estimates.output_tokens_max(asked(**fields), parameters) >= least


def test_every_prompt_of_a_completion_has_its_answers() -> None:
    operation = operations(UNUSED, UNUSED, UNUSED)[b"/v1/completions"]

    def bound(**fields: Any) -> int:
        made = operation.parse(operation, json.dumps({"model": "well", "max_tokens": 10, **fields}).encode())
        return estimates.output_tokens_max(made, {})

    assert bound(prompt="Hi") == 10
    assert bound(prompt=["a", "b", "c"]) == 30
    assert bound(prompt=[[1, 2], [3]], n=2) == 40
    assert bound(prompt=[1, 2, 3]) == 10
    assert bound(prompt="Hi", best_of=7) == 70


def test_a_text_does_not_pass_for_a_picture() -> None:
    text = "data:image/png;base64," + "words and more " * 40_000
    whole = len(text) // estimates.BYTES_PER_TOKEN_MIN
    assert estimates.prompt_tokens_max(asked(messages=[{"role": "user", "content": text}])) >= whole
    part = {"type": "text", "text": text}
    assert estimates.prompt_tokens_max(asked(messages=[{"role": "user", "content": [part]}])) >= whole


def test_a_picture_by_its_address_is_counted_as_one() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://x.example/1.png"}}
    assert estimates.prompt_tokens_max(asked(messages=[{"role": "user", "content": [part] * 20}])) >= 20 * estimates.ATTACHMENT_TOKENS


@pytest.mark.parametrize("dollars", [-1.0, 1e12])
def test_a_price_that_cannot_be_is_refused_with_its_table(dollars: float) -> None:
    route = {"price": {"input_usd_per_mtok": dollars, "output_usd_per_mtok": 1.0}}
    with pytest.raises(ValueError, match="input_usd_per_mtok"):
        compile_table(decode_table(json.dumps(table(1, [release("well", "http://127.0.0.1:1/v1", route=route)])).encode()))


def test_nothing_is_known_of_an_answer_without_usage() -> None:
    assert openai.usage_of(b"{}") == UNKNOWN


def test_counting_tokens_costs_none() -> None:
    operation = operations(UNUSED, UNUSED, UNUSED)[b"/v1/messages/count_tokens"]
    made = operation.parse(operation, b'{"model":"well","messages":[{"role":"user","content":"Hi"}]}')
    assert operation.passage("anthropic").answer(made, b'{"input_tokens":7}')[1] == Usage(0, 0)
    assert estimates.output_tokens_max(made, {"max_output_tokens": 9}) == 0
