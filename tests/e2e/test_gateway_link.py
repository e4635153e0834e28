"""Control's client and a real gateway: the table down, outcomes up, each exactly once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.base.errors import CohortError, Retry
from cohort.delivery.cache_state import Forgotten, Keeping, Person
from cohort.delivery.dataplane_http import HttpDataPlane
from cohort.gateway.contract import Arm, Cursor, decode_table, encode, pseudonym
from support_gateway import TOKEN, UNIT_KEY, GatewayProcess, release, split, table
from support_upstream import Upstream


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path)
    yield process
    process.close()


@pytest.fixture
def plane(gateway: GatewayProcess) -> Iterator[HttpDataPlane]:
    made = HttpDataPlane(f"http://127.0.0.1:{gateway.port}", TOKEN)
    yield made
    made.close()


def test_a_rollout_s_table_goes_down_and_its_outcomes_come_up(gateway: GatewayProcess, plane: HttpDataPlane, upstream: Upstream) -> None:
    releases = [release("well", upstream.base_url), release("tools", upstream.base_url)]
    sent = decode_table(encode(table(3, releases, {"s": {"stable": "rel_well", "split": split("rel_tools", share=1.0)}})))
    state = plane.push(sent)
    assert (state.table_version, state.services, state.splits) == (3, {"s": "rel_well"}, {"s": "ro_1"})
    assert plane.pull(Cursor(), records_max=10, wait_ms=10).records == ()
    gateway.chat("s", user="u")
    batch = plane.pull(Cursor(), records_max=10, wait_ms=2000)
    assert [(r.kind, r.arm, r.release) for r in batch.records] == [
        ("assigned", Arm.CANDIDATE, "rel_tools"),
        ("call", Arm.CANDIDATE, "rel_tools"),
    ]
    assert (batch.gateway, batch.epoch, batch.damaged) == ("gw-test", batch.records[0].epoch, ())
    plane.acknowledge(batch.next)
    assert plane.pull(batch.next, records_max=10, wait_ms=10).records == ()
    assert plane.state().last_candidate_us == {"ro_1": batch.records[0].at_us}


def test_a_gateway_that_is_gone_or_refuses_is_unavailable(gateway: GatewayProcess, plane: HttpDataPlane) -> None:
    stranger = HttpDataPlane(f"http://127.0.0.1:{gateway.port}", "wrong")
    with pytest.raises(CohortError, match="404"):
        stranger.state()
    stranger.close()
    gateway.kill()
    with pytest.raises(CohortError) as caught:
        plane.state()
    assert caught.value.code == "DATA_PLANE_UNAVAILABLE"


def test_a_person_is_forgotten_in_caches_and_kept_responses_and_a_store_that_fails_says_so(
    gateway: GatewayProcess, plane: HttpDataPlane, upstream: Upstream
) -> None:
    made = release("numbered", upstream.base_url, "rel_kept", cache={})
    plane.push(decode_table(encode(table(3, [made], {"s": "rel_kept"}))))

    def answered() -> str:
        body = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "user": "anna"}
        return gateway.chat("s", **body)[1]["x-cohort-cache"]

    assert [answered(), answered()] == ["miss", "exact"]
    gateway.request(
        "POST", "/v1/responses", json.dumps({"model": "s", "input": "hi", "user": "anna"}).encode(), Content_Type="application/json"
    )
    state = plane.cache()
    assert (state.answered["s"]["l1"], state.held["l1"].entries) == (1, 1)
    unit = pseudonym(bytes.fromhex(UNIT_KEY), "anna")
    assert plane.erase(Keeping.CACHE, Person(subject="anna")) == Forgotten(unit, 1)
    assert plane.erase(Keeping.RESPONSES, Person(unit=unit)) == Forgotten(unit, 1)
    assert answered() == "miss"
    (gateway.data_dir / "responses" / "00" / f"resp_{0:032x}.{unit}").mkdir(parents=True)  # it cannot be removed as a file is
    with pytest.raises(CohortError) as caught:
        plane.erase(Keeping.RESPONSES, Person(unit=unit))
    assert (caught.value.code, caught.value.retry) == ("CACHE_NOT_ERASED", Retry.SAFE)
