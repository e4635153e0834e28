"""OpenAI's Agents SDK, by way of its models for Responses and for chat completions."""

from __future__ import annotations

from typing import Any

import openai
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from harness import ANSWER, BASE_URL, FAIL, LONG, PATIENCE_S, PIXEL, PLAIN, STALL, TOLD, WEATHER, NotThere, expect, fails_later, run
from pydantic import BaseModel

set_tracing_disabled(True)


class Forecast(BaseModel):
    city: str
    days: int


@function_tool
def weather(city: str) -> str:
    """Look it up."""
    expect(city, "Bern")
    return "rain"


def agent(service: str, timeout_s: float = 30.0, **fields: Any) -> Agent:
    kind, _, name = service.partition(" ")
    client = openai.AsyncOpenAI(base_url=f"{BASE_URL}/v1", api_key="any", max_retries=0, timeout=timeout_s)
    model = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}[kind](name, client)
    return Agent(name="tester", model=model, model_settings=ModelSettings(include_usage=True), **fields)


async def answer(service: str) -> None:
    expect((await Runner.run(agent(service), PLAIN)).final_output, ANSWER)


async def stream(service: str) -> None:
    done = Runner.run_streamed(agent(service), PLAIN)
    deltas = [
        event.data.delta
        async for event in done.stream_events()
        if getattr(event, "data", None) and event.data.type == "response.output_text.delta"
    ]
    expect("".join(deltas), ANSWER)
    expect(done.final_output, ANSWER)


async def tools(service: str) -> None:
    expect((await Runner.run(agent(service, tools=[weather]), WEATHER)).final_output, TOLD)


async def streamed_tools(service: str) -> None:
    done = Runner.run_streamed(agent(service, tools=[weather]), WEATHER)
    async for _ in done.stream_events():
        pass
    expect(done.final_output, TOLD)


async def structured(service: str) -> None:
    expect((await Runner.run(agent(service, output_type=Forecast), LONG)).final_output, Forecast(city="Bern", days=3))


async def image(service: str) -> None:
    picture = {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"}
    asked: Any = [{"role": "user", "content": [{"type": "input_text", "text": PLAIN}, picture]}]
    expect((await Runner.run(agent(service), asked)).final_output, ANSWER)


async def error(service: str) -> None:
    await fails_later(Runner.run(agent(service), FAIL), openai.RateLimitError, "asked to fail")


async def timeout(service: str) -> None:
    await fails_later(Runner.run(agent(service, PATIENCE_S), STALL), openai.APITimeoutError)


async def by_id(service: str) -> None:
    if not service.startswith("responses"):
        raise NotThere
    first = await Runner.run(agent(service), PLAIN)
    told = await Runner.run(agent(service, tools=[weather]), WEATHER, previous_response_id=first.last_response_id)
    expect(told.final_output, TOLD)


run(
    ("openai-agents", "openai"),
    {
        "answer": answer,
        "stream": stream,
        "tools": tools,
        "streamed tools": streamed_tools,
        "structured output": structured,
        "image": image,
        "error": error,
        "timeout": timeout,
        "responses by id": by_id,
    },
    tuple(f"{kind} {name}" for kind in ("responses", "chat") for name in ("over-openai", "over-anthropic")),
)
