"""An action gate with real policies, quotas, keys and approvals on SQLite; log and identities as strict stand-ins that can be told to fail."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cohort.base.canonical import canonical_json, sha256_hex
from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.base.ids import ActionId, AgentId, AgentSessionId, TokenId, WorkspaceId
from cohort.kernel.actions import catalogue
from cohort.kernel.actions.clearance import Cleared, Executed, Executor
from cohort.kernel.actions.gate import Gate, GateSettings, Rooms
from cohort.kernel.actions.keys import Keys
from cohort.kernel.actions.policy import Policies
from cohort.kernel.actions.quotas import Quotas
from cohort.kernel.approvals.desk_sql import SqlApprovals
from cohort.kernel.approvals.limits import ApprovalLimits
from cohort.kernel.face import Entry, Request, Sign
from cohort.kernel.model import (
    ActionResult,
    Agent,
    AgentState,
    Autonomy,
    Caller,
    Level,
    Limits,
    Place,
    Position,
    Record,
    Taint,
    Usage,
)
from cohort.kernel.ports import Workspaces
from cohort.kernel.scopes import SCOPES, parse_scopes
from cohort.storage.database import Database

TOKEN = "a token"
OWN = WorkspaceId("ws_" + "a" * 16)
OTHER = WorkspaceId("ws_" + "b" * 16)
ENTRY_BYTES_MAX = 64 << 10


class Ids:
    """Entropy that counts, safe in many threads."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def __call__(self, size: int) -> bytes:
        return next(self._numbers).to_bytes(size, "big")


class MemoryLog:
    """`AuditLog` in memory: as strict about what can be written as the real one. `failing` is raised by the next appends."""

    def __init__(self, clock: ManualClock) -> None:
        self.entries: list[Entry] = []
        self.failing: Callable[[Record], CohortError | None] = lambda _record: None
        self._clock = clock
        self._lock = threading.Lock()

    def append(self, record: Record) -> Position:
        body = {
            "kind": record.kind.value,
            "body": dict(record.body),
            "agent": record.agent,
            "session": record.session,
            "action": record.action,
            "at_us": self._clock.now_us(),
        }
        data = canonical_json(body)
        if len(data) > ENTRY_BYTES_MAX:
            raise CohortError("RECORD_TOO_LARGE", f"{len(data)} bytes")
        error = self.failing(record)
        if error is not None:
            raise error
        with self._lock:
            self.entries.append(Entry(len(self.entries), sha256_hex(data), body))
            return Position(len(self.entries) - 1, self.entries[-1].leaf, body["at_us"])

    def of(self, action: ActionId) -> Sequence[Entry]:
        return [entry for entry in self.entries if entry.body["action"] == action]

    def kinds(self, action: str | None = None) -> list[str]:
        return [entry.body["kind"] for entry in self.entries if action in (None, entry.body["action"])]


class KnownCallers:
    """`Identities` for tokens that a test made up; what the real one checks, it checks."""

    def __init__(self, clock: ManualClock) -> None:
        self.callers: dict[str, Caller] = {}
        self.revoked: set[AgentSessionId] = set()
        self.taints: dict[AgentSessionId, Taint] = {}
        self.untrusted_data: set[AgentId] = set()
        self._clock = clock

    def authenticate(self, token: str, audience: str, bound_to: str | None = None) -> Caller:
        caller = self.callers.get(token)
        if caller is None or audience != "cohort" or bound_to not in (None, "pipe"):
            raise CohortError("TOKEN_INVALID", "this is not a token of ours")
        return self.again(caller)

    def again(self, caller: Caller) -> Caller:
        if caller.expires_us <= self._clock.now_us():
            raise CohortError("TOKEN_EXPIRED", "the token has expired")
        if caller.session in self.revoked:
            raise CohortError("SESSION_REVOKED", "the session was revoked")
        if caller.agent.state is not AgentState.ACTIVE:
            raise CohortError("AGENT_SUSPENDED", "the agent is suspended")
        found = next(known for known in self.callers.values() if known.session == caller.session)
        return replace(found, agent=replace(found.agent, untrusted_us=1 if found.agent.id in self.untrusted_data else None))

    def data_untrusted(self, agent: AgentId) -> bool:
        return agent in self.untrusted_data

    def mark_data(self, agent: AgentId) -> None:
        self.untrusted_data.add(agent)

    def taint(self, session: AgentSessionId) -> Taint:
        return self.taints.get(session, Taint())

    def mark(self, session: AgentSessionId, taint: Taint) -> None:
        old = self.taint(session)
        self.taints[session] = Taint(old.untrusted or taint.untrusted, old.private or taint.private)


