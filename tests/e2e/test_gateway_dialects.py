"""The official clients of both dialects, through a real gateway process, to a vendor of either dialect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel

from support_gateway import GatewayProcess, release, table
from support_upstream import Upstream
from support_vendor import KEY, REASON, TEXT, vendor

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
OPENAI_TOOL: Any = {"type": "function", "function": {"name": "weather", "description": "Look it up", "parameters": WEATHER}}
ANTHROPIC_TOOL: Any = {"name": "weather", "description": "Look it up", "input_schema": WEATHER}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
SERVICES = ("over-openai", "over-anthropic")


class Forecast(BaseModel):
    city: str
    days: int


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream(behave=vendor)
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("dialects"), environment={"VENDOR_KEY": KEY})
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0}
    releases = []
    for provider in ("openai", "anthropic"):
        route = {"provider": provider, "api_key": "env:VENDOR_KEY", "price": price}
        releases.append(release("big", upstream.base_url, f"rel_{provider}", route=route))
        rich = {"prompt": "Be kind.", "parameters": {"max_output_tokens": 77, "temperature": 0.5}, "route": route}
        releases.append(release("big", upstream.base_url, f"rel_rich_{provider}", **rich))
    services = {f"over-{p}": f"rel_{p}" for p in ("openai", "anthropic")} | {f"rich-{p}": f"rel_rich_{p}" for p in ("openai", "anthropic")}
    process.push(table(1, releases, services))
    yield process
    process.close()


@pytest.fixture(scope="module")
def chat(gateway: GatewayProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key="client", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def claude(gateway: GatewayProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=f"http://127.0.0.1:{gateway.port}", api_key="client", max_retries=0) as made:
        yield made


def user(words: str) -> list[Any]:
    return [{"role": "user", "content": words}]


@pytest.mark.parametrize("service", SERVICES)
def test_an_openai_caller_is_answered_by_either_vendor(chat: openai.OpenAI, service: str) -> None:
    answer = chat.chat.completions.create(model=service, messages=user("think"))
    message = answer.choices[0].message
    assert (message.content, message.reasoning_content, answer.choices[0].finish_reason) == (TEXT, REASON, "stop")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.prompt_tokens_details.cached_tokens) == (21, 9, 4)
    short = chat.chat.completions.create(model=service, messages=user("hi"), max_completion_tokens=1)
    assert short.choices[0].finish_reason == "length"


@pytest.mark.parametrize("service", SERVICES)
def test_an_openai_caller_streams_from_either_vendor(chat: openai.OpenAI, service: str) -> None:
    options: Any = {"include_usage": True}
    chunks = list(chat.chat.completions.create(model=service, messages=user("hi"), stream=True, stream_options=options))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (21, 9)
    assert [c.usage for c in chat.chat.completions.create(model="over-anthropic", messages=user("hi"), stream=True) if c.usage] == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("service", SERVICES)
def test_an_openai_caller_s_tools_are_called_and_their_results_read(chat: openai.OpenAI, service: str, stream: bool) -> None:
    asked = user("the weather?")
    if stream:
        with chat.chat.completions.stream(model=service, messages=asked, tools=[OPENAI_TOOL]) as events:
            message = events.get_final_completion().choices[0].message
    else:
        message = chat.chat.completions.create(model=service, messages=asked, tools=[OPENAI_TOOL]).choices[0].message
    call = message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Bern"})
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    answer = chat.chat.completions.create(model=service, messages=[*asked, message, result], tools=[OPENAI_TOOL])
    assert answer.choices[0].message.content == "The tool said: rain"


@pytest.mark.parametrize("service", SERVICES)
def test_an_openai_caller_gets_structured_output_from_either_vendor(chat: openai.OpenAI, service: str) -> None:
    answer = chat.chat.completions.parse(model=service, messages=user("how long?"), response_format=Forecast)
    assert answer.choices[0].message.parsed == Forecast(city="Bern", days=3)


@pytest.mark.parametrize("service", SERVICES)
def test_an_openai_caller_meets_either_vendor_s_errors_as_its_own(chat: openai.OpenAI, service: str) -> None:
    with pytest.raises(openai.RateLimitError, match="asked to fail") as limited:
        chat.chat.completions.create(model=service, messages=user("fail 429"))
    assert limited.value.response.headers["retry-after"] == "7"
    assert limited.value.code in ("rate_limit_exceeded", "rate_limit_error")
    with pytest.raises(openai.InternalServerError):
        chat.chat.completions.create(model=service, messages=user("fail 529"))
    with pytest.raises(openai.APIError, match="broke off"):
        list(chat.chat.completions.create(model=service, messages=user("cut"), stream=True))


@pytest.mark.parametrize("service", SERVICES)
def test_an_anthropic_caller_is_answered_by_either_vendor(claude: anthropic.Anthropic, service: str) -> None:
    answer = claude.messages.create(model=service, max_tokens=50, messages=user("think"), system="Be brief.")
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert (answer.content[0].thinking, answer.content[1].text, answer.stop_reason) == (REASON, TEXT, "end_turn")
    usage = answer.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (17, 4, 9)
    assert claude.messages.create(model=service, max_tokens=1, messages=user("hi")).stop_reason == "max_tokens"
    assert claude.messages.create(model=service, max_tokens=9, messages=user("refuse")).stop_reason == "refusal"


@pytest.mark.parametrize("service", SERVICES)
def test_an_anthropic_caller_streams_from_either_vendor(claude: anthropic.Anthropic, service: str) -> None:
    with claude.messages.stream(model=service, max_tokens=50, messages=user("think")) as stream:
        assert "".join(stream.text_stream) == TEXT
        answer = stream.get_final_message()
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert (answer.usage.output_tokens, answer.usage.input_tokens, answer.stop_reason) == (9, 17, "end_turn")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("service", SERVICES)
def test_an_anthropic_caller_s_tools_are_called_and_their_results_read(claude: anthropic.Anthropic, service: str, stream: bool) -> None:
    asked = user("the weather?")
    if stream:
        with claude.messages.stream(model=service, max_tokens=50, messages=asked, tools=[ANTHROPIC_TOOL]) as events:
            answer = events.get_final_message()
    else:
        answer = claude.messages.create(model=service, max_tokens=50, messages=asked, tools=[ANTHROPIC_TOOL])
    (use,) = answer.content
    assert (answer.stop_reason, use.type, use.name, use.input) == ("tool_use", "tool_use", "weather", {"city": "Bern"})
    turn: Any = {"role": "assistant", "content": answer.content}
    result: Any = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "rain"}]}
    done = claude.messages.create(model=service, max_tokens=50, messages=[*asked, turn, result], tools=[ANTHROPIC_TOOL])
    assert done.content[0].text == "The tool said: rain"


@pytest.mark.parametrize("service", SERVICES)
def test_an_anthropic_caller_gets_structured_output_from_either_vendor(claude: anthropic.Anthropic, service: str) -> None:
    answer = claude.messages.parse(model=service, max_tokens=50, messages=user("how long?"), output_format=Forecast)
    assert answer.parsed_output == Forecast(city="Bern", days=3)


@pytest.mark.parametrize("service", SERVICES)
def test_an_anthropic_caller_meets_either_vendor_s_errors_as_its_own(claude: anthropic.Anthropic, service: str) -> None:
    def ask(words: str) -> Any:
        return claude.messages.create(model=service, max_tokens=50, messages=user(words))

    with pytest.raises(anthropic.RateLimitError, match="asked to fail") as limited:
        ask("fail 429")
    assert limited.value.body["error"]["type"] == "rate_limit_error"
    assert limited.value.response.headers["retry-after"] == "7"
    with pytest.raises(anthropic.InternalServerError):
        ask("fail 500")
    with (
        pytest.raises(anthropic.APIError, match="broke off"),
        claude.messages.stream(model=service, max_tokens=50, messages=user("cut")) as stream,
    ):
        list(stream)


def test_errors_of_the_gateway_are_in_the_caller_s_dialect(claude: anthropic.Anthropic, gateway: GatewayProcess) -> None:
    with pytest.raises(anthropic.NotFoundError, match="names no service") as unknown:
        claude.messages.create(model="nobody", max_tokens=5, messages=user("hi"))
    assert unknown.value.body["type"] == "error"
    assert unknown.value.body["error"]["code"] == "model_not_found"
    status, _, body = gateway.request("PUT", "/v1/messages", b"{}")
    assert (status, json.loads(body)["type"]) == (405, "error")
    status, _, body = gateway.request("POST", "/v1/messages", b"{", Content_Type="application/json")
    assert (status, json.loads(body)["error"]["code"]) == (400, "invalid_json")
    status, _, body = gateway.request("POST", "/v1/messages", b"{}", Content_Type="application/json", Content_Length="99999999")
    assert (status, json.loads(body)["error"]["type"]) == (413, "request_too_large")


def test_what_a_vendor_does_not_have_is_said_before_it_is_asked(
    claude: anthropic.Anthropic, chat: openai.OpenAI, upstream: Upstream
) -> None:
    before = len(upstream.seen)
    with pytest.raises(openai.BadRequestError, match="nothing for embeddings"):
        chat.embeddings.create(model="over-anthropic", input="hi")
    with pytest.raises(anthropic.BadRequestError, match="nothing for counting tokens"):
        claude.messages.count_tokens(model="over-openai", messages=user("hi"))
    with pytest.raises(openai.BadRequestError, match="`n` above 1"):
        chat.chat.completions.create(model="over-anthropic", messages=user("hi"), n=2)
    search: Any = {"type": "web_search_20250305", "name": "web_search"}
    with pytest.raises(anthropic.BadRequestError, match="runs at Anthropic"):
        claude.messages.create(model="over-openai", max_tokens=5, messages=user("hi"), tools=[search])
    assert len(upstream.seen) == before


def test_embeddings_completions_and_moderations_pass_through(chat: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    embedded = chat.embeddings.create(model="over-openai", input=["a", "b"])
    assert [item.embedding for item in embedded.data] == [[0.25, -0.5, 1.0]] * 2
    assert chat.completions.create(model="over-openai", prompt="hi").choices[0].text == TEXT
    assert chat.moderations.create(model="over-openai", input="hi").results[0].flagged is False
    assert claude.messages.count_tokens(model="over-anthropic", messages=user("hi")).input_tokens == 42
    assert claude.messages.count_tokens(model="rich-anthropic", messages=user("hi")).input_tokens == 42


def test_a_native_call_changes_nothing_but_the_model(gateway: GatewayProcess, upstream: Upstream) -> None:
    body = b'{"model":"over-anthropic",  "max_tokens": 5,"messages":[{"role":"user","content":"hi"}],"top_k":3}'
    status, headers, _ = gateway.request("POST", "/v1/messages", body, Content_Type="application/json", anthropic_beta="a-1")
    assert (status, headers["x-cohort-cost-usd"], headers["x-cohort-route"]) == (200, "0.000111", "main")
    assert upstream.seen[-1].body == body.replace(b'"over-anthropic"', b'"big"')
    assert upstream.seen[-1].headers["anthropic-beta"] == "a-1"


@pytest.mark.parametrize("system", [None, "Be brief.", [{"type": "text", "text": "Be brief."}]])
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_release_s_prompt_and_parameters_reach_either_vendor(
    gateway: GatewayProcess, upstream: Upstream, provider: str, system: Any
) -> None:
    body: dict[str, Any] = {"model": f"rich-{provider}", "max_tokens": 5, "messages": user("hi"), **({"system": system} if system else {})}
    status, _, _ = gateway.request("POST", "/v1/messages", json.dumps(body).encode(), Content_Type="application/json")
    sent = upstream.seen[-1].fields
    assert (status, sent["temperature"], sent["model"]) == (200, 0.5, "big")
    texts = ["Be kind.", "Be brief."] if system else ["Be kind."]
    if provider == "openai":
        assert sent["max_completion_tokens"] == 5
        assert [m["content"] for m in sent["messages"]] == [*texts, "hi"]
    else:
        assert sent["max_tokens"] == 5
        assert sent["system"] == ([{"type": "text", "text": t} for t in texts] if system else "Be kind.")
    chat_status, _, _ = gateway.chat(f"rich-{provider}")
    sent = upstream.seen[-1].fields
    assert (chat_status, sent["temperature"]) == (200, 0.5)
    assert sent["max_tokens" if provider == "anthropic" else "max_completion_tokens"] == 77


def test_images_and_results_of_tools_reach_the_other_dialect_s_vendor(
    claude: anthropic.Anthropic, chat: openai.OpenAI, upstream: Upstream
) -> None:
    inline: Any = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    remote: Any = {"type": "url", "url": "https://example.org/a.png"}
    content: Any = [{"type": "image", "source": inline}, {"type": "image", "source": remote}, {"type": "text", "text": "what?"}]
    claude.messages.create(model="over-openai", max_tokens=5, messages=user(content))
    sent = upstream.seen[-1].fields["messages"][0]["content"]
    assert sent == [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "text", "text": "what?"},
    ]
    chat.chat.completions.create(model="over-anthropic", messages=user(sent))
    assert upstream.seen[-1].fields["messages"][0]["content"] == content


def test_the_models_page_is_in_the_caller_s_dialect(claude: anthropic.Anthropic, chat: openai.OpenAI) -> None:
    assert {model.id for model in claude.models.list()} == {model.id for model in chat.models.list()}
    assert claude.models.retrieve("over-openai").display_name == "over-openai"


def test_what_each_call_used_is_recorded(claude: anthropic.Anthropic, chat: openai.OpenAI, gateway: GatewayProcess) -> None:
    options: Any = {"include_usage": True}
    for number, service in enumerate(SERVICES):
        claude.messages.create(model=service, max_tokens=5, messages=user("hi"), metadata={"user_id": f"u{number}"})
        with claude.messages.stream(model=service, max_tokens=5, messages=user("hi"), metadata={"user_id": f"u{number}"}) as stream:
            stream.until_done()
        chat.chat.completions.create(model=service, messages=user("hi"), user=f"u{number}")
        list(chat.chat.completions.create(model=service, messages=user("hi"), user=f"u{number}", stream=True, stream_options=options))
    calls = gateway.all_records()[-8:]
    assert len({call.unit for call in calls}) == 2
    assert [(c.tokens_in, c.tokens_out, c.cost_usd_micro, c.result.value) for c in calls] == [(21, 9, 111, "ok")] * 8


CALLS = (
    ("over-openai", "/v1/messages", {"max_tokens": 5}),
    ("over-anthropic", "/v1/chat/completions", {}),
    ("over-openai", "/v1/responses", {}),
    ("over-anthropic", "/v1/responses", {}),
)


def said_to(gateway: GatewayProcess, call: tuple[str, str, dict[str, Any]], words: str, **fields: Any) -> tuple[int, bytes]:
    service, path, extra = call
    asked = {"input": words} if path == "/v1/responses" else {"messages": user(words)}
    body = json.dumps({"model": service, **asked, **extra, **fields}).encode()
    status, _, answer = gateway.request("POST", path, body, Content_Type="application/json")
    return status, answer


@pytest.mark.parametrize("words", ["wrong event", "no end", "endless event"])
@pytest.mark.parametrize("call", CALLS)
def test_a_translated_stream_that_cannot_go_on_ends_as_an_interrupted_one(gateway: GatewayProcess, call: Any, words: str) -> None:
    status, answer = said_to(gateway, call, words, stream=True)
    assert status == 200
    last = answer.rstrip().rsplit(b"\n\n", 1)[-1]
    error = json.loads(last[last.index(b"data: ") + 6 :])
    assert error["error"]["code"] == "upstream_stream_interrupted"
    assert last.startswith(b"event: error\n") == (call[1] != "/v1/chat/completions")
    assert not any(mark in answer for mark in (b"[DONE]", b"message_stop", b"response.completed"))
    assert gateway.all_records()[-1].result.value == "interrupted"


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_that_is_not_of_the_upstream_s_dialect_is_not_passed_on(gateway: GatewayProcess, call: Any) -> None:
    status, answer = said_to(gateway, call, "no answer")
    error = json.loads(answer)["error"]
    assert (status, error["code"]) == (502, "upstream_invalid_response")
    assert error["type"] == ("api_error" if call[1] == "/v1/messages" else "upstream_error")


def test_a_kept_answer_is_said_in_the_dialect_of_who_asks(gateway: GatewayProcess, upstream: Upstream, tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path / "gw", environment={"VENDOR_KEY": KEY})
    routes = {provider: {"provider": provider, "api_key": "env:VENDOR_KEY"} for provider in ("openai", "anthropic")}
    cache = {"exact": True, "sampled": True}
    releases = [release("big", upstream.base_url, f"rel_{name}", route=route, cache=cache) for name, route in routes.items()]
    process.push(table(1, releases, {f"over-{name}": f"rel_{name}" for name in routes}))
    for call in CALLS[:3]:  # the last has no chat completion at either end, which is what is kept
        first, asked = said_to(process, call, "think"), len(upstream.seen)
        again = said_to(process, call, "think")
        streamed = said_to(process, call, "think", stream=True)
        assert len(upstream.seen) == asked
        assert (first[0], again[0], streamed[0]) == (200, 200, 200)
        assert _without_ids(json.loads(again[1])) == _without_ids(json.loads(first[1]))
        assert any(mark in streamed[1] for mark in (b"[DONE]", b"message_stop", b"response.completed"))
    process.close()


def _without_ids(answer: dict[str, Any]) -> dict[str, Any]:
    for item in answer.get("output", ()):
        item.pop("id")
    return {name: value for name, value in answer.items() if name not in ("id", "created", "created_at", "completed_at")}
