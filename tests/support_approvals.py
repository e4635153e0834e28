"""What the tests of approvals share: an audit log in memory that is stricter than the real one, actions, questions, a desk."""

from __future__ import annotations

import hashlib
import itertools
import threading
from typing import Any

from cohort.base.canonical import canonical_json, sha256_hex
from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.base.ids import ActionId, AgentId, AgentSessionId
from cohort.kernel.approvals.desk_sql import SqlApprovals
from cohort.kernel.approvals.limits import ApprovalLimits
from cohort.kernel.approvals.plain import describe
from cohort.kernel.face import Sign
from cohort.kernel.model import Action, GrantScope, Position, Record
from cohort.kernel.ports import Question
from cohort.storage.database import Database

POLICY = "1" * 64
AGENT = AgentId("ag_builder000000000")
SESSION = AgentSessionId("se_first0000000000")
WORKSPACE = "ws_abcdefghij012345"
ENTRY_BYTES_MAX = 64 * 1024

_numbers = itertools.count()


class MemoryAudit:
    """The port `AuditLog` in memory. Stricter than the real one: every record has to be canonical and small enough, whatever its kind."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.away = False
        self._lock = threading.Lock()

    def append(self, record: Record) -> Position:
        entry = canonical_json({"kind": record.kind.value, "body": dict(record.body), "agent": record.agent, "action": record.action})
        if len(entry) > ENTRY_BYTES_MAX:
            raise CohortError("RECORD_TOO_LARGE", f"{len(entry)} bytes")
        with self._lock:
            if self.away:
                raise CohortError("AUDIT_UNAVAILABLE", "the log cannot be written")
            self.records.append(record)
            return Position(len(self.records) - 1, sha256_hex(entry), len(self.records))

    @property
    def events(self) -> list[str]:
        return [record.body["event"] for record in self.records]


class Entropy:
    """Different bytes every time, the same in every run of one test."""

    def __init__(self, seed: str = "") -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._count = 0

    def __call__(self, count: int) -> bytes:
        with self._lock:
            self._count += 1
            return hashlib.sha512(f"{self._seed} {self._count}".encode()).digest()[:count]


def desk(database: Database, clock: ManualClock, audit: MemoryAudit, seed: str = "", **settings: Any) -> SqlApprovals:
    return SqlApprovals(database, audit, clock, Entropy(seed), ApprovalLimits(**settings))


def action(
    operation: str = "terminal.run",
    resource: str = "git",
    *,
    agent: AgentId = AGENT,
    session: AgentSessionId = SESSION,
    **arguments: Any,
) -> Action:
    """A new attempt; `arguments` with a command by default."""
    if operation == "terminal.run" and "argv" not in arguments:
        arguments["argv"] = ["git", "push", "origin", "main"]
    return Action(ActionId(f"act_{next(_numbers):016d}"), operation, agent, session, resource, arguments)


def writing(path: str, content: str = "text", *, session: AgentSessionId = SESSION) -> Action:
    return action("files.write", f"{WORKSPACE}/{path}", session=session, path=path, content=content, encoding="utf-8", mode="replace")


def question(about: Action, *, policy: str = POLICY, task: str | None = None, why: str = "", risk: float = 0.7) -> Question:
    words = describe(about, "builder", WORKSPACE)
    return Question(about, policy, risk, words.text, words.touches, why, "builder", task)


def sign(approver: str = "anna", grant: GrantScope = GrantScope.ONCE, **more: Any) -> Sign:
    return Sign(approver, grant, **more)
