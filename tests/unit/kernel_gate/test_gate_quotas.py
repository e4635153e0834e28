"""Quotas: refused when used up, given back when not used, never under-counted after a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.kernel.actions.clearance import Cleared, Executed
from cohort.kernel.actions.quotas import AT_ONCE_MAX, FLOOD_ROOM, Quotas
from cohort.kernel.model import Autonomy, Limits, Outcome
from cohort.storage.database import Database, open_database
from support_gate import OTHER, GateHouse

AGENT = "ag_" + "a" * 16


@pytest.fixture
def gates(database: Database, clock: ManualClock, tmp_path: Path) -> GateHouse:
    return GateHouse(database, clock, tmp_path)


def limited(gates: GateHouse, **limits: float) -> None:
    gates.as_agent(autonomy=Autonomy.AGGRESSIVE, limits=Limits(**limits))
    gates.change_caller(expires_us=gates.clock.now_us() + 10**12)


def using(gates: GateHouse, cpu_s: float) -> None:
    def work(_cleared: Cleared) -> Executed:
        return Executed({}, cpu_us=round(cpu_s * 1e6))

    gates.replace_executor("terminal.run", work)


def run(gates: GateHouse) -> str | None:
    return gates.ask("terminal.run", argv=["ls"]).code


def test_calls_per_minute_are_counted_over_any_minute(gates: GateHouse) -> None:
    limited(gates, calls_per_minute=3)
    assert [gates.ask("files.read", path="a").code for _ in range(4)] == [None, None, None, "QUOTA_EXCEEDED"]
    gates.clock.advance(61)
    assert gates.ask("files.read", path="a").code is None


def test_refused_attempts_are_calls_too(gates: GateHouse) -> None:
    limited(gates, calls_per_minute=3)
    for _ in range(3):
        assert gates.ask("files.read", path="../x").code == "PATH_ESCAPES"
    assert gates.ask("files.read", path="a").code == "QUOTA_EXCEEDED"


def test_cpu_of_a_day_ends_and_begins_again_with_the_next(gates: GateHouse) -> None:
    limited(gates, cpu_s_per_day=100, command_s=10)
    using(gates, 10)
    assert [run(gates) for _ in range(11)] == [None] * 10 + ["QUOTA_EXCEEDED"]
    gates.clock.advance(24 * 3600)
    assert run(gates) is None


def test_what_was_reserved_and_not_used_is_given_back(gates: GateHouse) -> None:
    limited(gates, cpu_s_per_day=100, command_s=60)
    using(gates, 0.1)
    assert [run(gates) for _ in range(50)] == [None] * 50


def test_two_commands_at_once_do_not_share_one_reservation(gates: GateHouse) -> None:
    limited(gates, cpu_s_per_day=60, command_s=60)
    inner: list[str | None] = []

    def nested(_cleared: Cleared) -> Executed:
        if not inner:
            inner.append("...")
            inner[0] = run(gates)
        return Executed({})

    gates.replace_executor("terminal.run", nested)
    assert (run(gates), inner) == (None, ["QUOTA_EXCEEDED"])


def test_after_a_crash_the_store_says_at_least_what_was_used(gates: GateHouse, database: Database) -> None:
    limited(gates, cpu_s_per_day=100, command_s=10)
    using(gates, 10)
    for _ in range(4):
        run(gates)
    after = Quotas(database, gates.clock, lambda _agent: 0)
    assert after.used_today(AGENT)["cpu_us"] >= 40_000_000


def test_closing_writes_down_the_truth(gates: GateHouse, database: Database) -> None:
    limited(gates, cpu_s_per_day=1000, command_s=100)
    using(gates, 1.5)
    for _ in range(4):
        run(gates)
    gates.quotas.close()
    assert gates.quotas.used_today(AGENT) == {"cpu_us": 6_000_000, "egress_bytes": 0, "actions": 4}


def test_two_control_processes_share_one_day(gates: GateHouse, database: Database) -> None:
    limited(gates, cpu_s_per_day=100, command_s=10)
    using(gates, 10)
    other = GateHouse(database, gates.clock, gates.root)
    limited(other, cpu_s_per_day=100, command_s=10)
    using(other, 10)
    done = [run(house) for _ in range(8) for house in (gates, other)].count(None)
    assert done == 10


def test_egress_is_reserved_for_the_whole_answer(gates: GateHouse) -> None:
    limited(gates, egress_bytes_per_day=5 << 20)

    def fetch(_cleared: Cleared) -> Executed:
        return Executed({}, egress_bytes=2 << 20)

    gates.replace_executor("http.request", fetch)
    assert gates.ask("http.request", url="https://known.example/").outcome is Outcome.DONE
    assert gates.ask("http.request", url="https://known.example/").code == "QUOTA_EXCEEDED"


def test_what_commands_pass_to_the_network_is_counted_against_the_day(gates: GateHouse) -> None:
    limited(gates, egress_bytes_per_day=5 << 20)

    def passes(_cleared: Cleared) -> Executed:
        taken, _ = gates.quotas.draw(AGENT, 3 << 20, 5 << 20)
        return Executed({}, egress_bytes=taken)

    gates.replace_executor("terminal.run", passes)
    codes = []
    for _ in range(3):
        gates.approve(gates.ask("terminal.run", argv=["curl"], network=True))
        codes.append(gates.ask("terminal.run", argv=["curl"], network=True).code)
    assert codes == [None, None, "QUOTA_EXCEEDED"]
    assert gates.ask("terminal.run", argv=["ls"]).outcome is Outcome.DONE


def test_egress_is_drawn_up_to_the_days_last_byte_and_what_did_not_pass_is_given_back(gates: GateHouse, database: Database) -> None:
    most, day = 1000, gates.clock.now_us() // 86_400_000_000
    assert gates.quotas.draw(AGENT, 600, most) == (600, day)
    assert Quotas(database, gates.clock, lambda _agent: 0).used_today(AGENT)["egress_bytes"] >= 600, "durable before it passes"
    other = Quotas(database, gates.clock, lambda _agent: 0)
    assert other.draw(AGENT, 600, most) == (400, day)
    assert gates.quotas.draw(AGENT, 1, most) == (0, day)
    gates.quotas.give_back(AGENT, 100, day)
    assert gates.quotas.draw(AGENT, 600, most) == (100, day)
    gates.clock.advance(24 * 3600)
    assert gates.quotas.draw(AGENT, 400, most) == (400, day + 1)
    gates.quotas.give_back(AGENT, 400, day)
    assert gates.quotas.draw(AGENT, 1000, most) == (600, day + 1), "yesterday's bytes are not today's"


def test_processes_are_counted_by_who_keeps_them(gates: GateHouse) -> None:
    limited(gates, processes=2)
    running = [0]
    gates.running = lambda _agent: running[0]
    assert gates.ask("process.start", argv=["sleep", "9"]).outcome is Outcome.DONE
    running[0] = 2
    assert gates.ask("process.start", argv=["sleep", "9"]).code == "QUOTA_EXCEEDED"


def test_a_store_that_is_away_reserves_nothing_and_runs_nothing(database: Database, clock: ManualClock, tmp_path: Path) -> None:
    away = open_database(f"sqlite:///{tmp_path / 'no such folder' / 'cohort.db'}")
    gates = GateHouse(database, clock, tmp_path, quota_database=away)
    limited(gates)
    using(gates, 1)
    result = gates.ask("terminal.run", argv=["ls"])
    assert (result.outcome, result.code) == (Outcome.REFUSED, "DATABASE_UNAVAILABLE")


def test_an_agent_cannot_fill_the_log_with_what_is_refused(gates: GateHouse) -> None:
    limited(gates, calls_per_minute=5)
    for _ in range(5 + FLOOD_ROOM):
        assert gates.ask("files.read", path="../a").code == "PATH_ESCAPES"
    for _ in range(20):
        with pytest.raises(CohortError) as raised:
            gates.ask("files.read", path="a")
        assert raised.value.code == "QUOTA_EXCEEDED"
    assert gates.log.kinds() == ["decision"] * (5 + FLOOD_ROOM) + ["quota"]
    gates.clock.advance(61)
    assert gates.ask("files.read", path="../a").code == "PATH_ESCAPES"


def test_asking_again_what_a_person_has_to_answer_is_a_call_each_time(gates: GateHouse) -> None:
    limited(gates, calls_per_minute=5)
    for _ in range(5 + FLOOD_ROOM):
        assert gates.ask("files.write", path="a", content="x", workspace=OTHER).code == "APPROVAL_NEEDED"
    with pytest.raises(CohortError) as raised:
        gates.ask("files.write", path="a", content="x", workspace=OTHER)
    assert raised.value.code == "QUOTA_EXCEEDED"


def test_what_a_long_process_used_is_of_the_day_and_durable_at_once(gates: GateHouse, database: Database) -> None:
    limited(gates, cpu_s_per_day=100, command_s=10)
    using(gates, 1)
    assert run(gates) is None
    gates.quotas.charge(AGENT, 150_000_000)
    assert Quotas(database, gates.clock, lambda _agent: 0).used_today(AGENT)["cpu_us"] >= 151_000_000
    assert run(gates) == "QUOTA_EXCEEDED"


def test_one_agent_runs_so_many_actions_at_once_and_no_more(gates: GateHouse) -> None:
    """Each holds its place for as long as it runs; what is refused meanwhile takes none."""
    limited(gates)
    inner: list[str | None] = []

    def nested(_cleared: Cleared) -> Executed:
        inner.append(gates.ask("files.read", path="a").code)
        return Executed({})

    gates.replace_executor("files.read", nested)
    assert gates.ask("files.read", path="a").code is None
    assert inner == ["QUOTA_EXCEEDED"] + [None] * (AT_ONCE_MAX - 1)
    inner.clear()
    assert gates.ask("files.read", path="a").code is None
    assert len(inner) == AT_ONCE_MAX
