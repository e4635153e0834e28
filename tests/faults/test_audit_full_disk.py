"""A full disk under the log: nothing is claimed, and it goes on by itself when there is room."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cohort.base.errors import CohortError, Retry
from cohort.kernel.model import RecordKind
from cohort.storage.database import open_database
from support_audit import open_room, record

SMALL_BYTES = 3 << 20


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with a hard ceiling."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    path: Path = tmp_path / "small"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", path], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"this machine does not let us mount a small file system: {done.stderr.strip()}")
    if not path.is_mount() or os.statvfs(path).f_blocks * os.statvfs(path).f_frsize > SMALL_BYTES:
        pytest.fail("the file system to fill is not the small one")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def fill_until_refused(room):
    for number in range(10_000):
        try:
            room.log.append(record(number, RecordKind.OUTCOME, private={"out": "x" * 20_000}))
        except CohortError as error:
            return number, error
    raise AssertionError("the disk did not fill")


def test_a_full_disk_refuses_records_and_takes_them_again_when_there_is_room(small_disk, tmp_path):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(SMALL_BYTES // 3))
    database = open_database(f"sqlite:///{small_disk / 'audit.db'}")
    database.migrate()
    room = open_room(database, tmp_path)
    written, error = fill_until_refused(room)
    assert (error.code, error.retry) == ("AUDIT_UNAVAILABLE", Retry.SAFE)
    assert "no room left" in error.message
    assert written > 5
    assert room.log.trouble is None
    ballast.unlink()
    assert room.log.append(record(written, RecordKind.OUTCOME)).index == written
    answer = room.desk.verify()
    assert (answer.integrity, answer.size) == ("verified", written + 1)
    database.close()
