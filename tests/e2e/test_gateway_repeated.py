"""What a caller says twice, or says for one upstream and several get: decided once, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cohort.gateway.contract import Result
from support_gateway import GatewayProcess, release, table
from support_upstream import Upstream, well
from support_upstream import fail as failing

KEY = "once-4711"
MESSAGE = b'"messages":[{"role":"user","content":"Hi"}]'
NO_SUCH_KEY_EVER = {"scope": "team", "name": "nobody", "usd_micro": 1}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def broken() -> Iterator[Upstream]:
    server = Upstream(behave=failing)
    yield server
    server.close()


@pytest.fixture(scope="module")
def vendor() -> Iterator[Upstream]:
    server = Upstream(behave=well)
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, broken: Upstream, vendor: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"))
    first = {"name": "first", "provider": "openai", "base_url": broken.base_url, "model": "big"}
    second = {"name": "second", "provider": "anthropic", "base_url": vendor.base_url, "model": "bigger"}
    releases = [
        release("well", upstream.base_url, "rel_plain"),
        release("well", upstream.base_url, "rel_rich", prompt="Be kind.", parameters={"temperature": 0.5}),
        {**release("well", upstream.base_url, "rel_redacts"), "personal": {"upstream": "redact"}},
        release("well", upstream.base_url, "rel_cached", cache={"ttl_s": 60}),
        release("well", upstream.base_url, "rel_translated", route={"provider": "anthropic"}),
        {"digest": "rel_two", "version": "v-two", "routes": [first, second], "reliability": {"retries": 1, "backoff_s": 0.01}},
        {"digest": "rel_three", "version": "v-three", "routes": [first, second], "reliability": {"retries": 1, "backoff_s": 0.01}},
    ]
    process.push(table(1, releases, {entry["digest"].removeprefix("rel_"): entry["digest"] for entry in releases}))
    yield process
    process.close()


def ask(gateway: GatewayProcess, body: bytes, path: str = "/v1/chat/completions", **headers: str) -> tuple[int, dict[str, Any]]:
    status, _, answer = gateway.request("POST", path, body, Content_Type="application/json", **headers)
    return status, json.loads(answer).get("error", {})


@pytest.mark.parametrize("service", [b"plain", b"rich", b"redacts", b"cached", b"translated"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"other","model":"%s",' + MESSAGE + b"}",
        b'{"model":"%s",' + MESSAGE + b',"tools":[],"model":"%s"}',
        b'{"mod\\u0065l":"other", "model": "%s", ' + MESSAGE + b"}",
        b'{"m\\u006fdel":"other", "\\u006dodel": "%s", ' + MESSAGE + b"}",
    ],
)
def test_a_request_that_names_its_model_twice_is_refused(gateway: GatewayProcess, upstream: Upstream, service: bytes, body: bytes) -> None:
    before = len(upstream.seen)
    status, error = ask(gateway, body.replace(b"%s", service))
    assert (status, error["code"], error["param"]) == (400, "field_repeated", "model")
    assert len(upstream.seen) == before


def test_its_refusal_is_no_failure_of_the_release(gateway: GatewayProcess) -> None:
    ask(gateway, b'{"model":"x","model":"plain",' + MESSAGE + b"}")
    assert gateway.all_records()[-1].result is Result.CLIENT_GONE


def test_a_model_in_the_midst_of_a_request_is_no_second_one(gateway: GatewayProcess, upstream: Upstream) -> None:
    tool = b'"tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"model":{"type":"string"}}}}}]'
    for service in (b"plain", b"rich", b"redacts"):
        assert ask(gateway, b'{ "model":"%s",%s,%s}' % (service, MESSAGE, tool))[0] == 200
        assert upstream.seen[-1].fields["tools"][0]["function"]["parameters"] == {"properties": {"model": {"type": "string"}}}


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"model":"redacts","messages":[{"role":"user","content":"jane@example.com"}],"messages":[{"role":"user","content":"Hi"}]}', "messages"),
        (b'{"model":"redacts","messages":[{"role":"user","content":"jane@example.com","content":"Hi"}]}', "content"),
        (b'{"model":"redacts","messages":[{"role":"user","content":"jane@example.com","c\\u006fntent":"Hi"}]}', "content"),
        (b'{"model":"redacts","messages":[{"role":"user","content":[{"type":"text","text":"jane@example.com","text":"Hi"}]}]}', "text"),
        (b'{"model":"redacts","x":{"y":{"z":"4111 1111 1111 1111","z":1}}, ' + MESSAGE + b"}", "z"),
        (b'{"model": "cached", "temperature": 1, "temperature": 0, ' + MESSAGE + b"}", "temperature"),
        (b'{"model":"cached","temperature":0,"messages":[{"role":"user","content":"Hi","content":"Ho"}]}', "content"),
    ],
)  # fmt: skip
def test_where_the_gateway_decides_by_a_field_it_stands_once(gateway: GatewayProcess, upstream: Upstream, body: bytes, name: str) -> None:
    before = len(upstream.seen)
    status, error = ask(gateway, body)
    assert (status, error["code"], error["param"]) == (400, "field_repeated", name)
    assert len(upstream.seen) == before


def test_a_length_that_stands_twice_holds_no_smaller_budget(gateway: GatewayProcess, upstream: Upstream) -> None:
    limited = {**table(2, [release("well", upstream.base_url, "rel_plain")], {"plain": "rel_plain"}), "budgets": [NO_SUCH_KEY_EVER]}
    before = gateway.pushed
    gateway.push(limited)
    try:
        status, error = ask(gateway, b'{"model":"plain","max_tokens":100000,"max_tokens":1,' + MESSAGE + b"}")
        assert (status, error["code"], error["param"]) == (400, "field_repeated", "max_tokens")
    finally:
        gateway.push({**before, "version": 3})


def test_without_a_feature_that_looks_other_fields_pass_as_they_came(gateway: GatewayProcess, upstream: Upstream) -> None:
    body = b'{"model":"plain", "temperature":1,"temperature":0,' + MESSAGE + b"}"
    assert ask(gateway, body)[0] == 200
    assert upstream.seen[-1].body == body.replace(b'"plain"', b'"well"')


# --- idempotency keys --------------------------------------------------------------------------------------------------------


def test_each_route_gets_its_own_idempotency_key_and_each_try_of_a_route_the_same(
    gateway: GatewayProcess, broken: Upstream, vendor: Upstream
) -> None:
    for service in (b"two", b"two", b"three"):
        ask(gateway, b'{"model":"%s",%s}' % (service, MESSAGE), Idempotency_Key=KEY)
    tries = [seen.headers["idempotency-key"] for seen in broken.seen]
    beside = [seen.headers["idempotency-key"] for seen in vendor.seen]
    assert len(tries) == 6
    assert len({*tries[:4]}) == 1, "a call that is made again is the same call"
    assert len({*tries, *beside}) == 4, "two routes of two releases"
    assert not any(KEY in key for key in tries + beside)


@pytest.mark.parametrize("value", [b"z" * 2049, b"\xc3\xa9", b"\xff"])
@pytest.mark.parametrize(
    ("service", "path", "name"),
    [
        ("plain", "/v1/chat/completions", "x-request-id"),
        ("translated", "/v1/chat/completions", "tracestate"),
        ("translated", "/v1/messages", "anthropic-version"),
        ("translated", "/v1/messages", "anthropic-beta"),
    ],
)
def test_no_caller_can_have_an_upstream_choke_on_a_header(
    gateway: GatewayProcess, upstream: Upstream, service: str, path: str, name: str, value: bytes
) -> None:
    before = len(upstream.seen)
    body = json.dumps({"model": service, "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}).encode()
    status, error = ask(gateway, body, path, **{name: value.decode("latin-1")})
    assert (status, error["code"], error["param"]) == (400, "header_invalid", name)
    assert (len(upstream.seen), gateway.all_records()[-1].result) == (before, Result.CLIENT_GONE)


# --- what cannot be said ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/messages", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools"),
        ("/v1/messages", {"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ("/v1/messages", {"system": 7}, "system"),
        ("/v1/messages", {"metadata": [1]}, "metadata"),
        ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "x" * 9000}]}]}, "messages"),
        ("/v1/messages", {"output_config": {"format": {"type": "xml"}}}, "output_config"),
        ("/v1/responses", {"background": True, "input": "Hi"}, "background"),
        ("/v1/responses", {"input": [{"type": "computer_call"}]}, "input"),
        ("/v1/responses", {"input": "Hi", "tools": [{"type": "web_search"}]}, "tools"),
        ("/v1/responses", {"input": "Hi", "tool_choice": {"type": "file_search"}}, "tool_choice"),
        ("/v1/responses", {"input": "Hi", "text": {"format": 7}}, "text"),
    ],
)
def test_what_cannot_be_translated_is_named_by_its_field(gateway: GatewayProcess, path: str, fields: dict[str, Any], param: str) -> None:
    body = {
        "model": "plain",
        "max_tokens": 5,
        **({"messages": [{"role": "user", "content": "Hi"}]} if "messages" in path else {}),
        **fields,
    }
    status, error = ask(gateway, json.dumps(body).encode(), path)
    assert (status, error["code"], error["param"]) == (400, "not_translatable", param)
    assert len(error["message"]) < 400
