"""A whole installation of the kernel behind the gate, in one folder: every room is the real one, on SQLite and a directory workspace."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cohort.base.clock import Clock, SystemClock
from cohort.base.ids import ActionId, WorkspaceId
from cohort.kernel.actions.clearance import Executor
from cohort.kernel.actions.executions import Executions
from cohort.kernel.actions.executors.commands import Commands
from cohort.kernel.actions.executors.files import FileExecutors
from cohort.kernel.actions.gate import Gate, GateSettings, Rooms
from cohort.kernel.actions.keys import Keys
from cohort.kernel.actions.policy import Policies
from cohort.kernel.actions.quotas import Quotas
from cohort.kernel.actions.reconciler import Reconciler
from cohort.kernel.approvals.desk_sql import SqlApprovals
from cohort.kernel.approvals.limits import ApprovalLimits
from cohort.kernel.audit.room import open_audit
from cohort.kernel.face import AuditQuery, Entry, NewAgent, Request
from cohort.kernel.identity import open_identity
from cohort.kernel.model import ActionResult, Autonomy, Level, Limits
from cohort.kernel.ports import Sandbox
from cohort.kernel.sandbox.egress_names import hosts_of
from cohort.kernel.sandbox.spawner import OnSpawn
from cohort.kernel.scopes import SCOPES
from cohort.kernel.workspaces.backend_directory import DirectoryBackend
from cohort.kernel.workspaces.beneath import best_opener
from cohort.kernel.workspaces.files import Files
from cohort.kernel.workspaces.search import Search
from cohort.kernel.workspaces.workspaces import SqlWorkspaces
from migrated_database import migrated

ROOMY = Limits(disk_bytes=64 << 20, files=10_000, calls_per_minute=1_000_000)


class Kernel:
    """`more`: further executors, wrapped like the others. `at`: told the gate's steps. `sandbox_of`: makes the sandbox, from its hook."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock | None = None,
        at: Callable[[str], None] | None = None,
        more: Mapping[str, Executor] | None = None,
        level: Level = Level.FULL,
        sandbox_of: Callable[[OnSpawn], Sandbox] | None = None,
        private_uids: bool = False,
        audit_folder: Path | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.database = migrated(folder / "cohort.db")
        self._audit_database = migrated((audit_folder or folder) / "audit.db")
        entropy = secrets.token_bytes
        self.audit = open_audit(self._audit_database, self.clock, entropy, key_file=folder / "audit.key", origin="test.example/audit")
        self.closed_orphans = self.audit.start(every_s=3600)
        opener, log = best_opener(), self.audit.log
        backend = DirectoryBackend(str(folder / "workspaces"), self.clock, opener)
        self.workspaces = SqlWorkspaces(self.database, self.clock, log, backend, opener=opener, private_uids=private_uids)
        self.workspaces.start()
        self.identity = open_identity(self.database, self.clock, entropy, log, folder / "keys", "test.example", 3600, self.workspaces)
        self.approvals = SqlApprovals(self.database, log, self.clock, entropy, ApprovalLimits())
        self.quotas = Quotas(self.database, self.clock, lambda _agent: 0)
        self.journal = Executions(folder / "executions", self.clock)
        self.files = Files(self.workspaces, opener)
        self.rooms = Rooms(
            log,
            self.entries,
            self.identity.identities,
            self.approvals,
            self.workspaces,
            Policies(None, {}),
            self.quotas,
            Keys(self.database, self.clock),
            lambda: level,
        )
        executors = self.journal.observed(
            {**FileExecutors(self.workspaces, self.files, Search(opener, self.clock)).executors(), **(more or {})}
        )
        if sandbox_of is not None:
            executors |= Commands(self.workspaces, sandbox_of(self.journal.spawned), hosts_of).executors()
        self.gate = Gate(self.rooms, GateSettings(), executors, self.clock, entropy, at)

    def entries(self, action: ActionId) -> Sequence[Entry]:
        return list(reversed(self.audit.desk.search(AuditQuery(action=action))))

    def agent(self, name: str = "smoke-1", autonomy: Autonomy = Autonomy.STANDARD) -> str:
        """Registers an agent that may do everything; its token."""
        self.identity.agents.register(NewAgent(name, SCOPES, autonomy, ROOMY), "anna")
        return self.token(name)

    def token(self, name: str = "smoke-1") -> str:
        return self.identity.agents.mint(name, None, "anna").token

    def ask(self, token: str, operation: str, key: str | None = None, **arguments: Any) -> ActionResult:
        return self.gate.perform(token, Request(operation, arguments, idempotency_key=key))

    def root(self, name: str = "smoke-1") -> Path:
        workspace = self.identity.agents.find(name).workspace
        return Path(self.workspaces.place(WorkspaceId(str(workspace))).root)

    def reconciler(self) -> Reconciler:
        return Reconciler(self.journal, self.entries, lambda workspace: str(self.workspaces.owner(WorkspaceId(workspace))), self.clock)

    def log(self) -> list[Entry]:
        """The whole log, oldest first; at most 1,000 entries."""
        return list(reversed(self.audit.desk.search(AuditQuery(limit=1000))))

    def close(self) -> None:
        self.gate.close()
        self.quotas.close()
        self.journal.close()
        self.workspaces.stop()
        self.audit.stop()
        self._audit_database.close()
        self.database.close()
