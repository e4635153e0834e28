"""A real gateway that chooses between two models, between real clients and upstreams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cohort.gateway.adaptive.features import decode
from cohort.gateway.contract import Arm, Call, pseudonym
from support_gateway import UNIT_KEY, GatewayProcess, release, split, table
from support_processes import free_ports
from support_upstream import Upstream

EASY = "What are your opening hours?"
HARD = "Which of the two is right, and why?\n```\ndef f(a, b):\n    return {k: a[k] + b[k] for k in a}\n```\n" * 12


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


def routed(upstream: Upstream, digest: str = "rel_routed", strong_url: str = "", **policy: Any) -> dict[str, Any]:
    body = release("well", upstream.base_url, digest)
    (main,) = body["routes"]
    body["routes"] = [{**main, "name": "big", "base_url": strong_url or main["base_url"]}, {**main, "name": "small", "model": "tools"}]
    values = {"strong": "big", "weak": "small", "strong_share": 0.6, "strong_share_range": [0.55, 0.65], "control_bucket_share": 0.0}
    body["routing"] = {**values, **policy}
    return body


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"))
    (closed,) = free_ports(1)
    releases = [
        routed(upstream),
        routed(upstream, "rel_forced", override="small"),
        routed(upstream, "rel_cut", strong_url=f"http://127.0.0.1:{closed}/v1"),
        release("well", upstream.base_url, "rel_plain"),
    ]
    services = {
        "routed": "rel_routed",
        "forced": "rel_forced",
        "cut": "rel_cut",
        "shadowed": {"stable": "rel_plain", "split": split("rel_routed", shadow_share=1.0)},
    }
    process.push(table(1, releases, services))
    yield process
    process.close()


def ask(gateway: GatewayProcess, unit: str, *texts: str, service: str = "routed") -> tuple[str, dict[str, str]]:
    messages = [{"role": "user", "content": text} for text in texts]
    status, headers, _ = gateway.chat(service, headers={"X-Cohort-Unit": unit}, messages=messages)
    assert status == 200
    return headers["x-cohort-route"], headers


def call_of(gateway: GatewayProcess, unit: str) -> Call:
    gateway.records(1)
    name = pseudonym(bytes.fromhex(UNIT_KEY), unit)
    return [record for record in gateway.all_records() if record.unit == name and record.kind == "call"][-1]


def test_an_easy_conversation_gets_the_weak_model_and_a_hard_one_the_strong(gateway: GatewayProcess) -> None:
    assert [ask(gateway, *asked)[0] for asked in (("easy", EASY), ("hard", HARD))] == ["small", "big"]


def test_the_record_says_what_was_compared(gateway: GatewayProcess) -> None:
    ask(gateway, "recorded", HARD)
    call = call_of(gateway, "recorded")
    assert (call.route, call.strong, call.bucket) == ("big", True, "adaptive")
    assert call.difficulty is not None
    assert call.boundary is not None
    assert call.difficulty > call.boundary
    assert sum(decode(call.features)) > 0
    ask(gateway, "recorded weak", EASY)
    assert not call_of(gateway, "recorded weak").strong


def test_a_conversation_that_went_up_stays_up(gateway: GatewayProcess) -> None:
    assert [ask(gateway, "pinned", *texts)[0] for texts in ((EASY,), (EASY, HARD), (EASY,))] == ["small", "big", "big"]


def test_a_release_may_send_everything_one_way(gateway: GatewayProcess) -> None:
    assert ask(gateway, "forced", HARD, service="forced")[0] == "small"
    assert call_of(gateway, "forced").difficulty is None


def test_where_the_chosen_model_is_down_the_other_answers_and_says_so(gateway: GatewayProcess) -> None:
    route, headers = ask(gateway, "cut", HARD, service="cut")
    assert (route, headers["x-cohort-degraded"]) == ("small", "big")
    call = call_of(gateway, "cut")
    assert (call.strong, call.route, call.degraded) == (True, "small", True)
    route, headers = ask(gateway, "cut easy", EASY, service="cut")
    assert (route, headers.get("x-cohort-degraded")) == ("small", None)


def test_a_shadow_copy_is_routed_as_its_own_release_says(gateway: GatewayProcess) -> None:
    ask(gateway, "copied", HARD, service="shadowed")
    gateway.records(2)
    name = pseudonym(bytes.fromhex(UNIT_KEY), "copied")
    calls = {record.arm: record for record in gateway.all_records() if record.unit == name and record.kind == "call"}
    assert (calls[Arm.SHADOW].strong, calls[Arm.SHADOW].route) == (True, "big")
    assert calls[Arm.STABLE].bucket == ""


def test_the_kill_switch_holds_from_the_next_request_on_and_so_does_its_end(gateway: GatewayProcess) -> None:
    before = gateway.pushed
    gateway.push({**before, "version": before["version"] + 1, "killed": ["routing.adaptive"]})
    try:
        assert ask(gateway, "killed", EASY)[0] == "big"
        assert call_of(gateway, "killed").bucket == ""
    finally:
        state = gateway.push({**before, "version": before["version"] + 2})
    assert ask(gateway, "after the kill", EASY)[0] == "small"
    assert state.routing["routed"].mode == "adaptive"


def test_state_and_metrics_say_where_the_boundary_is(gateway: GatewayProcess) -> None:
    for number in range(20):
        ask(gateway, f"state {number}", HARD)
    before = gateway.pushed
    aimed = {name: {**entry, "strong_share": 0.65} for name, entry in before["services"].items()}
    state = gateway.push({**before, "version": before["version"] + 1, "services": aimed})
    found = state.routing["routed"]
    assert found.boundary > 0.5
    assert found.conversations >= 20
    ask(gateway, "aimed", EASY)
    assert gateway.push({**before, "version": before["version"] + 2, "services": aimed}).routing["routed"].target_share == 0.65
    metrics = gateway.request("GET", "/metrics")[2].decode()
    assert 'cohort_gateway_routing_boundary{service="routed"}' in metrics


def test_the_environment_can_switch_it_off_for_one_process(upstream: Upstream, tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path, environment={"COHORT_ADAPTIVE": "0"})
    try:
        process.push(table(1, [routed(upstream)], {"routed": "rel_routed"}))
        assert ask(process, "off", EASY)[0] == "big"
    finally:
        process.close()
