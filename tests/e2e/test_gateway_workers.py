"""Several workers of one gateway: what one of them was told or keeps, the others know."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from support_gateway import GatewayProcess, release, table
from support_upstream import Upstream
from support_vendor import KEY, TEXT, vendor

KEYS = [
    {"id": f"id_{name}", "name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), **terms}
    for name, terms in (("a1", {"tenant": "a"}), ("a2", {"tenant": "a"}), ("b", {"tenant": "b"}))
]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream(behave=vendor)
    yield server
    server.close()


@pytest.fixture(scope="module")
def workers(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[GatewayProcess]]:
    folder = tmp_path_factory.mktemp("workers")
    options: dict[str, Any] = {"environment": {"VENDOR_KEY": KEY}, "shared_dir": str(folder / "both")}
    made = [GatewayProcess(folder / str(number), gateway_id=f"gw-{number}", **options) for number in range(3)]
    for worker in made:
        worker.push(served(upstream))
    yield made
    for worker in made:
        worker.close()


def served(upstream: Upstream) -> dict[str, Any]:
    releases = [
        release("big", upstream.base_url, f"rel_{provider}", route={"provider": provider, "api_key": "env:VENDOR_KEY"})
        for provider in ("openai", "openai-responses")
    ]
    names = {"kept": "rel_openai", "native": "rel_openai-responses"}
    return {**table(1, releases, names), "keys": KEYS, "keys_required": True}


def client(worker: GatewayProcess, key: str = "a1") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{worker.port}/v1", api_key=key, max_retries=0)


def test_a_conversation_goes_on_at_whichever_worker_its_next_call_meets(workers: list[GatewayProcess], upstream: Upstream) -> None:
    answer = client(workers[0]).responses.create(model="kept", input="one")
    for number in range(1, 9):
        answer = client(workers[number % 3]).responses.create(model="kept", input=f"and {number}", previous_response_id=answer.id)
    assert len(upstream.seen[-1].fields["messages"]) == 17
    assert client(workers[1]).responses.retrieve(answer.id).output_text == TEXT
    workers[2].kill()
    after = client(workers[0]).responses.create(model="kept", input="on", previous_response_id=answer.id)
    workers[2].start()
    assert client(workers[2]).responses.create(model="kept", input="on", previous_response_id=after.id).output_text == TEXT
    with pytest.raises(openai.BadRequestError, match="not kept here"):
        client(workers[1], "b").responses.create(model="kept", input="mine now", previous_response_id=after.id)


def test_a_person_is_forgotten_by_every_worker_whichever_was_asked(workers: list[GatewayProcess]) -> None:
    answer = client(workers[0]).responses.create(model="kept", input="one", user="anna")
    status, said = workers[1].link("POST", "/-/responses/erase", {"subject": "anna"})
    assert (status, json.loads(said)["erased"]) == (200, 1)
    for worker in workers:
        with pytest.raises(openai.BadRequestError, match="not kept here"):
            client(worker).responses.create(model="kept", input="two", previous_response_id=answer.id)


@pytest.mark.parametrize("stream", [False, True])
def test_an_id_of_an_upstream_is_taken_from_whom_it_was_given_to_alone(workers: list[GatewayProcess], stream: bool) -> None:
    """The victim's id is echoed to the stranger by the vendor as its metadata, which gives it to nobody."""
    name = f"victim{stream}"
    mine = client(workers[0]).responses.create(model="native", input="one", metadata={"as": name}, stream=stream)
    if stream:
        assert [event.type for event in mine] == ["response.created", "response.completed"]
    echo = {"as": f"stranger{stream}", "id": f"resp_{name}", "type": "response.created"}
    list(client(workers[1], "b").responses.create(model="native", input="one", metadata=echo, stream=True))
    for worker in workers:
        assert client(worker, "a2").responses.create(model="native", input="two", previous_response_id=f"resp_{name}").output_text == TEXT
        client(worker).responses.create(model="native", input=[{"type": "item_reference", "id": f"msg_{name}"}])
        for field, wrong, code in (
            ("previous_response_id", {"previous_response_id": f"resp_{name}"}, "previous_response_not_found"),
            ("conversation", {"conversation": {"id": "conv_1"}}, "item_not_found"),
            ("input", {"input": [{"type": "item_reference", "id": f"msg_{name}", "role": "user"}]}, "item_not_found"),
            ("input", {"input": [{"type": "reasoning", "id": f"msg_{name}", "summary": []}]}, "item_not_found"),
        ):
            fields: dict[str, Any] = {"model": "native", "input": "two", **wrong}
            with pytest.raises(openai.BadRequestError) as refused:
                client(worker, "b").responses.create(**fields)
            assert (refused.value.code, refused.value.param) == (code, field)
    own = [{"type": "message", "role": "user", "id": "msg_own", "content": "Hi"}]
    assert client(workers[0], "b").responses.create(model="native", input=own).output_text == TEXT
