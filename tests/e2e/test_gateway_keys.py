"""Clients' keys at a real gateway, as official clients meet them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from cohort.gateway.spend.lockout import FAILURES_MAX
from support_gateway import TOKEN, GatewayProcess, release, table
from support_upstream import Exchange, Upstream

SHOP, WAREHOUSE = "cgk_shop", "cgk_warehouse"
MESSAGES: Any = [{"role": "user", "content": "Hi"}]


def key(text: str, **terms: Any) -> dict[str, Any]:
    return {"id": f"id_{text}", "name": text, "sha256": hashlib.sha256(text.encode()).hexdigest(), **terms}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def gateway(upstream: Upstream, tmp_path: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path)
    process.push(with_keys(upstream, 1, [key(SHOP, services=["well"]), key(WAREHOUSE)]))
    yield process
    process.close()


def with_keys(upstream: Upstream, version: int, keys: list[dict[str, Any]]) -> dict[str, Any]:
    releases = [release("well", upstream.base_url), release("tools", upstream.base_url)]
    return {**table(version, releases), "keys": keys, "keys_required": True}


def client(gateway: GatewayProcess, text: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key=text, max_retries=0)


def test_the_official_client_is_let_in_by_its_key_and_the_record_says_whose(gateway: GatewayProcess) -> None:
    with client(gateway, SHOP) as shop:
        assert shop.chat.completions.create(model="well", messages=MESSAGES).choices[0].message.content == "Hello."
        assert [model.id for model in shop.models.list()] == ["well"]
    assert gateway.records(1)[0].key == "id_cgk_shop"


def test_the_official_client_is_told_apart_what_is_wrong(gateway: GatewayProcess) -> None:
    with client(gateway, "sk-nobody") as nobody, pytest.raises(openai.AuthenticationError) as wrong:
        nobody.chat.completions.create(model="well", messages=MESSAGES)
    assert wrong.value.code == "invalid_api_key"
    with client(gateway, SHOP) as shop:
        with pytest.raises(openai.PermissionDeniedError) as forbidden:
            shop.chat.completions.create(model="tools", messages=MESSAGES)
        assert forbidden.value.code == "service_not_allowed"
        with pytest.raises(openai.PermissionDeniedError):
            shop.models.retrieve("tools")
    assert gateway.chat("well")[0] == 401
    assert gateway.all_records() == []


def test_feedback_takes_a_key_too(gateway: GatewayProcess) -> None:
    body = json.dumps({"service": "tools", "unit": "u", "negative": True}).encode()
    statuses = [gateway.request("POST", "/v1/feedback", body, **headers)[0] for headers in (
        {}, {"Authorization": f"Bearer {SHOP}"}, {"Authorization": f"Bearer {WAREHOUSE}"},
    )]  # fmt: skip
    assert statuses == [401, 403, 202]


def test_a_revoked_key_is_refused_by_the_next_request_also_after_a_restart(gateway: GatewayProcess, upstream: Upstream) -> None:
    with client(gateway, SHOP) as shop:
        shop.models.list()
        gateway.push(with_keys(upstream, 2, []))
        with pytest.raises(openai.AuthenticationError):
            shop.models.list()
    gateway.kill()
    gateway.start()
    assert gateway.chat("well", headers={"Authorization": f"Bearer {SHOP}"})[0] == 401


def test_guessing_is_locked_out(gateway: GatewayProcess) -> None:
    for number in range(FAILURES_MAX):
        assert gateway.chat("well", headers={"Authorization": f"Bearer guess-{number}"})[0] == 401
    status, headers, body = gateway.chat("well", headers={"Authorization": f"Bearer {WAREHOUSE}"})
    assert (status, json.loads(body)["error"]["code"]) == (429, "too_many_attempts")
    assert 0 < int(headers["retry-after"]) <= 60


def test_an_exposed_gateway_serves_nobody_before_the_first_key(upstream: Upstream, tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path, expose=True)
    try:
        process.push(table(1, [release("well", upstream.base_url)]))
        status, headers, body = process.chat("well")
        assert (status, json.loads(body)["error"]["code"]) == (401, "key_missing")
        assert headers["www-authenticate"] == "Bearer"
        assert process.request("GET", "/health")[0] == 200
    finally:
        process.close()


def test_the_figures_of_an_exposed_gateway_are_for_holders_of_a_key_and_control(upstream: Upstream, tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path, expose=True)
    try:
        assert process.request("GET", "/metrics")[0] == 503
        process.push(with_keys(upstream, 1, [key(SHOP)]))
        status, headers, body = process.request("GET", "/metrics")
        assert (status, json.loads(body)["error"]["code"], headers["www-authenticate"]) == (401, "key_missing", "Bearer")
        for bearer in (SHOP, TOKEN):
            assert b"cohort_gateway_in_flight" in process.request("GET", "/metrics", Authorization=f"Bearer {bearer}")[2]
        assert process.request("GET", "/ready")[0] == 200
    finally:
        process.close()


def test_what_is_wrong_with_an_exposed_gateway_is_for_holders_of_a_key_and_control(upstream: Upstream, tmp_path: Path) -> None:
    def said(path: str, bearer: str | None) -> dict[str, Any]:
        headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        return dict(json.loads(process.request("GET", path, **headers)[2]))

    process = GatewayProcess(tmp_path, expose=True)
    try:
        assert said("/ready", None) == {"ready": False}
        assert said("/ready", TOKEN)["reason"] == "no routing table yet"
        process.push(with_keys(upstream, 1, [key(SHOP)]))
        for bearer in (None, *[SHOP + "x"] * FAILURES_MAX):
            assert (said("/health", bearer), said("/ready", bearer)) == ({"status": "ok"}, {"ready": True})
        for bearer in (SHOP, TOKEN):
            assert said("/health", bearer) == {"status": "ok", "problems": []}
            assert said("/ready", bearer) == {"ready": True, "reason": None, "table_version": 1, "problems": []}
        assert process.chat("well", headers={"Authorization": f"Bearer {SHOP}"})[0] == 200, "nobody was locked out by a probe's foreign key"
    finally:
        process.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_an_upstream_that_repeats_the_release_s_key_in_an_error_tells_it_nobody(tmp_path: Path, provider: str, stream: bool) -> None:
    async def repeating(exchange: Exchange) -> None:
        exchange.whole(
            json.dumps({"error": {"message": f"these headers are wrong: {exchange.seen.headers}"}}).encode(), status="400 Bad Request"
        )

    upstream = Upstream(behave=repeating)
    process = GatewayProcess(tmp_path, environment={"VENDOR_KEY": "sk-vendor-secret-4711"})
    try:
        process.push(table(1, [release("big", upstream.base_url, route={"api_key": "env:VENDOR_KEY", "provider": provider})]))
        status, _, body = process.chat("big", stream=stream)
        assert "4711" in str(upstream.seen[0].headers)
        assert (status, b"4711" in body, b"[key]" in body) == (400, False, True)
    finally:
        process.close()
        upstream.close()


def test_no_key_is_in_the_log_or_on_disk(gateway: GatewayProcess) -> None:
    gateway.chat("well", headers={"Authorization": f"Bearer {WAREHOUSE}"})
    gateway.records(1)
    kept = [path.read_bytes() for path in gateway.data_dir.rglob("*") if path.is_file()]
    assert not any(b"Bearer" in data or b"sk-nobody" in data for data in kept)
    assert "Bearer" not in gateway.log_text()
