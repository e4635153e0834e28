"""Is the log whole? Everything is computed anew from the entries; what is stored beside them only helps to say which record is wrong.

Three answers that are not each other's: integrity (every record is the one that was signed), completeness (every action that began has an
outcome) and anchored range (how much of the log another place vouches for).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256

from cohort.base.errors import CohortError
from cohort.kernel.audit import beside, diagnosis
from cohort.kernel.audit.diagnosis import Finding
from cohort.kernel.audit.hashing import USUAL, Hashed, Hashing, hashers, tiles_of
from cohort.kernel.audit.merkle import TILE_HEIGHT, TILE_WIDTH, Frontier, Node, complete
from cohort.kernel.audit.ring import Ring, RingNow, rolled_back
from cohort.kernel.audit.store import Head, Rows
from cohort.storage.database import Database

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
    open_intents: tuple[str, ...]
    frontier: Frontier


def check(
    database: Database, ring: RingNow, landmarks: Sequence[Landmark], progress: Progress | None = None, hashing: Hashing = USUAL
) -> Report:
    """Every entry, inner hash, checkpoint and payload of the log. May raise the errors of `Database`."""
    before = ring()  # should keys change while the rows are read, this one is older and not wrong
    with database.read() as connection:
        rows = Rows(connection)
        head, end = rows.head(), rows.end()
        checkpoints = rows.checkpoints(head.size) if head else []
    signed = head.size if head else 0
    stated, untrusted = _trusted(checkpoints, ring())
    scan = _Scan(database, min(signed, end), sorted([*stated, *landmarks], key=lambda one: one.size), progress, hashing)
    scan.head = head
    with ThreadPoolExecutor(1, "audit-verify") as other:  # the store does that work, beside the hashing here
        broken_off = threading.Event()
        described = other.submit(beside.check, database, min(signed, end), broken_off.is_set)
        try:
            found = scan.run()
        except BaseException:  # Ctrl-C among them: nobody waits for the rest of it
            broken_off.set()
            raise
    wrong, open_intents = described.result()
    finding = found or wrong or _extent(end, signed) or _older(before, signed) or _beyond(landmarks, signed) or untrusted
    anchored = max((one.size for one in landmarks if one.size <= scan.agreed), default=0)
    return Report(signed, scan.frontier.root() if scan.frontier.size else None, finding, anchored, open_intents, scan.frontier)


def _trusted(checkpoints: Sequence[Head], ring: Ring | None) -> tuple[list[Landmark], Finding | None]:
    """What the stored checkpoints state, and the first that cannot be trusted."""
    stated: list[Landmark] = []
    first: Finding | None = None
    for head in checkpoints:
        why = _distrust(head, ring)
        if why is None:
            stated.append(Landmark(f"the checkpoint of {head.size} records", head.size, head.root))
        elif first is None:
            first = Finding(None, f"the checkpoint of {head.size} records cannot be trusted: {why}")
    return stated, first


def _distrust(head: Head, ring: Ring | None) -> str | None:
    if ring is None:
        return "the log's key is missing"
    try:
        checkpoint = ring.open(head.note)
    except CohortError as error:
        return error.message
    if (checkpoint.size, checkpoint.root) != (head.size, head.root):
        return "its note says something else than the row it stands in"
    return None


def _extent(end: int, signed: int) -> Finding | None:
    if end < signed:
        return Finding(end, f"the log ends after {end} records, and its last checkpoint covers {signed}: its tail was cut off")
    if end > signed:
        return Finding(signed, f"records from {signed} on are under no checkpoint: this log did not write them")
    return None


def _older(ring: Ring | None, signed: int) -> Finding | None:
    why = None if ring is None else rolled_back(ring, signed)
    return None if why is None else Finding(signed, why)


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

    def __init__(self, database: Database, size: int, landmarks: Sequence[Landmark], progress: Progress | None, hashing: Hashing) -> None:
        self._database = database
        self._size = size
        self._hashing = hashing
        self._landmarks = [one for one in landmarks if one.size <= size]
        self._passed = 0
        self.agreed = 0
        self._progress = progress or (lambda _done, _all: None)
        self._wrong_node: Node | None = None
        self.frontier = Frontier()
        self.head: Head | None = None

    def run(self) -> Finding | None:
        found, stretch = None, self._hashing.stretch
        with hashers(self._database, self._size, self._hashing) as hashed:
            for low in range(0, self._size, stretch):
                high = min(self._size, low + stretch)
                found = self._chunk(low, high, hashed.get(low))
                self._progress(high, self._size)
                if found is not None:
                    break
        return found or self._node_finding()

    def _chunk(self, low: int, high: int, hashed: Hashed | None) -> Finding | None:
        with self._database.read() as connection:
            rows = Rows(connection)
            if hashed is None:
                found = rows.entries(low, high)
                if (gap := diagnosis.gap(found, low, high)) is not None:
                    return gap
                leaves = [sha256(b"\x00" + entry).digest() for _, entry, _ in found]
                if leaves != [row[2] for row in found]:
                    return diagnosis.unequal(rows, found, leaves, self.frontier, self.head)
                hashed = Hashed(leaves, [complete(tile) for tile in tiles_of(leaves) if len(tile) == TILE_WIDTH])
            kept = rows.run(TILE_HEIGHT, low >> TILE_HEIGHT, high >> TILE_HEIGHT)
            return self._grow(rows, hashed, kept)

    def _grow(self, rows: Rows, hashed: Hashed, kept: Sequence[bytes]) -> Finding | None:
        for number, tile in enumerate(tiles_of(hashed.leaves)):
            if (wrong := self._agree(rows, tile)) is not None:
                return wrong
            if len(tile) < TILE_WIDTH:
                self.frontier.extend(tile)
                continue
            node = self.frontier.add_tile(hashed.tiles[number])
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
