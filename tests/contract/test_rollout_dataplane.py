"""What control relies on in a gateway, held by the real process over HTTP and by the gateway in memory that the engine's tests use."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError, Retry
from cohort.delivery.cache_state import Forgotten, Keeping, Person
from cohort.delivery.dataplane_http import HttpDataPlane
from cohort.delivery.ports import DataPlane
from cohort.gateway.contract import Arm, Call, Cursor, ReleaseRoute, Result, Route, RoutingTable, ServiceRoute, Split, pseudonym
from support_engine import MemoryGateway
from support_gateway import TOKEN, UNIT_KEY, GatewayProcess


class Memory:
    """The gateway in memory, and its clients."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.gateway = MemoryGateway(self.clock)
        self.plane: DataPlane = self.gateway

    def calls(self, *units: str) -> None:
        """Calls that all fail, as their upstream is not there."""
        for unit in units:
            self.clock.advance(0.01)
            self.gateway.call(unit, bad=list(Arm))

    def restart(self) -> None:
        self.gateway.restart()

    def vanish(self) -> None:
        self.gateway.reachable = False

    def close(self) -> None: ...


class Process:
    """The gateway's own process, spoken to over sockets."""

    def __init__(self, directory: Path) -> None:
        self.gateway = GatewayProcess(directory)
        self.plane: DataPlane = self._plane()

    def _plane(self) -> HttpDataPlane:
        return HttpDataPlane(f"http://127.0.0.1:{self.gateway.port}", TOKEN)

    def calls(self, *units: str) -> None:
        for unit in units:
            self.gateway.chat("support", user=unit)

    def restart(self) -> None:
        self.gateway.kill()
        self.gateway.start()
        self.plane = self._plane()

    def vanish(self) -> None:
        self.gateway.kill()

    def close(self) -> None:
        self.gateway.close()


@pytest.fixture(params=["memory", "process"])
def side(request, tmp_path) -> Iterator[Memory | Process]:
    made = Memory() if request.param == "memory" else Process(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def nobody() -> str:
    """An address that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def table(version: int, nobody: str, *, share: float | None = None, shadow: float = 0.0) -> RoutingTable:
    split = Split("ro_1", "5a17", 1, "rel_b", share, shadow) if share is not None else None
    releases = {digest: ReleaseRoute(digest, digest, (Route("main", "openai", nobody, "m"),)) for digest in ("rel_a", "rel_b")}
    return RoutingTable(version, 1, {"support": ServiceRoute("support", "rel_a", split)}, releases)


def everything(plane: DataPlane, after: Cursor | None = None, at_a_time: int = 4000) -> list[Call]:
    cursor, found = after or Cursor(), []
    while True:
        batch = plane.pull(cursor, records_max=at_a_time, wait_ms=0)
        if not batch.records and batch.next == cursor:
            return found
        assert len(batch.records) <= at_a_time
        found += batch.records
        if batch.behind == 0:
            return found
        cursor = batch.next


def test_a_table_is_in_force_when_its_push_answers(side, nobody):
    assert side.plane.state().table_version == 0
    state = side.plane.push(table(3, nobody, share=0.5))
    assert (state.table_version, dict(state.services), dict(state.splits)) == (3, {"support": "rel_a"}, {"support": "ro_1"})
    assert side.plane.state().table_version == 3


def test_a_split_that_gives_the_candidate_nothing_is_none(side, nobody):
    assert dict(side.plane.push(table(1, nobody, share=0.0)).splits) == {}
    assert dict(side.plane.push(table(2, nobody, share=0.0, shadow=0.5)).splits) == {"support": "ro_1"}


def test_a_table_that_is_no_newer_changes_nothing(side, nobody):
    side.plane.push(table(3, nobody, share=0.5))
    for version in (2, 3):
        state = side.plane.push(table(version, nobody))
        assert (state.table_version, dict(state.splits)) == (3, {"support": "ro_1"})


def test_records_come_in_order_once_whatever_the_pieces(side, nobody):
    side.plane.push(table(1, nobody, share=0.5))
    side.calls(*(f"u{number}" for number in range(12)))
    whole = everything(side.plane)
    assert [call.kind for call in whole] == ["assigned", "call"] * 12
    assert [call.at_us for call in whole] == sorted(call.at_us for call in whole)
    assert {call.share for call in whole} == {0.5}
    assert {call.arm for call in whole} == {Arm.STABLE, Arm.CANDIDATE}
    assert all(call.result is not Result.OK for call in whole if call.kind == "call")
    for pieces in (1, 5, 7):
        assert everything(side.plane, at_a_time=pieces) == whole
    assert everything(side.plane) == whole, "reading is repeatable"


def test_what_was_acknowledged_is_behind_us_and_the_rest_is_kept(side, nobody):
    side.plane.push(table(1, nobody, share=0.5))
    side.calls("a", "b")
    first = side.plane.pull(Cursor(), records_max=4000, wait_ms=0)
    side.plane.acknowledge(first.next)
    side.plane.acknowledge(first.next)
    side.calls("c")
    assert len(everything(side.plane, first.next)) == 2


def test_a_restart_keeps_table_and_records_and_begins_a_new_epoch(side, nobody):
    before = side.plane.push(table(4, nobody, share=0.5))
    side.calls("a", "b")
    old = everything(side.plane)
    side.restart()
    after = side.plane.state()
    assert after.epoch > before.epoch
    assert (after.gateway, after.table_version, dict(after.splits)) == (before.gateway, 4, {"support": "ro_1"})
    side.calls("c")
    records = everything(side.plane)
    assert records[: len(old)] == old
    assert {call.epoch for call in records[len(old) :]} == {after.epoch}
    assert all(later.at_us > old[-1].at_us for later in records[len(old) :])


def test_it_says_when_a_unit_last_got_the_candidate(side, nobody):
    side.plane.push(table(1, nobody, share=1.0))
    side.calls("a", "b")
    newest = max(call.at_us for call in everything(side.plane))
    assert dict(side.plane.state().last_candidate_us) == {"ro_1": newest}


def test_it_says_what_its_caches_hold(side, nobody):
    side.plane.push(table(1, nobody))
    side.calls("a")
    state = side.plane.cache()
    assert {tier: held.entries for tier, held in state.held.items()} == {"l1": 0, "l3": 0, "l4": 0}
    assert (state.answered, state.semantic) == ({}, {})


@pytest.mark.parametrize("store", Keeping)
def test_it_forgets_a_person_by_name_or_by_pseudonym(side, store):
    by_name = side.plane.erase(store, Person(subject="anna"))
    assert by_name == Forgotten(pseudonym(bytes.fromhex(UNIT_KEY), "anna"), 0)
    assert side.plane.erase(store, Person(unit=by_name.unit)) == by_name


def test_a_gateway_out_of_reach_is_an_error_that_may_be_repeated(side, nobody):
    side.plane.push(table(1, nobody))
    side.vanish()
    asks = (
        side.plane.state,
        lambda: side.plane.push(table(2, nobody)),
        lambda: side.plane.pull(Cursor(), records_max=10, wait_ms=0),
        lambda: side.plane.acknowledge(Cursor(1, 0)),
        side.plane.cache,
        lambda: side.plane.erase(Keeping.CACHE, Person(subject="anna")),
        lambda: side.plane.erase(Keeping.RESPONSES, Person(subject="anna")),
    )
    for ask in asks:
        with pytest.raises(CohortError) as caught:
            ask()
        assert (caught.value.code, caught.value.retry) == ("DATA_PLANE_UNAVAILABLE", Retry.SAFE)
