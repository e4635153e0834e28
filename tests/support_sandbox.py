"""Real sandboxes for tests: places that a private uid can reach, and backends that this machine can run."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cohort.base.clock import SystemClock
from cohort.base.ids import WorkspaceId
from cohort.kernel.model import Level, Limits, Place
from cohort.kernel.ports import Sandbox
from cohort.kernel.sandbox import landlock
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.cgroups import Cgroups, find
from cohort.kernel.sandbox.confined import confined
from cohort.kernel.sandbox.limits import limited
from cohort.kernel.sandbox.spawner import Spawn, Spawner

PRIVATE_UID = 300_000 + os.getpid()
"""Of this test process alone: without user namespaces the limit of processes counts all that a uid has on the machine."""
LIMITS = Limits(command_s=20.0, memory_bytes=256 << 20)
BUBBLEWRAP = "/usr/bin/bwrap"
_numbers = itertools.count()


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
def place(hard_quota: bool = False, read_only: tuple[str, ...] = ()) -> Iterator[Place]:
    """An empty workspace, owned by a private uid when these tests run as root."""
    top = Path(tempfile.mkdtemp(prefix="cohort-sandbox-"))
    top.chmod(0o755)
    root = top / "workspace"
    root.mkdir(mode=0o700)
    uid = PRIVATE_UID if os.geteuid() == 0 else os.getuid()
    gid = PRIVATE_UID if os.geteuid() == 0 else os.getgid()
    os.chown(root, uid, gid)
    try:
        yield Place(WorkspaceId(f"ws_test{next(_numbers)}"), str(root), uid, gid, hard_quota, read_only)
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


def cold(parts: Parts) -> Sandbox:
    return Bubblewrap(parts, warm=False)


def warm(parts: Parts) -> Sandbox:
    return Bubblewrap(parts)


def forked(parts: Parts) -> Sandbox:
    """As on a machine for which there is no stage two."""
    return Bubblewrap(parts, program=False)


BACKENDS: dict[str, Callable[[Parts], Sandbox]] = {
    "bubblewrap, cold": cold,
    "bubblewrap, warm": warm,
    "bubblewrap, forked": forked,
    "confined": confined,
    "limits": limited,
}


def need(name: str) -> None:
    """Skips a backend that this machine cannot run."""
    if name.startswith("bubblewrap"):
        need_bubblewrap()
    if name == "confined" and landlock.abi() == 0:
        pytest.skip("this kernel has no Landlock")


@contextmanager
def cgroups() -> Iterator[Cgroups]:
    """Groups below a parent of their own, all gone at the end; skips where none can be made."""
    found = find(parent=f"cohort-test-{os.getpid()}-{next(_numbers)}")
    if found.hierarchy is None:
        pytest.skip(f"no cgroups can be made here: {found.reason}")
    made = Cgroups(found.hierarchy)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def full(spawner: Spawner) -> Iterator[Sandbox]:
    """Bubblewrap with cgroups: level 4."""
    need_bubblewrap()
    with cgroups() as groups:
        yield Bubblewrap(replace(parts(spawner), cgroups=groups), Level.FULL)


def processes_with(marker: str) -> list[int]:
    """Processes on this machine whose command line has `marker`; zombies have none."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                if marker.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.append(int(name))
            except OSError:
                continue
    return found
