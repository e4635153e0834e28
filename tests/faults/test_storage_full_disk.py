"""A full disk: one clear error, nothing lost, and it goes on when there is room again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import postgres_server
import storage_filling
from cohort.base.errors import CohortError, Retry
from cohort.storage import blobs
from cohort.storage.database import open_database
from storage_filling import stored, write_until_refused

SMALL_BYTES = 2 << 20


@pytest.fixture
def mount() -> Iterator[Callable[[Path, int], Path]]:
    """Mounts a small file system; needs to be root with the right to mount."""
    mounted: list[Path] = []

    def small(path: Path, size_bytes: int) -> Path:
        if os.geteuid() != 0:
            pytest.skip("mounting a small file system needs root")
        path.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", path], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"this machine does not let us mount a small file system: {done.stderr.strip()}")
        mounted.append(path)
        return path

    yield small
    for path in mounted:
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def small_disk(mount: Callable[[Path, int], Path], tmp_path: Path) -> Path:
    return mount(tmp_path / "small", SMALL_BYTES)


def assert_full(error: CohortError) -> None:
    assert error.code == "DISK_FULL"
    assert error.retry is Retry.SAFE
    assert "nothing was written" in error.message


def test_a_full_disk_keeps_what_was_committed_and_goes_on_when_there_is_room(small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(SMALL_BYTES // 2))
    database = open_database(f"sqlite:///{small_disk / 'cohort.db'}")
    database.migrate()
    kept, error = write_until_refused(database)
    assert_full(error)
    assert len(kept) > 5
    assert stored(database, kept) == kept
    ballast.unlink()
    with database.write() as connection:
        extra = blobs.put(database, connection, b"room again")
    database.close()
    reopened = open_database(f"sqlite:///{small_disk / 'cohort.db'}")
    reopened.check()
    assert stored(reopened, kept | {extra: b"room again"}) == kept | {extra: b"room again"}
    reopened.close()


def test_a_database_cannot_be_made_on_a_full_disk_and_is_made_when_there_is_room(small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(SMALL_BYTES - 3 * os.sysconf("SC_PAGESIZE")))
    database = open_database(f"sqlite:///{small_disk / 'cohort.db'}")
    with pytest.raises(CohortError) as caught:
        database.migrate()
    assert caught.value.code == "DISK_FULL"
    ballast.unlink()
    assert database.migrate() is True
    database.close()


LIMITED = """
import json, resource, sys
sys.path[:0] = [sys.argv[2]]
from cohort.storage import blobs
from cohort.storage.database import open_database
from storage_filling import stored, write_until_refused
database = open_database(sys.argv[1])
database.migrate()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
kept, error = write_until_refused(database)
whole = stored(database, kept) == kept
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
with database.write() as connection:
    blobs.put(database, connection, b"room again")
database.close()
again = open_database(sys.argv[1])
again.check()
print(json.dumps({"code": error.code, "kept": len(kept), "whole": whole, "whole_again": stored(again, kept) == kept}))
"""


def test_a_file_that_may_not_grow_is_a_full_disk(sqlite_url):
    """Needs no root: the process limits the size of its own files."""
    command = [sys.executable, "-c", LIMITED, sqlite_url, str(Path(storage_filling.__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer.pop("kept") > 5
    assert answer == {"code": "DISK_FULL", "whole": True, "whole_again": True}


def test_a_full_disk_under_postgres_is_the_same_error(mount, postgres):
    space = mount(postgres.directory / "space", 14 << 20)
    shutil.chown(space, postgres_server.ordinary_user())
    postgres.execute(f"CREATE TABLESPACE small LOCATION '{space}'")
    postgres.execute("CREATE DATABASE small TEMPLATE template TABLESPACE small")
    database = open_database(postgres.url("small"))
    ballast = space / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    try:
        kept, error = write_until_refused(database)
        assert_full(error)
        ballast.unlink()
        assert stored(database, kept) == kept
    finally:
        database.close()
        postgres.execute("DROP DATABASE small WITH (FORCE)")
        postgres.execute("DROP TABLESPACE small")
