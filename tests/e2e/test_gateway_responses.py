"""OpenAI's Responses through a real gateway process: translated to vendors that lack them, kept, and passed on to those that have them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from cohort.gateway.contract import Arm, pseudonym
from support_gateway import UNIT_KEY, GatewayProcess, release, split, table, until
from support_upstream import Upstream
from support_vendor import KEY, REASON, TEXT, vendor

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
TOOL: Any = {"type": "function", "name": "weather", "description": "Look it up", "parameters": WEATHER, "strict": True}
SERVICES = ("over-openai", "over-anthropic")
LIMITS = {"responses_max": 40, "response_bytes_max": 20_000}


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
    process = GatewayProcess(tmp_path_factory.mktemp("responses"), environment={"VENDOR_KEY": KEY}, limits=LIMITS)
    releases = []
    for provider in ("openai", "anthropic", "openai-responses"):
        route = {"provider": provider, "api_key": "env:VENDOR_KEY", "price": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0}}
        releases.append(release("big", upstream.base_url, f"rel_{provider}", route=route))
    rich = {"prompt": "Be kind.", "parameters": {"max_output_tokens": 77}}
    native = {"provider": "openai-responses", "api_key": "env:VENDOR_KEY"}
    releases.append(release("big", upstream.base_url, "rel_rich", route=native, **rich))
    services = {
        **{f"over-{r['digest'].removeprefix('rel_')}": r["digest"] for r in releases},
        "shadowed": {"stable": "rel_openai", "split": split("rel_anthropic", shadow_share=1.0)},
        "half": {"stable": "rel_openai", "split": split("rel_anthropic", share=0.5)},
    }
    process.push(table(1, releases, services))
    yield process
    process.close()


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key="client", max_retries=0) as made:
        yield made


@pytest.mark.parametrize("service", SERVICES)
def test_a_response_is_made_of_either_vendor_s_answer(client: openai.OpenAI, service: str) -> None:
    answer = client.responses.create(model=service, input="think", instructions="Be brief.", metadata={"a": "b"})
    assert (answer.output_text, answer.status, answer.instructions, answer.metadata) == (TEXT, "completed", "Be brief.", {"a": "b"})
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert answer.output[0].content[0].text == REASON
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens, usage.input_tokens_details.cached_tokens) == (21, 9, 30, 4)
    short = client.responses.create(model=service, input="hi", max_output_tokens=1)
    assert (short.status, short.incomplete_details.reason) == ("incomplete", "max_output_tokens")


@pytest.mark.parametrize("words", ["think", "refuse", "the weather?"])
@pytest.mark.parametrize("service", SERVICES)
def test_a_streamed_response_ends_with_what_its_events_said(client: openai.OpenAI, service: str, words: str) -> None:
    events = list(client.responses.create(model=service, input=words, tools=[TOOL], stream=True))
    final = events[-1].response
    assert events[-1].type == f"response.{final.status}"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [events[0].type, events[1].type] == ["response.created", "response.in_progress"]
    assert final.output == [event.item for event in events if event.type == "response.output_item.done"]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == final.output_text
    whole = client.responses.create(model=service, input=words, tools=[TOOL])
    assert [item.type for item in whole.output] == [item.type for item in final.output]
    assert (whole.usage, whole.output_text, whole.status) == (final.usage, final.output_text, final.status)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("service", SERVICES)
def test_tools_are_called_and_the_conversation_goes_on_by_id(client: openai.OpenAI, service: str, stream: bool) -> None:
    def ask(**fields: Any) -> Any:
        if not stream:
            return client.responses.create(model=service, tools=[TOOL], **fields)
        with client.responses.stream(model=service, tools=[TOOL], **fields) as events:
            events.until_done()
            return events.get_final_response()

    asked = ask(input="the weather?")
    (call,) = asked.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Bern"})
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    told = ask(previous_response_id=asked.id, input=[result])
    assert (told.output_text, told.previous_response_id) == ("The tool said: rain", asked.id)
    again = ask(input=[{"role": "user", "content": "the weather?"}, call.to_dict(), result])
    assert again.output_text == "The tool said: rain"


@pytest.mark.parametrize("service", SERVICES)
def test_structured_output_is_filled_in(client: openai.OpenAI, service: str) -> None:
    answer = client.responses.parse(model=service, input="how long?", text_format=Forecast)
    assert answer.output_parsed == Forecast(city="Bern", days=3)


def test_instructions_hold_for_one_response_and_the_conversation_for_all(client: openai.OpenAI, upstream: Upstream) -> None:
    first = client.responses.create(model="over-openai", input="one", instructions="Be brief.")
    second = client.responses.create(model="over-openai", input="two", previous_response_id=first.id)
    client.responses.create(model="over-openai", input="three", previous_response_id=second.id, instructions="Be long.")
    messages = upstream.seen[-1].fields["messages"]
    said = [("system", "Be long."), ("user", "one"), ("assistant", TEXT), ("user", "two"), ("assistant", TEXT), ("user", "three")]
    assert [(m["role"], m["content"]) for m in messages] == said


def test_a_conversation_that_goes_on_by_id_keeps_its_release(client: openai.OpenAI) -> None:
    raw = client.responses.with_raw_response
    for number in range(6):
        first = raw.create(model="half", input="one", user=f"person {number}")
        second = raw.create(model="half", input="two", previous_response_id=first.parse().id)
        for name in ("x-cohort-unit", "x-cohort-release-digest"):
            assert first.headers[name] == second.headers[name]


def test_a_response_can_be_read_deleted_and_not_be_kept(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="over-openai", input="one")
    assert client.responses.retrieve(answer.id).output_text == TEXT
    assert [item.content[0].text for item in client.responses.input_items.list(answer.id)] == ["one"]
    client.responses.delete(answer.id)
    unkept = client.responses.create(model="over-openai", input="one", store=False)
    assert unkept.store is False
    for gone in (answer.id, unkept.id, "resp_" + "0" * 32, "resp_../../etc/passwd"):
        with pytest.raises(openai.NotFoundError, match="is kept here"):
            client.responses.retrieve(gone)
        with pytest.raises(openai.BadRequestError, match="not kept here") as lost:
            client.responses.create(model="over-openai", input="two", previous_response_id=gone)
        assert lost.value.code == "previous_response_not_found"


def test_a_copy_for_the_candidate_is_not_kept(client: openai.OpenAI, gateway: GatewayProcess) -> None:
    folder = gateway.data_dir / "responses"
    answer = client.responses.create(model="shadowed", input="one", user="shadowed person")
    unit = pseudonym(bytes.fromhex(UNIT_KEY), "shadowed person")
    until(lambda: [r for r in gateway.all_records() if r.unit == unit and r.kind == "call" and r.arm is Arm.SHADOW], "the copy ended")
    assert {path.name for path in folder.glob(f"*/*.{unit}")} == {f"{answer.id}.{unit}"}


def test_what_is_kept_outlives_the_process_and_goes_with_the_person(upstream: Upstream, tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path / "gw", environment={"VENDOR_KEY": KEY})
    process.push(table(1, [release("big", upstream.base_url, "rel", route={"api_key": "env:VENDOR_KEY"})], {"s": "rel"}))

    def ask(**fields: Any) -> tuple[int, dict[str, Any]]:
        body = json.dumps({"model": "s", "input": "hi", **fields}).encode()
        status, _, answer = process.request("POST", "/v1/responses", body, Content_Type="application/json")
        return status, json.loads(answer)

    first = ask(user="anna")[1]["id"]
    other = ask(user="ben")[1]["id"]
    process.kill()
    process.start()
    assert ask(previous_response_id=first)[0] == 200
    status, answer = process.link("POST", "/-/responses/erase", {"subject": "anna"})
    assert (status, json.loads(answer)["erased"]) == (200, 2)
    assert ask(previous_response_id=first)[0] == 400
    assert ask(previous_response_id=other)[0] == 200
    assert process.request("POST", "/-/responses/erase", b"{}")[0] == 404
    process.close()


def test_a_response_is_its_tenant_s_alone(upstream: Upstream, tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path / "gw", environment={"VENDOR_KEY": KEY})
    keys = [
        {"id": f"id_{name}", "name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), **terms}
        for name, terms in (("a1", {"tenant": "a"}), ("a2", {"tenant": "a"}), ("b", {"tenant": "b"}), ("alone", {}), ("other", {}))
    ]
    services = table(1, [release("big", upstream.base_url, "rel", route={"api_key": "env:VENDOR_KEY"})], {"s": "rel"})
    process.push({**services, "keys": keys, "keys_required": True})

    def client_of(name: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"http://127.0.0.1:{process.port}/v1", api_key=name, max_retries=0)

    for owner, friend, stranger in (("a1", "a2", "b"), ("alone", "alone", "other")):
        answer = client_of(owner).responses.create(model="s", input="one")
        assert client_of(friend).responses.create(model="s", input="two", previous_response_id=answer.id).status == "completed"
        with pytest.raises(openai.BadRequestError, match="not kept here"):
            client_of(stranger).responses.create(model="s", input="two", previous_response_id=answer.id)
        with pytest.raises(openai.NotFoundError):
            client_of(stranger).responses.delete(answer.id)
        assert client_of(friend).responses.retrieve(answer.id).id == answer.id
    with pytest.raises(openai.AuthenticationError):
        client_of("nobody").responses.retrieve(answer.id)
    process.close()


def test_the_oldest_responses_go_when_there_are_too_many(client: openai.OpenAI, gateway: GatewayProcess) -> None:
    first = client.responses.create(model="over-openai", input="one")
    for _ in range(LIMITS["responses_max"]):
        newest = client.responses.create(model="over-openai", input="one")
    most = LIMITS["responses_max"]  # when there are too many, one in sixteen goes
    assert most - most // 16 <= len(list((gateway.data_dir / "responses").glob("*/resp_*"))) <= most
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    assert client.responses.retrieve(newest.id).id == newest.id
    huge = client.responses.create(model="over-openai", input="x" * LIMITS["response_bytes_max"])
    assert huge.output_text == TEXT
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(huge.id)


def test_errors_reach_the_caller_of_responses(client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError):
        client.responses.create(model="over-anthropic", input="fail 429")
    with pytest.raises(openai.APIError, match="broke off"):
        list(client.responses.create(model="over-openai", input="cut", stream=True))
    for fields in (
        {"tools": [{"type": "web_search"}]},
        {"background": True},
        {"conversation": "conv_1"},
        {"input": [{"type": "computer_call"}]},
    ):
        with pytest.raises(openai.BadRequestError, match="which cannot say") as refused:
            client.responses.create(**{"model": "over-openai", "input": "hi", **fields})
        assert refused.value.code == "not_translatable"


def test_an_upstream_that_has_responses_gets_them_as_they_are(client: openai.OpenAI, gateway: GatewayProcess, upstream: Upstream) -> None:
    body = b'{"model":"over-openai-responses", "input":"hi","previous_response_id":"resp_theirs","tools":[{"type":"web_search"}]}'
    status, headers, answer = gateway.request("POST", "/v1/responses", body, Content_Type="application/json")
    assert (status, headers["x-cohort-cost-usd"], json.loads(answer)["id"]) == (200, "0.000111", "resp_native")
    assert upstream.seen[-1].body == body.replace(b'"over-openai-responses"', b'"big"')
    client.responses.create(model="over-rich", input="hi", instructions="Be brief.")
    sent = upstream.seen[-1].fields
    assert (sent["instructions"], sent["max_output_tokens"]) == ("Be kind.\n\nBe brief.", 77)
    with client.responses.stream(model="over-openai-responses", input="hi") as stream:
        stream.until_done()
        assert stream.get_final_response().output_text == TEXT
    call = gateway.all_records()[-1]
    assert (call.tokens_in, call.tokens_out, call.result.value) == (21, 9, "ok")
