"""The identity room with a log in memory and workspaces that are only rows."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable
from pathlib import Path

from cohort.base.canonical import canonical_json
from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.base.ids import AgentId, WorkspaceId
from cohort.kernel.face import NewAgent, Registered
from cohort.kernel.identity import IdentityRoom, open_identity
from cohort.kernel.model import Limits, Position, Record
from cohort.storage.database import Database
from cohort.storage.schema import metadata

RECORD_BYTES_MAX = 64 << 10


class MemoryAudit:
    """Refuses what the real log refuses. `down`: every append fails. `before`: called first, with the record."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.down = False
        self.before: Callable[[Record], None] = lambda record: None
        self._lock = threading.Lock()

    def append(self, record: Record) -> Position:
        self.before(record)
        data = canonical_json({"kind": record.kind.value, "body": dict(record.body), "agent": record.agent, "session": record.session})
        if self.down:
            raise CohortError("AUDIT_UNAVAILABLE", "the audit log cannot be written", hint="Look at its disk.")
        if len(data) > RECORD_BYTES_MAX:
            raise CohortError("RECORD_TOO_LARGE", "the record is too large", hint="Say less.")
        with self._lock:
            self.records.append(record)
            return Position(len(self.records) - 1, hashlib.sha256(b"\0" + data).hexdigest(), 0)

    def events(self) -> list[str]:
        return [str(record.body["event"]) for record in self.records]


class RowRooms:
    """Workspaces as rows of the real table. `down`: none can be made."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._numbers = itertools.count(1)
        self.down = False

    def create(self, agent: AgentId, limits: Limits) -> WorkspaceId:
        if self.down:
            raise CohortError("WORKSPACE_UNAVAILABLE", "the disk image cannot be mounted", hint="Look at the disk.")
        number = next(self._numbers)
        name = WorkspaceId("ws_" + "".join("abcdefghij"[int(digit)] for digit in f"{number:016d}"))
        row = {"id": name, "agent": agent, "directory": f"d{number}", "backend": "rows", "uid": 200_000 + number, "state": "ready"}
        with self._database.write() as connection:
            connection.execute(
                metadata.tables["workspaces"]
                .insert()
                .values(**row, bytes_max=limits.disk_bytes, files_max=limits.files, base=None, created_us=0)
            )
        return name


class Entropy:
    """Counts instead of drawing: every value is different, every run the same."""

    def __init__(self, seed: int = 0) -> None:
        self._numbers = itertools.count(1)
        self._seed = seed
        self._lock = threading.Lock()

    def __call__(self, size: int) -> bytes:
        with self._lock:
            number = next(self._numbers)
        return hashlib.shake_128(f"{self._seed}/{number}".encode()).digest(size)


class TurnedClock:
    """A wall clock that can be set, and a steady one beside it."""

    def __init__(self, start_us: int = 1_700_000_000_000_000) -> None:
        self.wall_us = start_us
        self.steady_s = 0.0

    def now_us(self) -> int:
        return self.wall_us

    def monotonic_s(self) -> float:
        return self.steady_s

    def advance(self, seconds: float) -> None:
        self.wall_us += int(seconds * 1e6)
        self.steady_s += seconds

    def set_back(self, seconds: float) -> None:
        self.wall_us -= int(seconds * 1e6)


class Offices:
    """The room, its parts, and shorthand for what most tests begin with."""

    def __init__(self, database: Database, clock: Clock, folder: Path, *, seed: int = 0, life_max_s: int = 3600) -> None:
        self.database = database
        self.clock = clock
        self.folder = folder
        self.audit = MemoryAudit()
        self.rooms = RowRooms(database)
        self.life_max_s = life_max_s
        self.stopped: list[str] = []
        self._seed = seed
        self.room = self.opened()

    def opened(self) -> IdentityRoom:
        """The room as another process, or the same after a restart, opens it."""
        self._seed += 1
        return open_identity(
            self.database,
            self.clock,
            Entropy(self._seed),
            self.audit,
            self.folder,
            "test.example",
            self.life_max_s,
            self.rooms,
            lambda agent: self.stopped.append(agent.id),
        )

    def register(self, name: str = "smoke-1", *scopes: str) -> Registered:
        return self.room.agents.register(NewAgent(name, scopes), "tester")

    def code(self, call: Callable[..., object], *arguments: object, **named: object) -> str:
        """The code of the error that `call` must raise."""
        try:
            call(*arguments, **named)
        except CohortError as error:
            return error.code
        raise AssertionError("it was not refused")
