"""Content of snapshots is taken away when nobody can reach it, and never while somebody can: killed between any two steps, and raced."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, select, update

from cohort.base.errors import CohortError
from cohort.kernel.workspaces.beneath import best_opener
from cohort.kernel.workspaces.collecting import REMOVED_KEPT_US, Collected
from cohort.kernel.workspaces.snapshots import Snapshots
from cohort.storage.database import Database
from cohort.storage.schema import snapshot_blobs, workspace_snapshots
from support_processes import environment
from support_workspaces import Room


@pytest.fixture
def room(tmp_path: Path, database: Database) -> Iterator[Room]:
    made = Room(tmp_path, database, "directory")
    yield made
    made.workspaces.stop()


def objects(room: Room) -> int:
    with room.database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(snapshot_blobs)).scalar_one())


def cut_short(room: Room, files: int = 3) -> None:
    """A snapshot whose content was stored and that was never kept."""
    place = room.place("smoke-1")
    for number in range(files):
        room.files.write(place, f"f{number}", secrets.token_bytes(50))
    Snapshots(room.database, room.clock, best_opener(), secrets.token_bytes).prepare(place, "")
    for number in range(files):
        room.files.delete(place, f"f{number}")


def kept(room: Room, name: str, content: bytes) -> None:
    place = room.place(name)
    room.files.write(place, "kept", content)
    room.desk.commit(name, "ann", "")
    room.files.write(place, "kept", b"changed")


def goes_back(room: Room, name: str, content: bytes) -> bool:
    room.desk.discard(name, "ann", "")
    return (Path(room.desk.show(name).root) / "kept").read_bytes() == content


def test_what_a_snapshot_that_was_cut_short_stored_is_taken_away_and_nothing_else(room: Room) -> None:
    kept(room, "other", b"precious")
    before = objects(room)
    cut_short(room)
    assert objects(room) == before + 4
    assert room.desk.collect() == Collected(0, 4)
    assert (objects(room), room.desk.collect()) == (before, Collected(0, 0))
    assert goes_back(room, "other", b"precious")


CHILD = """
import os, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from cohort.base.clock import SystemClock
from cohort.kernel.workspaces import collecting
from cohort.storage.database import open_database

collecting.DELETED_AT_ONCE = 2
steps, at = 0, int(sys.argv[2])
database = open_database(sys.argv[1])

def count(_connection):
    global steps
    steps += 1
    if steps == at:
        os._exit(9)

event.listen(Engine, "commit", count)
collecting.collect(database, SystemClock())
"""


@pytest.mark.parametrize("at", [1, 2, 4])
def test_killed_before_a_commit_it_is_finished_by_the_next_round(room: Room, url: str, at: int) -> None:
    kept(room, "other", b"precious")
    before = objects(room)
    cut_short(room, files=5)
    done = subprocess.run([sys.executable, "-c", CHILD, url, str(at)], env=environment(), timeout=60)
    assert done.returncode == 9
    assert before < objects(room) <= before + 6
    assert goes_back(room, "other", b"precious")
    room.desk.collect()
    assert objects(room) == before + 2, "and what was there before it was gone back to"


def test_a_snapshot_that_comes_while_it_is_collected_keeps_its_content(room: Room) -> None:
    cut_short(room, files=1)
    other = Snapshots(room.database, room.clock, best_opener(), secrets.token_bytes)
    place = room.place("late")
    room.files.write(place, "kept", b"precious")
    prepared = other.prepare(place, "")
    come: list[str] = []

    def late(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "SELECT snapshot_blobs.digest" in statement and not come:
            come.append(statement)
            other.keep(prepared, "ann", as_base=True)

    event.listen(Engine, "after_cursor_execute", late)  # what is stored has been read, and nothing was deleted yet
    try:
        assert room.desk.collect() == Collected(0, 2)
    finally:
        event.remove(Engine, "after_cursor_execute", late)
    assert come
    room.files.write(place, "kept", b"changed")
    assert goes_back(room, "late", b"precious")


def test_a_snapshot_whose_content_was_collected_is_not_kept(room: Room) -> None:
    other = Snapshots(room.database, room.clock, best_opener(), secrets.token_bytes)
    place = room.place("late")
    room.files.write(place, "kept", b"precious")
    prepared = other.prepare(place, "")
    assert room.desk.collect() == Collected(0, 2)
    with pytest.raises(CohortError) as caught:
        other.keep(prepared, "ann", as_base=True)
    assert caught.value.code == "WORKSPACE_BUSY"
    other.keep(other.prepare(place, ""), "ann", as_base=True)


def test_nothing_is_collected_while_a_snapshot_is_made(room: Room) -> None:
    snapshots = Snapshots(room.database, room.clock, best_opener(), secrets.token_bytes)
    with snapshots.under_way():
        assert snapshots.collect() is None
    assert snapshots.collect() == Collected(0, 0)


def test_snapshots_of_a_removed_workspace_go_after_a_month(room: Room) -> None:
    kept(room, "gone", b"old")
    kept(room, "there", b"precious")
    room.desk.remove("gone", "ann", "")
    assert room.desk.collect() == Collected(0, 0)
    with room.database.write() as connection:
        connection.execute(update(workspace_snapshots).values(created_us=workspace_snapshots.c.created_us - REMOVED_KEPT_US - 1))
    assert room.desk.collect() == Collected(1, 2)
    assert goes_back(room, "there", b"precious")


def test_a_manifest_that_cannot_be_read_stops_it(room: Room) -> None:
    kept(room, "other", b"precious")
    cut_short(room)
    before = objects(room)
    with room.database.write() as connection:
        damaged = select(workspace_snapshots.c.digest).scalar_subquery()
        connection.execute(update(snapshot_blobs).where(snapshot_blobs.c.digest == damaged).values(data=b"nothing"))
    with pytest.raises(CohortError) as caught:
        room.desk.collect()
    assert (caught.value.code, objects(room)) == ("DATABASE_DAMAGED", before)
