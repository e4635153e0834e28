"""The token endpoint: sign in with a key, refresh, delegate. Each is in the audit log before its answer exists."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select, update

from cohort.base.errors import CohortError, Retry
from cohort.base.ids import AgentId, AgentSessionId
from cohort.kernel.access import SECRET_CHARACTERS_MAX, fingerprint
from cohort.kernel.attempts import Attempts
from cohort.kernel.face import TokenPair
from cohort.kernel.identity.delegation import delegated
from cohort.kernel.identity.identities import SqlIdentities, suspended
from cohort.kernel.identity.issuing import REFRESH_PREFIX, SESSION_LIFE_S, Issue, Issuer, audiences, check_bound, chosen
from cohort.kernel.identity.journal import Journal
from cohort.kernel.identity.pace import TOKENS_PER_MINUTE_MAX, Pace
from cohort.kernel.identity.rows import (
    BY_SESSION,
    agent_keys,
    agent_of,
    agent_sessions,
    agents,
    find_agent,
    refresh_tokens,
    scope_texts,
    scopes_of,
)
from cohort.kernel.identity.rules import TASK_CHARS_MAX, check_actor, check_text
from cohort.kernel.identity.sessions import NewSession, open_child, open_session, refuse_many, revoke_subtree, revoked
from cohort.kernel.identity.signing import SigningKeys
from cohort.kernel.identity.time import Steady
from cohort.kernel.identity.tokens import Jwts
from cohort.kernel.model import Agent, AgentState, Caller, RecordKind
from cohort.kernel.ports import AUDIENCE
from cohort.storage.database import Database

REPLAYED = "a refresh token was used twice"


class SqlTokens:
    """The face `Tokens`. Safe to use from many threads; every method may raise the errors of `Database`, and AUDIT_UNAVAILABLE."""

    def __init__(
        self, database: Database, identities: SqlIdentities, jwts: Jwts, issuer: Issuer, keys: SigningKeys, journal: Journal, time: Steady
    ) -> None:
        self._database = database
        self._jwts = jwts
        self._identities = identities
        self._issuer = issuer
        self._keys = keys
        self._journal = journal
        self._time = time
        self._attempts = Attempts(time)
        self._pace = Pace(time)

    def sign_in(
        self,
        key: str,
        scopes: Sequence[str] | None,
        audience: str,
        *,
        task: str | None = None,
        source: str = "",
        bound_to: str | None = None,
        agent: str | None = None,
    ) -> TokenPair:
        """A new session for the holder of `key`, which `source` (an address) sends; `task` names what it is for, `agent` whose key it has to be.

        Raises:
            CohortError KEY_INVALID, TOO_MANY_ATTEMPTS, AGENT_SUSPENDED, SCOPE_REFUSED, SCOPE_UNKNOWN, FIELD_INVALID, QUOTA_EXCEEDED.
        """
        audiences(audience)
        check_bound(bound_to)
        check_text("task", task or "", TASK_CHARS_MAX)
        row = self._known(key.strip(), source, agent)
        holder = agent_of(row, "agent_")
        self._check_pace(holder.id)
        if holder.state is not AgentState.ACTIVE:
            self._journal.note(RecordKind.TOKEN, {"event": "sign_in_refused", "key": row.id, "code": "AGENT_SUSPENDED"}, holder.id)
            raise suspended(holder.name)
        now_us = self._time.now_us()
        new = NewSession(
            self._issuer.session_id(),
            holder.id,
            chosen(holder, scopes, holder.scopes),
            now_us,
            row.id,
            now_us + SESSION_LIFE_S * 1_000_000,
            task,
            bound_to,
        )
        return self._opened(holder, new, audience)

    def refresh(self, refresh: str, *, bound_to: str | None = None) -> TokenPair:
        """A new pair; `refresh` is used up. Of two uses, even at the same time, one gets the pair and the other ends the session for both.

        Raises:
            CohortError TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_REPLAYED, SESSION_REVOKED, AGENT_SUSPENDED, QUOTA_EXCEEDED.
        """
        old = self._refreshable(refresh.strip(), bound_to)
        if old.used_us is not None:
            raise self._replayed(old)
        agent = agent_of(old, "agent_")
        self._check_pace(agent.id)
        scopes = scopes_of(old.scopes)
        secret = self._issuer.secret(REFRESH_PREFIX)
        issue = Issue(agent, AgentSessionId(old.id), scopes, old.audience, old.expires_us, tuple(old.actors), old.bound_to)
        pair = self._issuer.token(issue, secret)
        self._journal.note(RecordKind.TOKEN, {"event": "refresh", "audience": old.audience}, agent.id, pair.session)
        with self._database.write() as connection:
            # Commit point: of all who hold this secret, the one who marks it used gets the pair.
            mine = update(refresh_tokens).where(refresh_tokens.c.sha256 == old.sha256, refresh_tokens.c.used_us.is_(None))
            won = connection.execute(mine.values(used_us=self._time.now_us())).rowcount == 1
            if won:
                self._keep(connection, secret, pair.session, old.audience, old.expires_us)
        if not won:
            raise self._replayed(old)
        return pair

    def exchange(self, token: str, agent: str, scopes: Sequence[str], audience: str, *, bound_to: str | None = None) -> TokenPair:
        """Delegation: a token for `agent`, to act for the caller of `token`, with `scopes` written from the caller's workspace.

        Each scope lies inside one of the caller's and inside one of `agent`'s own. The token ends with the caller's at the latest,
        cannot be refreshed, and ends with the caller's session.

        Raises:
            CohortError SCOPE_REFUSED, SCOPE_UNKNOWN, AGENT_UNKNOWN, AGENT_SUSPENDED, QUOTA_EXCEEDED, and those of `authenticate`.
        """
        audiences(audience)
        caller = self._identities.authenticate(token, AUDIENCE, bound_to)
        with self._database.read() as connection:
            child = find_agent(connection, agent)
        if child.id == caller.agent.id:  # the gate counts what is given to others
            self._check_pace(child.id)
        given = delegated(caller, child, scopes)
        now_us = self._time.now_us()
        new = NewSession(
            self._issuer.session_id(),
            child.id,
            given,
            now_us,
            caller.agent.id,
            caller.expires_us,
            caller.task,
            None,
            caller.session,
            (caller.agent.id, *caller.actors),
        )
        with self._database.read() as connection:
            refuse_many(connection, new)
        pair = self._issuer.token(Issue(child, new.id, given, audience, new.expires_us, new.actors), None)
        body = {
            "event": "exchange",
            "scopes": scope_texts(given),
            "parent": caller.session,
            "actors": list(new.actors),
            "audience": audience,
        }
        with self._journal.change(RecordKind.TOKEN, body, child.id, new.id), self._database.write() as connection:
            open_child(self._database, connection, new)
        return pair

    def sign_out(self, token: str) -> None:
        """End the session of a token or refresh token, and every one delegated from it; nothing happens for one that is not in force."""
        session = self._holding(token.strip())
        if session is None:
            return
        with self._database.read() as connection:
            row = connection.execute(BY_SESSION, {"session": session}).one_or_none()
        if row is None or row.revoked_us is not None:
            return
        body = {"event": "sign_out"}
        with self._journal.change(RecordKind.TOKEN, body, AgentId(row.agent), session), self._database.write() as connection:
            revoke_subtree(self._database, connection, [session], self._time.now_us(), "its holder signed out")

    def rotate(self, actor: str) -> str:
        """Sign with a new key from now on; its id. Errors: DISK_FULL: nothing changed."""
        key = self._keys.draw()
        with self._journal.change(RecordKind.KEY, {"event": "token_key", "kid": key.kid, "actor": check_actor(actor)}):
            self._keys.adopt(key)
        return key.kid

    def check(self, token: str, audience: str, *, bound_to: str | None = None) -> Caller:
        """Who asks, for a place that has an audience of its own. Errors: as `SqlIdentities.authenticate`."""
        return self._identities.authenticate(token, audience, bound_to)

    def jwks(self) -> Mapping[str, Any]:
        """The public keys in force, RFC 7517."""
        return self._keys.jwks()

    def _holding(self, token: str) -> AgentSessionId | None:
        """The session behind a token of either kind, however old."""
        try:
            return self._jwts.read(token).session
        except CohortError:  # not a token of ours; perhaps a refresh token
            question = select(refresh_tokens.c.session).where(refresh_tokens.c.sha256 == fingerprint(token))
        with self._database.read() as connection:
            found = connection.execute(question).scalar_one_or_none()
        return AgentSessionId(found) if found is not None else None

    def _known(self, key: str, source: str, agent: str | None) -> Row[Any]:
        """The key's row and its agent's. Errors: KEY_INVALID, TOO_MANY_ATTEMPTS."""
        self._attempts.check(source)
        row = None
        if 0 < len(key) <= SECRET_CHARACTERS_MAX:
            with self._database.read() as connection:
                row = connection.execute(_BY_KEY.where(agent_keys.c.sha256 == fingerprint(key))).one_or_none()
        strange = row is None or (agent is not None and agent not in (row.agent_name, row.agent_id))
        if row is None or strange or not hmac.compare_digest(row.sha256, fingerprint(key)):
            self._attempts.failed(source)
            raise CohortError("KEY_INVALID", "this is not an agent's key in force", hint="Use the key that `cohort agent register` showed.")
        self._attempts.succeeded(source)
        return row

    def _check_pace(self, agent: AgentId) -> None:
        """One record for a flood, and none for what is refused in it. Errors: QUOTA_EXCEEDED, with the seconds to wait; AUDIT_UNAVAILABLE."""
        excess = self._pace.ask(agent)
        if excess is None:
            return
        if excess.first:
            self._journal.note(RecordKind.TOKEN, {"event": "token_flood", "per_minute": TOKENS_PER_MINUTE_MAX}, agent)
        raise CohortError(
            "QUOTA_EXCEEDED",
            f"{TOKENS_PER_MINUTE_MAX} tokens were asked for within a minute",
            retry=Retry.SAFE,
            hint=f"Wait {excess.wait_s} s; use a token until shortly before it ends.",
            wait_s=excess.wait_s,
        )

    def _opened(self, agent: Agent, new: NewSession, audience: str) -> TokenPair:
        with self._database.read() as connection:
            refuse_many(connection, new)
        secret = self._issuer.secret(REFRESH_PREFIX)
        pair = self._issuer.token(Issue(agent, new.id, new.scopes, audience, new.expires_us, (), new.bound_to), secret)
        body = {"event": "sign_in", "key": new.created_by, "scopes": scope_texts(new.scopes), "audience": audience, "task": new.task}
        with self._journal.change(RecordKind.TOKEN, body, agent.id, new.id), self._database.write() as connection:
            open_session(connection, new)
            self._keep(connection, secret, new.id, audience, new.expires_us)
        return pair

    def _keep(self, connection: Connection, secret: str, session: AgentSessionId, audience: str, expires_us: int) -> None:
        row = {"sha256": fingerprint(secret), "session": session, "audience": audience, "created_us": self._time.now_us()}
        connection.execute(refresh_tokens.insert().values(**row, expires_us=expires_us))

    def _refreshable(self, refresh: str, bound_to: str | None) -> Row[Any]:
        """The refresh token's row, its session's and its agent's, in force."""
        wanted = fingerprint(refresh)
        with self._database.read() as connection:
            row = connection.execute(_BY_REFRESH.where(refresh_tokens.c.sha256 == wanted)).one_or_none()
        if len(refresh) > SECRET_CHARACTERS_MAX or row is None or not hmac.compare_digest(row.sha256, wanted):
            raise CohortError("TOKEN_INVALID", "this is not a refresh token", hint="Sign in again with the agent's key.")
        if row.bound_to is not None and not hmac.compare_digest(row.bound_to.encode(), (bound_to or "").encode()):
            raise CohortError("TOKEN_INVALID", "the refresh token belongs to another connection", hint="Sign in again over this one.")
        if row.revoked_us is not None or row.agent_state == AgentState.REVOKED:
            raise revoked(row.revoked_why)
        if row.agent_state != AgentState.ACTIVE:
            raise suspended(row.agent_name)
        if self._time.now_us() >= row.expires_us:
            raise CohortError("TOKEN_EXPIRED", "the session has expired", hint="Sign in again with the agent's key.")
        return row

    def _replayed(self, old: Row[Any]) -> CohortError:
        """Somebody else holds a copy: whoever came first may be the thief, so the session ends for both."""
        body = {"event": "refresh_replayed", "revoked": old.id}
        with (
            self._journal.change(RecordKind.TOKEN, body, agent_of(old, "agent_").id, AgentSessionId(old.id)),
            self._database.write() as connection,
        ):
            revoke_subtree(self._database, connection, [old.id], self._time.now_us(), REPLAYED)
        return CohortError(
            "TOKEN_REPLAYED", "the refresh token was used before; its session is revoked", hint="Sign in again with the key."
        )


_AGENT = [column.label(f"agent_{column.name}") for column in agents.c]
_BY_KEY = select(agent_keys, *_AGENT).join(agents, agents.c.id == agent_keys.c.agent).where(agent_keys.c.revoked_us.is_(None))
_BY_REFRESH = (
    select(agent_sessions, refresh_tokens.c.sha256, refresh_tokens.c.audience, refresh_tokens.c.used_us, *_AGENT)
    .join(agent_sessions, agent_sessions.c.id == refresh_tokens.c.session)
    .join(agents, agents.c.id == agent_sessions.c.agent)
)
