"""Spare workspaces: ready before they are asked for, given out once, gone at the end."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.kernel.model import Limits
from cohort.kernel.workspaces.backend import Backend, Size
from cohort.kernel.workspaces.beneath import best_opener
from cohort.kernel.workspaces.pool import Pool
from cohort.storage.database import Database
from support_workspaces import SMALL, Room, backend_in, unmounted_after, why_no_images

WAIT_S = 30.0


@pytest.fixture(params=["image", "directory"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "image" and (why := why_no_images()) is not None:
        pytest.skip(f"no image workspaces here: {why}")
    return str(request.param)


@pytest.fixture
def backend(tmp_path: Path, kind: str) -> Iterator[Backend]:
    with unmounted_after(tmp_path):
        yield backend_in(tmp_path, kind, SystemClock(), best_opener())


def test_each_spare_is_given_out_once_and_replaced(backend: Backend) -> None:
    pool = Pool(backend, Size.of(SMALL), 3, secrets.token_bytes)
    assert pool.take(Size.of(SMALL)) is None
    pool.start()
    assert pool.wait_full(WAIT_S)
    taken: list[str | None] = []
    threads = [threading.Thread(target=lambda: taken.append(pool.take(Size.of(SMALL)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = {name for name in taken if name is not None}
    assert pool.wait_full(WAIT_S)
    assert len(names) == len([name for name in taken if name is not None]) > 0
    assert all(backend.made(name) for name in names)
    pool.stop()
    assert backend.spares() == names
    for name in names:
        backend.remove(name)


def test_another_size_is_not_taken_from_it(backend: Backend) -> None:
    pool = Pool(backend, Size.of(SMALL), 1, secrets.token_bytes)
    pool.start()
    assert pool.wait_full(WAIT_S)
    assert pool.take(Size.of(Limits())) is None
    pool.stop()
    assert backend.spares() == set()


def test_a_registration_takes_a_spare_and_a_start_sweeps_what_is_left(tmp_path: Path, sqlite_database: Database, kind: str) -> None:
    with unmounted_after(tmp_path):
        first = Room(tmp_path, sqlite_database, kind)
        pool = Pool(first.backend, Size.of(SMALL), 2, secrets.token_bytes)
        room = Room(tmp_path, sqlite_database, kind, pool=pool)
        assert pool.wait_full(WAIT_S)
        before = room.backend.spares()
        place = room.place()
        assert room.workspaces.find(place.workspace).directory in before
        assert room.workspaces.usage(place.workspace).files_used == 0
        assert pool.wait_full(WAIT_S)
        left = room.backend.spares()
        assert len(left) == 2
        again = Room(tmp_path, sqlite_database, kind)  # as after a kill: nobody stopped the pool
        assert again.backend.spares() == set()
        assert again.workspaces.place(place.workspace) == place
        again.workspaces.stop()


def test_a_pool_has_a_size(backend: Backend) -> None:
    with pytest.raises(CohortError) as raised:
        Pool(backend, Size.of(SMALL), 1000, secrets.token_bytes)
    assert (raised.value.code, raised.value.field) == ("FIELD_INVALID", "spares")
