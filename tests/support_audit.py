"""An audit log for tests: a room on a database, records to write, and ways to change the log behind its back."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cohort.base.clock import Clock, ManualClock
from cohort.kernel.audit.hashing import USUAL, Hashing
from cohort.kernel.audit.log import Batching
from cohort.kernel.audit.room import AuditRoom, open_audit
from cohort.kernel.audit.store import Rows
from cohort.kernel.model import Record, RecordKind
from cohort.storage.database import Database

ORIGIN = "test.example/audit"


def record(number: int, kind: RecordKind = RecordKind.INTENT, **fields: Any) -> Record:
    """A record like the action gate's."""
    body = {"operation": "files.write", "resource": f"ws_one/{number}.txt", "arguments": {"text": f"number {number}"}, "risk": 0.2}
    return Record(kind, body, **{"agent": "ag_one", "session": "se_one", "action": f"act_{number}", **fields})


def pair(number: int, **fields: Any) -> Sequence[Record]:
    """An action from beginning to end."""
    return [record(number, **fields), record(number, RecordKind.OUTCOME, **fields)]


def open_room(
    database: Database,
    folder: Path,
    clock: Clock | None = None,
    anchors: Sequence[str] = (),
    batching: Batching | None = None,
    hashing: Hashing = USUAL,
) -> AuditRoom:
    limits: Any = {"batching": batching, "hashing": hashing}
    key_file = folder / "audit.key"
    return open_audit(database, clock or ManualClock(), secrets.token_bytes, key_file=key_file, origin=ORIGIN, anchors=anchors, **limits)


def fill(room: AuditRoom, count: int, start: int = 0) -> None:
    """`count` records, each an action of its own."""
    room.log.append_all([record(number, RecordKind.OUTCOME) for number in range(start, start + count)])


def change(database: Database, *statements: tuple[str, Sequence[Any]]) -> None:
    """What an attacker with the database does to it."""
    with database.write() as connection:
        rows = Rows(connection)
        for statement, values in statements:
            rows.execute(statement, values)
