"""What callers of one gateway cannot do to each other: idempotency keys, kept answers, conversations, feedback."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support_gateway import GatewayProcess, release, split, table
from support_upstream import Exchange, Upstream, event

ANNA, BERT = "cgk_anna", "cgk_bert"
REPEATED = b"idempotency-key"


def key(text: str, **terms: Any) -> dict[str, Any]:
    return {"id": f"id_{text}", "name": text, "sha256": hashlib.sha256(text.encode()).hexdigest(), **terms}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"))
    releases = [
        release("well", upstream.base_url),
        release("well", upstream.base_url, "rel_candidate"),
        release("numbered", upstream.base_url, "rel_kept", cache={"sampled": True}),
    ]
    services = {"well": "rel_well", "copied": {"stable": "rel_well", "split": split("rel_candidate", shadow_share=1.0)}, "kept": "rel_kept"}
    process.push({**table(1, releases, services), "keys": [key(ANNA), key(BERT, requests_per_minute=3)], "keys_required": True})
    yield process
    process.close()


def ask(gateway: GatewayProcess, who: str, service: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return gateway.chat(service, headers={"Authorization": f"Bearer {who}", **headers})


def test_an_idempotency_key_is_its_callers_own(gateway: GatewayProcess, upstream: Upstream) -> None:
    before = len(upstream.seen)
    for who in (ANNA, ANNA, BERT):
        assert ask(gateway, who, "well", Idempotency_Key="once")[0] == 200
    sent = [seen.headers["idempotency-key"] for seen in upstream.wait_for(before + 3)[before:]]
    assert sent[0] == sent[1] != sent[2]
    assert "once" not in sent


def test_a_copy_for_the_candidate_repeats_no_idempotency_key(gateway: GatewayProcess, upstream: Upstream) -> None:
    before = len(upstream.seen)
    assert ask(gateway, ANNA, "copied", Idempotency_Key="once")[0] == 200
    sent = ["idempotency-key" in seen.headers for seen in upstream.wait_for(before + 2)[before:]]
    assert sorted(sent) == [False, True]


def test_an_answer_is_kept_for_the_headers_it_was_asked_with(gateway: GatewayProcess) -> None:
    said = [ask(gateway, ANNA, "kept", OpenAI_Beta=beta)[1]["x-cohort-cache"] for beta in ("a", "a", "b", "b")]
    assert said == ["miss", "exact", "miss", "exact"]


def test_a_field_written_twice_is_neither_kept_nor_asked(gateway: GatewayProcess, upstream: Upstream) -> None:
    evil, good = b'[{"role":"user","content":"evil"}]', b'[{"role":"user","content":"good"}]'
    body = b'{"model":"kept","messages":%s,"messages":%s}' % (evil, good)
    before = len(upstream.seen)
    status, _, answer = gateway.request(
        "POST", "/v1/chat/completions", body, Content_Type="application/json", Authorization=f"Bearer {ANNA}"
    )
    assert (status, json.loads(answer)["error"]["param"]) == (400, "messages")
    assert len(upstream.seen) == before


def test_a_response_that_was_deleted_is_gone_from_the_caches_too(gateway: GatewayProcess) -> None:
    def respond(who: str, **fields: Any) -> tuple[int, dict[str, Any]]:
        body = json.dumps({"model": "kept", "input": "Hi", **fields}).encode()
        status, _, said = gateway.request("POST", "/v1/responses", body, Content_Type="application/json", Authorization=f"Bearer {who}")
        return status, json.loads(said)

    first = respond(ANNA)[1]["id"]
    assert respond(ANNA, previous_response_id=first)[0] == 200
    assert gateway.request("DELETE", f"/v1/responses/{first}", Authorization=f"Bearer {ANNA}")[0] == 200
    status, said = respond(BERT, previous_response_id=first)
    assert (status, said["error"]["code"]) == (400, "previous_response_not_found")


def test_feedback_counts_as_requests_of_its_key(gateway: GatewayProcess) -> None:
    body = json.dumps({"service": "well", "unit": "u", "negative": True}).encode()
    told = [gateway.request("POST", "/v1/feedback", body, Authorization=f"Bearer {BERT}")[0] for _ in range(4)]
    assert told[-1] == 429


def test_a_page_s_form_cannot_judge_a_service(gateway: GatewayProcess) -> None:
    body = json.dumps({"service": "well", "unit": "u", "negative": True}).encode()
    headers = {"Authorization": f"Bearer {ANNA}", "Origin": "null"}
    assert gateway.request("POST", "/v1/feedback", body, Content_Type="text/plain", **headers)[0] == 415
    assert gateway.request("POST", "/v1/feedback", body, Content_Type="application/json", **headers)[0] == 202


def test_an_attempt_that_came_to_nothing_is_paid_for_where_the_upstream_may_charge(upstream: Upstream, tmp_path: Path) -> None:
    price = {"price": {"input_usd_per_mtok": 1000.0, "output_usd_per_mtok": 0.0}}
    made = release("well", upstream.base_url, route=price)
    silent = {**made["routes"][0], "name": "silent", "model": "silent_close"}
    fallen = {**made, "digest": "rel_fallen", "routes": [silent, made["routes"][0]]}
    stalled = {**made["routes"][0], "name": "stalled", "model": "stall"}
    hedged = {**made, "digest": "rel_hedged", "routes": [stalled, made["routes"][0]], "reliability": {"hedge_after_s": 0.05}}
    budgets = [{"scope": "all", "name": "", "usd_micro": 10**9}]
    process = GatewayProcess(tmp_path)
    try:
        process.push(
            {**table(1, [made, fallen, hedged], {"one": made["digest"], "two": "rel_fallen", "six": "rel_hedged"}), "budgets": budgets}
        )
        assert [process.chat(service)[0] for service in ("one", "two", "six")] == [200, 200, 200]
        one, two, six = process.records(3)
        spent = json.loads(process.link("GET", "/-/spending")[1])["items"][0]
    finally:
        process.close()
    assert one.cost_usd_micro is not None
    assert two.cost_usd_micro is not None
    assert six.cost_usd_micro == two.cost_usd_micro
    assert (one.estimated, two.estimated, six.estimated) == (False, True, True)
    assert two.cost_usd_micro > one.cost_usd_micro + 10_000  # about 20 tokens of prompt
    assert (spent["spent"], spent["held"]) == (one.cost_usd_micro + 2 * two.cost_usd_micro, 0)


def test_a_stream_without_usage_is_charged_all_its_pieces_also_those_that_came_at_once(tmp_path: Path) -> None:
    async def burst(exchange: Exchange) -> None:
        exchange.stream()
        exchange.chunk(b"".join(event("word ") for _ in range(200)) + b"data: [DONE]\n\n")
        exchange.chunk(b"")

    upstream, process = Upstream(behave=burst), GatewayProcess(tmp_path)
    try:
        price = {"price": {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1000.0}}
        budgets = [{"scope": "all", "name": "", "usd_micro": 10**9}]
        process.push({**table(1, [release("well", upstream.base_url, route=price)]), "budgets": budgets})
        assert process.chat("well", stream=True)[0] == 200
        record = process.records(1)[0]
    finally:
        process.close()
        upstream.close()
    assert record.estimated
    assert record.cost_usd_micro is not None
    assert record.cost_usd_micro >= 200 * 1000
