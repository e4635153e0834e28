"""pydantic-ai, by way of its models for chat completions, for Responses and for Anthropic."""

from __future__ import annotations

import base64
from typing import Any

from anthropic import AsyncAnthropic
from harness import ANSWER, BASE_URL, FAIL, LONG, PATIENCE_S, PIXEL, PLAIN, STALL, TOLD, WEATHER, NotThere, expect, fails_later, run
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput
from pydantic_ai.embeddings import Embedder
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


class Forecast(BaseModel):
    city: str
    days: int


def weather(city: str) -> str:
    """Look it up."""
    expect(city, "Bern")
    return "rain"


def openai_provider() -> OpenAIProvider:
    return OpenAIProvider(openai_client=AsyncOpenAI(base_url=f"{BASE_URL}/v1", api_key="any", max_retries=0))


def model(service: str) -> Any:
    kind, _, name = service.partition(" ")
    match kind:
        case "chat":
            return OpenAIChatModel(name, provider=openai_provider())
        case "responses":
            return OpenAIResponsesModel(name, provider=openai_provider())
        case _:
            client = AsyncAnthropic(base_url=BASE_URL, api_key="any", max_retries=0)
            return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=client))


async def answer(service: str) -> None:
    expect((await Agent(model(service)).run(PLAIN)).output, ANSWER)


async def stream(service: str) -> None:
    async with Agent(model(service)).run_stream(PLAIN) as events:
        expect("".join([piece async for piece in events.stream_text(delta=True)]), ANSWER)


async def tools(service: str) -> None:
    expect((await Agent(model(service), tools=[weather]).run(WEATHER)).output, TOLD)


async def streamed_tools(service: str) -> None:
    async with Agent(model(service), tools=[weather]).run_stream(WEATHER) as events:
        expect(await events.get_output(), TOLD)


async def structured(service: str) -> None:
    kind: Any = Forecast if service.startswith("messages") else NativeOutput(Forecast)  # by a tool, where this library has no other way
    expect((await Agent(model(service), output_type=kind).run(LONG)).output, Forecast(city="Bern", days=3))


async def image(service: str) -> None:
    picture = BinaryContent(base64.b64decode(PIXEL), media_type="image/png")
    expect((await Agent(model(service)).run([PLAIN, picture])).output, ANSWER)


async def error(service: str) -> None:
    await fails_later(Agent(model(service)).run(FAIL), ModelAPIError, "asked to fail")


async def timeout(service: str) -> None:
    await fails_later(Agent(model(service)).run(STALL, model_settings={"timeout": PATIENCE_S}), ModelAPIError)


async def embeddings(service: str) -> None:
    if service != "chat over-openai":
        raise NotThere
    found = await Embedder(OpenAIEmbeddingModel("over-openai", provider=openai_provider())).embed_query("hi")
    expect(list(found.embeddings[0]), [0.25, -0.5, 1.0])


run(
    ("pydantic-ai-slim", "openai", "anthropic"),
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
    },
    tuple(f"{kind} {name}" for kind in ("chat", "responses", "messages") for name in ("over-openai", "over-anthropic")),
)
