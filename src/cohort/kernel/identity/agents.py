"""Agents as people keep them. Every change is in the audit log before it is made; see `journal.py` for what a crash between leaves."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import IntegrityError

from cohort.base.errors import CohortError, Retry
from cohort.base.ids import AgentId, AgentSessionId, Entropy, KeyId, WorkspaceId, new_id
from cohort.kernel.access import fingerprint
from cohort.kernel.face import NewAgent, Registered, SessionView, TokenPair
from cohort.kernel.identity.identities import ended, suspended
from cohort.kernel.identity.issuing import KEY_PREFIX, Issue, Issuer, chosen
from cohort.kernel.identity.journal import Journal
from cohort.kernel.identity.minting import life_of, session_by_hand
from cohort.kernel.identity.rows import agent_keys, agent_of, agent_row, agent_sessions, agents, find_agent, scope_texts, session_of
from cohort.kernel.identity.rules import TASK_CHARS_MAX, check_actor, check_new, check_scopes, check_text
from cohort.kernel.identity.sessions import NewSession, open_session, revoke_minted, revoke_subtree, sessions_of
from cohort.kernel.identity.time import Steady
from cohort.kernel.model import Agent, AgentState, Limits, RecordKind, Scope
from cohort.kernel.ports import AUDIENCE
from cohort.kernel.scopes import SCOPES_MAX, own_scope
from cohort.storage.database import Database

UNFINISHED_US = 60_000_000
"""A registration that has not ended after this long was cut short; registering the same name again then finishes it."""
AGENTS_MAX = 10_000


class Workrooms(Protocol):
    """Makes the place where an agent's files are."""

    def create(self, agent: AgentId, limits: Limits) -> WorkspaceId:
        """Ready for use, its quota verified; the agent's row is there. Errors: WORKSPACE_UNAVAILABLE, DISK_FULL."""
        ...


