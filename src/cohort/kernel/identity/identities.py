"""Who asks, looked at afresh for every action: what the database said is believed again only while nothing was committed to it since."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select, update

from cohort.base.errors import CohortError
from cohort.base.ids import AgentId, AgentSessionId, TokenId
from cohort.kernel.identity.rows import BY_SESSION, agent_of, agent_sessions, agents, scopes_of
from cohort.kernel.identity.sessions import ancestors, revoked
from cohort.kernel.identity.time import Steady
from cohort.kernel.identity.tokens import LEEWAY_S, Claims, Jwts
from cohort.kernel.model import AgentState, Caller, Scope, Taint
from cohort.kernel.scopes import narrowed
from cohort.storage.database import Database
from cohort.storage.remembered import Remembered

KNOWN_MAX = 4096
"""Tokens, sessions and agents of which something is remembered, each."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """Who the database said is behind `claims`, and when that session ends."""

    claims: Claims
    caller: Caller
    ends_us: int


class SqlIdentities:
    """The port `Identities`. Safe to use from many threads; every method may raise the errors of `Database`."""

    def __init__(self, database: Database, jwts: Jwts, time: Steady, known_max: int = KNOWN_MAX) -> None:
        self._database = database
        self._jwts = jwts
        self._time = time
        self._seen = Remembered[TokenId, _Seen](database, known_max)
        self._taints = Remembered[AgentSessionId, Taint](database, known_max)
        self._data = Remembered[AgentId, bool](database, known_max)

    def authenticate(self, token: str, audience: str, bound_to: str | None = None) -> Caller:
        """The caller behind `token`. Its scopes are what the token, the session, the agent and everyone it acts for still permit, together.

        Raises:
            CohortError TOKEN_INVALID, TOKEN_EXPIRED, SESSION_REVOKED (401), AGENT_SUSPENDED (403).
        """
        claims = self._jwts.read(token)
        _check_place(claims, audience, bound_to)
        self._check_time(claims.issued_s, claims.expires_us)
        seen = self._seen.get(claims.token, lambda: self._looked_up(claims))
        if seen.claims != claims:
            seen = self._looked_up(claims)
        self._check_session_time(seen.ends_us)
        return seen.caller

    def _looked_up(self, claims: Claims) -> _Seen:
        """As the database has it now."""
        with self._database.read() as connection:
            row = self._in_force(connection, claims.session)
            if row.agent != claims.agent or tuple(row.actors) != claims.actors or row.bound_to != claims.bound_to:
                raise CohortError("TOKEN_INVALID", "the token is not of its session", hint="Sign in again with the agent's key.")
            scopes = narrowed(_permitted(claims.scopes, row), agent_of(row, "agent_").scopes)
            for held in _chain(connection, claims.actors):
                scopes = narrowed(scopes, held)
        agent = agent_of(row, "agent_")
        caller = Caller(agent, claims.session, claims.token, scopes, claims.expires_us, row.task, claims.actors)
        return _Seen(claims, caller, row.expires_us)

    def again(self, caller: Caller) -> Caller:
        """`caller` as it is now. Errors: as `authenticate`."""
        self._check_time(0, caller.expires_us)
        with self._database.read() as connection:
            row = self._in_force(connection, caller.session)
            scopes = narrowed(_permitted(caller.scopes, row), agent_of(row, "agent_").scopes)
            for held in _chain(connection, caller.actors):
                scopes = narrowed(scopes, held)
        return Caller(agent_of(row, "agent_"), caller.session, caller.token, scopes, caller.expires_us, row.task, caller.actors)

    def taint(self, session: AgentSessionId) -> Taint:
        """Errors: NOT_FOUND."""
        return self._taints.get(session, lambda: self._read_taint(session))

    def _read_taint(self, session: AgentSessionId) -> Taint:
        question = select(agent_sessions.c.untrusted, agent_sessions.c.private).where(agent_sessions.c.id == session)
        with self._database.read() as connection:
            row = connection.execute(question).one_or_none()
        if row is None:
            raise CohortError("NOT_FOUND", f"there is no session {session}", hint="Sign in again with the agent's key.")
        return Taint(row.untrusted, row.private)

    def mark(self, session: AgentSessionId, taint: Taint) -> None:
        """Add to what `session` has read, and to what those it was delegated from have: its answer goes back to them."""
        new = {name: True for name, said in (("untrusted", taint.untrusted), ("private", taint.private)) if said}
        if not new or _includes(self.taint(session), taint):
            return
        with self._database.write() as connection:
            marked = agent_sessions.c.id.in_(ancestors(connection, session))
            connection.execute(update(agent_sessions).where(marked).values(new))

    def data_untrusted(self, agent: AgentId) -> bool:
        """Errors: NOT_FOUND."""
        return self._data.get(agent, lambda: self._read_data(agent))

    def _read_data(self, agent: AgentId) -> bool:
        with self._database.read() as connection:
            row = connection.execute(select(agents.c.untrusted_us).where(agents.c.id == agent)).one_or_none()
        if row is None:
            raise CohortError("NOT_FOUND", f"there is no agent {agent}", hint="See `cohort agent list`.")
        return row.untrusted_us is not None

    def mark_data(self, agent: AgentId) -> None:
        """The first time counts. Errors: NOT_FOUND."""
        if self.data_untrusted(agent):
            return
        clean = update(agents).where(agents.c.id == agent, agents.c.untrusted_us.is_(None))
        with self._database.write() as connection:
            connection.execute(clean.values(untrusted_us=self._time.now_us()))

    def _check_time(self, issued_s: int, expires_us: int) -> None:
        now_us = self._time.now_us()
        if issued_s > now_us // 1_000_000 + LEEWAY_S:
            raise CohortError(
                "TOKEN_INVALID",
                f"the token was issued {issued_s - now_us // 1_000_000} s in the future",
                hint="Set the clock of this machine right, then sign in again.",
            )
        if now_us >= expires_us:
            raise _expired("token")

    def _in_force(self, connection: Connection, session: AgentSessionId) -> Row[Any]:
        row = connection.execute(BY_SESSION, {"session": session}).one_or_none()
        if row is None:
            raise revoked("it is not known here")
        if row.revoked_us is not None:
            raise revoked(row.revoked_why)
        _check_state(row.agent_name, row.agent_state)
        self._check_session_time(row.expires_us)
        return row

    def _check_session_time(self, ends_us: int) -> None:
        if self._time.now_us() >= ends_us:
            raise _expired("session")


def _check_place(claims: Claims, audience: str, bound_to: str | None) -> None:
    if audience not in claims.audiences:
        raise CohortError("TOKEN_INVALID", f"the token is not for {audience}", hint="Ask for a token with this audience (`resource`).")
    if claims.bound_to is not None and not hmac.compare_digest(claims.bound_to.encode(), (bound_to or "").encode()):
        raise CohortError("TOKEN_INVALID", "the token belongs to another connection", hint="Sign in again over this one.")


def _check_state(name: str, state: str) -> None:
    if state == AgentState.REVOKED:
        raise revoked(f"the agent {name} was revoked")
    if state != AgentState.ACTIVE:
        raise suspended(name)


def _chain(connection: Connection, actors: tuple[AgentId, ...]) -> list[tuple[Scope, ...]]:
    """The scopes of those a delegated token acts for, all of whom must be in force."""
    if not actors:
        return []
    question = select(agents.c.id, agents.c.name, agents.c.state, agents.c.scopes).where(agents.c.id.in_(set(actors)))
    rows = connection.execute(question).all()
    if len(rows) != len(set(actors)):
        raise revoked("an agent that it acts for is not known here")
    for row in rows:
        _check_state(row.name, row.state)
    return [scopes_of(row.scopes) for row in rows]


def _permitted(scopes: tuple[Scope, ...], row: Row[Any]) -> tuple[Scope, ...]:
    return narrowed(scopes, scopes_of(row.scopes))


def _includes(known: Taint, added: Taint) -> bool:
    return (known.untrusted or not added.untrusted) and (known.private or not added.private)


def suspended(name: str) -> CohortError:
    return CohortError("AGENT_SUSPENDED", f"the agent {name} is suspended", hint=f"Ask a person to run `cohort agent resume {name}`.")


def ended(name: str) -> CohortError:
    return CohortError("AGENT_REVOKED", f"the agent {name} was revoked, for ever", hint="Register another one.")


def _expired(what: str) -> CohortError:
    return CohortError("TOKEN_EXPIRED", f"the {what} has expired", hint="Refresh the token, or sign in again with the agent's key.")
