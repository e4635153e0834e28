"""The kernel in memory, for the tests of surfaces: real values, and stricter than the real thing about its arguments.

It executes nothing. `files.read` is done, `files.write` waits for a person, `files.delete` is refused, `terminal.run` is done with the
argv as its output, and every change leaves an entry in a list that stands for the audit log.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import support_views as views
from cohort.base.canonical import canonical_json
from cohort.base.errors import CohortError
from cohort.base.ids import ActionId, AgentId, AgentSessionId, ApprovalId, GrantRuleId, KeyId, SnapshotId, TokenId, WorkspaceId
from cohort.kernel.face import (
    AuditKey,
    AuditQuery,
    Containment,
    Entry,
    KernelFace,
    NewAgent,
    Operation,
    ProbeRow,
    Proof,
    Registered,
    Request,
    SafetyCounts,
    SessionView,
    Sign,
    TokenPair,
    Verification,
    WorkspaceView,
)
from cohort.kernel.machine.holding import Mechanisms, holdings
from cohort.kernel.model import (
    Action,
    ActionResult,
    Agent,
    AgentState,
    Approval,
    ApprovalState,
    Autonomy,
    Caller,
    Change,
    GrantRule,
    GrantScope,
    Level,
    Limits,
    Outcome,
    Risk,
    Scope,
    Snapshot,
    Usage,
)
from cohort.kernel.scopes import own_scope, shown_scope

HOUR_US = 3_600_000_000
POLICY = "9" * 64


def padded(prefix: str, number: int) -> str:
    return f"{prefix}_{number:016d}"


def owned(texts: Sequence[str], workspace: WorkspaceId | None) -> tuple[Scope, ...]:
    assert workspace is not None
    return tuple(own_scope(text, workspace) for text in texts)


def log_key(number: int, since: int, until: int | None) -> AuditKey:
    vkey = f"cohort.local/audit+{number:08x}+AAAA"
    line = vkey + (f" since {since}" if since else "") + ("" if until is None else f" until {until}")
    return AuditKey(f"{number:08x}", vkey, until is None, since, until, line)


class MemoryAudit:
    """Entries in a list; `broken` makes it say that this index is wrong."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.broken: int | None = None
        self.anchors: list[str] = []
        self.down: CohortError | None = None
        self.signing = [log_key(0, 0, None)]
        self.under_way: tuple[int, int] | None = None
        self.held: threading.Event | None = None

    def append(self, kind: str, body: Mapping[str, Any], agent: str | None = None, action: str | None = None) -> int:
        if self.down is not None:
            raise self.down
        index = len(self.entries)
        whole = {"index": index, "at_us": views.NOW_US + index, "kind": kind, "agent": agent, "action": action, "body": dict(body)}
        leaf = hashlib.sha256(b"\x00" + canonical_json(whole)).hexdigest()
        self.entries.append(Entry(index, leaf, whole))
        return index

    def search(self, query: AuditQuery) -> Sequence[Entry]:
        assert isinstance(query, AuditQuery)
        assert 0 < query.limit <= 1000
        found = []
        for entry in reversed(self.entries):
            body = entry.body
            fits = all(
                value is None or body.get(name) == value
                for name, value in (("agent", query.agent), ("kind", query.kind), ("action", query.action))
            )
            fits = fits and (query.text is None or query.text in json.dumps(dict(body)))
            fits = fits and (query.before is None or entry.index < query.before)
            fits = fits and (query.since_us is None or body.get("at_us", 0) >= query.since_us)
            fits = fits and (query.until_us is None or body.get("at_us", 0) < query.until_us)
            if fits:
                found.append(entry)
        return found[: query.limit]

    def entry(self, index: int) -> Entry:
        if not 0 <= index < len(self.entries):
            raise CohortError("NOT_FOUND", f"the log has no entry {index}", hint=f"It has {len(self.entries)}.")
        return self.entries[index]

    def size(self) -> int:
        return len(self.entries)

    def checkpoint(self) -> str:
        return f"cohort.local/audit\n{len(self.entries)}\nAAAA\n\n— cohort.local/audit c2lnbmF0dXJl\n"

    def verify(self, *, full: bool = True, progress: Callable[[int, int], None] | None = None) -> Verification:
        assert isinstance(full, bool)
        assert progress is None
        if self.held is not None:
            assert self.held.wait(30)
        size = len(self.entries)
        integrity = "no data" if not size else "broken" if self.broken is not None else "verified"
        why = "the entry does not hash to its leaf" if integrity == "broken" else ""
        root = None if not size else "c" * 64
        return Verification(integrity, size, root, self.broken if size else None, why, True, (), 0, tuple(self.anchors), 1200)

    def verifying(self) -> tuple[int, int] | None:
        return self.under_way

    def prove(self, index: int) -> Proof:
        return Proof(index, canonical_json(dict(self.entry(index).body)), f"c2sp.org/tlog-proof@v1\nindex {index}\n\n{self.checkpoint()}")

    def export(self, folder: str) -> Mapping[str, Any]:
        place = Path(folder)
        assert place.is_dir()
        assert not list(place.iterdir())
        (place / "checkpoint").write_text(self.checkpoint())
        (place / "entries.jsonl").write_bytes(b"".join(canonical_json(dict(entry.body)) + b"\n" for entry in self.entries))
        return {"entries": len(self.entries)}

    def anchor(self) -> Sequence[Mapping[str, Any]]:
        return [{"anchor": "file:/elsewhere/checkpoints", "ok": True, "size": len(self.entries), "detail": "appended"}]

    def note(self, text: str, actor: str) -> int:
        assert text
        assert actor
        return self.append("note", {"text": text, "actor": actor})

    def signing_keys(self) -> Sequence[AuditKey]:
        return self.signing[::-1]

    def rotate_key(self, actor: str) -> AuditKey:
        assert actor
        if sum(key.active for key in self.signing) == 2:
            raise CohortError("AUDIT_KEY_REFUSED", "two keys are active", hint="Retire one.")
        index, number = self.append("key", {"event": "audit_key_added", "actor": actor}), len(self.signing)
        self.signing.append(log_key(number, index + 1, None))
        return self.signing[-1]

    def retire_key(self, key: str | None, actor: str) -> AuditKey:
        assert actor
        active = [one for one in self.signing if one.active]
        chosen = active[0] if key is None else next((one for one in active if one.id == key), None)
        if chosen is None:
            raise CohortError("NOT_FOUND", f"no active key has the id {key}", field="key", hint="Look at the list.")
        if len(active) == 1:
            raise CohortError("AUDIT_KEY_REFUSED", "it is the only one", hint="Add another first.")
        index, place = self.append("key", {"event": "audit_key_retired", "actor": actor}), self.signing.index(chosen)
        self.signing[place] = log_key(place, chosen.since, index)
        return self.signing[place]


