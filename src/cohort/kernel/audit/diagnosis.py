"""Which record is wrong, and how: what `verify` says once it knows that something is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cohort.base.errors import CohortError
from cohort.kernel.audit.entries import NO_LEAF, parse
from cohort.kernel.audit.merkle import TILE_HEIGHT, TILE_WIDTH, Frontier, complete, leaf_hash
from cohort.kernel.audit.store import Head, Rows

Found = Sequence[tuple[int, bytes, bytes]]
"""Entries as stored: `(index, entry, leaf)`."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`index`: the first wrong record; None when it is not about one."""

    index: int | None
    why: str


def gap(found: Found, low: int, high: int) -> Finding | None:
    """A record that is not there, in a stretch that should be whole."""
    if len(found) == high - low and found[0][0] == low and found[-1][0] == high - 1:
        return None
    there = {row[0] for row in found}
    missing = next(index for index in range(low, high) if index not in there)
    return Finding(missing, f"record {missing} is missing")


def unequal(rows: Rows, found: Found, leaves: Sequence[bytes], before: Frontier, head: Head | None) -> Finding:
    """An entry and the leaf hash beside it do not belong together: which of the two is the wrong one.

    `before`: the tree up to the stretch. The tile's inner hash, or for the last tile the checkpoint, knows which one was signed.
    """
    place = next(place for place, row in enumerate(found) if row[2] != leaves[place])
    index = found[place][0]
    if (other := next((row[0] for row in found if row[2] == leaves[place] and row[0] != index), None)) is not None:
        return Finding(index, f"record {index} was reordered: the entry in its place is that of record {other}")
    start = (place // TILE_WIDTH) * TILE_WIDTH
    stored = [row[2] for row in found[start : start + TILE_WIDTH]]
    if _signed(rows, stored, found[start][0], before, leaves[:start], head):
        return Finding(index, f"record {index} was edited: its entry is not the one that was signed")
    if _signed(rows, leaves[start : start + TILE_WIDTH], found[start][0], before, leaves[:start], head):
        return Finding(index, f"the leaf hash beside record {index} was changed; its entry is the one that was signed")
    return Finding(index, f"record {index} was edited: its entry and the leaf hash beside it do not belong together")


def _signed(rows: Rows, tile: Sequence[bytes], index: int, before: Frontier, between: Sequence[bytes], head: Head | None) -> bool:
    """Whether these leaves of one tile are those that the tree was built of."""
    if len(tile) == TILE_WIDTH:
        number = index >> TILE_HEIGHT
        return rows.run(TILE_HEIGHT, number, number + 1) == [complete(tile)]
    whole = before.copy()
    whole.extend([*between, *tile])
    return head is not None and whole.root() == head.root


def disagreement(rows: Rows, source: str, first_wrong: int | None, agreed: int, size: int) -> Finding:
    """The entries are whole by themselves and not what `source` states. Each entry names the leaf before it: the first that does not fit.

    `first_wrong`: the first record of the first tile whose inner hash differs. `agreed`: how many records the landmark before agrees with.
    """
    low = agreed if first_wrong is None else first_wrong
    found = rows.entries(max(0, low - 1), min(size + 1, low + 2 * TILE_WIDTH) if first_wrong is not None else size + 1)
    leaves = [leaf_hash(bytes(row[1])) for row in found]
    for place, row in enumerate(found):
        before = leaves[place - 1] if place else (NO_LEAF if row[0] == 0 else None)
        if before is not None and (named := previous(bytes(row[1]))) != before:
            return _broken_link(row[0], named, leaves)
    where = f"records {low} to {min(size, low + TILE_WIDTH) - 1}" if first_wrong is not None else f"records {agreed} to {size - 1}"
    return Finding(
        low, f"{where} are not those that {source} states: they were replaced from record {low} on, or it was signed over another tree"
    )


def _broken_link(index: int, named: bytes | None, leaves: Sequence[bytes]) -> Finding:
    if named in leaves:
        return Finding(index, f"record {index} was reordered: it is not the one that follows record {index - 1}")
    if index == 0:
        return Finding(0, "record 0 is not the first of its log: records before it were removed")
    why = f"record {index - 1} was edited together with its leaf hash, or records behind it were removed: record {index} does not follow it"
    return Finding(index - 1, why)


def previous(entry: bytes) -> bytes | None:
    """The leaf hash that an entry names as the one before it; None when it names none."""
    try:
        return bytes.fromhex(parse(entry)["prev"])
    except (CohortError, KeyError, TypeError, ValueError):
        return None
