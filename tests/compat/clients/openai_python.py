"""The official client of OpenAI for Python."""

from __future__ import annotations

import json
from typing import Any

import openai
from harness import ANSWER, BASE_URL, FAIL, LONG, PATIENCE_S, PIXEL, PLAIN, STALL, TOLD, WEATHER, NotThere, expect, fails, run
from pydantic import BaseModel

client = openai.OpenAI(base_url=f"{BASE_URL}/v1", api_key="any", max_retries=0)
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
TOOL: Any = {"type": "function", "function": {"name": "weather", "description": "Look it up.", "parameters": PARAMETERS, "strict": True}}
FLAT: Any = {"type": "function", **TOOL["function"]}


class Forecast(BaseModel):
    city: str
    days: int


def user(words: Any) -> list[Any]:
    return [{"role": "user", "content": words}]


def answer(service: str) -> None:
    expect(client.chat.completions.create(model=service, messages=user(PLAIN)).choices[0].message.content, ANSWER)


def stream(service: str) -> None:
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(model=service, messages=user(PLAIN), stream=True, stream_options=options))
    expect("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), ANSWER)
    expect(chunks[-1].usage.completion_tokens, 9)


def _told(service: str, message: Any) -> None:
    call = message.tool_calls[0]
    expect(json.loads(call.function.arguments), {"city": "Bern"})
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    told = client.chat.completions.create(model=service, messages=[*user(WEATHER), message, result], tools=[TOOL])
    expect(told.choices[0].message.content, TOLD)


def tools(service: str) -> None:
    _told(service, client.chat.completions.create(model=service, messages=user(WEATHER), tools=[TOOL]).choices[0].message)


def streamed_tools(service: str) -> None:
    with client.chat.completions.stream(model=service, messages=user(WEATHER), tools=[TOOL]) as events:
        _told(service, events.get_final_completion().choices[0].message)


def structured(service: str) -> None:
    done = client.chat.completions.parse(model=service, messages=user(LONG), response_format=Forecast)
    expect(done.choices[0].message.parsed, Forecast(city="Bern", days=3))


def image(service: str) -> None:
    parts = [{"type": "text", "text": PLAIN}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]
    expect(client.chat.completions.create(model=service, messages=user(parts)).choices[0].message.content, ANSWER)


def error(service: str) -> None:
    fails(lambda: client.chat.completions.create(model=service, messages=user(FAIL)), openai.RateLimitError, "asked to fail")
    fails(lambda: client.chat.completions.create(model="nobody", messages=user(PLAIN)), openai.NotFoundError, "names no service")


def timeout(service: str) -> None:
    impatient = client.with_options(timeout=PATIENCE_S)
    fails(lambda: impatient.chat.completions.create(model=service, messages=user(STALL)), openai.APITimeoutError)


def embeddings(service: str) -> None:
    if service == "over-anthropic":
        raise NotThere
    expect(client.embeddings.create(model=service, input="hi").data[0].embedding, [0.25, -0.5, 1.0])


def responses(service: str) -> None:
    expect(client.responses.create(model=service, input=PLAIN).output_text, ANSWER)
    with client.responses.stream(model=service, input=PLAIN) as events:
        events.until_done()
        expect(events.get_final_response().output_text, ANSWER)
    expect(client.responses.parse(model=service, input=LONG, text_format=Forecast).output_parsed, Forecast(city="Bern", days=3))


def responses_by_id(service: str) -> None:
    asked = client.responses.create(model=service, input=WEATHER, tools=[FLAT])
    result: Any = {"type": "function_call_output", "call_id": asked.output[0].call_id, "output": "rain"}
    told = client.responses.create(model=service, previous_response_id=asked.id, input=[result], tools=[FLAT])
    expect(told.output_text, TOLD)


run(
    ("openai",),
    {
        "answer": answer,
        "stream": stream,
        "tools": tools,
        "streamed tools": streamed_tools,
        "structured output": structured,
        "image": image,
        "error": error,
        "timeout": timeout,
        "embeddings": embeddings,
        "responses": responses,
        "responses by id": responses_by_id,
    },
    ("over-openai", "over-anthropic"),
)
