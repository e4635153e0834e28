"""The rows of workspaces: which there are, whose, and in what state. No disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, or_, select, update

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.base.ids import AgentId, Entropy, SnapshotId, WorkspaceId, new_id
from cohort.kernel.workspaces.backend import Size
from cohort.storage.database import Database
from cohort.storage.schema import agents, workspaces

UID_FIRST = 200_000
UID_LAST = UID_FIRST + 1_000_000


@dataclass(frozen=True, slots=True)
class Kept:
    """A workspace as its row says. `base`: the snapshot that differences are to. `restoring`: what is being put back; empty: nothing at all."""

    id: WorkspaceId
    agent: AgentId
    directory: str
    backend: str
    uid: int
    size: Size
    state: str
    base: SnapshotId | None
    restoring: str | None
    created_us: int

    @classmethod
    def of(cls, row: Row[Any]) -> Kept:
        size = Size(row.bytes_max, row.files_max)
        base = SnapshotId(row.base) if row.base is not None else None
        return cls(
            WorkspaceId(row.id),
            AgentId(row.agent),
            row.directory,
            row.backend,
            row.uid,
            size,
            row.state,
            base,
            row.restoring,
            row.created_us,
        )


class Rows:
    """Safe to use from many threads. `private_uids`: whether each workspace gets a uid of its own, given out once and never again."""

    def __init__(self, database: Database, clock: Clock, entropy: Entropy, *, private_uids: bool) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._private_uids = private_uids

    def find(self, workspace: str) -> Kept:
        """By its id or its agent's name. Errors: WORKSPACE_UNKNOWN."""
        wanted = select(workspaces).join(agents, agents.c.id == workspaces.c.agent).where(workspaces.c.state == "ready")
        with self._database.read() as connection:
            row = connection.execute(wanted.where(or_(workspaces.c.id == workspace, agents.c.name == workspace))).first()
        if row is None:
            raise CohortError("WORKSPACE_UNKNOWN", f"there is no workspace {workspace[:80]!r}", hint="List the workspaces.")
        return Kept.of(row)

    def listed(self, states: Sequence[str] = ("ready",)) -> Sequence[Kept]:
        """Oldest first."""
        order = (workspaces.c.created_us, workspaces.c.id)
        with self._database.read() as connection:
            rows = connection.execute(select(workspaces).where(workspaces.c.state.in_(states)).order_by(*order)).all()
        return [Kept.of(row) for row in rows]

    def of_agent(self, agent: AgentId) -> Kept | None:
        """The workspace that an agent has or is getting."""
        with self._database.read() as connection:
            return _of_agent(connection, agent)

    def begin(self, agent: AgentId, size: Size, name: str, backend: str) -> Kept:
        """A new row, `creating`; the agent's own, if somebody was faster."""
        with self._database.write() as connection:
            self._database.lock(connection, "cohort workspaces")
            existing = _of_agent(connection, agent)
            if existing is not None:
                return existing
            workspace = WorkspaceId(new_id("ws", self._entropy))
            uid = self._next_uid(connection)
            now_us = self._clock.now_us()
            kept = Kept(workspace, agent, name, backend, uid, size, "creating", None, None, now_us)
            row = {"id": workspace, "agent": agent, "directory": name, "backend": kept.backend, "uid": uid, "created_us": now_us}
            row |= {"bytes_max": size.bytes_max, "files_max": size.files_max, "state": "creating"}
            connection.execute(workspaces.insert().values(row))
        return kept

    def _next_uid(self, connection: Connection) -> int:
        if not self._private_uids:
            return os.geteuid()
        last = connection.execute(select(func.max(workspaces.c.uid)).where(workspaces.c.uid >= UID_FIRST)).scalar()
        uid = UID_FIRST if last is None else int(last) + 1
        if uid > UID_LAST:
            raise CohortError("WORKSPACE_UNAVAILABLE", f"all uids up to {UID_LAST} were given out", hint="Use a new installation.")
        return uid

    def set(self, workspace: WorkspaceId, **values: Any) -> None:
        with self._database.write() as connection:
            connection.execute(update(workspaces).where(workspaces.c.id == workspace).values(**values))


def _of_agent(connection: Connection, agent: AgentId) -> Kept | None:
    wanted = select(workspaces).where(workspaces.c.agent == agent, workspaces.c.state.in_(("creating", "ready")))
    row = connection.execute(wanted).first()
    return Kept.of(row) if row is not None else None
