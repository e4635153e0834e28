"""The official client of Anthropic for Python."""

from __future__ import annotations

from typing import Any

import anthropic
from harness import ANSWER, BASE_URL, FAIL, LONG, PATIENCE_S, PIXEL, PLAIN, STALL, TOLD, WEATHER, NotThere, expect, fails, run
from pydantic import BaseModel

client = anthropic.Anthropic(base_url=BASE_URL, api_key="any", max_retries=0)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"name": "weather", "description": "Look it up.", "input_schema": SCHEMA}


class Forecast(BaseModel):
    city: str
    days: int


def ask(service: str, words: Any, **fields: Any) -> Any:
    return client.messages.create(model=service, max_tokens=50, messages=[{"role": "user", "content": words}], **fields)


def answer(service: str) -> None:
    expect(ask(service, PLAIN).content[0].text, ANSWER)


def stream(service: str) -> None:
    with client.messages.stream(model=service, max_tokens=50, messages=[{"role": "user", "content": PLAIN}]) as events:
        expect("".join(events.text_stream), ANSWER)
        expect(events.get_final_message().usage.output_tokens, 9)


def _told(service: str, message: Any) -> None:
    use = message.content[0]
    expect(use.input, {"city": "Bern"})
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "rain"}]}
    turns: Any = [{"role": "user", "content": WEATHER}, {"role": "assistant", "content": message.content}, result]
    expect(client.messages.create(model=service, max_tokens=50, messages=turns, tools=[TOOL]).content[0].text, TOLD)


def tools(service: str) -> None:
    _told(service, ask(service, WEATHER, tools=[TOOL]))


def streamed_tools(service: str) -> None:
    asked: Any = [{"role": "user", "content": WEATHER}]
    with client.messages.stream(model=service, max_tokens=50, messages=asked, tools=[TOOL]) as events:
        _told(service, events.get_final_message())


def structured(service: str) -> None:
    asked: Any = [{"role": "user", "content": LONG}]
    done = client.messages.parse(model=service, max_tokens=50, messages=asked, output_format=Forecast)
    expect(done.parsed_output, Forecast(city="Bern", days=3))


def image(service: str) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    expect(ask(service, [{"type": "image", "source": source}, {"type": "text", "text": PLAIN}]).content[0].text, ANSWER)


def error(service: str) -> None:
    fails(lambda: ask(service, FAIL), anthropic.RateLimitError, "asked to fail")
    fails(lambda: ask("nobody", PLAIN), anthropic.NotFoundError, "names no service")


def timeout(service: str) -> None:
    fails(lambda: ask(service, STALL, timeout=PATIENCE_S), anthropic.APITimeoutError)


def count_tokens(service: str) -> None:
    if service == "over-openai":
        raise NotThere
    asked: Any = [{"role": "user", "content": PLAIN}]
    expect(client.messages.count_tokens(model=service, messages=asked).input_tokens, 42)


run(
    ("anthropic",),
    {
        "answer": answer,
        "stream": stream,
        "tools": tools,
        "streamed tools": streamed_tools,
        "structured output": structured,
        "image": image,
        "error": error,
        "timeout": timeout,
        "count tokens": count_tokens,
    },
    ("over-openai", "over-anthropic"),
)