class MemoryAgents:
    """Agents in a dictionary; tokens are `jwt.` and the session's id."""

    def __init__(self, audit: MemoryAudit) -> None:
        self._audit = audit
        self._numbers = itertools.count(1)
        self.agents: dict[str, Agent] = {}
        self.open: dict[str, SessionView] = {}
        self.minted_with: list[KeyId | None] = []

    def register(self, new: NewAgent, actor: str) -> Registered:
        assert isinstance(new, NewAgent)
        assert actor
        assert isinstance(new.limits, Limits)
        if any(agent.name == new.name for agent in self.agents.values()):
            raise CohortError("AGENT_NAME_TAKEN", f"there is an agent {new.name!r} already", hint="Choose another name.")
        number = next(self._numbers)
        scopes = owned(new.scopes, WorkspaceId(padded("ws", number)))
        agent = Agent(
            AgentId(padded("ag", number)),
            new.name,
            AgentState.ACTIVE,
            scopes,
            Autonomy(new.autonomy),
            new.limits,
            new.egress,
            WorkspaceId(padded("ws", number)),
            views.NOW_US + number,
            actor,
            new.description,
        )
        self.agents[agent.id] = agent
        self._record("registered", agent, actor)
        return Registered(agent, f"ak_{number:043d}")

    def list(self) -> Sequence[Agent]:
        return list(self.agents.values())

    def find(self, agent: str) -> Agent:
        for one in self.agents.values():
            if agent in (one.id, one.name):
                return one
        raise CohortError("AGENT_UNKNOWN", f"there is no agent {agent!r}", hint="See `cohort agent list`.")

    def grant(self, agent: str, scopes: Sequence[str], actor: str) -> Agent:
        found = self.find(agent)
        return self._put(replace(found, scopes=tuple(dict.fromkeys((*found.scopes, *owned(scopes, found.workspace))))), "granted", actor)

    def revoke_scopes(self, agent: str, scopes: Sequence[str], actor: str) -> Agent:
        found = self.find(agent)
        gone = owned(scopes, found.workspace)
        return self._put(replace(found, scopes=tuple(scope for scope in found.scopes if scope not in gone)), "narrowed", actor)

    def suspend(self, agent: str, actor: str, reason: str) -> Agent:
        return self._turn(agent, AgentState.SUSPENDED, actor, reason)

    def resume(self, agent: str, actor: str, reason: str) -> Agent:
        return self._turn(agent, AgentState.ACTIVE, actor, reason)

    def trust(self, agent: str, actor: str, reason: str) -> Agent:
        found = self.find(agent)
        if found.state is not AgentState.SUSPENDED:
            raise CohortError("AGENT_NOT_SUSPENDED", f"{found.name} may write meanwhile", hint="Suspend it first.")
        return self._put(replace(found, untrusted_us=None), "trust", actor)

    def revoke(self, agent: str, actor: str, reason: str) -> Agent:
        return self._turn(agent, AgentState.REVOKED, actor, reason)

    def new_key(self, agent: str, actor: str) -> Registered:
        found = self.find(agent)
        self._record("key", found, actor)
        return Registered(found, f"ak_{next(self._numbers):043d}")

    def sessions(self, agent: str) -> Sequence[SessionView]:
        found = self.find(agent)
        return [view for view in self.open.values() if view.agent == found.id]

    def revoke_session(self, session: AgentSessionId, actor: str, reason: str) -> None:
        assert actor
        assert isinstance(reason, str)
        if session not in self.open:
            raise CohortError("NOT_FOUND", f"there is no session {session!r}", hint="See `cohort agent sessions AGENT`.")
        self.open[session] = replace(self.open[session], revoked_us=views.NOW_US)

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
        found = self.find(agent)
        self.minted_with.append(key)
        self._check(found)
        asked = found.scopes if scopes is None else owned(scopes, found.workspace)
        if any(scope not in found.scopes for scope in asked):
            raise CohortError("SCOPE_REFUSED", f"{found.name} has no such scope", hint="Grant it first.")
        session = AgentSessionId(padded("se", next(self._numbers)))
        texts = tuple(shown_scope(scope, found.workspace) for scope in asked)
        until_us = views.NOW_US + int((life_s or 900) * 1e6)
        self.open[session] = SessionView(session, found.id, None, texts, task, views.NOW_US, actor, until_us, None, False, False)
        self._record("minted", found, actor)
        return TokenPair(f"jwt.{session}", None, session, texts, until_us)

    def caller(self, token: str) -> Caller:
        view = self.open.get(token.removeprefix("jwt."))
        if view is None or not token.startswith("jwt."):
            raise CohortError("TOKEN_INVALID", "the token is not one of ours", hint="Sign in again.")
        if view.revoked_us is not None:
            raise CohortError("SESSION_REVOKED", "the session was revoked", hint="Sign in again.")
        agent = self.agents[view.agent]
        self._check(agent)
        return Caller(agent, view.id, TokenId(padded("tk", 1)), owned(view.scopes, agent.workspace), view.expires_us, view.task)

    def _check(self, agent: Agent) -> None:
        if agent.state is AgentState.SUSPENDED:
            raise CohortError("AGENT_SUSPENDED", f"{agent.name} is suspended", hint=f"Run `cohort agent resume {agent.name}`.")
        if agent.state is AgentState.REVOKED:
            raise CohortError("AGENT_REVOKED", f"{agent.name} was revoked", hint="Register another agent.")

    def _turn(self, agent: str, state: AgentState, actor: str, reason: str) -> Agent:
        assert isinstance(reason, str)
        found = self.find(agent)
        if found.state is AgentState.REVOKED:
            raise CohortError("AGENT_REVOKED", f"{found.name} was revoked", hint="Register another agent.")
        return self._put(replace(found, state=state), state.value, actor)

    def _put(self, agent: Agent, what: str, actor: str) -> Agent:
        assert actor
        self.agents[agent.id] = agent
        self._record(what, agent, actor)
        return agent

    def _record(self, what: str, agent: Agent, actor: str) -> None:
        self._audit.append("agent", {"event": what, "name": agent.name, "actor": actor}, agent.id)


