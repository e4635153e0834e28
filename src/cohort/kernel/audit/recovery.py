"""Where a log stands when it is opened: the tree is rebuilt and held against the last checkpoint, and a log that differs is never signed again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.base.ids import ActionId, AgentId, AgentSessionId
from cohort.kernel.audit import entries
from cohort.kernel.audit.entries import NO_LEAF
from cohort.kernel.audit.merkle import TILE_WIDTH, Frontier, Node, leaf_hash
from cohort.kernel.audit.ring import Ring, rolled_back
from cohort.kernel.audit.store import Head, Rows
from cohort.kernel.model import Outcome, Position, Record, RecordKind
from cohort.kernel.ports import AuditLog
from cohort.storage.database import Database

ORPHAN_AGE_US = 3_600_000_000
"""On Postgres another control process may be in the middle of an action: only intents older than this are orphans."""
ORPHANS_AT_ONCE = 500
ROWS_AT_ONCE = 64 * TILE_WIDTH

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """All a writer has to know. `head`: None while the log is empty. `previous`, `at_us`: leaf and time of the last entry."""

    frontier: Frontier
    head: Head | None = None
    previous: bytes = NO_LEAF
    at_us: int = 0

    @property
    def size(self) -> int:
        return self.frontier.size


def broken(why: str) -> CohortError:
    return CohortError(
        "AUDIT_BROKEN",
        f"the audit log is not the one that was signed: {why}; it is read-only and nothing was written",
        hint="Run `cohort audit verify`, keep the file for analysis, and go on with a restored or a new log.",
    )


def load(database: Database, ring: Ring) -> State:
    """The state of the log in `database`; damaged inner nodes are rebuilt from the leaves.

    Raises:
        CohortError AUDIT_BROKEN: the entries are not those of the last checkpoint.
    """
    with database.read() as connection:
        rows = Rows(connection)
        head = rows.head()
        _check_extent(rows, 0 if head is None else head.size)
        state = None if head is None else _stored(rows, head, ring)
    if (older := rolled_back(ring, 0 if head is None else head.size)) is not None:
        raise broken(older)
    if head is None:
        return State(Frontier())
    return state if state is not None else _rebuilt(database, head, ring)


def refresh(rows: Rows, known: State, ring: Ring) -> State:
    """The state inside a transaction: `known`, unless another process has written since.

    Raises:
        CohortError AUDIT_BROKEN: the log is smaller than it was, or another.
    """
    if rows.newest() == (None if known.head is None else (known.head.size, known.head.root)):
        return known
    head = rows.head()
    if head is None or head.size <= known.size:
        raise broken(f"it ended at record {known.size}, and now at {0 if head is None else head.size}")
    state = _stored(rows, head, ring)
    if state is None:
        raise broken(f"its hashes do not lead to the checkpoint of {head.size} records")
    return state


def _check_extent(rows: Rows, size: int) -> None:
    count, end = rows.extent()
    if count < size:
        raise broken(f"its last checkpoint covers {size} records, and {count} are there")
    if count > size or end != size:
        raise broken(f"it holds {count} records up to index {end - 1}, and its last checkpoint covers {size}")


def _stored(rows: Rows, head: Head, ring: Ring) -> State | None:
    """The state that the stored hashes lead to; None where they do not lead to the checkpoint."""
    _check_signed(head, ring)
    frontier = rows.frontier(head.size)
    if frontier is None or frontier.root() != head.root:
        return None
    return State(frontier, head, rows.run(0, head.size - 1, head.size)[0], rows.last_at_us(head.size))


def _check_signed(head: Head, ring: Ring) -> None:
    try:
        checkpoint = ring.open(head.note)
    except CohortError as error:
        raise broken(f"its last checkpoint cannot be trusted: {error.message}") from error
    if (checkpoint.size, checkpoint.root) != (head.size, head.root):
        raise broken("its last checkpoint says something else than the row it stands in")


def _rebuilt(database: Database, head: Head, ring: Ring) -> State:
    """From the entries alone. The inner nodes are written anew when the entries are the signed ones."""
    frontier, nodes = Frontier(), list[Node]()
    with database.read() as connection:
        for data in _entries(Rows(connection), head.size):
            nodes += frontier.append(leaf_hash(data))
    if frontier.root() != head.root:
        raise broken(f"its entries do not lead to the root of the checkpoint of {head.size} records")
    with database.write() as connection:
        rows = Rows(connection)
        rows.replace_nodes(nodes)
        state = _stored(rows, head, ring)
    if state is None:
        raise broken("the leaf hashes beside its entries were changed")
    _log.warning("the audit log's inner hashes were damaged and are rebuilt from its %d entries", head.size)
    return state


def _entries(rows: Rows, size: int) -> Iterator[bytes]:
    for low in range(0, size, ROWS_AT_ONCE):
        for _, entry, _ in rows.entries(low, min(size, low + ROWS_AT_ONCE)):
            yield entry


class Writer(AuditLog, Protocol):
    """A log that takes several records at once."""

    def append_all(self, records: Sequence[Record]) -> Sequence[Position]: ...


def close_orphans(database: Database, log: Writer, clock: Clock) -> int:
    """Write `unknown` as the outcome of every action that began and whose end nobody recorded; how many those were.

    On SQLite there is one control process, and what it had begun ended with it. Errors: as `append`.
    """
    before_us = clock.now_us() - ORPHAN_AGE_US if database.dialect == "postgresql" else None
    closed = 0
    while True:
        with database.read() as connection:
            rows = Rows(connection)
            orphans = [rows.row(index) for _, index in rows.open_intents(ORPHANS_AT_ONCE, before_us)]
        log.append_all([_unknown_outcome(entries.parse(row.entry), row.index) for row in orphans if row is not None])
        closed += len(orphans)
        if len(orphans) < ORPHANS_AT_ONCE:
            return closed


def _unknown_outcome(intent: dict[str, str | None], index: int) -> Record:
    return Record(
        kind=RecordKind.OUTCOME,
        body={
            "outcome": Outcome.UNKNOWN.value,
            "code": "OUTCOME_UNKNOWN",
            "reason": f"control ended before the outcome of record {index} was recorded",
            "result": {},
            "output_digest": None,
            "duration_us": 0,
            "usage": {},
        },
        agent=AgentId(intent["agent"]) if intent["agent"] else None,
        session=AgentSessionId(intent["session"]) if intent["session"] else None,
        action=ActionId(str(intent["action"])),
    )
