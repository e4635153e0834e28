"""Agents' processes in the database: so that what a former life of control ran is known, and said to be lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select, update

from cohort.base import redaction
from cohort.base.ids import AgentId, AgentSessionId, ProcessId
from cohort.kernel.model import Completed, Level, ProcessView, StoppedBy
from cohort.storage.schema import metadata

processes = metadata.tables["agent_processes"]


def add(connection: Connection, view: ProcessView, session: AgentSessionId | None, control: str) -> None:
    row = {"id": view.id, "agent": view.agent, "session": session, "control": control, "argv": redaction.words(view.argv)}
    connection.execute(insert(processes).values(**row, started_us=view.started_us, ended_us=None, ended=None))


def remove(connection: Connection, process: ProcessId) -> None:
    connection.execute(delete(processes).where(processes.c.id == process))


def end(connection: Connection, process: ProcessId, ended: Completed, at_us: int) -> None:
    connection.execute(update(processes).where(processes.c.id == process).values(ended_us=at_us, ended=_completed_row(ended)))


def find(connection: Connection, agent: AgentId, process: ProcessId) -> ProcessView | None:
    row = connection.execute(select(processes).where(processes.c.id == process, processes.c.agent == agent)).mappings().one_or_none()
    return None if row is None else _view(row)


def listed(connection: Connection, agent: AgentId, limit: int) -> Sequence[ProcessView]:
    """The newest first."""
    query = select(processes).where(processes.c.agent == agent).order_by(processes.c.started_us.desc(), processes.c.id).limit(limit)
    return [_view(row) for row in connection.execute(query).mappings()]


def lose(connection: Connection, control: str, at_us: int) -> int:
    """Whatever `control` ran and has not ended is lost; how many that were."""
    where = and_(processes.c.control == control, processes.c.ended_us.is_(None))
    return connection.execute(update(processes).where(where).values(ended_us=at_us, ended=_completed_row(LOST))).rowcount


def prune(connection: Connection, agent: AgentId, keep: int) -> None:
    """Forget all of the agent's ended processes but the newest `keep`."""
    of_agent = and_(processes.c.agent == agent, processes.c.ended_us.is_not(None))
    old = select(processes.c.id).where(of_agent).order_by(processes.c.started_us.desc(), processes.c.id).offset(keep).limit(keep)
    ids = connection.execute(old).scalars().all()
    if ids:
        connection.execute(delete(processes).where(processes.c.id.in_(ids)))


LOST = Completed(None, None, b"", b"", 0, 0, 0, 0, None, StoppedBy.LOST, Level.NONE)


def _completed_row(ended: Completed) -> dict[str, Any]:
    same = ("exit_code", "signal", "stdout_bytes", "stderr_bytes", "duration_us", "cpu_us", "memory_bytes")
    stopped_by = ended.stopped_by.value if ended.stopped_by else None
    return {name: getattr(ended, name) for name in same} | {"stopped_by": stopped_by, "level": int(ended.level)}


def _completed(row: Mapping[str, Any]) -> Completed:
    stopped_by = StoppedBy(row["stopped_by"]) if row["stopped_by"] else None
    return Completed(**{**row, "stdout": b"", "stderr": b"", "stopped_by": stopped_by, "level": Level(row["level"])})


def _view(row: Mapping[Any, Any]) -> ProcessView:
    ended = _completed(row["ended"]) if row["ended"] is not None else None
    written = (ended.stdout_bytes, ended.stderr_bytes) if ended else (0, 0)
    return ProcessView(ProcessId(row["id"]), AgentId(row["agent"]), tuple(row["argv"]), row["started_us"], ended, *written)
