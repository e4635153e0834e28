"""Real sandboxes for tests: places that a private uid can reach, and backends that this machine can run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cohort.base.clock import SystemClock
from cohort.base.ids import WorkspaceId
from cohort.kernel.model import Limits, Place
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.spawner import Spawn, Spawner

PRIVATE_UID = 200_001
LIMITS = Limits(command_s=20.0, memory_bytes=512 << 20)
BUBBLEWRAP = "/usr/bin/bwrap"


def missing_package(what: str) -> None:
    """A package that is not there is a skip, and a failure where CI promises to have it."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def need_bubblewrap() -> None:
    """Skips where bubblewrap or its user namespaces are missing."""
    if not os.path.exists(BUBBLEWRAP):
        missing_package("bubblewrap is not installed")
    owner = {"user": PRIVATE_UID, "group": PRIVATE_UID, "extra_groups": []} if os.geteuid() == 0 else {}
    argv = [BUBBLEWRAP, "--unshare-user", "--disable-userns", "--ro-bind", "/", "/", "true"]
    if subprocess.run(argv, cwd="/", capture_output=True, **owner).returncode != 0:
        pytest.skip("user namespaces are not allowed here")


@contextmanager
def place(name: str = "ws_test", hard_quota: bool = False, read_only: tuple[str, ...] = ()) -> Iterator[Place]:
    """An empty workspace, owned by a private uid when these tests run as root."""
    top = Path(tempfile.mkdtemp(prefix="cohort-sandbox-"))
    top.chmod(0o755)
    root = top / "workspace"
    root.mkdir(mode=0o700)
    uid = PRIVATE_UID if os.geteuid() == 0 else os.getuid()
    gid = PRIVATE_UID if os.geteuid() == 0 else os.getgid()
    os.chown(root, uid, gid)
    try:
        yield Place(WorkspaceId(name), str(root), uid, gid, hard_quota, read_only)
    finally:
        shutil.rmtree(top, ignore_errors=True)


def put(place: Place, path: str, text: str = "", mode: int = 0o644) -> None:
    """A file in the workspace, with its folders, as its owner would have made it."""
    file = Path(place.root) / path
    missing = [folder for folder in (file.parent, *file.parent.parents) if not folder.exists()]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    for made in (file, *missing):
        os.chown(made, place.uid, place.gid)


class Journal(list[Spawn]):
    """What was told before it was executed."""

    def __call__(self, spawn: Spawn) -> None:
        self.append(spawn)


def parts(spawner: Spawner, journal: Journal | None = None) -> Parts:
    return Parts(spawner, SystemClock(), Journal() if journal is None else journal)
