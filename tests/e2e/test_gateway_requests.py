"""A real gateway process between real clients and an upstream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from cohort.gateway.contract import Arm, Call, Result, bucket, pseudonym
from support_gateway import UNIT_KEY, GatewayProcess, release, split, table
from support_upstream import ANSWER, BEHAVIOURS, STREAM, Upstream

KEY = bytes.fromhex(UNIT_KEY)
SECRET = "sk-upstream-secret"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"), environment={"MAIN_KEY": SECRET})
    releases = [release(name, upstream.base_url) for name in BEHAVIOURS]
    priced = {"api_key": "env:MAIN_KEY", "price": {"input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10}}
    rich = release(
        "well", upstream.base_url, "rel_rich", route=priced, prompt="Be kind.", parameters={"temperature": 0.2, "max_output_tokens": 800}
    )
    keyless = release("well", upstream.base_url, "rel_keyless", route={"api_key": "env:NOT_THERE"})
    services = {
        **{name: f"rel_{name}" for name in BEHAVIOURS},
        "rich": "rel_rich",
        "keyless": "rel_keyless",
        "half": {"stable": "rel_well", "split": split("rel_tools", share=0.5)},
        "shadowed": {"stable": "rel_well", "split": split("rel_tools", shadow_share=1.0, rollout_id="ro_shadow")},
        "badly_shadowed": {"stable": "rel_well", "split": split("rel_stall", shadow_share=1.0, rollout_id="ro_stall")},
    }
    process.push(table(1, [*releases, rich, keyless], services))
    yield process
    process.close()


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key="client-key", max_retries=0) as made:
        yield made


def calls_of(gateway: GatewayProcess, raw_unit: str, kind: str = "call", count: int = 1) -> list[Call]:
    """The records of one unit."""
    unit = pseudonym(KEY, raw_unit)
    gateway.records(1, kind)
    found = [r for r in gateway.all_records() if r.unit == unit and r.kind == kind]
    assert len(found) >= count, found
    return found


MESSAGES = [{"role": "user", "content": "Hi"}]


def test_the_official_client_gets_an_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="well", messages=MESSAGES)
    assert answer.choices[0].message.content == "Hello."
    assert answer.usage.completion_tokens == 7


def test_the_official_client_gets_a_stream(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="well", messages=MESSAGES, stream=True))
    assert "".join(c.choices[0].delta.content for c in chunks if c.choices) == "Hello."


def test_the_official_client_gets_tool_calls(client: openai.OpenAI) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    answer = client.chat.completions.create(model="tools", messages=MESSAGES, tools=[tool])
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"city":"Bern"}'


def test_the_official_client_lists_the_services(client: openai.OpenAI) -> None:
    assert {"well", "rich"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("rich").owned_by == "cohort"


def test_errors_reach_the_official_client_as_its_own_exceptions(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="names no service") as unknown:
        client.chat.completions.create(model="nobody", messages=MESSAGES)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.RateLimitError) as limited:
        client.chat.completions.create(model="limited", messages=MESSAGES)
    assert limited.value.response.headers["retry-after"] == "7"
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="fail", messages=MESSAGES)
    with pytest.raises(openai.APIError, match="broke off"):
        list(client.chat.completions.create(model="cut_stream", messages=MESSAGES, stream=True))


def test_an_unknown_service_is_answered_with_the_known_ones(gateway: GatewayProcess) -> None:
    status, _, body = gateway.chat("nobody")
    error = json.loads(body)["error"]
    assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "rich" in error["message"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/chat/completions", "it is at /v1/chat/completions: correct the `/v1`"),
        ("/v1/v1/messages", "it is at /v1/messages: correct the `/v1`"),
        ("/v1/images/generations", "there are: /health, "),
        ("/-/state/x", "there are: /health, "),
    ],
)
def test_a_wrong_path_is_answered_with_the_right_one(gateway: GatewayProcess, path: str, said: str) -> None:
    status, _, body = gateway.request("POST", path, b"{}", Content_Type="application/json")
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (404, "not_found")
    assert f"nothing here at {path}; {said}" in error["message"]


def test_the_answer_names_release_route_unit_and_cost(gateway: GatewayProcess) -> None:
    status, headers, body = gateway.chat("rich", headers={"X_Cohort_Unit": "conv-1"})
    assert (status, json.loads(body)) == (200, ANSWER)
    assert headers["x-cohort-release"] == "v-well"
    assert headers["x-cohort-release-digest"] == "rel_rich"
    assert headers["x-cohort-route"] == "main"
    assert headers["x-cohort-unit"] == pseudonym(KEY, "conv-1")
    assert headers["x-cohort-cost-usd"] == "0.000098"
    assert headers["x-request-id"] == "up-1"
    assert "set-cookie" not in headers
    assert "access-control-allow-origin" not in headers


def test_a_stream_is_passed_on_byte_for_byte(gateway: GatewayProcess) -> None:
    status, headers, body = gateway.chat("well", stream=True)
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert body == b"".join(STREAM)


def test_the_request_goes_upstream_unchanged_but_for_the_model(gateway: GatewayProcess, upstream: Upstream) -> None:
    body = b'{ "model" : "half2",  "messages":[{"role":"user","content":"\xc3\xa9 \\"model\\""}], "x_unknown": {"a": [1.0, 1e3, 12345678901234567890]} }'
    before = len(upstream.seen)
    status, _, answer = gateway.request("POST", "/v1/chat/completions", body.replace(b"half2", b"well"), Content_Type="application/json")
    assert status == 200, answer
    assert upstream.wait_for(before + 1)[-1].body == body.replace(b"half2", b"well")


def test_prompt_and_parameters_are_set_where_the_client_set_none(gateway: GatewayProcess, upstream: Upstream) -> None:
    before = len(upstream.seen)
    gateway.chat("rich", temperature=0.9)
    gateway.chat("rich", max_tokens=5)
    first, second = (seen.fields for seen in upstream.wait_for(before + 2)[-2:])
    assert first["messages"][0] == {"role": "system", "content": "Be kind."}
    assert (first["model"], first["temperature"], first["max_completion_tokens"]) == ("well", 0.9, 800)
    assert second["temperature"] == 0.2
    assert (second["max_tokens"], second.get("max_completion_tokens")) == (5, None)


def test_the_upstream_gets_the_key_of_the_release_and_never_the_clients(gateway: GatewayProcess, upstream: Upstream) -> None:
    before = len(upstream.seen)
    gateway.chat("rich", headers={"Authorization": "Bearer client-key", "Cookie": "c=1", "traceparent": "00-1"})
    gateway.chat("well", headers={"Authorization": "Bearer client-key"})
    rich, plain = (seen.headers for seen in upstream.wait_for(before + 2)[-2:])
    assert rich["authorization"] == f"Bearer {SECRET}"
    assert (rich["traceparent"], rich.get("cookie")) == ("00-1", None)
    assert "authorization" not in plain
    assert SECRET not in gateway.log_text()


def test_a_missing_upstream_key_is_named_by_its_reference(gateway: GatewayProcess) -> None:
    status, _, body = gateway.chat("keyless")
    assert status == 502
    assert json.loads(body)["error"]["code"] == "upstream_key_missing"
    assert "env:NOT_THERE" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "raw"),
    [
        ({"metadata": {"conversation_id": "u-meta"}, "user": "other"}, "u-meta"),
        ({"conversation": "u-conv", "user": "other"}, "u-conv"),
        ({"conversation": {"id": "u-conv-id"}}, "u-conv-id"),
        ({"user": "u-user", "safety_identifier": "other"}, "u-user"),
        ({"safety_identifier": "u-safety", "prompt_cache_key": "other"}, "u-safety"),
        ({"prompt_cache_key": "u-cache"}, "u-cache"),
    ],
)
def test_the_unit_is_found_in_the_request(gateway: GatewayProcess, fields: dict[str, object], raw: str) -> None:
    _, headers, _ = gateway.chat("well", **fields)
    assert headers["x-cohort-unit"] == pseudonym(KEY, raw)
    assert raw not in (gateway.data_dir / "spool" / "0000000001.log").read_text()


def test_a_request_without_a_unit_is_its_own(gateway: GatewayProcess) -> None:
    units = {gateway.chat("well")[1]["x-cohort-unit"] for _ in range(3)}
    assert len(units) == 3


def test_the_record_of_a_call_says_how_it_went(gateway: GatewayProcess) -> None:
    gateway.chat("rich", headers={"X_Cohort_Unit": "recorded"})
    (call,) = calls_of(gateway, "recorded")
    assert (call.service, call.release, call.result, call.status, call.route) == ("rich", "rel_rich", Result.OK, 200, "main")
    assert (call.tokens_in, call.tokens_out, call.cost_usd_micro) == (11, 7, 98)
    assert call.first_us == call.total_us
    assert call.total_us > 0


def test_the_record_of_a_stream_has_first_byte_and_usage(gateway: GatewayProcess) -> None:
    gateway.chat("well", stream=True, headers={"X_Cohort_Unit": "streamed"})
    (call,) = calls_of(gateway, "streamed")
    assert call.stream
    assert (call.tokens_in, call.tokens_out) == (11, 7)
    assert 0 < call.first_us <= call.total_us


def test_units_keep_the_arm_their_bucket_gives_them(gateway: GatewayProcess) -> None:
    for turn in range(2):
        for number in range(40):
            _, headers, _ = gateway.chat("half", headers={"X_Cohort_Unit": f"unit-{number}"}, n=turn)
            unit = pseudonym(KEY, f"unit-{number}")
            assert headers["x-cohort-release-digest"] == ("rel_tools" if bucket(bytes.fromhex("5a17"), unit) < 0.5 else "rel_well")
    records = [r for r in gateway.records(80) if r.service == "half"]
    assigned = [r for r in gateway.all_records() if r.service == "half" and r.kind == "assigned"]
    assert [(r.seq, r.at_us, r.arm, r.unit) for r in assigned] == sorted((r.seq, r.at_us, r.arm, r.unit) for r in records)
    assert {(r.rollout_id, r.stage_run, r.share) for r in assigned} == {("ro_1", 3, 0.5)}
    newest = max(r.at_us for r in assigned if r.arm is Arm.CANDIDATE)
    assert json.loads(gateway.link("GET", "/-/state")[1])["last_candidate_us"]["ro_1"] == newest


def test_a_shadow_copy_is_recorded_and_never_returned(gateway: GatewayProcess) -> None:
    _, headers, body = gateway.chat("shadowed", headers={"X_Cohort_Unit": "shadow-1"})
    assert headers["x-cohort-release-digest"] == "rel_well"
    assert json.loads(body) == ANSWER
    gateway.records(2)
    calls = calls_of(gateway, "shadow-1", count=2)
    assigned = calls_of(gateway, "shadow-1", "assigned", count=2)
    assert {r.arm for r in calls} == {r.arm for r in assigned} == {Arm.STABLE, Arm.SHADOW}
    assert len({(r.seq, r.at_us) for r in (*calls, *assigned)}) == 1
    shadow = next(r for r in calls if r.arm is Arm.SHADOW)
    assert (shadow.release, shadow.result, shadow.share, shadow.status) == ("rel_tools", Result.OK, 1.0, 0)


def test_a_killed_shadow_copies_nothing_from_the_next_request_on(gateway: GatewayProcess) -> None:
    before = gateway.pushed
    gateway.push({**before, "version": before["version"] + 1, "killed": ["shad*"]})
    try:
        assert gateway.chat("shadowed", headers={"X_Cohort_Unit": "shadow-killed"})[0] == 200
        assert [r.arm for r in calls_of(gateway, "shadow-killed")] == [Arm.STABLE]
    finally:
        gateway.push({**before, "version": before["version"] + 2})


def test_a_shadow_that_hangs_does_not_hold_up_the_client(gateway: GatewayProcess) -> None:
    assert gateway.chat("badly_shadowed")[0] == 200
    state = json.loads(gateway.link("GET", "/-/state")[1])
    assert "ro_stall" not in state["last_candidate_us"]
    assert state["splits"]["badly_shadowed"] == "ro_stall"


@pytest.mark.parametrize("judgement", [{"score": 0.25}, {"negative": True}])
def test_feedback_is_recorded_for_the_unit_it_names(gateway: GatewayProcess, judgement: dict[str, object]) -> None:
    name = f"judged-{next(iter(judgement))}"
    body = {"unit": name, "service": "half", **judgement}
    status, _, _ = gateway.request("POST", "/v1/feedback", json.dumps(body).encode(), Content_Type="application/json")
    assert status == 202
    (record,) = calls_of(gateway, name, "feedback")
    assert (record.score, record.negative) == (judgement.get("score"), judgement.get("negative", False))
    assert record.rollout_id == "ro_1"


def test_feedback_names_its_wrong_field(gateway: GatewayProcess) -> None:
    for body, param in (
        ({"service": "half", "score": 1}, "unit"),
        ({"unit": "u", "service": "half"}, "score"),
        ({"unit": "u", "service": "half", "score": 2}, "score"),
        ({"unit": "u", "service": "half", "negative": 1}, "negative"),
        ({"unit": "u", "score": 1}, "service"),
        ({"pseudonym": "xyz", "service": "half", "score": 1}, "pseudonym"),
    ):
        status, _, answer = gateway.request("POST", "/v1/feedback", json.dumps(body).encode())
        assert (status, json.loads(answer)["error"]["param"]) == (400, param)
    status, _, answer = gateway.request("POST", "/v1/feedback", json.dumps({"unit": "u", "service": "nobody", "score": 1}).encode())
    assert (status, json.loads(answer)["error"]["param"]) == (404, "service")


def test_health_readiness_and_metrics_are_there(gateway: GatewayProcess) -> None:
    gateway.chat("well")
    assert json.loads(gateway.request("GET", "/health")[2]) == {"status": "ok", "problems": []}
    assert json.loads(gateway.request("GET", "/ready")[2])["table_version"] == gateway.pushed["version"]
    text = gateway.request("GET", "/metrics")[2].decode()
    assert 'cohort_gateway_calls_total{service="well",release="v-well",arm="stable",result="ok"}' in text
    assert f"cohort_gateway_table_version {gateway.pushed['version']}" in text
    assert 'le="+Inf"' in text


def test_a_wrong_path_or_method_is_answered_with_the_right_ones(gateway: GatewayProcess) -> None:
    status, _, body = gateway.request("GET", "/v1/nothing")
    assert status == 404
    assert "/v1/chat/completions" in json.loads(body)["error"]["message"]
    status, headers, _ = gateway.request("GET", "/v1/chat/completions")
    assert (status, headers["allow"]) == (405, "POST")


def test_the_side_door_does_not_exist_without_the_token(gateway: GatewayProcess) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        for method, path in (
            ("PUT", "/-/routing"),
            ("GET", "/-/state"),
            ("GET", "/-/outcomes"),
            ("POST", "/-/outcomes/ack"),
            ("GET", "/-/x"),
        ):
            assert gateway.request(method, path, b"{}", **headers)[0] == 404


def test_only_newer_tables_are_taken_and_broken_ones_refused(tmp_path: Path, upstream: Upstream) -> None:
    gateway = GatewayProcess(tmp_path)
    try:
        status, _, body = gateway.request("GET", "/ready")
        assert (status, json.loads(body)["reason"]) == (503, "no routing table yet")
        assert gateway.chat("well")[0] == 503
        assert gateway.push(table(5, [release("well", upstream.base_url)])).table_version == 5
        assert gateway.push(table(4, [release("tools", upstream.base_url)])).services == {"well": "rel_well"}
        refused = {
            "no json": (b"{", 422),
            "other contract": (json.dumps({**table(9, []), "contract": 2}).encode(), 409),
            "unknown provider": (table(9, [release("well", upstream.base_url, route={"provider": "acme"})]), 422),
            "no address": (table(9, [release("well", "ftp://x")]), 422),
            "missing release": (table(9, [], {"s": "rel_gone"}), 422),
            "odd salt": (
                table(9, [release("well", upstream.base_url)], {"s": {"stable": "rel_well", "split": split("rel_well", salt="zz")}}),
                422,
            ),
            "odd prompt": (table(9, [release("well", upstream.base_url, prompt=7)]), 422),
            "odd time": (table(9, [release("well", upstream.base_url, timeout_s="soon")]), 422),
        }
        for what, (body, status) in refused.items():
            answered, problem = gateway.link("PUT", "/-/routing", body)
            assert answered == status, (what, problem)
            assert json.loads(problem)["detail"]
        assert gateway.chat("well")[0] == 200
        assert json.loads(gateway.link("GET", "/-/state")[1])["table_version"] == 5
    finally:
        gateway.close()


def test_a_scraper_meets_another_of_several_workers_the_next_time(gateway: GatewayProcess, tmp_path: Path) -> None:
    _, headers, text = gateway.request("GET", "/metrics")
    assert ("connection" in headers, b"worker=" in text) == (False, False)
    one = GatewayProcess(tmp_path / "gw", gateway_id="gw-2", link_socket=str(tmp_path / "s"))
    try:
        _, headers, text = one.request("GET", "/metrics")
        assert (headers["connection"], b'cohort_gateway_requests_total{worker="gw-2"} 1\n' in text) == ("close", True)
    finally:
        one.close()
