"""Sessions of agents: opened by a key, a person or a delegation; what revokes one revokes everything delegated from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, delete, func, select, update

from cohort.base.errors import CohortError, Retry
from cohort.base.ids import AgentId, AgentSessionId, KeyId
from cohort.kernel.identity.rows import agent_sessions, refresh_tokens, scope_texts
from cohort.kernel.model import Scope, Taint
from cohort.storage.database import Database
from cohort.storage.schema import keys

SESSIONS_MAX = 1000
"""Sessions in force per agent."""
LISTED_MAX = 1000
KEPT_US = 7 * 24 * 3_600_000_000
"""How long a session that has ended stays listed."""
TREE_LOCK = "agent sessions"
"""Held by everything that opens a delegated session or revokes: none can slip in below one that is being revoked."""


@dataclass(frozen=True, slots=True)
class NewSession:
    id: AgentSessionId
    agent: AgentId
    scopes: tuple[Scope, ...]
    created_us: int
    created_by: str
    expires_us: int
    task: str | None = None
    bound_to: str | None = None
    parent: AgentSessionId | None = None
    actors: tuple[AgentId, ...] = ()
    person_key: KeyId | None = None


def open_session(connection: Connection, new: NewSession) -> None:
    """Insert, and forget what ended long ago.

    Errors: QUOTA_EXCEEDED: the agent has `SESSIONS_MAX` in force; KEY_INVALID: the person's key was revoked meanwhile.
    """
    if new.person_key is not None:
        check_person_key(connection, new.person_key)
    _forget(connection, new.agent, new.created_us)
    refuse_many(connection, new)
    connection.execute(agent_sessions.insert().values(_row(new, Taint())))


def open_child(database: Database, connection: Connection, new: NewSession) -> None:
    """Insert below `new.parent`, with its taint. Errors: SESSION_REVOKED: the parent was revoked meanwhile; QUOTA_EXCEEDED."""
    database.lock(connection, TREE_LOCK)
    row = connection.execute(select(agent_sessions).where(agent_sessions.c.id == new.parent)).one_or_none()
    if row is None or row.revoked_us is not None:
        raise revoked(row.revoked_why if row is not None else None)
    _forget(connection, new.agent, new.created_us)
    refuse_many(connection, new)
    connection.execute(agent_sessions.insert().values(_row(new, Taint(row.untrusted, row.private))))


def revoke_subtree(database: Database, connection: Connection, roots: Sequence[str], at_us: int, why: str) -> int:
    """End these sessions and everything delegated from them; how many were in force."""
    database.lock(connection, TREE_LOCK)
    still = agent_sessions.c.revoked_us.is_(None)
    below = select(_tree(roots).c.id)
    change = update(agent_sessions).where(agent_sessions.c.id.in_(below), still)
    return int(connection.execute(change.values(revoked_us=at_us, revoked_why=why)).rowcount)


def check_person_key(connection: Connection, key: KeyId) -> None:
    """Held until the end of the transaction: either the key's revocation sees the session, or this sees the revocation. Errors: KEY_INVALID."""
    found = connection.execute(select(keys.c.revoked_us).where(keys.c.id == key).with_for_update()).one_or_none()
    if found is None or found.revoked_us is not None:
        raise CohortError("KEY_INVALID", f"the key {key} is not in force", hint="Use a key that is.")


def revoke_minted(database: Database, connection: Connection, key: KeyId, at_us: int) -> int:
    """End every session that was made with this person's key, and what was delegated from it; how many were in force."""
    made = connection.execute(select(agent_sessions.c.id).where(agent_sessions.c.person_key == key)).scalars()
    return revoke_subtree(database, connection, list(made), at_us, "the key of the person who began it was revoked")


def sessions_of(agent: AgentId) -> Select[Any]:
    """Newest first."""
    order = (agent_sessions.c.created_us.desc(), agent_sessions.c.id)
    return select(agent_sessions).where(agent_sessions.c.agent == agent).order_by(*order).limit(LISTED_MAX)


def ancestors(connection: Connection, session: AgentSessionId) -> list[str]:
    """`session` and those it was delegated from."""
    tree = select(agent_sessions.c.id, agent_sessions.c.parent).where(agent_sessions.c.id == session).cte("up", recursive=True)
    above = select(agent_sessions.c.id, agent_sessions.c.parent).join(tree, agent_sessions.c.id == tree.c.parent)
    return list(connection.execute(select(tree.union(above).c.id)).scalars())


def revoked(why: str | None) -> CohortError:
    return CohortError("SESSION_REVOKED", f"the session was revoked{f': {why}' if why else ''}", hint="Sign in again with the agent's key.")


def _tree(roots: Sequence[str]) -> Any:
    start = select(agent_sessions.c.id).where(agent_sessions.c.id.in_(list(roots))).cte("down", recursive=True)
    return start.union(select(agent_sessions.c.id).join(start, agent_sessions.c.parent == start.c.id))


def _row(new: NewSession, taint: Taint) -> dict[str, Any]:
    names = ("id", "agent", "parent", "task", "bound_to", "created_us", "created_by", "person_key", "expires_us")
    return {
        **{name: getattr(new, name) for name in names},
        "scopes": scope_texts(new.scopes),
        "actors": list(new.actors),
        "untrusted": taint.untrusted,
        "private": taint.private,
    }


def refuse_many(connection: Connection, new: NewSession) -> None:
    """Also to be asked before anything is recorded: else who signs in on and on fills the log. Errors: QUOTA_EXCEEDED."""
    own = (agent_sessions.c.agent == new.agent, agent_sessions.c.revoked_us.is_(None), agent_sessions.c.expires_us > new.created_us)
    count = connection.execute(select(func.count()).select_from(agent_sessions).where(*own)).scalar_one()
    if count >= SESSIONS_MAX:
        raise CohortError(
            "QUOTA_EXCEEDED",
            f"the agent has {count} sessions in force",
            retry=Retry.SAFE,
            hint="Use the refresh token of one it has, or revoke some.",
        )


def _forget(connection: Connection, agent: AgentId, now_us: int) -> None:
    ended = select(agent_sessions.c.id).where(agent_sessions.c.agent == agent, agent_sessions.c.expires_us < now_us - KEPT_US)
    connection.execute(delete(refresh_tokens).where(refresh_tokens.c.session.in_(ended)))
    connection.execute(delete(agent_sessions).where(agent_sessions.c.id.in_(ended)))
