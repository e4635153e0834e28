"""A log that is full, or not the one that was signed: nothing is executed, and nothing is pretended."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.model import Outcome
from support_gate_rooms import Kernel

SMALL_BYTES = 4 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is small, and is the one expected."""
    path = tmp_path / "small"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", path], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"this machine does not let us mount a small file system: {done.stderr.strip()}")
    try:
        found = os.statvfs(path)
        assert found.f_blocks * found.f_frsize == SMALL_BYTES
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as opened:
        for _ in range(SMALL_BYTES // 4096 + 1):
            try:
                opened.write(bytes(4096))
            except OSError:
                return
    raise AssertionError("the disk did not fill")


def ask_until_refused(kernel: Kernel, token: str) -> tuple[int, CohortError]:
    """How many writes were done, and why the next was not."""
    done = 0
    for number in range(1000):
        try:
            done += kernel.ask(token, "files.write", path=f"b{number}", content="full").outcome is Outcome.DONE
        except CohortError as error:
            return done, error
    raise AssertionError("the log took everything")


def test_with_a_full_disk_under_the_log_nothing_is_executed_until_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, audit_folder=small_disk)
    try:
        token = kernel.agent()
        assert kernel.ask(token, "files.write", path="a", content="before").outcome is Outcome.DONE
        fill(small_disk / "ballast")
        done, error = ask_until_refused(kernel, token)
        assert error.code == "AUDIT_UNAVAILABLE"
        written = [path for path in kernel.root().iterdir() if path.name.startswith("b")]
        intents = [entry for entry in kernel.log() if entry.body["kind"] == "intent" and "/b" in entry.body["body"]["resource"]]
        assert done <= len(written) <= len(intents)
        with pytest.raises(CohortError):
            kernel.ask(token, "files.read", path="../x")
        (small_disk / "ballast").unlink()
        assert kernel.ask(token, "files.read", path="a").result["content"] == "before"
        assert kernel.reconciler().compare().bypasses == 0
    finally:
        kernel.close()


def test_a_log_that_was_changed_executes_nothing(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    token = kernel.agent()
    kernel.ask(token, "files.write", path="a", content="x")
    kernel.close()
    with sqlite3.connect(tmp_path / "audit.db") as connection:
        connection.execute("DELETE FROM audit_entries WHERE idx = (SELECT max(idx) FROM audit_entries)")
    connection.close()
    kernel = Kernel(tmp_path)
    try:
        with pytest.raises(CohortError) as raised:
            kernel.ask(token, "files.delete", path="a")
        assert raised.value.code in ("AUDIT_UNAVAILABLE", "AUDIT_BROKEN")
        assert (kernel.root() / "a").exists()
    finally:
        kernel.close()