class KnownWorkspaces:
    """`Workspaces` of two agents, in directories that tests make."""

    def __init__(self, root: Path, hard_quota: bool = False) -> None:
        self._root = root
        self._hard_quota = hard_quota

    def place(self, workspace: WorkspaceId) -> Place:
        self.owner(workspace)
        return Place(workspace, str(self._root / workspace), 1000, 1000, self._hard_quota)

    def usage(self, workspace: WorkspaceId) -> Usage:
        self.owner(workspace)
        return Usage(0, 0, 1 << 20, 100, False)

    def owner(self, workspace: WorkspaceId) -> AgentId:
        if workspace not in (OWN, OTHER):
            raise CohortError("WORKSPACE_UNKNOWN", f"there is no workspace {workspace}")
        return AgentId("ag_" + ("a" if workspace == OWN else "b") * 16)


def make_caller(clock: ManualClock, scopes: Iterable[str] = SCOPES, **agent: Any) -> Caller:
    held = parse_scopes(scopes)
    fields: dict[str, Any] = {
        "id": AgentId("ag_" + "a" * 16),
        "name": "smoke-1",
        "state": AgentState.ACTIVE,
        "scopes": held,
        "autonomy": Autonomy.STANDARD,
        "limits": Limits(),
        "egress": ("https://known.example:443",),
        "workspace": OWN,
        "created_us": 0,
        "created_by": "anna",
    }
    made = Agent(**{**fields, **agent})
    session = AgentSessionId("se_" + "s" * 16)
    return Caller(made, session, TokenId("tk_" + "t" * 16), held, clock.now_us() + 900_000_000)


@dataclass
class GateHouse:
    """A gate, and everything a test looks at. `ran`: what executors were given, in order."""

    database: Database
    clock: ManualClock
    root: Path
    policy: Path | None = None
    settings: GateSettings = field(default_factory=GateSettings)
    level: Level = Level.FULL
    answers: Mapping[str, Any] = field(default_factory=dict)
    at: Callable[[str], None] | None = None
    running: Callable[[AgentId], int] = lambda _agent: 0
    quota_database: Database | None = None
    workspaces: Workspaces | None = None
    ran: list[Cleared] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = MemoryLog(self.clock)
        self.identities = KnownCallers(self.clock)
        self.identities.callers[TOKEN] = make_caller(self.clock)
        ids = Ids()
        self.approvals = SqlApprovals(self.database, self.log, self.clock, ids, ApprovalLimits())
        deciding = {"isolation_min": self.settings.level_min.value, "require_user_approval": self.settings.approval_required}
        self.policies = Policies(self.policy, deciding)
        self.quotas = Quotas(self.quota_database or self.database, self.clock, lambda agent: self.running(agent))
        self.keys = Keys(self.database, self.clock)
        self.rooms = Rooms(
            self.log,
            self.log.of,
            self.identities,
            self.approvals,
            self.workspaces or KnownWorkspaces(self.root),
            self.policies,
            self.quotas,
            self.keys,
            lambda: self.level,
        )
        everything = {name: self._execute for name in catalogue.ROWS if not name.startswith(("browser", "mobile", "database", "memory"))}
        self.gate = Gate(self.rooms, self.settings, everything, self.clock, ids, self.at)

    def _execute(self, cleared: Cleared) -> Executed:
        """Executes nothing, and insists that the intent is in the log."""
        intents = [entry for entry in self.log.of(cleared.action.id) if entry.body["kind"] == "intent"]
        assert [entry.index for entry in intents] == [cleared.position.index]
        self.ran.append(cleared)
        return Executed({"answer": "done", **self.answers})

    def replace_executor(self, operation: str, executor: Executor) -> None:
        self.gate.register(operation, executor)

    def as_agent(self, scopes: Iterable[str] = SCOPES, **agent: Any) -> None:
        self.identities.callers[TOKEN] = make_caller(self.clock, scopes, **agent)

    def change_caller(self, **fields: Any) -> None:
        self.identities.callers[TOKEN] = replace(self.identities.callers[TOKEN], **fields)

    def ask(self, operation: str, *, token: str = TOKEN, **arguments: Any) -> ActionResult:
        return self.gate.perform(token, Request(operation, arguments))

    def approve(self, result: ActionResult, approver: str = "anna") -> None:
        assert result.approval_id is not None, result
        self.approvals.approve(result.approval_id, Sign(approver))
