"""Providers through a real gateway: what an upstream of each kind is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support_gateway import GatewayProcess, release, table
from support_upstream import STREAM, Exchange, Upstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    credentials = tmp_path_factory.mktemp("credentials")
    (credentials / "azure-key").write_text("sk-azure")
    process = GatewayProcess(folder, environment={"CREDENTIALS_DIRECTORY": str(credentials)})
    origin = upstream.base_url.removesuffix("/v1")
    azure = {"provider": "azure", "base_url": origin, "api_version": "2024-10-21", "api_key": "credential:azure-key"}
    router = {"headers": {"X-Title": "Support"}}
    releases = [
        release("well", upstream.base_url, "rel_azure", route=azure),
        release("well", upstream.base_url, "rel_router", route=router),
    ]
    process.push(table(1, releases, {"azure": "rel_azure", "router": "rel_router"}))
    yield process
    process.close()


def test_an_azure_deployment_is_asked_as_azure_wants_it(gateway: GatewayProcess, upstream: Upstream) -> None:
    before = len(upstream.seen)
    assert gateway.chat("azure", headers={"Authorization": "Bearer client", "api-key": "client"})[0] == 200
    seen = upstream.wait_for(before + 1)[-1]
    assert seen.path == "/openai/deployments/well/chat/completions?api-version=2024-10-21"
    assert (seen.headers["api-key"], seen.headers.get("authorization")) == ("sk-azure", None)
    assert "sk-azure" not in gateway.log_text()
    assert b"sk-azure" not in (gateway.data_dir / "routing.json").read_bytes()


def test_a_streamed_answer_comes_from_azure_too(gateway: GatewayProcess) -> None:
    assert gateway.chat("azure", stream=True)[2].endswith(b"[DONE]\n\n")


def test_a_route_sends_its_own_headers(gateway: GatewayProcess, upstream: Upstream) -> None:
    before = len(upstream.seen)
    assert gateway.chat("router", headers={"X_Title": "client"})[0] == 200
    assert upstream.wait_for(before + 1)[-1].headers["x-title"] == "Support"


PROCESSING = b": OPENROUTER PROCESSING\n\n"


async def router(exchange: Exchange) -> None:
    """Comments for as long as a model is waited for, and then whatever came of it, all of it with status 200."""
    words = exchange.seen.fields["messages"][0]["content"]
    if not exchange.seen.fields.get("stream"):
        exchange.whole(b'{"error":{"code":502,"message":"Provider returned error"},"user_id":"u"}')
        return
    exchange.stream()
    failed = b'data: {"id":"g","error":{"code":502,"message":"Provider returned error"},"choices":[]}\n\ndata: [DONE]\n\n'
    late = b'data: {"id":"g","choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}],"error":{"message":"late"}}\n\n'
    for piece in (PROCESSING, PROCESSING, failed if words == "fail" else STREAM[0], late if words == "late" else b"data: [DONE]\n\n"):
        exchange.chunk(piece)
        await exchange.writer.drain()
    exchange.chunk(b"")


@pytest.fixture(scope="module")
def routed(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """`both`: the router, then an upstream that is well; `alone`: the router only."""
    waiting = Upstream(behave=router)
    process = GatewayProcess(tmp_path_factory.mktemp("routed"))
    alone = release("well", waiting.base_url, "rel_alone")
    both = release("well", waiting.base_url, "rel_both")
    both["routes"].append({"name": "second", "provider": "openai", "base_url": upstream.base_url, "model": "well"})
    process.push(table(1, [alone, both], {"alone": "rel_alone", "both": "rel_both"}))
    yield process
    process.close()
    waiting.close()


def asked(gateway: GatewayProcess, service: str, words: str, stream: bool) -> tuple[int, dict[str, str], bytes]:
    return gateway.chat(service, stream=stream, messages=[{"role": "user", "content": words}])


def test_comments_before_an_answer_reach_the_client_with_it(routed: GatewayProcess) -> None:
    status, headers, said = asked(routed, "both", "hi", True)
    assert (status, headers["x-cohort-route"], said) == (200, "main", PROCESSING * 2 + STREAM[0] + b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_behind_comments_or_a_good_status_goes_to_the_next_route(routed: GatewayProcess, stream: bool) -> None:
    status, headers, said = asked(routed, "both", "fail", stream)
    assert (status, headers["x-cohort-route"], headers["x-cohort-degraded"]) == (200, "second", "main")
    assert b"Provider returned error" not in said


def test_such_an_error_without_another_route_is_the_client_s_and_in_the_record(routed: GatewayProcess) -> None:
    status, _, said = asked(routed, "alone", "fail", False)
    assert (status, json.loads(said)["error"]["code"]) == (502, "upstream_invalid_response")
    assert "the upstream answered with an error: Provider returned error" in json.loads(said)["error"]["message"]
    assert b"Provider returned error" in asked(routed, "alone", "fail", True)[2]
    assert b'"message":"late"' in asked(routed, "alone", "late", True)[2]
    found = [call.result.value for call in routed.records(5) if call.service == "alone"]
    assert found == ["upstream_error", "upstream_error", "upstream_error"]
