"""kill -9 at every step of making, committing, discarding and removing a workspace: the next start finds it whole, or gone, never half."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

import migrated_database
from cohort.kernel.workspaces import loop_devices
from cohort.storage.database import Database, open_database
from support_workspaces import SMALL, Room, unmounted_after, why_no_images

STEPS = {
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.chown",
    "os.symlink",
    "os.truncate",
    "subprocess.Popen",
    "fcntl.ioctl",
}
STEPS_MAX = 2000
STRIDE = {"create": 23, "commit": 3, "discard": 12, "remove": 12, "resize": 23}
"""Every so many steps one run is killed, on directories three times as often; STRIDE=1 in the environment takes them all, in minutes."""

LARGER = replace(SMALL, disk_bytes=2 * SMALL.disk_bytes, files=2 * SMALL.files)
Act = Callable[[Room], object]
ACTS: dict[str, Act] = {
    "create": lambda room: room.place("new"),
    "commit": lambda room: room.desk.commit("smoke-1", "ann", "second"),
    "discard": lambda room: room.desk.discard("smoke-1", "ann", "no"),
    "remove": lambda room: room.desk.remove("smoke-1", "ann", "no"),
    "resize": lambda room: room.workspaces.resize(room.workspaces.find("smoke-1").id, LARGER, "ann"),
}


@pytest.fixture(params=["image", "directory"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "image" and (why := why_no_images()) is not None:
        pytest.skip(f"no image workspaces here: {why}")
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with unmounted_after(tmp_path):
        yield tmp_path


def killed_at(step: int, folder: Path, url: str, kind: str, act: Act) -> bool:
    """Do it in a process that kills itself before its `step`-th step; False when it had fewer."""
    child = os.fork()
    if child == 0:
        try:
            database = open_database(url)
            room = Room(folder, database, kind)
            _kill_at(step)
            act(room)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def _kill_at(step: int) -> None:
    left = [step]

    def count(*_: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "commit", count)
    sys.addaudithook(lambda name, _: count() if name in STEPS else None)


def prepare(folder: Path, database: Database, kind: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """A committed workspace with changes since; the tree at the commit and the tree now."""
    room = Room(folder, database, kind)
    place = room.place()
    room.files.mkdir(place, "a")
    room.files.write(place, "a/kept", b"1")
    room.files.write(place, "gone", b"2")
    room.desk.commit("smoke-1", "ann", "first")
    committed = tree(place.root)
    room.files.write(place, "a/kept", b"changed")
    room.files.delete(place, "gone")
    room.files.mkdir(place, "b")
    room.files.write(place, "b/new", b"3" * 5000)
    now = tree(place.root)
    room.workspaces.stop()
    return committed, now


def tree(root: str) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


def existing(folder: Path) -> int:
    """How many workspaces there are on the disk, whole or not."""
    return len([*folder.glob("images/*"), *folder.glob("workspaces/*")])


def check(name: str, room: Room, folder: Path, committed: dict[str, bytes], now: dict[str, bytes]) -> None:
    """What must hold after a start, wherever the process before it was killed."""
    if name == "create":
        place = room.place("new")
        assert room.files.list(place).entries == ()
        assert room.workspaces.usage(place.workspace).files_used == 0
        assert existing(folder) == 2
        room.desk.remove("new", "ann", "")
        return
    if name == "remove":
        left = room.workspaces.listed()
        assert existing(folder) == len(left)
        if left:
            assert tree(room.workspaces.place(left[0].id).root) == now
        return
    kept = room.workspaces.find("smoke-1")
    if name == "resize":
        assert existing(folder) == 1
        assert tree(room.workspaces.place(kept.id).root) == now
        assert room.workspaces.usage(kept.id).bytes_max in (SMALL.disk_bytes, LARGER.disk_bytes)
        return
    found, changes = tree(room.workspaces.place(kept.id).root), room.desk.diff("smoke-1")
    assert found == (now if name == "commit" or changes else committed)
    assert kept.restoring is None
    assert bool(changes) == (found != committed and len(room.desk.snapshots("smoke-1")) - len(_saved(room)) == 1)
    assert os.listdir(os.path.join(os.path.dirname(room.workspaces.place(kept.id).root), "staging")) == []


def _saved(room: Room) -> list[object]:
    return [one for one in room.desk.snapshots("smoke-1") if one.reason.startswith("before ")]


@pytest.mark.parametrize("name", ACTS)
def test_a_start_after_a_kill_finds_it_whole(folder: Path, migrated_sqlite_url: str, kind: str, name: str) -> None:
    wanted = STRIDE[name] if kind == "image" else max(1, STRIDE[name] // 3)
    stride, step, killed = int(os.environ.get("STRIDE", wanted)), 0, True
    while killed and step < STEPS_MAX:
        run = folder / f"{step}"
        run.mkdir()
        url = f"sqlite:///{run / 'cohort.db'}"
        migrated_database.place(run / "cohort.db")
        database = open_database(url)
        with unmounted_after(run):
            committed, now = prepare(run, database, kind)
            killed = killed_at(step, run, url, kind, ACTS[name])
            room = Room(run, database, kind)
            check(name, room, run, committed, now)
            room.workspaces.stop()
            assert loop_devices.mounts_under(str(run.resolve() / "mounts")) == {}
        database.close()
        step += stride
    assert step >= 2 * stride, "it has hardly any steps: nothing was tried"
