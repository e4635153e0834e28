"""Tokens for people who act as an agent by hand: how long they live, and which session they belong to."""

from __future__ import annotations

from sqlalchemy import Connection, select

from cohort.base.errors import CohortError
from cohort.base.ids import AgentSessionId
from cohort.kernel.identity.issuing import TOKEN_LIFE_S
from cohort.kernel.identity.rows import agent_sessions, scope_texts
from cohort.kernel.identity.sessions import NewSession

AGAIN_LEFT_US = 120_000_000
"""A session by hand that ends sooner is not taken up again: an action may wait and run for so long."""


def life_of(life_s: float | None, most_s: int) -> int:
    """Whole seconds. Errors: FIELD_INVALID."""
    if life_s is None:
        return min(TOKEN_LIFE_S, most_s)
    if not 1 <= life_s <= most_s:
        raise CohortError("FIELD_INVALID", f"a token cannot live {life_s:g} s", field="life_s", hint=f"Use 1 to {most_s} seconds.")
    return int(life_s)


def session_by_hand(connection: Connection, like: NewSession) -> tuple[AgentSessionId, int] | None:
    """The session of the same person, by the same key, with the same scopes and task that lasts longest, and when it ends."""
    asked = (
        select(agent_sessions.c.id, agent_sessions.c.expires_us, agent_sessions.c.scopes)
        .where(agent_sessions.c.agent == like.agent, agent_sessions.c.created_by == like.created_by)
        .where(agent_sessions.c.person_key.is_not_distinct_from(like.person_key))
        .where(agent_sessions.c.parent.is_(None), agent_sessions.c.bound_to.is_(None), agent_sessions.c.revoked_us.is_(None))
        .where(agent_sessions.c.task.is_not_distinct_from(like.task))
        .where(agent_sessions.c.expires_us > like.created_us + AGAIN_LEFT_US)
        .order_by(agent_sessions.c.expires_us.desc())
    )
    rows = connection.execute(asked).all()
    return next(((AgentSessionId(row.id), row.expires_us) for row in rows if row.scopes == scope_texts(like.scopes)), None)
