"""A directory of a workspace is exchanged for a link that leads out, over and over, while files are read and written through it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.kernel.workspaces.backend_directory import DirectoryBackend
from cohort.kernel.workspaces.beneath import OpenAt2, Opener, Walk, best_opener
from cohort.storage.database import Database
from support_workspaces import Room

SECONDS = 1.5
RENAME_EXCHANGE = 2
ACTS_MIN = 100


def exchange(root: str, stop: object) -> None:
    """Swap `d`, a directory, and `l`, a link that leads out, until stopped."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder = os.open(root, os.O_RDONLY)
    while not stop.is_set():  # type: ignore[attr-defined]
        for _ in range(1000):
            if libc.renameat2(folder, b"d", folder, b"l", RENAME_EXCHANGE) != 0:
                os._exit(1)


@contextmanager
def exchanging(root: str) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    process = context.Process(target=exchange, args=(root, stop), daemon=True)
    process.start()
    try:
        yield
    finally:
        stop.set()
        process.join(20)
    assert process.exitcode == 0


@pytest.fixture(params=["openat2", "walk"])
def opener(request: pytest.FixtureRequest) -> Opener:
    if request.param == "openat2" and best_opener().name != "openat2":
        pytest.skip("this kernel, or a filter on it, has no openat2")
    return OpenAt2() if request.param == "openat2" else Walk()


def test_a_race_for_a_directory_leaks_nothing(tmp_path: Path, sqlite_database: Database, opener: Opener) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"secret")
    room = Room(tmp_path, sqlite_database, "directory", opener)
    assert isinstance(room.backend, DirectoryBackend)
    place = room.place()
    room.files.mkdir(place, "d")
    room.files.write(place, "d/x", b"inside")
    os.symlink(outside, f"{place.root}/l")
    seen = {"inside": 0, "refused": 0, "written": 0}
    until_s = SystemClock().monotonic_s() + SECONDS
    with exchanging(place.root):
        while time.monotonic() < until_s or min(seen.values()) < ACTS_MIN:
            try:
                assert room.files.read(place, "d/x").data == b"inside"
                seen["inside"] += 1
                room.files.write(place, "d/y", b"mine")
                seen["written"] += 1
                room.files.delete(place, "d/y")
            except CohortError as error:
                assert error.code in ("PATH_ESCAPES", "PATH_MISSING", "PATH_WRONG_KIND"), error  # noqa: PT017
                seen["refused"] += 1
    assert os.listdir(outside) == ["x"]
    assert (outside / "x").read_bytes() == b"secret"
