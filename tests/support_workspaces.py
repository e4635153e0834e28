"""Workspaces for tests, on each backend, and everything they mounted gone afterwards."""

from __future__ import annotations

import functools
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cohort.base.canonical import canonical_json
from cohort.base.clock import Clock, SystemClock
from cohort.base.errors import CohortError
from cohort.base.ids import AgentId, WorkspaceId
from cohort.kernel.model import Limits, Place, Position, Record
from cohort.kernel.workspaces import loop_devices
from cohort.kernel.workspaces.backend import Backend
from cohort.kernel.workspaces.backend_directory import DirectoryBackend
from cohort.kernel.workspaces.backend_image import ImageBackend, available
from cohort.kernel.workspaces.beneath import Opener, best_opener
from cohort.kernel.workspaces.desk import Desk
from cohort.kernel.workspaces.files import Files
from cohort.kernel.workspaces.snapshots import Snapshots
from cohort.kernel.workspaces.workspaces import SqlWorkspaces
from cohort.storage.database import Database
from cohort.storage.schema import agents

SMALL = Limits(disk_bytes=4 << 20, files=100)


class Ledger:
    """An audit log that only remembers, and can be told to fail. As strict about values as the real one."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.failure: CohortError | None = None

    def append(self, record: Record) -> Position:
        if self.failure is not None:
            raise self.failure
        canonical_json(dict(record.body))
        self.records.append(record)
        return Position(len(self.records) - 1, "00" * 32, 0)

    def events(self) -> list[str]:
        return [str(record.body["event"]) for record in self.records]


@functools.cache
def why_no_images() -> str | None:
    """None when image workspaces can be made on this machine."""
    if os.geteuid() != 0:
        return "image workspaces need root"
    with tempfile.TemporaryDirectory() as folder:
        return available(f"{folder}/images", f"{folder}/mounts")


def backend_in(folder: Path, kind: str, clock: Clock, opener: Opener) -> Backend:
    if kind == "image":
        return ImageBackend(str(folder / "images"), str(folder / "mounts"))
    return DirectoryBackend(str(folder / "workspaces"), clock, opener)


@contextmanager
def unmounted_after(folder: Path) -> Iterator[None]:
    """Unmount everything below `folder` at the end, whatever happened."""
    try:
        yield
    finally:
        mounts = str(folder.resolve() / "mounts")
        while found := loop_devices.mounts_under(mounts):  # more than once, should one be mounted over another
            for name in found:
                loop_devices.unmount(f"{mounts}/{name}")


class Room:
    """The room as compose assembles it, in `folder`."""

    def __init__(self, folder: Path, database: Database, kind: str, opener: Opener | None = None, **options: Any) -> None:
        self.audit = Ledger()
        self.clock = SystemClock()
        self.database = database
        self.backend = backend_in(folder, kind, self.clock, opener or best_opener())
        self.busy: set[WorkspaceId] = set()
        self.closed: list[Place] = []
        options |= {"opener": opener or best_opener(), "busy": self.busy.__contains__, "close": self.closed.append}
        self.workspaces = SqlWorkspaces(database, self.clock, self.audit, self.backend, **options)
        self.files = Files(self.workspaces, opener or best_opener())
        self.desk = Desk(self.workspaces, Snapshots(database, self.clock, opener or best_opener(), secrets.token_bytes))
        self.workspaces.start()
        self.desk.start()

    def place(self, name: str = "smoke-1", limits: Limits = SMALL) -> Place:
        """The place of a new agent's workspace."""
        return self.workspaces.place(self.workspaces.create(self.agent(name), limits))

    def agent(self, name: str) -> AgentId:
        agent = AgentId(f"ag_{name}")
        row = {"id": agent, "name": name, "state": "active", "scopes": [], "autonomy": "standard", "limits": {}, "egress": []}
        row |= {"description": "", "created_us": 0, "created_by": "test", "changed_us": 0}
        with self.database.write() as connection:
            connection.execute(self.database.upsert(agents).values(row).on_conflict_do_nothing())
        return agent
