"""Answers from the caches of a real gateway process: who gets one, how it looks, what is never kept, and how it is forgotten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from cohort.gateway.contract import Result, pseudonym
from support_gateway import UNIT_KEY, GatewayProcess, release, split, table, until
from support_redis import PASSWORD, running_redis
from support_upstream import USAGE, Upstream

PRICE = {"price": {"input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10}}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"))
    process.push(table(1, *tables(upstream)))
    yield process
    process.close()


def tables(upstream: Upstream) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    def made(model: str, digest: str, **extra: Any) -> dict[str, Any]:
        return release(model, upstream.base_url, digest, cache=extra.pop("cache", {}), **extra)

    releases = [
        made("numbered", "rel_kept", route=PRICE),
        made("numbered", "rel_sampled", cache={"sampled": True}),
        made("numbered", "rel_cold", parameters={"temperature": 0}),
        made("numbered", "rel_plain", cache=None),
        made("numbered", "rel_other"),
        made("numbered", "rel_on_disk", cache={"disk": True}),
        made("numbered", "rel_shared", cache={"shared": True}),
        *(made(name, f"rel_{name}") for name in ("tools", "cut_off", "refusing", "fail", "error_event", "until_closed")),
    ]
    services: dict[str, Any] = {r["digest"].removeprefix("rel_"): r["digest"] for r in releases}
    services["half"] = {"stable": "rel_kept", "split": split("rel_other", share=0.5)}
    services["compared"] = {"stable": "rel_kept", "split": split("rel_other", share=0.5, bypass_caches=True)}
    return releases, services


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key="client-key", max_retries=0) as made:
        yield made


def ask(gateway: GatewayProcess, service: str, text: str, headers: dict[str, str] | None = None, **fields: Any) -> tuple[str, str, bytes]:
    """What was said, what the reply says of the caches, and the body."""
    fields = {"temperature": 0, **fields}
    status, found, body = gateway.chat(service, messages=[{"role": "user", "content": text}], headers=headers, **fields)
    assert status == 200, body
    said = "" if fields.get("stream") else json.loads(body)["choices"][0]["message"].get("content")
    return said, found.get("x-cohort-cache", ""), body


def test_the_same_question_is_answered_once(gateway: GatewayProcess, upstream: Upstream) -> None:
    first, state, _ = ask(gateway, "kept", "once", {"X-Cohort-Unit": "asker"})
    seen = len(upstream.seen)
    again, hit, _ = ask(gateway, "kept", "once", {"X-Cohort-Unit": "another"})
    assert (state, hit, again) == ("miss", "exact", first)
    assert len(upstream.seen) == seen


def test_a_hit_is_recorded_with_its_tier_and_what_it_saved(gateway: GatewayProcess) -> None:
    ask(gateway, "kept", "recorded")
    ask(gateway, "kept", "recorded", {"X-Cohort-Unit": "saver"})
    unit = pseudonym(bytes.fromhex(UNIT_KEY), "saver")
    gateway.records(2)
    (call,) = [r for r in gateway.all_records() if r.unit == unit]
    assert (call.cache, call.cost_usd_micro, call.saved_usd_micro) == ("l1", 0, round(11 * 2.5 + 7 * 10))
    assert (call.result, call.attempts) == (Result.OK, 0)


def test_spacing_and_the_order_of_fields_do_not_matter(gateway: GatewayProcess) -> None:
    def post(body: str) -> str:
        return gateway.request("POST", "/v1/chat/completions", body.encode(), Content_Type="application/json")[1]["x-cohort-cache"]

    assert post('{"model":"kept","temperature":0,"messages":[{"role":"user","content":"order"}]}') == "miss"
    assert post('{ "messages":[{"content":"order", "role":"user"}], "temperature":0.0, "model":"kept", "user":"x"}') == "exact"
    assert post('{"model":"kept","temperature":0,"messages":[{"role":"user","content":"order "}]}') == "miss"


def test_what_is_asked_is_what_the_key_was_made_of_to_the_last_digit(gateway: GatewayProcess, upstream: Upstream) -> None:
    def post(body: bytes) -> str:
        return gateway.request("POST", "/v1/chat/completions", body, Content_Type="application/json")[1]["x-cohort-cache"]

    plain = b'{"model":"kept","temperature":0,"messages":[{"role":"user","content":"digits"}],"top_p":%s}'
    asked = plain.replace(b'"kept"', b'"numbered"')
    assert post(plain % b"0.7") == "miss"
    assert upstream.seen[-1].body == asked % b"0.7"
    assert post(plain % b"0.30000000000000000001") == "miss"
    assert upstream.seen[-1].body == asked % b"0.3", "an upstream might tell it from 0.3"
    assert post(plain % b"0.3") == "exact"


def test_a_kept_answer_streams_when_a_stream_is_asked_for(client: openai.OpenAI, gateway: GatewayProcess) -> None:
    said, _, _ = ask(gateway, "kept", "streamed")
    messages: Any = [{"role": "user", "content": "streamed"}]
    stream = client.chat.completions.with_raw_response.create(
        model="kept", messages=messages, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    assert stream.headers["x-cohort-cache"] == "exact"
    chunks = list(stream.parse())
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == said
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == USAGE["completion_tokens"]


def test_a_stream_without_usage_serves_streams_only(gateway: GatewayProcess) -> None:
    _, first, _ = ask(gateway, "kept", "no usage", stream=True)
    _, stream, _ = ask(gateway, "kept", "no usage", stream=True)
    _, with_usage, _ = ask(gateway, "kept", "no usage", stream=True, stream_options={"include_usage": True})
    _, whole, body = ask(gateway, "kept", "no usage")
    assert (first, stream, with_usage, whole) == ("miss", "exact", "miss", "exact")
    assert json.loads(body)["usage"] == USAGE


def test_a_kept_tool_call_comes_back_whole_and_as_a_stream(client: openai.OpenAI, gateway: GatewayProcess) -> None:
    ask(gateway, "tools", "call it")
    _, state, body = ask(gateway, "tools", "call it")
    call = json.loads(body)["choices"][0]["message"]["tool_calls"][0]
    messages: Any = [{"role": "user", "content": "call it"}]
    chunks = list(client.chat.completions.create(model="tools", messages=messages, temperature=0, stream=True))
    streamed = [c.choices[0].delta.tool_calls[0] for c in chunks if c.choices and c.choices[0].delta.tool_calls]
    assert state == "exact"
    assert [(s.id, s.function.name, s.function.arguments) for s in streamed] == [(call["id"], "weather", '{"city":"Bern"}')]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("service", "fields", "first"),
    [("kept", {"temperature": 0.2}, "bypass"), ("kept", {"temperature": None}, "bypass"), ("sampled", {"temperature": 1}, "miss")],
)
def test_only_deterministic_requests_take_part_unless_the_release_opts_in(
    gateway: GatewayProcess, service: str, fields: dict[str, Any], first: str
) -> None:
    text = f"drawn {service} {fields}"
    states = [ask(gateway, service, text, **fields)[1] for _ in range(2)]
    assert states == [first, "exact" if first == "miss" else "bypass"]


def test_the_temperature_of_the_release_counts_where_the_client_set_none(gateway: GatewayProcess) -> None:
    states = [gateway.chat("cold", messages=[{"role": "user", "content": "cold"}])[1]["x-cohort-cache"] for _ in range(2)]
    assert states == ["miss", "exact"]


def test_a_release_without_a_cache_says_nothing_of_it(gateway: GatewayProcess) -> None:
    assert [ask(gateway, "plain", "plain")[1] for _ in range(2)] == ["", ""]


def test_two_releases_never_share_an_answer(gateway: GatewayProcess) -> None:
    answers = {ask(gateway, "half", "shared?", {"X-Cohort-Unit": f"unit {n}"})[0] for n in range(12)}
    assert len(answers) == 2


@pytest.mark.parametrize("service", ["cut_off", "refusing", "until_closed", "error_event", "fail"])
def test_what_is_no_answer_to_the_next_one_is_never_kept(gateway: GatewayProcess, upstream: Upstream, service: str) -> None:
    before = len(upstream.seen)
    fields: dict[str, Any] = {"stream": service in ("until_closed", "error_event"), "temperature": 0}
    for _ in range(2):
        gateway.chat(service, messages=[{"role": "user", "content": "again"}], **fields)
    assert len(upstream.seen) == before + 2


def test_a_rollout_that_compares_releases_asks_both_and_keeps_what_they_say(gateway: GatewayProcess, upstream: Upstream) -> None:
    said = [ask(gateway, "compared", "compared", {"X-Cohort-Unit": f"compared-{number}"})[:2] for number in range(16)]
    assert len({text for text, _ in said}) == 16, "a kept answer was served"
    assert {state for _, state in said} == {"bypass"}
    headers = {"Cache-Control": "only-if-cached"}
    assert gateway.chat("compared", messages=[{"role": "user", "content": "compared"}], temperature=0, headers=headers)[0] == 504
    releases, services = tables(upstream)
    services["compared"]["split"]["bypass_caches"] = False
    gateway.push(table(2, releases, services))
    hits = [ask(gateway, "compared", "compared", {"X-Cohort-Unit": f"after-{number}"})[:2] for number in range(16)]
    assert {state for _, state in hits} == {"exact"}
    assert len({text for text, _ in hits}) == 2, "each release keeps what it said, for when they are not compared any more"


def test_cache_control_is_honoured(gateway: GatewayProcess) -> None:
    def said(directive: str) -> tuple[str, str]:
        return ask(gateway, "kept", "directives", {"Cache-Control": directive})[:2]

    first, _ = said("no-store")
    second, state = said("no-cache")
    assert first != second, "no-store was kept"
    assert state == "miss"
    third, refreshed = said("no-cache")
    assert (third != second, refreshed) == (True, "miss")
    assert said("max-age=60") == (third, "exact")
    assert said("only-if-cached") == (third, "exact")
    assert said("no-store")[1] == "bypass"


def test_only_if_cached_never_reaches_a_model(gateway: GatewayProcess, upstream: Upstream) -> None:
    before = len(upstream.seen)
    for service in ("kept", "plain"):
        status, _, body = gateway.chat(
            service, messages=[{"role": "user", "content": "never asked"}], temperature=0, headers={"Cache-Control": "only-if-cached"}
        )
        assert (status, json.loads(body)["error"]["code"]) == (504, "not_cached")
    assert len(upstream.seen) == before


def test_erasing_a_subject_forgets_the_answers_to_it(gateway: GatewayProcess) -> None:
    first, _, _ = ask(gateway, "kept", "mine", {"X-Cohort-Unit": "to forget"})
    ask(gateway, "kept", "theirs", {"X-Cohort-Unit": "to keep"})
    status, body = gateway.link("POST", "/-/cache/erase", {"subject": "to forget"})
    assert (status, json.loads(body)["erased"]["l1"]) == (200, 1)
    assert json.loads(body)["unit"] == pseudonym(bytes.fromhex(UNIT_KEY), "to forget")
    again, state, _ = ask(gateway, "kept", "mine")
    assert (state, again != first) == ("miss", True)
    assert ask(gateway, "kept", "theirs")[1] == "exact"


@pytest.mark.parametrize("body", [{}, {"unit": "x"}, {"unit": "0" * 32, "subject": "both"}, {"subject": ""}, []])
def test_an_erasure_that_names_nobody_is_refused(gateway: GatewayProcess, body: Any) -> None:
    status, answer = gateway.link("POST", "/-/cache/erase", body)
    assert (status, json.loads(answer)["error"]["code"]) in [(400, "unit_invalid"), (400, "invalid_json")]


def test_the_doors_to_the_caches_are_controls_alone(gateway: GatewayProcess) -> None:
    assert gateway.request("GET", "/-/cache")[0] == 404
    assert gateway.request("POST", "/-/cache/erase", b'{"subject":"x"}')[0] == 404


def test_state_and_metrics_count_what_answered(gateway: GatewayProcess) -> None:
    ask(gateway, "kept", "counted")
    ask(gateway, "kept", "counted")
    status, body = gateway.link("GET", "/-/cache")
    state = json.loads(body)
    assert status == 200
    assert min(state["services"]["kept"]["l1"], state["services"]["kept"]["miss"], state["l1"]["entries"], state["l1"]["bytes"]) > 0
    assert b'cohort_gateway_cache_total{service="kept",answer="l1"}' in gateway.request("GET", "/metrics")[2]


def test_the_kill_list_turns_the_cache_off_at_once(upstream: Upstream, tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path)
    try:
        process.push(table(1, *tables(upstream)))
        assert [ask(process, "kept", "kill")[1] for _ in range(2)] == ["miss", "exact"]
        process.push({**table(2, *tables(upstream)), "killed": ["cache.*"]})
        assert ask(process, "kept", "kill")[1] == "bypass"
        process.push(table(3, *tables(upstream)))
        assert ask(process, "kept", "kill")[1] == "exact"
    finally:
        process.close()


def test_the_switch_in_the_environment_turns_every_tier_off(upstream: Upstream, tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path, environment={"COHORT_CACHE": "0"})
    try:
        process.push(table(1, *tables(upstream)))
        assert [ask(process, "kept", "killed")[1] for _ in range(2)] == ["bypass", "bypass"]
    finally:
        process.close()


# --- beyond the process ----------------------------------------------------------------------------------------------------------


def held(process: GatewayProcess, tier: str) -> int:
    return int(json.loads(process.link("GET", "/-/cache")[1])[tier]["entries"])


def test_answers_on_disk_outlive_a_killed_gateway_and_are_erased_from_it(upstream: Upstream, tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path)
    try:
        process.push(table(1, *tables(upstream)))
        said = {text: ask(process, "on_disk", text, {"X-Cohort-Unit": text})[0] for text in ("anna", "bert")}
        until(lambda: held(process, "l3") == 2, "both answers are on disk")
        process.kill()
        process.start()
        assert ask(process, "on_disk", "anna")[:2] == (said["anna"], "exact")
        assert ask(process, "on_disk", "anna")[:2] == (said["anna"], "exact")
        tiers = [r.cache for r in process.all_records() if r.cache]
        assert tiers == ["l3", "l1"], "what was found on disk is kept in memory"
        status, body = process.link("POST", "/-/cache/erase", {"subject": "anna"})
        assert (status, json.loads(body)["erased"]) == (200, {"l1": 1, "l2": 0, "l3": 1, "l4": 0})
        assert ask(process, "on_disk", "anna")[1] == "miss"
        assert ask(process, "on_disk", "bert")[1] == "exact"
    finally:
        process.close()


def test_gateways_share_answers_through_redis_and_serve_without_it(upstream: Upstream, tmp_path: Path) -> None:
    with running_redis() as server:
        secret = tmp_path / "redis.password"
        secret.write_text(PASSWORD)
        secret.chmod(0o600)
        config = {"cache_redis": server.address, "cache_redis_password_file": str(secret), "limits": {"cache_shared_wait_s": 2}}
        one, other = (GatewayProcess(tmp_path / name, **config) for name in ("one", "other"))
        try:
            for process in (one, other):
                process.push(table(1, *tables(upstream)))
            said, _, _ = ask(one, "shared", "asked at one", {"X-Cohort-Unit": "anna"})
            until(lambda: server.run("DBSIZE") == "1", "the answer is in Redis")
            assert ask(other, "shared", "asked at one")[:2] == (said, "exact")
            status, body = one.link("POST", "/-/cache/erase", {"subject": "anna"})
            assert (status, json.loads(body)["erased"]["l2"]) == (200, 1)
            server.kill()
            assert ask(one, "shared", "without it")[1] == "miss"
            status, body = one.link("POST", "/-/cache/erase", {"subject": "anna"})
            assert (status, json.loads(body)["code"]) == (503, "CACHE_NOT_ERASED")
        finally:
            one.close()
            other.close()
