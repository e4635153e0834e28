"""The kernel in a script of one's own, without a control process: a workspace, an identity and an audit trail by an agent's name.

    workspace = Workspace("smoke-1")
    workspace.root.exists()
    identity = Identity("smoke-1")
    await identity.request_scope("files.read")
    token = await identity.generate_token(["files.read"])
    token.is_valid()
    audit = AuditTrail("smoke-1")
    await audit.log_action("smoke_test", risk_level="low")
    audit.verify_integrity()

Settings are those of an installation (`cohort.yaml` here, `COHORT_` variables); what is kept is kept apart from it, in `standalone` of the
data directory. Workspaces are directories whose quota holds for `Workspace`'s own methods only. Nothing is executed here: commands take
the action gate of a control process.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.base.clock import Clock, SystemClock
from cohort.base.errors import CohortError
from cohort.base.settings import Settings, load_settings
from cohort.kernel.actions.catalogue import ROWS
from cohort.kernel.audit.room import AuditRoom, open_audit
from cohort.kernel.face import AuditQuery, NewAgent, TokenPair, Verification
from cohort.kernel.identity import IdentityRoom, open_identity
from cohort.kernel.model import Agent, Limits, Position, Record, RecordKind, Risk, Usage
from cohort.kernel.ports import AUDIENCE
from cohort.kernel.workspaces.backend_directory import DirectoryBackend
from cohort.kernel.workspaces.beneath import best_opener
from cohort.kernel.workspaces.entries import Listing
from cohort.kernel.workspaces.files import Files, Written
from cohort.kernel.workspaces.workspaces import SqlWorkspaces
from cohort.storage.database import Database, open_database

ACTOR = "script"
FOLDER = "standalone"
PARAMETERS_CHARS_MAX = 4000
LOW = 0.3
"""The most risk of a scope that is given for the asking."""


@dataclass(frozen=True, slots=True)
class Token:
    """A signed token. `text` is secret."""

    pair: TokenPair
    _identity: IdentityRoom

    @property
    def text(self) -> str:
        return self.pair.token

    def is_valid(self) -> bool:
        """Whether it is in force at this moment: signature, time, session and agent."""
        try:
            self._identity.identities.authenticate(self.pair.token, AUDIENCE)
        except CohortError as error:
            if error.http_status not in (401, 403):
                raise
            return False
        return True


@dataclass(frozen=True, slots=True)
class Integrity:
    """`answer`: `verified`, `broken` or `no data`; true only for the first."""

    answer: str
    verification: Verification

    def __bool__(self) -> bool:
        return self.answer == "verified"


class Workspace:
    """An agent's directory, made at the first use. Errors: those of `Files`; WORKSPACE_UNAVAILABLE."""

    def __init__(self, agent: str) -> None:
        self._rooms = _rooms()
        found = self._rooms.agent(agent)
        if found.workspace is None:
            raise CohortError("WORKSPACE_UNKNOWN", f"{agent} has no workspace", hint="Use another name.")
        self._place = self._rooms.workspaces.place(found.workspace)

    @property
    def root(self) -> Path:
        return Path(self._place.root)

    def write(self, path: str, data: bytes) -> Written:
        return self._rooms.files.write(self._place, path, data)

    def read(self, path: str) -> bytes:
        """At most what one piece holds; see `Files.read`."""
        return self._rooms.files.read(self._place, path).data

    def list(self, path: str = "") -> Listing:
        return self._rooms.files.list(self._place, path)

    def usage(self) -> Usage:
        return self._rooms.workspaces.usage(self._place.workspace)


class Identity:
    """An agent's scopes and tokens, registered at the first use."""

    def __init__(self, agent: str) -> None:
        self._rooms = _rooms()
        self._agent = self._rooms.agent(agent)

    async def request_scope(self, scope: str) -> bool:
        """Ask for a scope: given at once when everything it permits is of low risk, or no person has to approve; otherwise False.

        Raises:
            CohortError SCOPE_UNKNOWN.
        """
        asks = self._rooms.settings.kernel.require_user_approval
        if asks and _risk(scope) > LOW:
            return False
        await asyncio.to_thread(self._rooms.identity.agents.grant, self._agent.name, [scope], ACTOR)
        return True

    async def generate_token(self, scopes: Sequence[str], life_s: float | None = None) -> Token:
        """Errors: SCOPE_REFUSED for one the agent was not given."""
        pair = await asyncio.to_thread(self._mint, scopes, life_s)
        return Token(pair, self._rooms.identity)

    def _mint(self, scopes: Sequence[str], life_s: float | None) -> TokenPair:
        return self._rooms.identity.agents.mint(self._agent.name, scopes, ACTOR, life_s=life_s)


