"""OpenAI's and Anthropic's clients for Python against services whose upstream is a real server with a model of random weights.

`COHORT_SERVICES`: the services, each `server provider`. `COHORT_SLOTS_URL`: where llama.cpp tells what its slots do.
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.request import urlopen

import anthropic
import openai
from harness import BASE_URL, NotThere, expect, fails, run

WORDS: Any = [{"role": "user", "content": "hello world"}]
CITY = {"type": "object", "properties": {"city": {"enum": ["Bern", "Rome"]}}, "required": ["city"], "additionalProperties": False}
FUNCTION: Any = {"name": "weather", "description": "Look it up.", "parameters": CITY}
TOOL: Any = {"type": "function", "function": FUNCTION}
FLAT: Any = {"type": "function", **FUNCTION}
MESSAGES_TOOL: Any = {"name": "weather", "description": "Look it up.", "input_schema": CITY}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": CITY, "strict": True}}
LONG: Any = [{"role": "user", "content": "hello " * 9000}]
SLOTS_URL = os.environ["COHORT_SLOTS_URL"]
ENDLESS: Any = {"max_tokens": 30000, "extra_body": {"ignore_eos": True}}
STOP_S = 5.0
TOKENS_MAX = 300
SHORT = 16
"""Tokens; LiteLLM answers messages by way of Responses, whose least limit this is."""

chat = openai.OpenAI(base_url=f"{BASE_URL}/v1", api_key="any", max_retries=0)
claude = anthropic.Anthropic(base_url=BASE_URL, api_key="any", max_retries=0)


def only(service: str, *providers: str) -> None:
    """A case that the others have nothing of."""
    if service.rpartition(" ")[2] not in providers:
        raise NotThere


def true(found: Any, words: str) -> None:
    if not found:
        raise ValueError(words)


def ended(service: str, *reasons: str) -> None:
    """An answer that its limit cut off says so, but LiteLLM's messages, which do not."""
    if service != "LiteLLM anthropic":
        true(len(reasons) == 1 and reasons[0] in ("length", "max_tokens"), f"ended with {reasons}")


def place(text: str) -> None:
    true(json.loads(text)["city"] in ("Bern", "Rome"), f"not of the schema: {text!r}")


def ask(service: str, **fields: Any) -> Any:
    return chat.chat.completions.create(**{"model": service, "messages": WORDS, "max_tokens": TOKENS_MAX, "temperature": 0, **fields})


def say(service: str, **fields: Any) -> Any:
    return claude.messages.create(
        **{"model": service, "messages": WORDS, "max_tokens": TOKENS_MAX, "extra_body": {"temperature": 0}, **fields}
    )


def answer(service: str) -> None:
    done = ask(service, max_tokens=SHORT)
    true(done.choices[0].message.content.strip(), "no text")
    expect(done.usage.completion_tokens, SHORT)
    ended(service, done.choices[0].finish_reason)


def stream(service: str) -> None:
    chunks = list(ask(service, max_tokens=SHORT, stream=True, stream_options={"include_usage": True}))
    true("".join(c.choices[0].delta.content or "" for c in chunks if c.choices).strip(), "no text")
    ended(service, *(c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason))
    expect(chunks[-1].usage.completion_tokens, SHORT)


def _told(service: str, message: Any) -> None:
    call = message.tool_calls[0]
    expect(call.function.name, "weather")
    place(call.function.arguments)
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    turns = [*WORDS, message.model_dump(exclude_none=True), result]
    true(ask(service, messages=turns, tools=[TOOL], max_tokens=6).choices[0].message.content, "no text after the result")


def tools(service: str) -> None:
    _told(service, ask(service, tools=[TOOL], parallel_tool_calls=False).choices[0].message)


def streamed_tools(service: str) -> None:
    fields: Any = {"messages": WORDS, "tools": [TOOL], "max_tokens": TOKENS_MAX, "parallel_tool_calls": False}
    with chat.chat.completions.stream(model=service, **fields) as events:
        _told(service, events.get_final_completion().choices[0].message)


def structured(service: str) -> None:
    only(service, "openai", "openai-responses")  # neither server has it in Anthropic's dialect
    place(ask(service, response_format=FORMAT).choices[0].message.content)


def choices(service: str) -> None:
    only(service, "openai", "openai-responses")
    done = ask(service, n=2, logprobs=True, top_logprobs=2, max_tokens=3)
    expect([len(choice.logprobs.content) for choice in done.choices], [3, 3])


def plain(service: str) -> None:
    only(service, "openai")
    done = chat.completions.create(model=service, prompt="hello", max_tokens=4)
    true(done.choices[0].text.strip(), "no text")


