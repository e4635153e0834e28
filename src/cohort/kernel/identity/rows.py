"""Agents and sessions between rows and values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, or_, select

from cohort.base.errors import CohortError
from cohort.base.ids import AgentId, AgentSessionId, WorkspaceId
from cohort.kernel.face import SessionView
from cohort.kernel.model import Agent, AgentState, Autonomy, Limits, Scope
from cohort.kernel.scopes import parse_scope, shown_scope, stored_scope
from cohort.storage.schema import metadata

agents = metadata.tables["agents"]
agent_keys = metadata.tables["agent_keys"]
agent_sessions = metadata.tables["agent_sessions"]
refresh_tokens = metadata.tables["refresh_tokens"]

SCOPES_KNOWN_MAX = 4096

_AGENT_COLUMNS = [column.label(f"agent_{column.name}") for column in agents.c]

BY_SESSION: Select[Any] = (
    select(agent_sessions, *_AGENT_COLUMNS)
    .join(agents, agents.c.id == agent_sessions.c.agent)
    .where(agent_sessions.c.id == bindparam("session"))
)
"""A session and its agent: what every action asks, so it is written once."""


def scope_texts(scopes: Iterable[Scope]) -> list[str]:
    return [stored_scope(scope) for scope in scopes]


def scopes_of(texts: Sequence[str]) -> tuple[Scope, ...]:
    return _scopes(tuple(texts))


@lru_cache(SCOPES_KNOWN_MAX)
def _scopes(texts: tuple[str, ...]) -> tuple[Scope, ...]:
    return tuple(parse_scope(text) for text in texts)


def shown(scopes: Iterable[Scope], workspace: WorkspaceId | None) -> tuple[str, ...]:
    return tuple(shown_scope(scope, workspace) for scope in scopes)


def agent_of(row: Row[Any], prefix: str = "") -> Agent:
    """The agent in a row of `agents`, or in one of `BY_SESSION` with the prefix `agent_`."""
    said = row._mapping
    workspace = said[f"{prefix}workspace"]
    return Agent(
        id=AgentId(said[f"{prefix}id"]),
        name=said[f"{prefix}name"],
        state=AgentState(said[f"{prefix}state"]),
        scopes=scopes_of(said[f"{prefix}scopes"]),
        autonomy=Autonomy(said[f"{prefix}autonomy"]),
        limits=Limits(**said[f"{prefix}limits"]),
        egress=tuple(said[f"{prefix}egress"]),
        workspace=WorkspaceId(workspace) if workspace is not None else None,
        created_us=said[f"{prefix}created_us"],
        created_by=said[f"{prefix}created_by"],
        description=said[f"{prefix}description"],
        untrusted_us=said[f"{prefix}untrusted_us"],
    )


def agent_row(agent: Agent) -> dict[str, Any]:
    return {
        **{name: getattr(agent, name) for name in ("id", "name", "workspace", "created_us", "created_by", "description")},
        "state": agent.state.value,
        "scopes": scope_texts(agent.scopes),
        "autonomy": agent.autonomy.value,
        "limits": asdict(agent.limits),
        "egress": list(agent.egress),
        "changed_us": agent.created_us,
    }


def session_of(row: Row[Any], workspace: WorkspaceId | None) -> SessionView:
    return SessionView(
        id=AgentSessionId(row.id),
        agent=AgentId(row.agent),
        parent=AgentSessionId(row.parent) if row.parent is not None else None,
        scopes=shown(scopes_of(row.scopes), workspace),
        task=row.task,
        created_us=row.created_us,
        created_by=row.created_by,
        expires_us=row.expires_us,
        revoked_us=row.revoked_us,
        untrusted=row.untrusted,
        private=row.private,
    )


def find_agent(connection: Connection, agent: str, *, lock: bool = False) -> Agent:
    """By id or name. `lock`: against other writers. Errors: AGENT_UNKNOWN."""
    named: ColumnElement[bool] = or_(agents.c.id == agent, agents.c.name == agent)
    question = select(agents).where(named)
    row = connection.execute(question.with_for_update() if lock else question).one_or_none() if _plain(agent) else None
    if row is None:
        raise CohortError("AGENT_UNKNOWN", f"there is no agent {agent[:100]!r}", hint="See `cohort agent list` for those there are.")
    return agent_of(row)


def _plain(agent: str) -> bool:
    return agent.isascii() and agent.isprintable() and len(agent) <= 63
