"""Where a provider's paths are, how it is given its key, and where keys come from."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.delivery.face import Bundle
from cohort.delivery.manifests import freeze, release_routes
from cohort.delivery.model import Release
from cohort.gateway.compiled import Target, compile_table
from cohort.gateway.contract import decode_table, encode
from cohort.gateway.keys import KeyMissing, Keys
from support_gateway import release, table

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "providers.md").read_text()


def target(base_url: str, **route: Any) -> Target:
    body = table(1, [release("big", base_url, "rel_1", route=route)], {"s": "rel_1"})
    return compile_table(decode_table(encode(body))).services["s"].stable


def test_an_azure_deployment_is_part_of_the_path_and_its_key_has_a_header_of_its_own() -> None:
    made = target("https://r.openai.azure.com/", provider="azure", model="large/2 x", api_version="2024-10-21")
    line = made.heads[b"/chat/completions"].split(b"\r\n")[0]
    assert line == b"POST /openai/deployments/large%2F2%20x/chat/completions?api-version=2024-10-21 HTTP/1.1"
    assert (made.provider, made.key_line.format("k")) == ("openai", "api-key: k\r\n")


def test_a_route_can_send_further_headers() -> None:
    head = target("https://openrouter.ai/api/v1", headers={"HTTP-Referer": "https://example.com", "X-Title": "S"}).heads[
        b"/chat/completions"
    ]
    assert head.startswith(b"POST /api/v1/chat/completions HTTP/1.1\r\nhost: openrouter.ai\r\n")
    assert b"\r\nhttp-referer: https://example.com\r\nx-title: S\r\n" in head


@pytest.mark.parametrize(
    "headers", [{"Authorization": "x"}, {"host": "x"}, {"X-Cohort-Unit": "x"}, {"a b": "x"}, {"x": "a\r\nb: c"}, {"x": 7}, {"": "x"}]
)
def test_a_header_that_is_not_a_routes_to_set_is_refused(headers: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"routes\.main\.headers\."):
        target("https://x/v1", headers=headers)


def test_an_azure_route_without_a_version_is_refused() -> None:
    with pytest.raises(ValueError, match="api_version: missing"):
        target("https://x", provider="azure")


def test_the_example_of_the_page_is_a_release_with_three_ways_to_answer() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    frozen = freeze(Bundle("example.yaml", example, {}))
    body = {**frozen.body, "routes": {entry["name"]: entry for entry in frozen.body["routes"]}}
    made = release_routes(Release(frozen.digest, frozen.service, frozen.version, frozen.kind, body, None, 1, "test"))
    assert [route.name for route in made.routes] == ["main", "router", "local"]
    assert made.routes[0].api_version == "2024-10-21"
    assert made.routes[1].headers == {"HTTP-Referer": "https://example.com", "X-Title": "Support"}
    assert (made.reliability.first_byte_s, made.reliability.retries) == (10, 1)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (("api_version: ", "# "), "routes.main.api_version"),
        (
            (
                "provider: openai\n    base_url: https://openrouter",
                'provider: openai\n    api_version: "1"\n    base_url: https://openrouter',
            ),
            "routes.router.api_version",
        ),
        (("X-Title", "Cookie"), "routes.router.headers"),
        (("keyring:openrouter/production", "keyring:openrouter"), "routes.router.api_key"),
        (("credential:azure-key", "credential:../azure"), "routes.main.api_key"),
        (("first_byte_s: 10", "first_byte_s: 0"), "reliability.first_byte_s"),
        (("first_byte_s: 10", "retries: 11"), "reliability.retries"),
    ],
)
def test_a_wrong_route_is_named_with_its_line(change: tuple[str, str], field: str) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert change[0] in example
    with pytest.raises(CohortError) as caught:
        freeze(Bundle("example.yaml", example.replace(*change), {}))
    assert (caught.value.code, caught.value.field) == ("DOCUMENT_INVALID", field)


# --- keys ------------------------------------------------------------------------------------------------------------------


def test_a_credential_of_systemd_is_a_key(tmp_path: Path) -> None:
    (tmp_path / "vendor.key").write_text("sk-1\n")
    keys = Keys({"CREDENTIALS_DIRECTORY": str(tmp_path)}, ManualClock(), 30)
    assert keys.authorization("credential:vendor.key", "api-key: {}\r\n") == b"api-key: sk-1\r\n"
    for wrong in ("credential:..", "credential:a/b", "credential:gone", "credential:cohort-admin"):
        with pytest.raises(KeyMissing, match=re.escape(wrong)):
            keys.authorization(wrong)
    with pytest.raises(KeyMissing, match="no credentials"):
        Keys({}, ManualClock(), 30).authorization("credential:vendor.key")


@pytest.fixture
def asked() -> Iterator[tuple[Keys, dict[tuple[str, str], str], threading.Semaphore, ManualClock]]:
    """Keys over a keyring that answers when it is let."""
    held, gate, clock = {("vendor/eu", "main"): "sk-1"}, threading.Semaphore(0), ManualClock()

    def ask(service: str, user: str) -> str | None:
        assert gate.acquire(timeout=10)
        return held.get((service, user))

    yield Keys({}, clock, 30, keyring=ask), held, gate, clock
    gate.release(100)


def test_no_call_waits_for_the_keyring(asked: Any) -> None:
    keys, held, gate, clock = asked
    with pytest.raises(KeyMissing, match="is being read"):
        keys.authorization("keyring:vendor/eu/main")
    gate.release(2)
    keys.warm(["env:X", "keyring:vendor/eu/main"])
    assert keys.authorization("keyring:vendor/eu/main").endswith(b" sk-1\r\n")
    held["vendor/eu", "main"] = "sk-2"
    clock.advance(31)
    assert keys.authorization("keyring:vendor/eu/main").endswith(b" sk-1\r\n"), "what is known is used until the keyring has answered"
    gate.release(2)
    keys.warm(["keyring:vendor/eu/main"])
    clock.advance(31)
    assert keys.authorization("keyring:vendor/eu/main").endswith(b" sk-2\r\n")


def test_what_the_keyring_does_not_hold_is_missing(asked: Any) -> None:
    keys, _, gate, _ = asked
    gate.release(1)
    keys.warm(["keyring:other/main"])
    with pytest.raises(KeyMissing, match="is not in the keyring"):
        keys.authorization("keyring:other/main")


def test_the_systems_keyring_is_asked_and_its_absence_named() -> None:
    import keyring
    import keyring.backends.fail
    import keyring.backends.null

    former = keyring.get_keyring()
    try:
        keyring.set_keyring(keyring.backends.null.Keyring())
        keys = Keys({}, ManualClock(), 30)
        keys.warm(["keyring:a/b"])
        with pytest.raises(KeyMissing, match="is not in the keyring"):
            keys.authorization("keyring:a/b")
        keyring.set_keyring(keyring.backends.fail.Keyring())
        keys = Keys({}, ManualClock(), 30)
        keys.warm(["keyring:a/b"])
        with pytest.raises(KeyMissing, match="this session has no keyring"):
            keys.authorization("keyring:a/b")
    finally:
        keyring.set_keyring(former)
