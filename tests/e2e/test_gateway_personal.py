"""Personal data in calls through a real gateway: what upstreams see, what callers are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cohort.gateway.contract import Arm
from support_gateway import GatewayProcess, release, split, table, until
from support_upstream import Upstream

SECRET = "Mail jane.doe@example.com, card 4111 1111 1111 1111."
CLEAN = "Mail [email], card [card]."


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"))
    plain = release("well", upstream.base_url, "rel_plain")
    policies = {
        "redacts": {"upstream": "redact"},
        "refuses": {"upstream": "refuse", "kinds": ["card"]},
        "copies_all": {"shadow": "pass"},
    }
    releases = [plain, *({**release("well", upstream.base_url, f"rel_{name}"), "personal": policy} for name, policy in policies.items())]
    services = {
        "plain": "rel_plain",
        "redacts": "rel_redacts",
        "refuses": "rel_refuses",
        "shadowed": {"stable": "rel_plain", "split": split("rel_redacts", shadow_share=1.0)},
        "shadowed_all": {"stable": "rel_plain", "split": split("rel_copies_all", shadow_share=1.0, rollout_id="ro_all")},
    }
    process.push(table(1, releases, services))
    yield process
    process.close()


def ask(gateway: GatewayProcess, service: str, text: str = SECRET) -> tuple[int, dict[str, Any]]:
    status, _, body = gateway.chat(service, messages=[{"role": "user", "content": text}], temperature=0.5)
    return status, json.loads(body)


def seen(upstream: Upstream) -> list[str]:
    return [json.loads(request.body)["messages"][-1]["content"] for request in upstream.seen]


def test_without_a_policy_nothing_is_changed(gateway: GatewayProcess, upstream: Upstream) -> None:
    upstream.seen.clear()
    assert ask(gateway, "plain")[0] == 200
    assert seen(upstream) == [SECRET]


def test_a_release_that_redacts_sends_none_of_it_upstream(gateway: GatewayProcess, upstream: Upstream) -> None:
    upstream.seen.clear()
    assert ask(gateway, "redacts")[0] == 200
    assert seen(upstream) == [CLEAN]
    assert json.loads(upstream.seen[0].body)["temperature"] == 0.5


def test_what_holds_nothing_goes_as_it_came(gateway: GatewayProcess, upstream: Upstream) -> None:
    upstream.seen.clear()
    assert ask(gateway, "redacts", "Good morning")[0] == 200
    assert seen(upstream) == ["Good morning"]


def test_a_release_that_refuses_says_what_and_repeats_nothing(gateway: GatewayProcess, upstream: Upstream) -> None:
    upstream.seen.clear()
    status, body = ask(gateway, "refuses")
    assert (status, body["error"]["code"]) == (400, "personal_data_refused")
    assert "card" in body["error"]["message"]
    assert "4111" not in json.dumps(body)
    assert ask(gateway, "refuses", "Mail jane.doe@example.com")[0] == 200
    assert seen(upstream) == ["Mail jane.doe@example.com"]


@pytest.mark.parametrize(("service", "copied"), [("shadowed", CLEAN), ("shadowed_all", SECRET)])
def test_a_copy_for_a_candidate_is_redacted_unless_its_release_says_otherwise(
    gateway: GatewayProcess, upstream: Upstream, service: str, copied: str
) -> None:
    upstream.seen.clear()
    assert ask(gateway, service)[0] == 200
    until(lambda: len(upstream.seen) == 2, "the copy")
    assert sorted(seen(upstream)) == sorted([SECRET, copied])
    until(lambda: any(record.arm is Arm.SHADOW for record in gateway.all_records()), "the copy's record")


def test_what_was_found_is_counted(gateway: GatewayProcess) -> None:
    ask(gateway, "redacts")
    text = gateway.request("GET", "/metrics")[2].decode()
    assert 'cohort_gateway_personal_data_total{way="redact",kind="card"}' in text
