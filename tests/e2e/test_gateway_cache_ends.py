"""Which answers a real gateway's caches keep, by who said them: Anthropic's to its own callers, other routes', those of a process that drains."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support_gateway import GatewayProcess, release, table, until
from support_upstream import ANSWER, BEHAVIOURS, Exchange, Upstream
from support_vendor import KEY, REASON, TEXT, vendor

TOOL = {"name": "weather", "description": "Look it up", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
ORDERED = {"temperature": 0}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream(behave=vendor)
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("ends"), environment={"VENDOR_KEY": KEY})
    routes = {name: {"provider": name, "api_key": "env:VENDOR_KEY"} for name in ("anthropic", "openai-responses")}
    semantic = {"false_hit_max": 0.5, "sample_share": 1e-9}
    releases = [release("big", upstream.base_url, f"rel_{name}", route=route, cache={}) for name, route in routes.items()]
    releases.append(
        release("big", upstream.base_url, "rel_meaning", route=routes["anthropic"], cache={"exact": False, "semantic": semantic})
    )
    process.push(table(1, releases, {r["digest"].removeprefix("rel_"): r["digest"] for r in releases}))
    yield process
    process.close()


def say(gateway: GatewayProcess, operation: str, service: str, text: str, **fields: Any) -> tuple[str, bytes]:
    """What the reply says of the caches, and the answer. `operation`: messages or responses."""
    asked: dict[str, Any] = (
        {"input": text} if operation == "responses" else {"messages": [{"role": "user", "content": text}], "max_tokens": 99}
    )
    body = json.dumps({"model": service, **ORDERED, **asked, **fields}).encode()
    status, headers, answer = gateway.request("POST", f"/v1/{operation}", body, Content_Type="application/json")
    assert status == 200, answer
    return headers["x-cohort-cache"], answer


def events(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[5:]) for line in stream.split(b"\n") if line.startswith(b"data:") and line[5:].strip() != b"[DONE]"]


def text_of(stream: bytes) -> str:
    found = (e["delta"] for e in events(stream) if e["type"] in ("content_block_delta", "response.output_text.delta"))
    return "".join(delta if isinstance(delta, str) else delta.get("text", "") for delta in found)


@pytest.mark.parametrize("first_streams", [False, True])
@pytest.mark.parametrize("operation", ["messages", "responses"])
def test_an_answer_of_anthropics_is_kept_for_callers_of_every_dialect(
    gateway: GatewayProcess, upstream: Upstream, operation: str, first_streams: bool
) -> None:
    words = f"hello {operation} {first_streams}"
    assert say(gateway, operation, "anthropic", words, stream=first_streams)[0] == "miss"
    asked = len(upstream.seen)
    state, whole = say(gateway, operation, "anthropic", words)
    assert state == "exact"
    assert TEXT in whole.decode()
    state, streamed = say(gateway, operation, "anthropic", words, stream=True)
    assert (state, text_of(streamed)) == ("exact", TEXT)
    assert len(upstream.seen) == asked


@pytest.mark.parametrize("first_streams", [False, True])
def test_a_kept_message_is_what_anthropic_said_with_its_calls_and_its_usage(gateway: GatewayProcess, first_streams: bool) -> None:
    words = f"the weather? {first_streams}"
    _, said = say(gateway, "messages", "anthropic", words, tools=[TOOL], stream=first_streams)
    state, again = say(gateway, "messages", "anthropic", words, tools=[TOOL])
    assert state == "exact"
    found = json.loads(again)
    (block,) = [block for block in found["content"] if block["type"] == "tool_use"]
    assert (block["name"], block["input"], found["stop_reason"]) == ("weather", {"city": "Bern"}, "tool_use")
    if not first_streams:
        original = json.loads(said)
        assert found["content"] == original["content"]
        assert {name: found["usage"][name] for name in ("input_tokens", "output_tokens", "cache_read_input_tokens")} == {
            name: original["usage"][name] for name in ("input_tokens", "output_tokens", "cache_read_input_tokens")
        }


@pytest.mark.parametrize("stream", [False, True])
def test_a_message_that_says_more_than_a_completion_can_is_not_kept(gateway: GatewayProcess, stream: bool) -> None:
    words = f"think {stream}"
    answers = [say(gateway, "messages", "anthropic", words, stream=stream) for _ in range(2)]
    assert [state for state, _ in answers] == ["miss", "miss"]
    assert REASON.split()[0].encode() in answers[1][1]


def test_callers_of_two_dialects_never_get_each_others_answers(gateway: GatewayProcess) -> None:
    fields = {"messages": [{"role": "user", "content": "shared words"}], "max_tokens": 99}
    assert say(gateway, "messages", "anthropic", "shared words")[0] == "miss"
    body = json.dumps({"model": "anthropic", **ORDERED, **fields}).encode()
    _, headers, answer = gateway.request("POST", "/v1/chat/completions", body, Content_Type="application/json")
    assert (headers["x-cohort-cache"], json.loads(answer)["object"]) == ("miss", "chat.completion")


def test_a_response_that_its_upstream_keeps_is_not_kept_here_and_its_completions_are(gateway: GatewayProcess) -> None:
    assert [say(gateway, "responses", "openai-responses", "hello")[0] for _ in range(2)] == ["miss", "miss"]
    assert [say(gateway, "messages", "openai-responses", "hello")[0] for _ in range(2)] == ["miss", "exact"]


@pytest.mark.parametrize("operation", ["messages", "responses"])
def test_answers_by_meaning_take_part_whoever_asks_and_answers(gateway: GatewayProcess, operation: str) -> None:
    openings = ("How do I", "How can I", "Please tell me how to", "How would I", "How do I then")
    states = [say(gateway, operation, "meaning", f"{opening} reset my password?")[0] for opening in openings]
    assert (states[0], states[-1]) == ("miss", "semantic")
    state, streamed = say(gateway, operation, "meaning", "So how do I reset my password?", stream=True)
    assert (state, text_of(streamed)) == ("semantic", TEXT)


# --- other routes, and the end of a process ------------------------------------------------------------------------------------


def test_an_answer_of_another_route_is_not_kept_as_the_firsts(tmp_path: Path) -> None:
    works = threading.Event()

    async def behave(exchange: Exchange) -> None:
        first = exchange.seen.fields["model"] == "first"
        await BEHAVIOURS["fail" if first and not works.is_set() else "numbered"](exchange)

    upstream, process = Upstream(behave=behave), GatewayProcess(tmp_path)
    try:
        made = release("first", upstream.base_url, cache={"semantic": {}}, parameters=ORDERED)
        made["routes"].append({**made["routes"][0], "name": "other", "model": "other"})
        process.push(table(1, [made]))
        said = [process.chat("first") for _ in range(2)]
        assert [(found["x-cohort-degraded"], found["x-cohort-cache"]) for _, found, _ in said] == [("main", "miss")] * 2
        assert said[0][2] != said[1][2]
        works.set()
        until(
            lambda: "x-cohort-degraded" not in process.chat("first", headers={"Cache-Control": "no-cache"})[1],
            "the first route answers again",
        )
        assert process.chat("first")[1]["x-cohort-cache"] == "exact"
        assert process.link("GET", "/-/cache")[0] == 200
    finally:
        process.close()
        upstream.close()


def test_a_process_that_drains_keeps_nothing_of_the_calls_it_still_answers(tmp_path: Path) -> None:
    asked, answer = threading.Event(), threading.Event()

    async def behave(exchange: Exchange) -> None:
        asked.set()
        await asyncio.to_thread(answer.wait)
        exchange.whole(json.dumps(ANSWER).encode())

    upstream, process = Upstream(behave=behave), GatewayProcess(tmp_path)
    answered: list[int] = []
    caller = threading.Thread(target=lambda: answered.append(process.chat("well")[0]))
    try:
        process.push(table(1, [release("well", upstream.base_url, cache={"disk": True, "sampled": True})]))
        caller.start()
        assert asked.wait(10)
        process.process.terminate()
        until(lambda: process.logged("draining"), "the gateway drains")
        answer.set()
        caller.join(10)
        assert (answered, process.process.wait(10)) == ([200], 0)
        assert not list((process.data_dir / "answers").rglob("*.answer"))
    finally:
        answer.set()
        process.close()
        upstream.close()
