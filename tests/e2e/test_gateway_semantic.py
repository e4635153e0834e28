"""Answers to the same question in other words, from a real gateway: learned first, guarded always, measured while served."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cohort.delivery.cache_state import cache_state
from cohort.gateway.cache.semantic.baselines import Baselines
from cohort.gateway.cache.semantic.drift import HITS, Counts
from cohort.gateway.contract import Result
from support_gateway import GatewayProcess, release, table, until
from support_upstream import EMBEDDING, Upstream

TRUSTING: dict[str, Any] = {"false_hit_max": 0.5, "sample_share": 1e-9}
"""A budget so large that two comparisons prove an entry, so that a test need not make hundreds."""
RESETS = [
    f"{opening} reset my password?"
    for opening in ("How do I", "How can I", "Please tell me how to", "How would I", "What are the steps to")
]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def gateway(upstream: Upstream, tmp_path: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path)
    process.push(tables(upstream, 1))
    yield process
    process.close()


def tables(upstream: Upstream, version: int, **extra: Any) -> dict[str, Any]:
    def made(model: str, name: str, **semantic: Any) -> dict[str, Any]:
        return release(model, upstream.base_url, f"rel_{name}", cache={"semantic": {**TRUSTING, **semantic}})

    endpoint = {"base_url": upstream.base_url, "model": "embed"}
    nowhere = {"base_url": "http://127.0.0.1:1/v1", "model": "embed"}
    releases = [
        made("well", "letters"),
        made("numbered", "numbered"),
        made("well", "strict", false_hit_max=0.01),
        made("well", "sampled", sample_share=1.0),
        made("well", "endpoint", embeddings=endpoint),
        made("well", "nowhere", embeddings=nowhere),
        made("well", "below", embeddings=endpoint, sample_share=1.0),
        made("rephrased", "open"),
        made("rephrased", "judged", judge="judge"),
        made("rephrased", "strict_judge", judge="nobody"),
        release("judge", upstream.base_url, "rel_judge"),
        made("tools", "tools"),
    ]
    return {**table(version, releases, {r["digest"].removeprefix("rel_"): r["digest"] for r in releases}), **extra}


def ask(gateway: GatewayProcess, service: str, text: str, headers: dict[str, str] | None = None, **fields: Any) -> str:
    """What the reply says of the caches."""
    messages = [{"role": "user", "content": text}]
    status, found, body = gateway.chat(service, headers=headers, **{"messages": messages, "temperature": 0, **fields})
    assert status == 200, body
    return found["x-cohort-cache"]


def state(gateway: GatewayProcess) -> dict[str, Any]:
    return json.loads(gateway.link("GET", "/-/cache")[1])["l4"]


def test_other_words_are_answered_once_comparisons_have_proved_it(gateway: GatewayProcess, upstream: Upstream) -> None:
    states = [ask(gateway, "letters", text) for text in RESETS]
    assert states[:2] == ["miss", "miss"], "nothing is known yet of how the answer serves others"
    assert states[-1] == "semantic"
    seen = len(upstream.seen)
    assert ask(gateway, "letters", "I want to reset the password, how?", stream=True) == "semantic"
    assert len(upstream.seen) == seen
    assert [r.cache for r in gateway.records(6)][-1] == "l4"
    told = state(gateway)["services"]["letters"]
    assert told["served"] >= 2
    assert told["learned"]["same"] >= 2
    assert told["hit_rate_95"][0] < told["hit_rate"] < told["hit_rate_95"][1]
    assert told["recorded"] == told["looked"]
    near = [band for band in told["bands"] if band["from"] >= 0.85]
    assert sum(band["served"] for band in near) == told["served"]
    assert sum(band["found"] for band in near) == told["served"] + told["unproven"]
    assert sum(band["same"] for band in near) == told["learned"]["same"]
    (counts,) = cache_state({"services": {}, "l4": state(gateway)}).semantic.values()
    assert (counts.looked, counts.served) == (told["looked"], told["served"])


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        ("How do I enable two-factor login?", "How do I disable two-factor login?"),
        ("Send 5 tickets to the office", "Send 6 tickets to the office"),
        ("Is the train from Paris to London late?", "Is the train from London to Paris late?"),
        ("Show the status of order AB-12", "Show the status of order AB-13"),
        ("Should I restart the server?", "Should I not restart the server?"),
    ],
)
def test_what_a_guard_objects_to_is_never_served_however_proven(gateway: GatewayProcess, known: str, asked: str) -> None:
    for text in RESETS:
        ask(gateway, "letters", text)
    ask(gateway, "letters", known)
    assert [ask(gateway, "letters", asked, {"Cache-Control": "no-cache"}), ask(gateway, "letters", asked)] == ["miss", "exact"]
    assert ask(gateway, "letters", asked + " ") == "semantic", "its own answer serves, the other's does not"


def test_a_small_budget_wants_more_comparisons_than_a_handful(gateway: GatewayProcess) -> None:
    assert {ask(gateway, "strict", text) for text in RESETS} == {"miss"}
    assert state(gateway)["services"]["strict"]["unproven"] == len(RESETS) - 1


def test_answers_that_differ_are_learned_from_and_never_served(gateway: GatewayProcess) -> None:
    assert {ask(gateway, "numbered", text) for text in RESETS} == {"miss"}
    assert state(gateway)["services"]["numbered"]["learned"]["other"] == len(RESETS) - 1


def test_what_is_drawn_for_the_sample_is_answered_by_the_model_and_counted(gateway: GatewayProcess, upstream: Upstream) -> None:
    before = len(upstream.seen)
    assert {ask(gateway, "sampled", text) for text in RESETS} == {"miss"}
    assert len(upstream.seen) == before + len(RESETS)
    told = state(gateway)["services"]["sampled"]
    assert (told["served"], told["false_hit_rate"]) == (0, 0.0)
    assert told["sampled"] == told["sample"]["same"] > 0
    assert 0 < told["false_hit_rate_95"][1] < 1


def test_tool_calls_are_not_kept_by_meaning(gateway: GatewayProcess) -> None:
    assert {ask(gateway, "tools", text) for text in RESETS} == {"miss"}
    assert state(gateway)["entries"] == 0


def test_a_later_turn_is_answered_only_behind_the_same_history(gateway: GatewayProcess) -> None:
    def turn(text: str, said: str = "Hello.", **fields: Any) -> str:
        before = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": said}]
        return ask(gateway, "letters", "", messages=[*before, {"role": "user", "content": text}], **fields)

    for text in RESETS:
        ask(gateway, "letters", text)
    assert turn(RESETS[0] + " ") == "miss", "what was learned of first turns says nothing of later ones"
    states = [turn(text) for text in RESETS[1:]]
    assert states[-1] == "semantic"
    assert turn("I want to reset the password, how?") == "semantic"
    assert turn("I want to reset the password, how?", said="Good morning.") == "miss"
    other_prompt = [{"role": "system", "content": "Speak like a pirate."}, {"role": "user", "content": RESETS[0] + " "}]
    assert ask(gateway, "letters", "", messages=other_prompt) == "miss"
    assert state(gateway)["partitions"] == 4


def test_the_endpoint_sees_meaning_and_may_change_its_dimension(gateway: GatewayProcess) -> None:
    asked = ["I want my money back", "Can I get a refund?", "Is a refund possible?", "Give me my money", "A refund, please!"]
    states = [ask(gateway, "endpoint", text) for text in asked]
    assert states[-1] == "semantic"
    EMBEDDING["dimension"] = 12
    try:
        assert ask(gateway, "endpoint", "May I have my money back?") == "miss"
        assert state(gateway)["restarted"] == 1
        assert ask(gateway, "endpoint", "Could I have a refund?") == "semantic", "what was learned stays, the vectors begin anew"
    finally:
        EMBEDDING["dimension"] = 8


def test_what_lies_below_the_threshold_is_compared_and_never_served(gateway: GatewayProcess) -> None:
    for text in ("I want my money back", "I want to be paid my money back"):
        assert ask(gateway, "below", text) == "miss"
    told = state(gateway)["services"]["below"]
    assert [(band["from"], band["found"], band["same"]) for band in told["bands"]] == [(0.8, 1, 1)]
    assert (told["unproven"], told["learned"]["same"], state(gateway)["labels"]) == (0, 0, 0), "nothing is learned from it"


def test_a_judge_decides_what_letters_leave_open_and_its_calls_are_recorded(gateway: GatewayProcess) -> None:
    def learned(service: str) -> dict[str, int]:
        return dict(state(gateway)["services"][service]["learned"])

    pair = ("How do I reset my password?", "How can I reset my password?")
    for service in ("open", "judged", "strict_judge"):
        for text in pair:
            ask(gateway, service, text)
    until(lambda: sum(learned("judged").values()), "the judge answered")
    assert (learned("open"), learned("judged")) == ({"same": 0, "unclear": 1, "other": 0}, {"same": 1, "unclear": 0, "other": 0})
    until(lambda: learned("strict_judge")["unclear"], "a judge that is not there leaves it open")
    assert gateway.logged("consulted_service_missing") is not None
    assert state(gateway)["services"]["judged"]["judged"] == {"same": 1, "unclear": 0, "other": 0}
    (call,) = [record for record in gateway.records(7) if record.service == "judge"]
    assert call.result is Result.OK
    for opening in ("How strictly do I", "How strictly can I"):
        ask(gateway, "judged", f"{opening} reset my password?")
    until(lambda: learned("judged")["other"], "and what it finds other counts so")


def test_an_endpoint_that_is_away_is_a_miss_said_in_the_log(gateway: GatewayProcess) -> None:
    assert [ask(gateway, "nowhere", RESETS[0]), ask(gateway, "nowhere", RESETS[1])] == ["miss", "miss"]
    assert gateway.logged("cache_embedding_failed") is not None
    assert state(gateway)["services"]["nowhere"]["without_vector"] == 2


def test_the_kill_list_turns_answers_by_meaning_off_alone(gateway: GatewayProcess, upstream: Upstream) -> None:
    for text in RESETS:
        ask(gateway, "letters", text)
    assert ask(gateway, "letters", "How to reset my password?") == "semantic"
    gateway.push(tables(upstream, 2, killed=["cache.semantic"]))
    assert ask(gateway, "letters", "How to reset my password?") == "miss"
    assert ask(gateway, "letters", "How to reset my password?") == "exact"
    gateway.push(tables(upstream, 3, killed=["cache.exact"]))
    assert ask(gateway, "letters", "So how do I reset my password?") == "semantic"


def test_erasing_a_subject_reaches_answers_by_meaning(gateway: GatewayProcess) -> None:
    for text in RESETS[:3]:
        ask(gateway, "letters", text, {"X-Cohort-Unit": "anna"})
    status, body = gateway.link("POST", "/-/cache/erase", {"subject": "anna"})
    assert (status, json.loads(body)["erased"]["l4"]) == (200, 3)
    assert state(gateway)["entries"] == 0
    assert ask(gateway, "letters", RESETS[3]) == "miss"


def test_tenants_share_answers_neither_of_the_same_nor_of_other_words(upstream: Upstream, tmp_path: Path) -> None:
    keys = [
        {"id": name, "name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "tenant": tenant}
        for name, tenant in (("anna", "red"), ("anton", "red"), ("bert", "blue"))
    ]
    process = GatewayProcess(tmp_path)
    try:
        process.push(tables(upstream, 1, keys=keys, keys_required=True))

        def said(name: str, text: str) -> str:
            return ask(process, "letters", text, {"Authorization": f"Bearer {name}"})

        states = [said("anna", text) for text in RESETS]
        assert (states[0], states[-1]) == ("miss", "semantic")
        assert (said("anton", RESETS[0]), said("anton", RESETS[0] + " ")) == ("exact", "semantic")
        assert (said("bert", RESETS[0]), said("bert", RESETS[0])) == ("miss", "exact")
        assert said("bert", "How should this person be greeted?") == "miss"
        assert [said("bert", text) for text in RESETS[1:3]] == ["miss", "miss"], "what one tenant's answers proved counts for no other"
        assert said("bert", RESETS[4]) == "semantic", "its own do"
    finally:
        process.close()


def test_what_comparisons_taught_outlives_kill_9(gateway: GatewayProcess, upstream: Upstream) -> None:
    for text in RESETS:
        ask(gateway, "letters", text)
        ask(gateway, "numbered", text)
    learned = state(gateway)["labels"]
    assert learned >= 2
    gateway.kill()
    gateway.start()
    assert (state(gateway)["labels"], state(gateway)["damaged"]) == (learned, 0)
    assert ask(gateway, "letters", RESETS[0]) == "miss", "answers by meaning are in memory alone"
    assert ask(gateway, "letters", RESETS[1]) == "semantic", "what was proved before is not asked for again"
    assert {ask(gateway, "numbered", text) for text in RESETS} == {"miss"}
    status, _ = gateway.link("POST", "/-/cache/erase", {"subject": "nobody"})
    assert status == 200


def test_erasing_a_subject_erases_what_was_learned_of_its_answers(gateway: GatewayProcess) -> None:
    units = [ask_for_unit(gateway, text) for text in RESETS[:3]]
    assert len(set(units)) == 1
    written = gateway.data_dir / "labels" / "entries"
    assert bytes.fromhex(units[0]) in written.read_bytes()
    assert gateway.link("POST", "/-/cache/erase", {"unit": units[0]})[0] == 200
    assert bytes.fromhex(units[0]) not in written.read_bytes()
    assert state(gateway)["labels"] == 0


def ask_for_unit(gateway: GatewayProcess, text: str) -> str:
    messages = [{"role": "user", "content": text}]
    return gateway.chat("letters", headers={"X-Cohort-Unit": "anna"}, messages=messages, temperature=0)[1]["x-cohort-unit"]


def test_drift_from_the_baseline_of_a_former_process_is_said_in_log_and_metrics(upstream: Upstream, tmp_path: Path) -> None:
    former = Baselines(tmp_path / "data" / "labels" / "baselines")
    former.freeze("letters", "rel_letters", "hits", Counts(900, 1000))
    former.sync()
    process = GatewayProcess(tmp_path)
    try:
        process.push(tables(upstream, 1))
        for number in range(HITS.needed):
            assert ask(process, "letters", f"What is article {number}?") == "miss"
        told = until(lambda: process.logged("cache_drifted"), "drift is said")
        assert (told["service"], told["release"], told["measure"], told["baseline"], told["recent"]) == (
            *("letters", "rel_letters", "hits"),
            *(0.9, 0.0),
        )
        gauge = b'cohort_gateway_cache_drift{service="letters",release="rel_letters",measure="hits"} 1'
        assert gauge in process.request("GET", "/metrics")[2]
        assert state(process)["services"]["letters"]["drift"]["rel_letters"]["hits"] == {"baseline": [900, 1000], "recent": [0, 300]}
    finally:
        process.close()
