"""Server-side request forgery: what a release can make a real gateway connect to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cohort.base.errors import CohortError
from cohort.gateway.settings import load_settings
from support_faulty import faulty_upstream
from support_gateway import GatewayProcess, release, table, write_config


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with faulty_upstream() as base_url:
        yield base_url


def outcomes(gateway: GatewayProcess, urls: dict[str, str]) -> dict[str, object]:
    gateway.push(table(1, [release("well", url, f"rel_{name}") for name, url in urls.items()], {name: f"rel_{name}" for name in urls}))
    said = {}
    for name in urls:
        status, _, body = gateway.chat(name)
        said[name] = status if status == 200 else json.loads(body)["error"]["code"]
    return said


def test_a_default_installation_reaches_this_machine_and_no_private_network(tmp_path: Path, upstream: str) -> None:
    port = urlsplit(upstream).port
    gateway = GatewayProcess(tmp_path, limits={"connect_s": 1})
    try:
        reached = {"name": f"http://localhost:{port}/v1", "literal": upstream, "short": f"http://127.1:{port}/v1"}
        refused = {
            "metadata": "http://169.254.169.254/v1", "dressed": "http://[::ffff:169.254.169.254]/v1", "decimal": "http://2852039166/v1",
            "ten": "http://10.0.0.1/v1", "local": "http://[fe80::1]/v1", "any": f"http://0.0.0.0:{port}/v1",
        }  # fmt: skip
        said = outcomes(gateway, {**reached, **refused})
        assert said == {**dict.fromkeys(reached, 200), **dict.fromkeys(refused, "upstream_address_refused")}
    finally:
        gateway.close()


def test_an_installation_can_close_loopback_too(tmp_path: Path, upstream: str) -> None:
    gateway = GatewayProcess(tmp_path, private_upstreams=["10.0.0.0/8"])
    try:
        assert outcomes(gateway, {"literal": upstream}) == {"literal": "upstream_address_refused"}
    finally:
        gateway.close()


@pytest.mark.parametrize("networks", ["127.0.0.0/8", ["127.0.0.1/8"], [7], ["x"] * 201])
def test_a_wrong_network_is_named(tmp_path: Path, networks: object) -> None:
    with pytest.raises(CohortError) as caught:
        load_settings(write_config(tmp_path, private_upstreams=networks))
    assert caught.value.field == "private_upstreams"
