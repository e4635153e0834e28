"""Control is killed between any two of its steps; another process goes on over the same database and gateway, as if nothing had been."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from cohort.base.clock import ManualClock
from cohort.delivery.face import Act
from cohort.delivery.model import State
from cohort.gateway.contract import Arm
from cohort.storage import schema as t
from cohort.storage.database import Database, open_database
from support_engine import Fuse, House, Killed, plan_text, unit_name

PLAN = plan_text(
    """- {traffic_pct: 0, shadow_pct: 50, floor: 1s}
- {traffic_pct: 25, floor: 1s, certificate: {ratio: 4, limit: 0.2}}
- {traffic_pct: 100, floor: 1s}"""
)


def upkeep(house: House, act: Callable[[], Any]) -> None:
    """What a supervisor does: start control again whenever it dies, until it has nothing left to do."""
    try:
        act()
        house.tick(3)
    except Killed:
        house.fuse.at = house._numbers = 0
        house.crash()
        act()  # whoever got no answer asks again, with the same idempotency key
        house.tick(4)


def story(house: House) -> dict[str, Any]:
    """Three stages, promoted; the same traffic whenever control lives. Returns all that must not depend on crashes."""
    house.ready()
    house.fuse.steps.clear()
    upkeep(house, lambda: house.start(PLAN, act=Act("alice", "a test", idempotency_key="once")))
    rollout_id = house.rollouts.show("support").id
    for part in range(7):
        for number in range(part * 50, part * 50 + 75):
            house.clock.advance(0.02)
            house.gateway.call(unit_name(number), bad=list(Arm) if number % 9 == 0 else (), latency_ms=50 + number % 31)
        waiting = house.gateway.assign("support", unit_name(10_000 + part))
        upkeep(house, lambda: None)
        for call in waiting:
            house.gateway.end(call)
        house.clock.advance(0.2)
        upkeep(house, lambda: None)
    return figures(house, rollout_id)


def figures(house: House, rollout_id: str) -> dict[str, Any]:
    with house.store.database.read() as connection:
        found = house.store.get(connection, rollout_id)
        assert found is not None
        state, position = house.store.evidence(connection, rollout_id)
        calls = connection.execute(select(t.calls).order_by(t.calls.c.at_us, t.calls.c.seq, t.calls.c.kind, t.calls.c.arm)).all()
        # which conversations were seen before is remembered in memory: a new process counts those in progress once more
        counted = [column for column in t.traffic.c if column.name not in ("units", "units_failed")]
        minutes = connection.execute(select(*counted).order_by(t.traffic.c.minute_us, t.traffic.c.release)).all()
        kinds = [event.kind for event in house.store.events(connection, rollout_id)]
        points = house.store.series(connection, rollout_id)
    replayed = house.rollouts.replay(rollout_id)
    assert replayed.identical, replayed.first_difference
    summary = {name: value for name, value in found.summary.items() if not name.endswith("_ms")}
    summary.pop("verdict_us", None)
    return {
        "state": found.state,
        "stage_run": found.stage_run,
        "evidence": state,
        "position": position,
        "calls": list(calls),
        "minutes": list(minutes),
        "events": kinds,
        "points": points,
        "summary": summary,
        "served": dict(house.gateway.snapshot.stable) if house.gateway.snapshot else {},
    }


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("template") / "cohort.db"
    database = open_database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


@pytest.fixture
def fresh(template: Path, tmp_path: Path) -> Callable[[], Database]:
    def make() -> Database:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
        shutil.copy(template, path)
        return open_database(f"sqlite:///{path}")

    return make


def run(database: Database, at: int) -> tuple[dict[str, Any], House]:
    house = House(database, ManualClock(), Fuse())
    fuse = house.fuse
    armed = at

    def arm() -> None:
        fuse.at = armed

    original = house.start

    def start(*arguments: Any, **more: Any) -> Any:
        arm()
        return original(*arguments, **more)

    house.start = start  # type: ignore[method-assign]
    try:
        return story(house), house
    finally:
        database.close()


def test_killed_between_any_two_steps_it_ends_as_if_undisturbed(fresh):
    undisturbed, house = run(fresh(), 0)
    assert undisturbed["state"] is State.PROMOTED
    assert undisturbed["evidence"]["taken"] == len([row for row in undisturbed["calls"] if row.kind == "call" and row.arm != "shadow"])
    steps = list(house.fuse.steps)
    assert len(steps) > 100
    assert {"push", "push took effect", "pulled", "before the commit", "after the commit", "acknowledged"} <= set(steps)
    for at in range(1, len(steps) + 1, len(steps) // 18):
        disturbed, _ = run(fresh(), at)
        different = [name for name in undisturbed if undisturbed[name] != disturbed[name]]
        assert not different, f"killed at step {at} ({steps[at - 1]}): {different}"


def test_killed_on_postgres_it_ends_as_if_undisturbed(postgres):
    def make() -> Database:
        make.number += 1
        postgres.execute(f"CREATE DATABASE crash_{make.number} TEMPLATE template STRATEGY file_copy")
        return open_database(postgres.url(f"crash_{make.number}"))

    make.number = 0
    undisturbed, house = run(make(), 0)
    for at in range(7, len(house.fuse.steps), len(house.fuse.steps) // 2):
        disturbed, _ = run(make(), at)
        different = [name for name in undisturbed if undisturbed[name] != disturbed[name]]
        assert not different, f"killed at step {at} ({house.fuse.steps[at - 1]}): {different}"


PROGRAM = """
import os, signal, sys
sys.path[:0] = {paths!r}
from cohort.base.clock import ManualClock
from cohort.storage.database import open_database
from support_engine import House, Fuse
from test_rollout_crashes import PLAN

class Kill(Fuse):
    def step(self, name):
        super().step(name)
        if len(self.steps) == {at}:
            os.kill(os.getpid(), signal.SIGKILL)

database = open_database({url!r})
house = House(database, ManualClock(), Fuse())
house.ready()
house.start(PLAN)
house.fuse = house.database.fuse = house.gateway.fuse = Kill()
house.traffic(range(200), bad_every=9, step_s=0.02)
with open({spool!r}, "wb") as file:
    file.write(b"\\n".join(house.gateway.records))
house.tick(3)
"""


@pytest.mark.parametrize("at", [4, 6, 9])
def test_a_real_kill_in_the_middle_of_a_round_leaves_a_whole_database(fresh, tmp_path, at):
    """The gateway's spool outlives control; what the killed round did is there completely or not at all."""
    first = fresh()
    url = str(first._writing.url)
    first.close()
    spool = tmp_path / "spool"
    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent), *sys.path]
    program = PROGRAM.format(paths=paths, at=at, url=url, spool=str(spool))
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ}, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    database = open_database(url)
    house = House(database, ManualClock())
    house.gateway.records.extend(spool.read_bytes().split(b"\n"))
    house.gateway._handed_out |= {_place(index) for index in range(len(house.gateway.records) + 1)}
    house.gateway.epoch = 0  # so that nothing counts as lost with the old process
    house.tick(4)
    rollout_id = house.rollouts.show("support").id
    evidence = house.evidence(rollout_id)
    assert evidence.taken == 200
    assert house.rollouts.replay(rollout_id).identical
    with database.read() as connection:
        assert len(connection.execute(select(t.calls).where(t.calls.c.arm != "shadow")).all()) == 200
        assert sum(row.calls for row in connection.execute(select(t.traffic))) == 200
    database.close()


def _place(index: int) -> Any:
    from support_engine import _cursor

    return _cursor(index)
