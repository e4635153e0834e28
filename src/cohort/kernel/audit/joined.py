"""A stretch of the log as one row, which SQLite joins by itself while another thread hashes the stretch before.

Two values for thousands of records, instead of two objects for each. It is for logs that are whole: what does not come out as so many
records with so many leaf hashes is read again row by row, and judged there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from cohort.kernel.audit.merkle import HASH_BYTES
from cohort.kernel.audit.store import Rows
from cohort.storage.database import Database

# A canonical entry has no line feed, so line feeds separate them; the zero behind each is what RFC 6962 hashes before a leaf. NOT INDEXED is a
# scan by `idx`, and so in its order. `group_concat` passes over NULL, which `count` of the column notices.
_STRETCH = """
SELECT count(*), count(entry), count(leaf), min(length(leaf)), CAST(group_concat(entry, CAST(x'0A00' AS TEXT)) AS BLOB),
  CAST(group_concat(leaf, '') AS BLOB) FROM audit_entries NOT INDEXED WHERE idx >= ? AND idx < ?
"""


@dataclass(frozen=True, slots=True)
class Stretch:
    """`entries`: each with a zero byte before it. `leaves`: the stored leaf hashes, one behind the other."""

    entries: Sequence[bytes]
    leaves: bytes


def read(database: Database, low: int, high: int) -> Stretch | None:
    """The records from `low` to before `high`, all of them; None when they are not all there, or cannot be told apart like this."""
    if database.dialect != "sqlite":
        return None
    with database.read() as connection:
        try:
            found = Rows(connection).one(_STRETCH, [low, high])
        except DBAPIError:  # more than SQLite puts into one value; if it is something else, reading row by row says so
            return None
    return None if found is None else _split(high - low, *found)


def _split(
    wanted: int, rows: int, entries: int, leaves: int, shortest: int | None, joined: bytes | None, hashes: bytes | None
) -> Stretch | None:
    """Leaf hashes of `HASH_BYTES` at least that have `HASH_BYTES` on average have just as many; so many lines are so many entries without a line feed."""
    if not rows == entries == leaves == wanted or joined is None or hashes is None:
        return None
    if shortest is None or shortest < HASH_BYTES or len(hashes) != wanted * HASH_BYTES:
        return None
    lines = joined.split(b"\n")
    lines[0] = b"\x00" + lines[0]
    return Stretch(lines, hashes) if len(lines) == wanted else None
