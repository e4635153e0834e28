"""Providers through a real gateway: what an upstream of each kind is sent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support_gateway import GatewayProcess, release, table
from support_upstream import Upstream


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