class SqlAgents:
    """The face `Agents`. Safe to use from many threads; every method may raise the errors of `Database`, and AUDIT_UNAVAILABLE."""

    def __init__(
        self,
        database: Database,
        issuer: Issuer,
        journal: Journal,
        time: Steady,
        entropy: Entropy,
        workrooms: Workrooms,
        stopped: Callable[[Agent], None],
    ) -> None:
        self._database = database
        self._issuer = issuer
        self._journal = journal
        self._time = time
        self._entropy = entropy
        self._workrooms = workrooms
        self._stopped = stopped

    def register(self, new: NewAgent, actor: str) -> Registered:
        """A new agent with its workspace and first key. Until all of it is there the agent is suspended and holds nothing.

        Raises:
            CohortError AGENT_NAME_TAKEN, SCOPE_UNKNOWN, FIELD_INVALID; WORKSPACE_UNAVAILABLE: register again when the cause is gone.
        """
        new = check_new(new)
        agent = self._blank(new, check_actor(actor))
        body = _said(new, actor)
        with self._journal.change(RecordKind.AGENT, body, agent.id):
            self._reserve(agent)
            try:
                workspace = self._workrooms.create(agent.id, new.limits)
            except CohortError:
                self._give_up(agent.id)
                raise
            return self._complete(agent, new, workspace)

    def list(self) -> Sequence[Agent]:
        """By name; at most `AGENTS_MAX`."""
        with self._database.read() as connection:
            return [agent_of(row) for row in connection.execute(select(agents).order_by(agents.c.name).limit(AGENTS_MAX))]

    def find(self, agent: str) -> Agent:
        """Errors: AGENT_UNKNOWN."""
        with self._database.read() as connection:
            return find_agent(connection, agent)

    def grant(self, agent: str, scopes: Sequence[str], actor: str) -> Agent:
        """Add to what the agent's future tokens may carry. Errors: AGENT_REVOKED, SCOPE_UNKNOWN, FIELD_INVALID."""
        return self._rescoped(agent, scopes, actor, "grant")

    def revoke_scopes(self, agent: str, scopes: Sequence[str], actor: str) -> Agent:
        """Take scopes away, from tokens in force too, at their next action. Errors: AGENT_REVOKED; FIELD_INVALID: it has no such scope."""
        return self._rescoped(agent, scopes, actor, "revoke_scopes")

    def suspend(self, agent: str, actor: str, reason: str) -> Agent:
        """Nothing it asks is done from the next action on, nor what others ask in its name. Errors: AGENT_REVOKED."""
        return self._restate(agent, AgentState.SUSPENDED, "suspend", actor, reason)

    def resume(self, agent: str, actor: str, reason: str) -> Agent:
        """Errors: AGENT_REVOKED; WORKSPACE_UNKNOWN: its registration was cut short."""
        return self._restate(agent, AgentState.ACTIVE, "resume", actor, reason)

    def trust(self, agent: str, actor: str, reason: str) -> Agent:
        """Say that the agent's data holds nothing of strangers any more. What its sessions have read stays marked.

        Raises:
            CohortError AGENT_NOT_SUSPENDED: what runs for it might write such data meanwhile. AGENT_REVOKED; FIELD_INVALID: no reason.
        """
        found = self._alive(agent)
        if not check_text("reason", reason).strip():
            raise CohortError("FIELD_INVALID", "no reason", field="reason", hint="Say what was looked at.")
        body = {"event": "trust", "name": found.name, "since_us": found.untrusted_us, "actor": check_actor(actor), "reason": reason}
        _refuse_active(found)
        if found.untrusted_us is None:
            return found
        with self._journal.change(RecordKind.AGENT, body, found.id), self._database.write() as connection:
            _refuse_active(find_agent(connection, found.id, lock=True))
            connection.execute(update(agents).where(agents.c.id == found.id).values(untrusted_us=None, changed_us=self._time.now_us()))
        return self.find(found.id)

    def revoke(self, agent: str, actor: str, reason: str) -> Agent:
        """For ever: keys, sessions and every delegation below it, from the next action on. Its name stays taken."""
        found = self.find(agent)
        body = {"event": "revoke", "name": found.name, "actor": check_actor(actor), "reason": check_text("reason", reason)}
        with self._journal.change(RecordKind.AGENT, body, found.id), self._database.write() as connection:
            self._end(connection, found.id, reason)
        self._stopped(found)
        return self.find(found.id)

    def new_key(self, agent: str, actor: str) -> Registered:
        """A key in place of those before it, which end now; sessions they opened go on. Errors: AGENT_REVOKED."""
        found = self._alive(agent)
        key, row = self._key(found.id)
        body = {"event": "new_key", "name": found.name, "key": row["id"], "actor": check_actor(actor)}
        with self._journal.change(RecordKind.KEY, body, found.id), self._database.write() as connection:
            _refuse_revoked(find_agent(connection, found.id, lock=True))
            _end_keys(connection, found.id, row["created_us"])
            connection.execute(agent_keys.insert().values(row))
        return Registered(found, key)

    def sessions(self, agent: str) -> Sequence[SessionView]:
        """Newest first, ended ones for a week. Errors: AGENT_UNKNOWN."""
        with self._database.read() as connection:
            found = find_agent(connection, agent)
            return [session_of(row, found.workspace) for row in connection.execute(sessions_of(found.id))]

    def revoke_session(self, session: AgentSessionId, actor: str, reason: str) -> None:
        """The session and every one delegated from it. Errors: NOT_FOUND."""
        with self._database.read() as connection:
            row = connection.execute(select(agent_sessions.c.agent).where(agent_sessions.c.id == session)).one_or_none()
        if row is None:
            raise CohortError(
                "NOT_FOUND", f"there is no session {session[:100]!r}", hint="`cohort agent sessions AGENT` lists those there are."
            )
        body = {"event": "revoke_session", "actor": check_actor(actor), "reason": check_text("reason", reason)}
        with self._journal.change(RecordKind.TOKEN, body, AgentId(row.agent), session), self._database.write() as connection:
            revoke_subtree(self._database, connection, [session], self._time.now_us(), reason or f"by {actor}")

    def mint(
        self,
        agent: str,
        scopes: Sequence[str] | None,
        actor: str,
        *,
        task: str | None = None,
        life_s: float | None = None,
        again: bool = False,
        key: KeyId | None = None,
    ) -> TokenPair:
        """A token for a person who acts as the agent by hand; no refresh. `again`: of the session that this person has already, if it holds the
        same scopes and does not end within `AGAIN_LEFT_US`: what was approved, or begun under an idempotency key, belongs to a session.
        `key`: the person's own, with whose revocation the session ends.

        Raises:
            CohortError AGENT_UNKNOWN, AGENT_SUSPENDED, AGENT_REVOKED, SCOPE_REFUSED, SCOPE_UNKNOWN, FIELD_INVALID, KEY_INVALID.
        """
        found = self._alive(agent)
        if found.state is not AgentState.ACTIVE:
            raise suspended(found.name)
        life = life_of(life_s, self._issuer.life_s_max)
        now_us = self._time.now_us()
        given = chosen(found, scopes, found.scopes)
        check_text("task", task or "", TASK_CHARS_MAX)
        end_us = (now_us // 1_000_000 + life) * 1_000_000
        new = NewSession(self._issuer.session_id(), found.id, given, now_us, check_actor(actor), end_us, task, person_key=key)
        body = {"event": "mint", "actor": actor, "scopes": scope_texts(given), "task": task, "life_s": life}
        had = self._had(new) if again else None
        if had is not None:
            with self._journal.change(RecordKind.TOKEN, body, found.id, had[0]):
                return self._issuer.token(Issue(found, had[0], given, AUDIENCE, had[1], life_s=life), None)
        pair = self._issuer.token(Issue(found, new.id, given, AUDIENCE, end_us, life_s=life), None)
        with self._journal.change(RecordKind.TOKEN, body, found.id, new.id), self._database.write() as connection:
            open_session(connection, new)
        return pair

    def end_minted(self, connection: Connection, key: KeyId) -> None:
        """What a person's key had made ends in the transaction that revokes the key."""
        revoke_minted(self._database, connection, key, self._time.now_us())

    def _had(self, like: NewSession) -> tuple[AgentSessionId, int] | None:
        with self._database.read() as connection:
            return session_by_hand(connection, like)

    def _blank(self, new: NewAgent, actor: str) -> Agent:
        """The agent before it has anything."""
        identity = AgentId(new_id("ag", self._entropy))
        given = (new.autonomy, new.limits, new.egress, None, self._time.now_us(), actor, new.description)
        return Agent(identity, new.name, AgentState.SUSPENDED, (), *given)

    def _reserve(self, agent: Agent) -> None:
        """Take the name. Errors: AGENT_NAME_TAKEN."""
        with self._database.write() as connection:
            row = connection.execute(select(agents).where(agents.c.name == agent.name).with_for_update()).one_or_none()
            if row is not None:
                self._free(connection, row)
            try:
                connection.execute(agents.insert().values(agent_row(agent)))
            except IntegrityError as error:
                raise _taken(agent.name) from error

    def _free(self, connection: Connection, row: Any) -> None:
        """Give the name of a registration that was cut short to the next; what it left keeps its id, revoked and renamed."""
        unfinished = row.workspace is None and row.state == AgentState.SUSPENDED
        if not unfinished or row.changed_us > self._time.now_us() - UNFINISHED_US:
            raise _taken(row.name)
        values = {"name": row.id, "state": AgentState.REVOKED.value, "changed_us": self._time.now_us()}
        connection.execute(update(agents).where(agents.c.id == row.id).values(values))

    def _give_up(self, agent: AgentId) -> None:
        """Let the next registration of this name begin at once."""
        with self._database.write() as connection:
            connection.execute(update(agents).where(agents.c.id == agent).values(changed_us=0))

    def _complete(self, agent: Agent, new: NewAgent, workspace: WorkspaceId) -> Registered:
        scopes = tuple(dict.fromkeys(own_scope(text, workspace) for text in new.scopes))
        whole = replace(agent, state=AgentState.ACTIVE, scopes=scopes, workspace=workspace)
        key, row = self._key(agent.id)
        with self._database.write() as connection:
            # Commit point: from here on the agent can sign in.
            connection.execute(update(agents).where(agents.c.id == agent.id).values(agent_row(whole)))
            connection.execute(agent_keys.insert().values(row))
        return Registered(whole, key)

    def _rescoped(self, agent: str, texts: Sequence[str], actor: str, event: str) -> Agent:
        found = self._alive(agent)
        check_scopes(tuple(texts))
        workspace = _workspace(found)
        scopes = tuple(dict.fromkeys(own_scope(text, workspace) for text in texts))
        body = {"event": event, "name": found.name, "scopes": scope_texts(scopes), "actor": check_actor(actor)}
        with self._journal.change(RecordKind.AGENT, body, found.id), self._database.write() as connection:
            held = _refuse_revoked(find_agent(connection, found.id, lock=True)).scopes
            after = _with(held, scopes) if event == "grant" else _without(held, scopes, found)
            values = {"scopes": scope_texts(after), "changed_us": self._time.now_us()}
            connection.execute(update(agents).where(agents.c.id == found.id).values(values))
        return self.find(found.id)

    def _restate(self, agent: str, state: AgentState, event: str, actor: str, reason: str) -> Agent:
        found = self._alive(agent)
        _workspace(found)
        body = {"event": event, "name": found.name, "actor": check_actor(actor), "reason": check_text("reason", reason)}
        if found.state is state:
            return found
        with self._journal.change(RecordKind.AGENT, body, found.id), self._database.write() as connection:
            _refuse_revoked(find_agent(connection, found.id, lock=True))
            values = {"state": state.value, "changed_us": self._time.now_us()}
            connection.execute(update(agents).where(agents.c.id == found.id).values(values))
        if state is not AgentState.ACTIVE:
            self._stopped(found)
        return self.find(found.id)

    def _end(self, connection: Connection, agent: AgentId, reason: str) -> None:
        now_us = self._time.now_us()
        find_agent(connection, agent, lock=True)
        values = {"state": AgentState.REVOKED.value, "changed_us": now_us}
        connection.execute(update(agents).where(agents.c.id == agent).values(values))
        _end_keys(connection, agent, now_us)
        own = connection.execute(select(agent_sessions.c.id).where(agent_sessions.c.agent == agent)).scalars()
        revoke_subtree(self._database, connection, builtins.list(own), now_us, f"the agent was revoked: {reason}")

    def _alive(self, agent: str) -> Agent:
        return _refuse_revoked(self.find(agent))

    def _key(self, agent: AgentId) -> tuple[str, dict[str, Any]]:
        """A new key's text and its row."""
        text = self._issuer.secret(KEY_PREFIX)
        row = {"id": new_id("key", self._entropy), "agent": agent, "sha256": fingerprint(text), "created_us": self._time.now_us()}
        return text, row


def _said(new: NewAgent, actor: str) -> dict[str, Any]:
    return {
        "event": "register",
        "name": new.name,
        "scopes": list(new.scopes),
        "autonomy": new.autonomy.value,
        "limits": asdict(new.limits),
        "egress": list(new.egress),
        "actor": actor,
    }


def _with(held: tuple[Scope, ...], added: tuple[Scope, ...]) -> tuple[Scope, ...]:
    after = tuple(dict.fromkeys((*held, *added)))
    if len(after) > SCOPES_MAX:
        raise CohortError("FIELD_INVALID", f"{len(after)} scopes", field="scopes", hint=f"Give at most {SCOPES_MAX}.")
    return after


def _without(held: tuple[Scope, ...], gone: tuple[Scope, ...], agent: Agent) -> tuple[Scope, ...]:
    """Each of `gone` must be held as it is: taking a part out of a wider scope would leave more than its name says."""
    strange = next((scope for scope in gone if scope not in held), None)
    if strange is not None:
        hint = f"See `cohort agent show {agent.name}` for its scopes; revoke a whole one, then grant what should stay."
        raise CohortError("FIELD_INVALID", f"{agent.name} does not hold {strange}", field="scopes", hint=hint)
    return tuple(scope for scope in held if scope not in gone)


def _workspace(agent: Agent) -> WorkspaceId:
    if agent.workspace is None:
        raise CohortError(
            "WORKSPACE_UNKNOWN",
            f"the registration of {agent.name} has not ended, or was cut short",
            retry=Retry.SAFE,
            hint="Register it again to finish.",
        )
    return agent.workspace


def _refuse_revoked(agent: Agent) -> Agent:
    if agent.state is AgentState.REVOKED:
        raise ended(agent.name)
    return agent


def _refuse_active(agent: Agent) -> None:
    if _refuse_revoked(agent).state is not AgentState.SUSPENDED:
        hint = f"Run `cohort agent suspend {agent.name}` first, which ends what runs for it, and `resume` afterwards."
        raise CohortError("AGENT_NOT_SUSPENDED", f"the agent {agent.name} may write meanwhile", hint=hint)


def _end_keys(connection: Connection, agent: AgentId, at_us: int) -> None:
    mine = update(agent_keys).where(agent_keys.c.agent == agent, agent_keys.c.revoked_us.is_(None))
    connection.execute(mine.values(revoked_us=at_us))


def _taken(name: str) -> CohortError:
    return CohortError("AGENT_NAME_TAKEN", f"there is an agent {name} already", field="name", hint="Choose another name.")