class AuditTrail:
    """What a script says an agent did, in a log that can be verified. What the kernel itself does is recorded without it."""

    def __init__(self, agent: str) -> None:
        self._rooms = _rooms()
        self._agent = self._rooms.agent(agent)

    async def log_action(
        self, action: str, *, target: str = "", parameters: Mapping[str, Any] | None = None, result: str = "", risk_level: str = "low"
    ) -> Position:
        """One record, durable when this returns.

        Raises:
            CohortError FIELD_INVALID: a risk level that is none, parameters that are too long; AUDIT_UNAVAILABLE: nothing was written.
        """
        if risk_level not in {risk.value for risk in Risk}:
            hint = f"Use one of: {', '.join(risk.value for risk in Risk)}."
            raise CohortError("FIELD_INVALID", f"there is no risk level {risk_level[:40]!r}", field="risk_level", hint=hint)
        body = {"note": "action", "action": action, "target": target, "parameters": dict(parameters or {}), "result": result}
        record = Record(RecordKind.NOTE, {**body, "risk_level": risk_level, "actor": ACTOR}, agent=self._agent.id)
        return await asyncio.to_thread(self._rooms.audit.log.append, record)

    def verify_integrity(self) -> Integrity:
        """Of the whole log. `no data` while it has nothing of this agent's doing."""
        found = self._rooms.audit.desk.verify()
        mine = self._rooms.audit.desk.search(AuditQuery(agent=self._agent.id, kind=RecordKind.NOTE.value, limit=1))
        answer = found.integrity if mine or found.integrity != "verified" else "no data"
        return Integrity(answer, found)


def _risk(scope: str) -> float:
    """Of the riskiest operation that `scope` permits in the agent's own workspace; 1 when none is known."""
    return max((row.risk for row in ROWS.values() if row.scope == scope.partition(":")[0]), default=1.0)


class _Rooms:
    """The rooms behind the three, once per data directory and process."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        kernel, home = settings.kernel, settings.data_dir / FOLDER
        home.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._databases = [_opened(home / "cohort.db"), _opened(Path(kernel.audit_log_path or home / "audit.db"))]
        database, log = self._databases
        origin = f"{kernel.trust_domain}/audit/standalone"
        self.audit: AuditRoom = open_audit(log, clock, secrets.token_bytes, key_file=home / "audit.key", origin=origin)
        opener = best_opener()
        backend = DirectoryBackend(str(Path(kernel.workspace_root or home / "workspaces")), clock, opener)
        self.workspaces = SqlWorkspaces(database, clock, self.audit.log, backend, opener=opener)
        self.files = Files(self.workspaces, opener)
        life_s, keys = kernel.identity_token_expiration_s, home / "tokens"
        self.identity = open_identity(
            database, clock, secrets.token_bytes, self.audit.log, keys, kernel.trust_domain, life_s, self.workspaces
        )
        self._limits = Limits(disk_bytes=kernel.max_disk_mb * 1_000_000, files=kernel.max_files)
        self._lock = threading.Lock()
        self.workspaces.start()
        self.audit.start()

    def agent(self, name: str) -> Agent:
        """The agent of that name, registered when there is none. Errors: FIELD_INVALID."""
        with self._lock:
            try:
                return self.identity.agents.find(name)
            except CohortError as error:
                if error.code != "AGENT_UNKNOWN":
                    raise
                return self.identity.agents.register(NewAgent(name, limits=self._limits), ACTOR).agent

    def close(self) -> None:
        self.workspaces.stop()
        self.audit.stop()
        for database in self._databases:
            database.close()


def _opened(path: Path) -> Database:
    database = open_database(f"sqlite:///{path}")
    database.migrate()
    return database


_opening = threading.Lock()
_open: dict[Path, _Rooms] = {}


def _rooms() -> _Rooms:
    """Those of the settings in force now, closed when the process ends."""
    settings = load_settings(os.environ)
    with _opening:
        if settings.data_dir not in _open:
            rooms = _open[settings.data_dir] = _Rooms(settings, SystemClock())
            atexit.register(rooms.close)
        return _open[settings.data_dir]
