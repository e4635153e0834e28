"""The quick verification: what was recorded since the last one, under the newest checkpoint.

The first one in a process begins at the mark that a former process has left, whose stored hashes have to lead to it. Without one it has nothing
to begin from: it takes the stored hashes up to the last full tile as they are, and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

from cohort.base.errors import CohortError
from cohort.kernel.audit import diagnosis
from cohort.kernel.audit.diagnosis import Finding
from cohort.kernel.audit.marks import Mark
from cohort.kernel.audit.merkle import TILE_WIDTH, Frontier
from cohort.kernel.audit.ring import RingNow, rolled_back
from cohort.kernel.audit.store import Head, Rows
from cohort.storage.database import Database

ROWS_AT_ONCE = 64 * TILE_WIDTH
_CUT_OFF = "it was rolled back or cut off"


class Recheck:
    """Not safe to use from two threads at once."""

    def __init__(self, database: Database, ring: RingNow, mark: Callable[[], Mark | None] = lambda: None) -> None:
        """`mark`: how far a former process has found the log whole."""
        self._database = database
        self._read_mark = mark
        self._marked = False  # whether `_known` rests on the mark of a former process
        self._ring = ring
        self._known: Frontier | None = None
        self._open: frozenset[str] = frozenset()

    def remember(self, frontier: Frontier, open_intents: tuple[str, ...]) -> None:
        """What a full verification has found whole; the next quick one begins there."""
        self._known = frontier.copy()
        self._open = frozenset(open_intents)
        self._marked = False

    @property
    def found_whole(self) -> Mark | None:
        """How far the log is known to be whole: by a full verification, and quick ones behind it, in this or a former process."""
        return None if self._known is None or not self._known.size else Mark(self._known.size, self._known.root())

    def run(self) -> dict[str, Any]:
        """The fields of a `Verification`, without its duration."""
        before = self._ring()  # keys may change between this and the reading of the head, and then this one is older and not wrong
        with self._database.read() as connection:
            rows = Rows(connection)
            head = rows.head()
            older = None if before is None else rolled_back(before, 0 if head is None else head.size)
            if older is not None:
                return self._answer(head, Finding(head.size if head else 0, older), 0)
            if head is None:
                empty = self._known is None or self._known.size == 0
                return self._answer(None, None if empty else Finding(0, f"the log is empty, and held {self._size()} records"), 0)
            finding = self._untrusted(head) or self._begin_at_mark(rows, head) or self._grow(rows, self._begin(rows, head), head)
            anchored = rows.one("SELECT coalesce(max(size), 0) FROM audit_anchors WHERE size <= ?", [head.size])
        return self._answer(head, finding, int(anchored[0]) if anchored else 0)

    def _size(self) -> int:
        return self._known.size if self._known else 0

    def _begin_at_mark(self, rows: Rows, head: Head) -> Finding | None:
        """Know what the mark says, if nothing is known yet; what is wrong when the stored hashes do not lead to it."""
        mark = self._read_mark() if self._known is None else None
        if mark is None:
            return None
        if head.size < mark.size:
            return Finding(head.size, f"{mark.size} records were found whole before, and the log ends after {head.size}: {_CUT_OFF}")
        frontier = rows.frontier(mark.size)
        if frontier is None or frontier.root() != mark.root:
            return Finding(None, f"the hashes of the first {mark.size} records are not those that were found whole before")
        self._known, self._marked = frontier, True
        return None

    def _begin(self, rows: Rows, head: Head) -> Frontier | None:
        if self._known is not None:
            return self._known.copy()
        return rows.frontier((head.size - 1) // TILE_WIDTH * TILE_WIDTH)

    def _untrusted(self, head: Head) -> Finding | None:
        ring = self._ring()
        if ring is None:
            return Finding(None, "the log's key is missing")
        try:
            checkpoint = ring.open(head.note)
        except CohortError as error:
            return Finding(None, f"the newest checkpoint cannot be trusted: {error.message}")
        agree = (checkpoint.size, checkpoint.root) == (head.size, head.root)
        return None if agree else Finding(None, "the newest checkpoint says something else than the row it stands in")

    def _grow(self, rows: Rows, begin: Frontier | None, head: Head) -> Finding | None:
        if begin is None:
            return Finding(None, "inner hashes are missing; a full verification says which")
        if head.size < begin.size:
            return Finding(head.size, f"the log held {begin.size} records and now ends after {head.size}: {_CUT_OFF}")
        first, intents, outcomes = begin.size, set[str](), set[str]()
        for low in range(first, head.size, ROWS_AT_ONCE):
            if (wrong := self._stretch(rows, begin, low, min(head.size, low + ROWS_AT_ONCE))) is not None:
                return wrong
        for kind, action in rows.all("SELECT kind, action FROM audit_entries WHERE idx >= ? AND idx < ?", [first, head.size]):
            {"intent": intents, "outcome": outcomes}.get(kind, set[str]()).add(action)
        if begin.root() != head.root:
            return Finding(
                None, f"records from {first} on, or the hashes before them, are not those of the checkpoint of {head.size} records"
            )
        if self._known is not None:
            self._known, self._open = begin.copy(), frozenset((self._open | intents) - outcomes)
        else:
            self._open = frozenset(intents - outcomes)
        return None

    def _stretch(self, rows: Rows, begin: Frontier, low: int, high: int) -> Finding | None:
        found = rows.entries(low, high)
        if (gap := diagnosis.gap(found, low, high)) is not None:
            return gap
        leaves = [sha256(b"\x00" + row[1]).digest() for row in found]
        if leaves != [row[2] for row in found]:
            return Finding(
                low + next(n for n, row in enumerate(found) if row[2] != leaves[n]), "the entry was edited, or the hash beside it"
            )
        begin.extend(leaves)
        return None

    def _answer(self, head: Head | None, finding: Finding | None, anchored: int) -> dict[str, Any]:
        whole = finding is None and head is not None
        partly = "" if self._known is not None else "quick: the stored hashes of earlier records were taken as they are"
        partly = "quick: records that a former process has found whole were not read again" if self._marked else partly
        return {
            "integrity": "broken" if finding else "verified" if head else "no data",
            "size": head.size if head else 0,
            "root": head.root.hex() if head else None,
            "first_bad": finding.index if finding else None,
            "why": finding.why if finding else partly if whole else "",
            "complete": not self._open,
            "open_intents": tuple(sorted(self._open)),
            "anchored_size": anchored,
            "anchors": (),
        }
