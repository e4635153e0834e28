"""LangGraph, with LangChain's models for chat completions, for Responses and for Anthropic."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
from harness import ANSWER, BASE_URL, FAIL, LONG, PATIENCE_S, PIXEL, PLAIN, STALL, TOLD, WEATHER, NotThere, expect, fails, run
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langgraph.graph import END, START, MessagesState, StateGraph
from pydantic import BaseModel


class Forecast(BaseModel):
    """How long it lasts."""

    city: str
    days: int


@tool
def weather(city: str) -> str:
    """Look it up."""
    expect(city, "Bern")
    return "rain"


def model(service: str, timeout_s: float = 30.0) -> Any:
    kind, _, name = service.partition(" ")
    if kind == "messages":
        return ChatAnthropic(model=name, base_url=BASE_URL, api_key="any", max_retries=0, timeout=timeout_s, max_tokens=50)
    return ChatOpenAI(
        model=name, base_url=f"{BASE_URL}/v1", api_key="any", max_retries=0, timeout=timeout_s, use_responses_api=kind == "responses"
    )


def answer(service: str) -> None:
    chat = model(service)
    graph = StateGraph(MessagesState)
    graph.add_node("talk", lambda state: {"messages": [chat.invoke(state["messages"])]})
    graph.add_edge(START, "talk")
    graph.add_edge("talk", END)
    expect(graph.compile().invoke({"messages": [HumanMessage(PLAIN)]})["messages"][-1].text, ANSWER)


def stream(service: str) -> None:
    expect("".join(chunk.text for chunk in model(service).stream(PLAIN)), ANSWER)


def tools(service: str) -> None:
    done = create_agent(model(service), [weather]).invoke({"messages": [HumanMessage(WEATHER)]})
    expect(done["messages"][-1].text, TOLD)


async def streamed_tools(service: str) -> None:
    agent = create_agent(model(service), [weather])
    pieces = [part async for part in agent.astream({"messages": [HumanMessage(WEATHER)]}, stream_mode="messages")]
    expect("".join(piece.text for piece, where in pieces if type(piece).__name__ == "AIMessageChunk"), TOLD)


def structured(service: str) -> None:
    method = "function_calling" if service.startswith("messages") else "json_schema"
    expect(model(service).with_structured_output(Forecast, method=method).invoke(LONG), Forecast(city="Bern", days=3))


def image(service: str) -> None:
    parts: Any = [{"type": "text", "text": PLAIN}, {"type": "image", "base64": PIXEL, "mime_type": "image/png"}]
    expect(model(service).invoke([HumanMessage(parts)]).text, ANSWER)


def error(service: str) -> None:
    fails(lambda: model(service).invoke(FAIL), (openai.RateLimitError, anthropic.RateLimitError), "asked to fail")


def timeout(service: str) -> None:
    fails(lambda: model(service, PATIENCE_S).invoke(STALL), (openai.APITimeoutError, anthropic.APITimeoutError))


async def embeddings(service: str) -> None:
    if service != "chat over-openai":
        raise NotThere
    model = OpenAIEmbeddings(model="over-openai", base_url=f"{BASE_URL}/v1", api_key="any", check_embedding_ctx_length=False)
    expect(await model.aembed_query("hi"), [0.25, -0.5, 1.0])


run(
    ("langgraph", "langchain", "langchain-openai", "langchain-anthropic"),
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