class MemoryTokens:
    """No sign-in: these tests are about people."""

    def sign_in(self, key: str, scopes: Sequence[str] | None, audience: str, *, task: str | None = None, source: str = "") -> TokenPair:
        raise CohortError("KEY_INVALID", "no key is in force here", hint="Mint a token.")

    def refresh(self, refresh: str) -> TokenPair:
        raise CohortError("TOKEN_INVALID", "no refresh is in force here", hint="Mint a token.")

    def exchange(self, token: str, agent: str, scopes: Sequence[str], audience: str) -> TokenPair:
        raise CohortError("TOKEN_INVALID", "nothing is delegated here", hint="Mint a token.")

    def sign_out(self, token: str) -> None:
        assert isinstance(token, str)

    def rotate(self, actor: str) -> str:
        assert actor
        return "k" * 43

    def check(self, token: str, audience: str, *, bound_to: str | None = None) -> Caller:
        raise CohortError("TOKEN_INVALID", "no token is for this place", hint="Mint a token.")

    def jwks(self) -> Mapping[str, Any]:
        return {"keys": []}


class MemoryApprovals:
    """Approvals in a dictionary, newest first; a decided one stays."""

    def __init__(self, audit: MemoryAudit) -> None:
        self._audit = audit
        self._changed = threading.Condition()
        self._version = 1
        self._numbers = itertools.count(1)
        self.all: dict[str, Approval] = {}
        self.grants: dict[str, GrantRule] = {}
        self.signs: list[Sign] = []
        self.down: CohortError | None = None

    def ask(self, action: Action, plain: str, touches: tuple[str, ...], why: str, asked_by: str, risk: float = 0.7) -> Approval:
        for known in self.all.values():
            if known.digest == action.digest and known.state is ApprovalState.PENDING:
                return known
        approval = Approval(
            ApprovalId(padded("ap", next(self._numbers))),
            ApprovalState.PENDING,
            action,
            action.digest,
            POLICY,
            risk,
            plain,
            touches,
            why,
            asked_by,
            None,
            views.NOW_US - 40 * views.SECOND_US,
            views.NOW_US + HOUR_US,
        )
        return self.put(approval)

    def put(self, approval: Approval) -> Approval:
        with self._changed:
            self.all[approval.id] = approval
            self._version += 1
            self._changed.notify_all()
        return approval

    def list(self, state: ApprovalState | None = None, limit: int = 100) -> Sequence[Approval]:
        if self.down is not None:
            raise self.down
        assert 0 < limit <= 1000
        newest = sorted(self.all.values(), key=lambda one: one.id, reverse=True)
        return [one for one in newest if state in (None, one.state)][:limit]

    def find(self, approval: ApprovalId) -> Approval:
        if approval not in self.all:
            raise CohortError("APPROVAL_UNKNOWN", f"there is no approval {approval!r}", hint="See `cohort approval list`.")
        return self.all[approval]

    def preview(self, approval: ApprovalId, sign: Sign) -> str:
        return f"{self.find(approval).plain}. {sign.grant.value}."

    def approve(self, approval: ApprovalId, sign: Sign) -> Approval:
        found = self._pending(approval, sign)
        rule = None
        if sign.grant is not GrantScope.ONCE:
            rule = self._rule(found, sign)
        self._audit.append(
            "approval",
            {
                "event": "answered",
                "operation": found.action.operation,
                "approval": approval,
                "answer": "approved",
                "approver": sign.approver,
            },
            found.action.agent,
        )
        return self.put(
            replace(
                found,
                state=ApprovalState.APPROVED,
                approvers=(sign.approver,),
                decided_us=views.NOW_US,
                grant=sign.grant,
                rule=rule,
                note=sign.note,
            )
        )

    def deny(self, approval: ApprovalId, sign: Sign) -> Approval:
        found = self._pending(approval, sign)
        self._audit.append(
            "approval",
            {"event": "answered", "operation": found.action.operation, "approval": approval, "answer": "denied", "approver": sign.approver},
            found.action.agent,
        )
        return self.put(replace(found, state=ApprovalState.DENIED, approvers=(sign.approver,), decided_us=views.NOW_US, note=sign.note))

    def withdraw(self, approval: ApprovalId, caller: Caller) -> Approval:
        found = self.find(approval)
        if caller.agent.id != found.action.agent:
            raise CohortError("APPROVER_REFUSED", "this is another agent's question", hint="Withdraw your own.")
        return self.put(replace(found, state=ApprovalState.WITHDRAWN, decided_us=views.NOW_US))

    def wait(self, approval: ApprovalId, wait_s: float) -> Approval:
        assert 0 < wait_s <= 60
        with self._changed:
            self._changed.wait_for(lambda: self.find(approval).state is not ApprovalState.PENDING, wait_s)
            return self.find(approval)

    def rules(self) -> Sequence[GrantRule]:
        return list(self.grants.values())

    def revoke_rule(self, rule: GrantRuleId, actor: str) -> GrantRule:
        assert actor
        if rule not in self.grants:
            raise CohortError("NOT_FOUND", f"there is no rule {rule!r}", hint="See `cohort approval rules`.")
        self.grants[rule] = replace(self.grants[rule], revoked_us=views.NOW_US)
        self._version += 1
        return self.grants[rule]

    def version(self) -> int:
        return self._version

    def consume(self, digest: str) -> ApprovalId | None:
        for known in self.all.values():
            if known.digest == digest and known.state is ApprovalState.APPROVED:
                self.put(replace(known, state=ApprovalState.CONSUMED))
                return known.id
        return None

    def _pending(self, approval: ApprovalId, sign: Sign) -> Approval:
        assert isinstance(sign, Sign)
        assert sign.approver
        found = self.find(approval)
        if found.state is not ApprovalState.PENDING:
            raise CohortError("APPROVAL_DECIDED", f"{approval} is {found.state.value} already", hint="Look at the approval.")
        self.signs.append(sign)
        return found

    def _rule(self, found: Approval, sign: Sign) -> GrantRuleId:
        rule = GrantRuleId(padded("gr", len(self.grants) + 1))
        resource = sign.resource or found.action.resource
        self.grants[rule] = GrantRule(
            rule,
            sign.grant,
            found.action.agent,
            found.action.operation,
            resource,
            (),
            found.action.session if sign.grant is GrantScope.SESSION else None,
            None,
            sign.uses,
            views.NOW_US + int((sign.life_s or 3600) * 1e6),
            sign.approver,
            views.NOW_US,
            f"{found.action.operation} on {resource}, for an hour",
        )
        return rule


