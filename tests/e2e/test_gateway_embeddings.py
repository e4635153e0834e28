"""A local model of embeddings behind a real gateway: what it finds, what it must not, and what a call meets when the model is away."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from support_embeddings import EmbeddingsProcess
from support_gateway import GatewayProcess, release, table
from support_home import Home, home_in
from support_model import needs_minilm, needs_model, write_model
from support_processes import alive, free_ports, kill, until
from support_upstream import Upstream

pytestmark = needs_model

TRUSTING: dict[str, Any] = {"false_hit_max": 0.5, "sample_share": 1e-9}
"""A budget so large that two comparisons prove an entry, so that a test need not make hundreds."""
REFUNDS = ["I want my money back", "Can I get a refund?", "Is a refund possible?", "May I have my money back?", "A refund, please!"]
LONG_REST_S = 600


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def model(tmp_path: Path) -> Iterator[EmbeddingsProcess]:
    process = EmbeddingsProcess(tmp_path, write_model(tmp_path / "model"))
    yield process
    process.close()


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddingsProcess]:
    """One that no test kills."""
    folder = tmp_path_factory.mktemp("standing")
    process = EmbeddingsProcess(folder, write_model(folder / "model"))
    yield process
    process.close()


@pytest.fixture
def gateway(upstream: Upstream, model: EmbeddingsProcess, tmp_path: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path, limits={"cache_embeddings_rest_s": 0.001, "cache_embeddings_wait_s": 5})
    process.push(tables(upstream, model.base_url))
    yield process
    process.close()


def tables(upstream: Upstream, url: str) -> dict[str, Any]:
    semantic = {**TRUSTING, "embeddings": {"base_url": url, "model": "local"}}
    return table(1, [release("well", upstream.base_url, "rel_well", cache={"semantic": semantic})])


def ask(gateway: GatewayProcess, text: str, **headers: str) -> str:
    """What the reply says of the caches."""
    status, found, body = gateway.chat("well", headers=headers, messages=[{"role": "user", "content": text}], temperature=0)
    assert status == 200, body
    return found["x-cohort-cache"]


def state(gateway: GatewayProcess) -> dict[str, Any]:
    return json.loads(gateway.link("GET", "/-/cache")[1])["l4"]


def test_other_words_of_one_meaning_are_answered_once_they_have_proved_it(gateway: GatewayProcess, upstream: Upstream) -> None:
    states = [ask(gateway, text) for text in REFUNDS]
    assert (states[:2], states[-1]) == (["miss", "miss"], "semantic")
    seen = len(upstream.seen)
    assert ask(gateway, "Please may I be reimbursed?") == "semantic", "no word in common but those of grammar"
    assert len(upstream.seen) == seen
    assert ask(gateway, "How do I reset my password?") == "miss"


NEAR_MISSES = [
    ("How do I enable two-factor login?", "How do I disable two-factor login?", "polarity"),
    ("Is the train from Paris to London late?", "Is the train from London to Paris late?", "order"),
    ("Is my refund of 50 dollars late?", "Is my refund of 500 dollars late?", "numbers"),
]


def test_what_the_model_takes_for_the_same_and_a_guard_does_not_is_never_served(gateway: GatewayProcess, model: EmbeddingsProcess) -> None:
    for text in REFUNDS:
        ask(gateway, text)
    for known, asked, guard in NEAR_MISSES:
        one, other = (entry["embedding"] for entry in model.embed(input=[known, asked])[2]["data"])
        assert sum(a * b for a, b in zip(one, other, strict=True)) > 0.98
        assert (ask(gateway, known), ask(gateway, asked)) == ("miss", "miss")
        assert state(gateway)["services"]["well"]["objections"][guard] >= 1


def test_one_word_for_another_serves_only_when_these_two_words_have_proved_to_mean_the_same(gateway: GatewayProcess) -> None:
    for text in REFUNDS:
        ask(gateway, text)
    assert ask(gateway, "Refund please") == "semantic", "what is no exchange is proven"
    for known, asked in (("The order is late", "The parcel is late"), ("My password is long", "My passphrase is long")):
        assert (ask(gateway, known), ask(gateway, asked)) == ("miss", "miss")
    assert state(gateway)["services"]["well"]["objections"]["exchange"] == 2
    for known, asked, cache in (
        ("Reset the order password", "Reset the parcel password", "miss"),
        ("Enable the order refund", "Enable the parcel refund", "semantic"),
    ):
        assert ask(gateway, known) == "miss"
        assert ask(gateway, asked) == cache
    assert ask(gateway, "Enable the parcel money") == "miss", "other words have not"


def test_what_rewordings_have_proved_says_nothing_of_texts_that_say_more(gateway: GatewayProcess) -> None:
    for text in ("Is a refund possible?", "Can I get a refund?", "A refund, please!", "May I have a refund?"):
        ask(gateway, text)
    assert ask(gateway, "Refund please") == "semantic"
    assert [ask(gateway, f"Can I get a refund {more}?") for more in ("quickly", "abroad", "again")] == ["miss", "miss", "semantic"]


@needs_minilm
def test_a_trained_model_finds_other_wordings_and_no_near_miss_is_served(upstream: Upstream, tmp_path: Path) -> None:
    model = EmbeddingsProcess(tmp_path, "all-MiniLM-L6-v2")
    gateway = GatewayProcess(tmp_path, limits={"cache_embeddings_wait_s": 5})
    try:
        gateway.push(tables(upstream, model.base_url))
        for text in (
            "How do I cancel my subscription?",
            "Can I cancel the subscription, please?",
            "I would like to cancel my subscription",
        ):
            assert ask(gateway, text) == "miss"
        assert ask(gateway, "Cancelling my subscription: how?") == "semantic"
        for near in ("How do I renew my subscription?", "How do I cancel my second subscription?", "How do I not cancel my subscription?"):
            assert ask(gateway, near) == "miss"
    finally:
        gateway.close()
        model.close()


def test_a_model_killed_costs_hits_and_no_call_and_serves_again_when_it_is_back(
    gateway: GatewayProcess, model: EmbeddingsProcess, tmp_path: Path
) -> None:
    for text in REFUNDS:
        ask(gateway, text)
    assert ask(gateway, "Refund please") == "semantic"
    model.kill()
    assert ask(gateway, "Give me a refund") == "miss"
    assert ask(gateway, REFUNDS[0]) == "exact"
    assert gateway.logged("cache_embedding_failed") is not None
    model.start(tmp_path / "model")
    assert until(lambda: ask(gateway, "So can I get my money back?") in ("semantic", "exact"))
    assert state(gateway)["restarted"] == 0, "what was learned is kept"


def test_another_dimension_begins_the_partition_anew_and_no_call_fails(
    gateway: GatewayProcess, model: EmbeddingsProcess, tmp_path: Path
) -> None:
    for text in REFUNDS:
        ask(gateway, text)
    assert ask(gateway, "Refund please") == "semantic"
    model.close()
    model.start(write_model(tmp_path / "wider", dimension=24))
    assert ask(gateway, "Give me a refund") == "miss"
    assert state(gateway)["restarted"] == 1
    assert ask(gateway, "Please give me the refund") == "semantic", "the new vectors find what was kept since"


def test_a_model_that_failed_is_left_alone_for_a_while(upstream: Upstream, model: EmbeddingsProcess, tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path, limits={"cache_embeddings_rest_s": LONG_REST_S, "cache_embeddings_wait_s": 5})
    try:
        gateway.push(tables(upstream, model.base_url))
        ask(gateway, REFUNDS[0])
        model.kill()
        ask(gateway, REFUNDS[1])
        model.start(tmp_path / "model")
        ask(gateway, REFUNDS[2])
        assert model.health()["texts"] == 0, "it is back, and is not asked before its rest is over"
        assert state(gateway)["services"]["well"]["without_vector"] == 2
    finally:
        gateway.close()


def test_a_model_stopped_in_its_tracks_fails_no_call(upstream: Upstream, model: EmbeddingsProcess, tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path, limits={"cache_embeddings_rest_s": LONG_REST_S, "cache_embeddings_wait_s": 0.2})
    try:
        gateway.push(tables(upstream, model.base_url))
        model.process.send_signal(signal.SIGSTOP)
        assert [ask(gateway, text) for text in REFUNDS[:3]] == ["miss"] * 3
        failed = gateway.logged("cache_embedding_failed")
        assert failed is not None
        assert "no answer within 0.2 s" in failed["reason"]
    finally:
        model.process.send_signal(signal.SIGCONT)
        gateway.close()


def test_a_question_of_too_many_tokens_is_a_miss_and_the_next_one_is_looked_up(upstream: Upstream, tmp_path: Path) -> None:
    model = EmbeddingsProcess(tmp_path, write_model(tmp_path / "short", tokens_max=8))
    gateway = GatewayProcess(tmp_path, limits={"cache_embeddings_rest_s": LONG_REST_S, "cache_embeddings_wait_s": 5})
    try:
        gateway.push(tables(upstream, model.base_url))
        assert ask(gateway, "refund " * 9) == "miss"
        assert state(gateway)["services"]["well"]["without_vector"] == 1
        for text in REFUNDS:
            ask(gateway, text)
        assert ask(gateway, "Refund please") == "semantic"
    finally:
        gateway.close()
        model.close()


# --- the server alone ----------------------------------------------------------------------------------------------------------


def test_the_official_client_gets_the_same_vectors_in_both_forms(standing: EmbeddingsProcess) -> None:
    client = openai.OpenAI(base_url=standing.base_url, api_key="none", max_retries=0)
    assert [entry.id for entry in client.models.list()] == ["local"]
    packed = client.embeddings.create(model="local", input=["refund", "password"])
    plain = client.embeddings.create(model="local", input=["refund", "password"], encoding_format="float")
    assert [entry.embedding for entry in packed.data] == [entry.embedding for entry in plain.data]
    assert packed.usage.prompt_tokens == 2
    with pytest.raises(openai.BadRequestError, match="token numbers"):
        client.embeddings.create(model="local", input=[1, 2, 3])


def test_many_at_once_each_get_their_own(standing: EmbeddingsProcess) -> None:
    words = ["refund", "password", "reset", "enable", "order", "train", "late", "unknown"] * 8
    alone = {word: standing.embed(input=word)[2]["data"][0]["embedding"] for word in set(words)}
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda word: standing.embed(input=word)[2]["data"][0]["embedding"], words))
    assert found == [alone[word] for word in words]


def test_a_full_queue_refuses_and_says_when_to_come_back_and_a_stop_ends_with_status_0(tmp_path: Path) -> None:
    model = EmbeddingsProcess(tmp_path, write_model(tmp_path / "model"), limits={"queue_max": 2})
    try:
        status, headers, body = model.embed(input=["a", "b", "c"])
        assert (status, headers["retry-after"], body["error"]["code"]) == (503, "1", "queue_full")
        assert model.embed(input=["a", "b"])[0] == 200
        assert (model.health()["refused"], model.health()["texts"]) == (3, 2)
        model.process.terminate()
        assert model.process.wait(20) == 0
    finally:
        model.close()


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", "/v1/embeddings", {}, 405, "method_not_allowed"),
        ("GET", "/v1/chat/completions", {}, 404, "not_found"),
        ("GET", "/v1/models", {"Origin": "https://evil.example"}, 403, "origin_refused"),
        ("GET", "/v1/models", {"Host": "evil.example"}, 421, "host_refused"),
    ],
)
def test_other_paths_methods_and_origins_are_refused(
    standing: EmbeddingsProcess, method: str, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    found, _, body = standing.request(method, path, **headers)
    assert (found, body["error"]["code"]) == (status, code)


# --- supervised ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = home_in(tmp_path)
    (port,) = free_ports(1)
    write_model(tmp_path / "models" / "small")
    made.environment["COHORT_EMBEDDINGS_PORT"] = str(port)
    made.environment["COHORT_EMBEDDINGS_MODEL"] = "models/small"
    yield made
    made.run("down")


def test_up_keeps_a_configured_model_running_and_down_finds_it_without_its_supervisor(home: Home) -> None:
    port = home.environment["COHORT_EMBEDDINGS_PORT"]
    first = home.ask("up", "--detach")
    assert first["embeddings_url"] == f"http://127.0.0.1:{port}/v1"
    before = home.pids()
    kill(before["embeddings"])
    after = until(lambda: (now := home.pids())["embeddings"] not in (None, before["embeddings"]) and now)
    assert (after["gateway"], after["control"]) == (before["gateway"], before["control"])
    kill(first["pid"])
    until(lambda: not alive(first["pid"]))
    assert sorted(home.ask("status", code=3)["left_behind"]) == sorted(after.values())
    home.run("down")
    assert not [pid for pid in after.values() if alive(pid)]


def test_a_model_that_is_none_is_told_before_anything_starts(home: Home) -> None:
    (home.folder / "models" / "small" / "tokenizer.json").unlink()
    refused = home.ask("up", "--detach", code=2)
    assert (refused["code"], refused["field"]) == ("CONFIG_INVALID", "embeddings.model")
    assert home.ask("status", code=5)["parts"] == []
