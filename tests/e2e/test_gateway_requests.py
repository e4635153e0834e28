"""A real gateway process between a real client and an upstream."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support_gateway import GatewayProcess, release, split, table
from support_upstream import BEHAVIOURS, STREAM, Upstream

from cohort.gateway.contract import Arm, Result, bucket, pseudonym


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"))
    process.push(table(1, [release(name, upstream.base_url) for name in BEHAVIOURS]))
    yield process
    process.close()


def test_a_chat_request_is_answered_by_the_release_of_its_service(gateway: GatewayProcess) -> None:
    status, headers, body = gateway.chat("well")
    assert status == 200, body
    assert headers["x-cohort-release"] == "v-well"


def test_a_stream_is_passed_on_byte_for_byte(gateway: GatewayProcess) -> None:
    status, headers, body = gateway.chat("well", stream=True)
    assert status == 200
    assert body == b"".join(STREAM)