def embeddings(service: str) -> None:
    only(service, "openai")
    made = chat.embeddings.create(model=service.replace(" openai", " embeddings"), input=["hello", "river"])
    expect([len(item.embedding) for item in made.data], [64, 64])


def messages(service: str) -> None:
    done = say(service, max_tokens=SHORT)
    true(done.content[0].text.strip(), "no text")
    expect(done.usage.output_tokens, SHORT)
    ended(service, done.stop_reason)
    with claude.messages.stream(model=service, messages=WORDS, max_tokens=SHORT, extra_body={"temperature": 0}) as events:
        true("".join(events.text_stream).strip(), "no text in the stream")
        ended(service, events.get_final_message().stop_reason)


def messages_tools(service: str) -> None:
    choice: Any = {"type": "auto", "disable_parallel_tool_use": True}
    asked: Any = {"model": service, "messages": WORDS, "max_tokens": TOKENS_MAX, "tools": [MESSAGES_TOOL], "tool_choice": choice}
    with claude.messages.stream(**asked) as events:
        done = events.get_final_message()
    use = next(block for block in done.content if block.type == "tool_use")
    place(json.dumps(use.input))
    result: Any = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "rain"}]}
    turns: Any = [*WORDS, {"role": "assistant", "content": [use.model_dump(include={"type", "id", "name", "input"})]}, result]
    true(say(service, messages=turns, tools=[MESSAGES_TOOL], max_tokens=6).content, "nothing after the result")


def responses(service: str) -> None:
    true(chat.responses.create(model=service, input="hello", max_output_tokens=SHORT).output_text.strip(), "no text")
    if service.endswith("openai-responses"):  # llama.cpp's own events have no `output_index`, without which the client cannot add them up
        told = list(chat.responses.create(model=service, input="hello", max_output_tokens=SHORT, stream=True))
        true(told[-1].type in ("response.completed", "response.incomplete"), f"ended with {told[-1].type}")
        return
    with chat.responses.stream(model=service, input="hello", max_output_tokens=SHORT) as events:
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    true(text.strip(), "no text in the stream")


def responses_by_id(service: str) -> None:
    only(service, "openai", "anthropic")  # as it is, state is the upstream's, and these servers keep none
    asked = chat.responses.create(model=service, input="hello", tools=[FLAT], parallel_tool_calls=False, max_output_tokens=TOKENS_MAX)
    call = next(item for item in asked.output if item.type == "function_call")
    place(call.arguments)
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    told = chat.responses.create(model=service, previous_response_id=asked.id, input=[result], tools=[FLAT], max_output_tokens=SHORT)
    true(told.output_text, "no text after the result")


def too_long(service: str) -> None:
    fails(lambda: ask(service, messages=LONG), openai.BadRequestError, "available context size")
    fails(lambda: list(ask(service, messages=LONG, stream=True)), openai.BadRequestError, "available context size")
    fails(lambda: say(service, messages=LONG), anthropic.BadRequestError, "available context size")
    fails(lambda: chat.responses.create(model=service, input=LONG[0]["content"]), openai.BadRequestError, "available context size")


def wrong(service: str) -> None:
    fails(lambda: ask(service, extra_body={"temperature": "hot"}), openai.APIStatusError, "temperature")
    fails(lambda: say(service, extra_body={"temperature": "hot"}), anthropic.APIStatusError, "temperature")


def left(service: str) -> None:
    """A client that closes its stream stops the model."""
    with ask(service, stream=True, **ENDLESS) as events:
        next(iter(events))
        true(_busy(), "no slot is busy while its stream is read")
    end_s = time.monotonic() + STOP_S
    while _busy() and time.monotonic() < end_s:
        time.sleep(0.05)
    true(not _busy(), "the model goes on though nobody listens")


def _busy() -> bool:
    with urlopen(SLOTS_URL, timeout=STOP_S) as answered:
        return any(slot["is_processing"] for slot in json.load(answered))


def crowd(service: str) -> None:
    """More calls at a time than the server has slots."""
    with ThreadPoolExecutor(12) as pool:
        done = list(pool.map(lambda _: ask(service, max_tokens=20).usage.completion_tokens, range(24)))
    true(len(done) == 24 and all(0 < tokens <= 20 for tokens in done), f"{done}")


run(
    ("openai", "anthropic"),
    {
        "answer": answer,
        "stream": stream,
        "tools": tools,
        "streamed tools": streamed_tools,
        "structured output": structured,
        "n, logprobs": choices,
        "text completion": plain,
        "embeddings": embeddings,
        "messages": messages,
        "messages, tools": messages_tools,
        "responses": responses,
        "responses by id": responses_by_id,
        "too long": too_long,
        "wrong field": wrong,
        "client leaves": left,
        "crowd": crowd,
    },
    tuple(os.environ["COHORT_SERVICES"].split(",")),
)
