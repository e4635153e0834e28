"""Is the log whole? Everything is computed anew from the entries; what is stored beside them only helps to say which record is wrong.

Three answers that are not each other's: integrity (every record is the one that was signed), completeness (every action that began has an
outcome) and anchored range (how much of the log another place vouches for).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from cohort.base.errors import CohortError
from cohort.kernel.audit import diagnosis
from cohort.kernel.audit.diagnosis import Finding
from cohort.kernel.audit.entries import commitment, parse
from cohort.kernel.audit.merkle import TILE_HEIGHT, TILE_WIDTH, Frontier, Node
from cohort.kernel.audit.notes import Verifier, open_checkpoint
from cohort.kernel.audit.store import Head, Rows
from cohort.storage.database import Database

ROWS_AT_ONCE = 64 * TILE_WIDTH
OPEN_INTENTS_MAX = 1000

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Landmark:
    """A statement about the log from outside of its entries: that its first `size` records have this root. `source` says who states it."""

    source: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """`finding`: what is wrong, None when nothing is. `root`: of all entries as they are; None for an empty log.

    `anchored`: the largest size that a landmark handed in vouches for and the entries agree with.
    """

    size: int
    root: bytes | None
    finding: Finding | None
    anchored: int
    frontier: Frontier


def check(database: Database, verifier: Verifier | None, landmarks: Sequence[Landmark], progress: Progress | None = None) -> Report:
    """Every entry, inner hash, checkpoint and payload of the log. May raise the errors of `Database`."""
    with database.read() as connection:
        rows = Rows(connection)
        head, (count, end) = rows.head(), rows.extent()
        checkpoints = rows.checkpoints(head.size) if head else []
    signed = head.size if head else 0
    stated, finding = _trusted(checkpoints, verifier)
    scan = _Scan(database, min(signed, end), sorted([*stated, *landmarks], key=lambda one: one.size), progress)
    scan.head = head
    found = scan.run() or _extent(count, end, signed) or _beyond(landmarks, signed) or finding
    root = scan.frontier.root() if scan.frontier.size else None
    anchored = max((one.size for one in landmarks if one.size <= scan.agreed), default=0)
    return Report(signed, root, found, anchored, scan.frontier)


def _trusted(checkpoints: Sequence[Head], verifier: Verifier | None) -> tuple[list[Landmark], Finding | None]:
    """What the stored checkpoints state, and the first that cannot be trusted."""
    stated: list[Landmark] = []
    first: Finding | None = None
    for head in checkpoints:
        why = _distrust(head, verifier)
        if why is None:
            stated.append(Landmark(f"the checkpoint of {head.size} records", head.size, head.root))
        elif first is None:
            first = Finding(None, f"the checkpoint of {head.size} records cannot be trusted: {why}")
    return stated, first


def _distrust(head: Head, verifier: Verifier | None) -> str | None:
    if verifier is None:
        return "the log's key is missing"
    try:
        checkpoint = open_checkpoint(head.note, verifier)
    except CohortError as error:
        return error.message
    if (checkpoint.size, checkpoint.root) != (head.size, head.root):
        return "its note says something else than the row it stands in"
    return None


def _extent(count: int, end: int, signed: int) -> Finding | None:
    if end < signed:
        return Finding(end, f"the log ends after {end} records, and its last checkpoint covers {signed}: its tail was cut off")
    if end > signed:
        return Finding(signed, f"records from {signed} on are under no checkpoint: this log did not write them")
    return None if count == end else Finding(None, f"{count} records are there, and the last one's index is {end - 1}")


def _beyond(landmarks: Sequence[Landmark], signed: int) -> Finding | None:
    """What another place vouches for and the log no longer has."""
    largest = max(landmarks, key=lambda one: one.size, default=None)
    if largest is None or largest.size <= signed:
        return None
    return Finding(
        signed, f"{largest.source} vouches for {largest.size} records, and the log ends after {signed}: it was rolled back or cut off"
    )


class _Scan:
    """One pass over the entries from the first to `size`."""

    def __init__(self, database: Database, size: int, landmarks: Sequence[Landmark], progress: Progress | None) -> None:
        self._database = database
        self._size = size
        self._landmarks = [one for one in landmarks if one.size <= size]
        self._passed = 0
        self.agreed = 0
        self._progress = progress or (lambda _done, _all: None)
        self._wrong_node: Node | None = None
        self.frontier = Frontier()
        self.head: Head | None = None

    def run(self) -> Finding | None:
        beside = _Beside(self._database, self._size)
        beside.start()
        found = None
        for low in range(0, self._size, ROWS_AT_ONCE):
            found = self._chunk(low, min(self._size, low + ROWS_AT_ONCE))
            self._progress(min(self._size, low + ROWS_AT_ONCE), self._size)
            if found is not None:
                break
        described = beside.finding()
        return found or self._node_finding() or described

    def _chunk(self, low: int, high: int) -> Finding | None:
        with self._database.read() as connection:
            rows = Rows(connection)
            found = rows.entries(low, high)
            if (gap := diagnosis.gap(found, low, high)) is not None:
                return gap
            if (odd := next((row[0] for row in found if isinstance(row[1], str) or isinstance(row[2], str)), None)) is not None:
                return Finding(odd, f"record {odd} was edited: it is kept as text, and this log writes bytes")
            leaves = [sha256(b"\x00" + row[1]).digest() for row in found]
            if leaves != [row[2] for row in found]:
                return diagnosis.unequal(rows, found, leaves, self.frontier, self.head)
            kept = rows.run(TILE_HEIGHT, low >> TILE_HEIGHT, high >> TILE_HEIGHT)
            return self._grow(rows, leaves, kept)

    def _grow(self, rows: Rows, leaves: list[bytes], kept: Sequence[bytes]) -> Finding | None:
        for start in range(0, len(leaves), TILE_WIDTH):
            tile = leaves[start : start + TILE_WIDTH]
            if (wrong := self._agree(rows, tile)) is not None:
                return wrong
            if len(tile) < TILE_WIDTH:
                self.frontier.extend(tile)
                continue
            node = self.frontier.extend_tile(tile)
            number = start // TILE_WIDTH
            if self._wrong_node is None and (number >= len(kept) or kept[number] != node.hash):
                self._wrong_node = node
        return None

    def _agree(self, rows: Rows, tile: Sequence[bytes]) -> Finding | None:
        """Hold the tree against every landmark whose size this tile reaches."""
        start, end = self.frontier.size, self.frontier.size + len(tile)
        while self._passed < len(self._landmarks) and self._landmarks[self._passed].size <= end:
            one = self._landmarks[self._passed]
            at = self.frontier.copy()
            at.extend(tile[: one.size - start])
            if at.root() != one.root:
                return diagnosis.disagreement(rows, one.source, self._first_wrong(), self.agreed, one.size)
            self._passed, self.agreed = self._passed + 1, one.size
        return None

    def _first_wrong(self) -> int | None:
        """The first record under an inner hash that differs, if one does."""
        return None if self._wrong_node is None else self._wrong_node.index << TILE_HEIGHT

    def _node_finding(self) -> Finding | None:
        """An inner hash differs: it was changed when the checkpoint agrees with the entries, and otherwise the entries were."""
        first = self._first_wrong()
        if first is None:
            return None
        if self.head is None or self.agreed < self.head.size:
            with self._database.read() as connection:
                return diagnosis.disagreement(Rows(connection), "the inner hash over them", first, self.agreed, self._size)
        last = first + TILE_WIDTH - 1
        return Finding(first, f"the inner hash over records {first} to {last} was changed or removed; the records themselves are whole")


class _Beside(threading.Thread):
    """What stands beside the entries says the same as they do: the columns that are searched, and the payloads. A thread of its own,
    because the store does the work."""

    def __init__(self, database: Database, size: int) -> None:
        super().__init__(name="audit-verify-columns", daemon=True)
        self._database = database
        self._size = size
        self._found: Finding | None = None
        self._error: CohortError | None = None

    def run(self) -> None:
        try:
            with self._database.read() as connection:
                rows = Rows(connection)
                self._found = _columns(rows, connection.dialect.name, self._size) or _payloads(rows, self._size)
        except CohortError as error:
            self._error = error

    def finding(self) -> Finding | None:
        self.join()
        if self._error is not None:
            raise self._error
        return self._found


_SQLITE_COLUMNS = (
    "SELECT min(idx) FROM audit_entries WHERE idx < ? AND CASE WHEN json_valid(CAST(entry AS TEXT)) THEN"
    " json_extract(CAST(entry AS TEXT), '$.kind', '$.agent', '$.action', '$.at_us') IS NOT json_array(kind, agent, action, at_us) ELSE 1 END"
)
_POSTGRES_COLUMNS = (
    "SELECT min(idx) FROM (SELECT idx, kind, agent, action, at_us, replace(convert_from(entry, 'UTF8'), '\\u0000', '')::json AS value"
    " FROM audit_entries WHERE idx < ?) AS one WHERE (value->>'kind', value->>'agent', value->>'action', value->>'at_us')"
    " IS DISTINCT FROM (kind, agent, action, at_us::text)"
)


def _columns(rows: Rows, dialect: str, size: int) -> Finding | None:
    found = rows.one(_SQLITE_COLUMNS if dialect == "sqlite" else _POSTGRES_COLUMNS, [size])
    if found is None or found[0] is None:
        return None
    return Finding(int(found[0]), f"what is searched of record {found[0]} (kind, agent, action, time) is not what its entry says")


def _payloads(rows: Rows, size: int) -> Finding | None:
    """Every payload that was not erased fits the commitment in its entry."""
    last = ""
    statement = "SELECT commitment, idx, name, salt, data, erased_us FROM audit_payloads WHERE commitment > ? AND idx < ? ORDER BY commitment LIMIT 256"
    while found := rows.all(statement, [last, size]):
        for row in found:
            if (why := _misfit(rows, *row)) is not None:
                return Finding(int(row[1]), why)
        last = found[-1][0]
    return None


def _misfit(rows: Rows, committed: str, index: int, name: str, salt: Any, data: Any, erased_us: int | None) -> str | None:
    what = f"the private payload {name!r} of record {index}"
    row = rows.row(index)
    if row is None or parse(row.entry).get("private", {}).get(name) != committed:
        return f"{what} is not the one its entry commits to"
    if erased_us is None and (salt is None or data is None):
        return f"{what} is missing and was not erased"
    if salt is not None and data is not None and commitment(bytes(salt), bytes(data)) != committed:
        return f"{what} was changed"
    return None