OPERATIONS = (
    Operation(
        "files.read",
        "files.read",
        "Read a file",
        Risk.LOW,
        0.1,
        "elsewhere",
        {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"], "additionalProperties": False},
        True,
        False,
        True,
    ),
    Operation(
        "files.write",
        "files.write",
        "Write a file",
        Risk.LOW,
        0.2,
        "elsewhere",
        {
            "type": "object",
            "properties": {
                "path": {"type": "string"},
                "content": {"type": "string"},
                "append": {"type": "boolean"},
                "mode": {"type": "integer"},
            },
            "required": ["path", "content"],
            "additionalProperties": False,
        },
        False,
        True,
        True,
    ),
    Operation(
        "files.delete",
        "files.delete",
        "Delete a file",
        Risk.MEDIUM,
        0.5,
        "never",
        {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
        False,
        True,
        True,
    ),
    Operation(
        "terminal.run",
        "system.execute",
        "Run a command",
        Risk.HIGH,
        0.7,
        "policy",
        {
            "type": "object",
            "properties": {
                "argv": {"type": "array", "items": {"type": "string"}},
                "cwd": {"type": "string"},
                "stdin": {"type": "string"},
                "timeout_s": {"type": "number"},
            },
            "required": ["argv"],
        },
        False,
        True,
        True,
    ),
)


class MemoryActions:
    """Decides by the operation's name alone."""

    def __init__(self, agents: MemoryAgents, approvals: MemoryApprovals, audit: MemoryAudit) -> None:
        self._agents, self._approvals, self._audit = agents, approvals, audit
        self._numbers = itertools.count(1)
        self.requests: list[Request] = []
        self.results: dict[str, ActionResult] = {}
        self.done_by: set[tuple[str, str]] = set()

    def perform(self, token: str, request: Request, *, bound_to: str | None = None) -> ActionResult:
        assert isinstance(request, Request)
        assert bound_to is None
        assert 0 <= request.wait_s <= 60
        caller = self._agents.caller(token)
        self.requests.append(request)
        action = Action(
            ActionId(padded("act", next(self._numbers))),
            request.operation,
            caller.agent.id,
            caller.session,
            f"{caller.agent.workspace}/{request.arguments.get('path', '')}",
            dict(request.arguments),
        )
        result = self._decided(caller, action, request)
        self.results[action.id] = result
        self.done_by.add((caller.agent.id, action.id))
        return result

    def caller(self, token: str, *, bound_to: str | None = None) -> Caller:
        assert bound_to is None
        return self._agents.caller(token)

    def operations(self) -> Sequence[Operation]:
        return OPERATIONS

    def result(self, action: ActionId) -> ActionResult:
        if action not in self.results:
            raise CohortError("NOT_FOUND", f"there is no action {action!r}", hint="Look into the audit log.")
        return self.results[action]

    def own_result(self, token: str, action: ActionId, *, bound_to: str | None = None) -> ActionResult:
        caller = self.caller(token, bound_to=bound_to)
        if (caller.agent.id, action) not in self.done_by:
            raise CohortError("NOT_FOUND", f"there is no action {action!r}", hint="Look into the audit log.")
        return self.results[action]

    def _decided(self, caller: Caller, action: Action, request: Request) -> ActionResult:
        if request.operation not in {operation.name for operation in OPERATIONS}:
            return self._refused(action, "OPERATION_UNKNOWN", f"there is no operation {request.operation!r}")
        if request.operation == "files.delete":
            return self._refused(action, "SCOPE_REFUSED", f"{caller.agent.name} has no scope files.delete")
        if request.operation == "files.write" and (waiting := self._waiting(caller, action, request)) is not None:
            return waiting
        return self._done(action, request)

    def _waiting(self, caller: Caller, action: Action, request: Request) -> ActionResult | None:
        plain = f"Write {request.arguments['path']} in the workspace of {caller.agent.name}"
        if self._approvals.consume(action.digest) is not None:
            return None
        approval = self._approvals.ask(action, plain, (action.resource,), request.why, caller.agent.name)
        if request.wait_s > 0 and self._approvals.wait(approval.id, request.wait_s).state is ApprovalState.APPROVED:
            return None if self._approvals.consume(action.digest) else self._refused(action, "APPROVAL_DENIED", "it was not approved")
        index = self._audit.append(
            "decision", {"operation": action.operation, "resource": action.resource, "answer": "ask"}, action.agent, action.id
        )
        return ActionResult(
            action.id, action.digest, Outcome.WAITING, {}, "APPROVAL_NEEDED", "a person has to approve", "Wait.", approval.id, index
        )

    def _refused(self, action: Action, code: str, reason: str) -> ActionResult:
        index = self._audit.append(
            "decision",
            {"operation": action.operation, "resource": action.resource, "answer": "deny", "code": code},
            action.agent,
            action.id,
        )
        return ActionResult(action.id, action.digest, Outcome.REFUSED, {}, code, reason, "Ask for the scope.", None, index)

    def _done(self, action: Action, request: Request) -> ActionResult:
        intent = self._audit.append(
            "intent", {"operation": action.operation, "resource": action.resource, "answer": "allow"}, action.agent, action.id
        )
        values: Mapping[str, Any] = {"path": request.arguments.get("path"), "content": "hello\n"}
        if request.operation == "terminal.run":
            argv = request.arguments["argv"]
            values = {
                "exit_code": 7 if argv == ["false"] else 0,
                "signal": None,
                "stdout": " ".join(argv) + "\n",
                "stderr": "a word\n",
                "stdout_bytes": 1,
                "stderr_bytes": 7,
                "stopped_by": None,
            }
        index = self._audit.append("outcome", {"operation": action.operation, "outcome": "done"}, action.agent, action.id)
        return ActionResult(action.id, action.digest, Outcome.DONE, values, None, "", "", None, intent, index, Level.FULL, 2100)


class MemoryWorkspaces:
    """One workspace for each agent, with three changes in it."""

    def __init__(self, agents: MemoryAgents, audit: MemoryAudit) -> None:
        self._agents, self._audit = agents, audit
        self._numbers = itertools.count(1)
        self.kept: dict[str, list[Snapshot]] = {}
        self.removed: set[str] = set()
        self.clean: set[str] = set()

    def list(self) -> Sequence[WorkspaceView]:
        return [self._view(agent) for agent in self._agents.list() if agent.workspace not in self.removed]

    def show(self, workspace: str) -> WorkspaceView:
        for agent in self._agents.list():
            if workspace in (agent.workspace, agent.name, agent.id) and agent.workspace not in self.removed:
                return self._view(agent)
        raise CohortError("WORKSPACE_UNKNOWN", f"there is no workspace {workspace!r}", hint="See `cohort workspace list`.")

    def diff(self, workspace: str) -> Sequence[Change]:
        if self.show(workspace).id in self.clean:
            return []
        return [
            Change("notes/plan.md", "changed", 1200, 1460),
            Change("report.csv", "added", None, 48_211),
            Change("tmp/old.log", "removed", 900, None),
        ]

    def text_diff(self, workspace: str, path: str) -> str:
        self.show(workspace)
        if path != "notes/plan.md":
            raise CohortError("PATH_MISSING", f"{path!r} has not changed", hint="See `cohort workspace diff`.")
        return "--- notes/plan.md\n+++ notes/plan.md\n@@ -1,2 +1,2 @@\n # Plan\n-one\n+two <b>bold</b>\n"

    def commit(self, workspace: str, actor: str, reason: str) -> Snapshot:
        return self._snapshot(workspace, actor, reason, "committed")

    def discard(self, workspace: str, actor: str, reason: str) -> Snapshot:
        return self._snapshot(workspace, actor, reason, "discarded")

    def snapshot(self, workspace: str, actor: str, reason: str) -> Snapshot:
        return self._snapshot(workspace, actor, reason, "snapshot")

    def snapshots(self, workspace: str) -> Sequence[Snapshot]:
        return list(reversed(self.kept.get(self.show(workspace).id, [])))

    def restore(self, workspace: str, snapshot: SnapshotId, actor: str, reason: str) -> Snapshot:
        assert actor
        found = self.show(workspace)
        for one in self.kept.get(found.id, []):
            if one.id == snapshot:
                self._audit.append("workspace", {"event": "restored", "actor": actor, "reason": reason}, found.agent)
                return one
        raise CohortError("SNAPSHOT_UNKNOWN", f"{workspace} has no snapshot {snapshot!r}", hint="See `cohort workspace snapshots`.")

    def remove(self, workspace: str, actor: str, reason: str) -> None:
        assert actor
        self.removed.add(self.show(workspace).id)

    def _snapshot(self, workspace: str, actor: str, reason: str, event: str) -> Snapshot:
        assert actor
        found = self.show(workspace)
        made = Snapshot(SnapshotId(padded("sn", next(self._numbers))), found.id, "e" * 64, 12, 81_000, views.NOW_US, reason)
        self.kept.setdefault(found.id, []).append(made)
        if event != "snapshot":
            self.clean.add(found.id)
        self._audit.append("workspace", {"event": event, "actor": actor, "reason": reason}, found.agent)
        return made

    def _view(self, agent: Agent) -> WorkspaceView:
        assert agent.workspace is not None
        usage = Usage(38_400_000, 214, agent.limits.disk_bytes, agent.limits.files, True)
        changes = 0 if agent.workspace in self.clean else 3
        return WorkspaceView(agent.workspace, agent.id, "/w/k3v9q2", "overlay", usage, changes, views.NOW_US - HOUR_US, agent.created_us)


CONTAINMENT = Containment(
    "bubblewrap",
    Level.NAMESPACES,
    views.NOW_US - 90 * views.SECOND_US,
    (
        ProbeRow("home-secret", True, "no such file inside"),
        ProbeRow("fork-bomb", True, "stopped at 64 processes"),
        ProbeRow("memory-bomb", False, "stopped after 537 MB of 512 MB: soft"),
        ProbeRow("mount", None, "not tried: no user namespaces"),
    ),
    ("memory",),
    ("level 4: sudo systemd-run --user --scope cohort up",),
)


@dataclass(slots=True)
class Kernel:
    """Everything a test turns: `face` goes into the ControlFace."""

    audit: MemoryAudit = field(default_factory=MemoryAudit)
    containment: Containment | None = CONTAINMENT
    safety: SafetyCounts = field(
        default_factory=lambda: SafetyCounts(1204, 0, 0, None, views.NOW_US - 4 * views.SECOND_US, ("not compared: the last 3 actions",))
    )
    agents: MemoryAgents = field(init=False)
    approvals: MemoryApprovals = field(init=False)
    actions: MemoryActions = field(init=False)
    workspaces: MemoryWorkspaces = field(init=False)
    face: KernelFace = field(init=False)
    policy_asked_by: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.agents = MemoryAgents(self.audit)
        self.approvals = MemoryApprovals(self.audit)
        self.actions = MemoryActions(self.agents, self.approvals, self.audit)
        self.workspaces = MemoryWorkspaces(self.agents, self.audit)
        self.face = KernelFace(
            self.agents,
            MemoryTokens(),
            self.actions,
            self.approvals,
            self.audit,
            self.workspaces,
            lambda: self.containment,
            lambda: self.safety,
            self._reply,
            lambda agent: holdings(self.agents.find(agent).limits, Mechanisms("linux", namespaces=True, rlimits=True, watchdog=True)),
            self._reload_policy,
        )

    def _reload_policy(self, actor: str) -> str:
        """The first time it is wrong, then right."""
        self.policy_asked_by.append(actor)
        if len(self.policy_asked_by) == 1:
            raise CohortError("POLICY_INVALID", "policy.cedar, line 3: end of input", field="policy.cedar:3", hint="Correct that line.")
        return "c0ffee"

    def _reply(self, headers: Mapping[str, str], body: bytes) -> Approval:
        if headers.get("webhook-signature") != "right":
            raise CohortError("KEY_INVALID", "the answer is not signed with the webhook's secret", hint="Sign it.")
        return self.approvals.approve(ApprovalId(body.decode()), Sign("webhook"))

    def populated(self) -> Kernel:
        """Two agents, one suspended, and a question of each kind of risk."""
        scopes = ("files.read", "files.write", "files.delete", "system.execute")
        self.agents.register(
            NewAgent("scribe", scopes, Autonomy.STANDARD, egress=("https://api.example.com:443",), description="Writes the weekly report."),
            "first-key",
        )
        self.agents.register(NewAgent("crawler", ("files.read", "network.http"), Autonomy.CONSERVATIVE), "first-key")
        self.agents.suspend("crawler", "first-key", "too curious")
        return self


def asked(kernel: Kernel, agent: str = "scribe", path: str = "report.csv", why: str = "The report is due today.") -> Approval:
    """A pending question of `agent`, as its own request for files.write leaves it."""
    token = kernel.agents.mint(agent, None, "first-key").token
    result = kernel.actions.perform(token, Request("files.write", {"path": path, "content": "a,b\n"}, why))
    assert result.approval_id is not None
    return kernel.approvals.find(result.approval_id)
