"""What stands beside the entries says the same as they do: the columns that are searched, and the private payloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cohort.base.errors import CohortError
from cohort.kernel.audit.diagnosis import Finding
from cohort.kernel.audit.entries import commitment, parse
from cohort.kernel.audit.store import Rows
from cohort.storage.database import Database

OPEN_INTENTS_MAX = 1000
ROWS_AT_ONCE = 1000
PAYLOADS_AT_ONCE = 64
STRETCH = 50_000
"""Records that are compared before somebody may break it off."""

# The store compares the bytes that nearly every entry has: its beginning up to the body, and its end from the kind on, where no payload is
# committed to and the session is null or has its 19 characters. The 118 and 135 are the lengths of what then follows the kind.
_SQLITE_SUSPECTS = """
SELECT idx, CAST(entry AS BLOB), action, agent, at_us, kind FROM audit_entries WHERE idx > ? AND idx < ? AND (
  instr(substr(entry, 1, 160), CAST(printf('{"action":"%s","agent":"%s","at_us":%d,"body":{', action, agent, at_us) AS BLOB)) = 1
  AND CAST('"kind":"' || kind || '","prev":"' AS BLOB)
    IN (substr(entry, -135 - length(kind), 18 + length(kind)), substr(entry, -118 - length(kind), 18 + length(kind)))
) IS NOT TRUE ORDER BY idx LIMIT ?
"""
_POSTGRES_SUSPECTS = """
SELECT idx, entry, action, agent, at_us, kind FROM audit_entries WHERE idx > ? AND idx < ? AND (
  position(convert_to(concat('{"action":"', action, '","agent":"', agent, '","at_us":', at_us, ',"body":{'), 'UTF8') IN entry) = 1
  AND convert_to(concat('"kind":"', kind, '","prev":"'), 'UTF8') IN (
    substring(entry from greatest(1, length(entry) - 134 - length(kind)) for 18 + length(kind)),
    substring(entry from greatest(1, length(entry) - 117 - length(kind)) for 18 + length(kind)))
) IS NOT TRUE ORDER BY idx LIMIT ?
"""

_SUSPECTS = {"sqlite": _SQLITE_SUSPECTS, "postgresql": _POSTGRES_SUSPECTS}


def check(database: Database, size: int, broken_off: Callable[[], bool] = bool) -> tuple[Finding | None, tuple[str, ...]]:
    """The first thing beside the first `size` entries that is wrong, and the actions without an outcome, at most OPEN_INTENTS_MAX.

    `broken_off`: nobody waits for the answer any more, which then says nothing.
    """
    with database.read() as connection:
        rows = Rows(connection)
        found = None
        for low in range(0, size, STRETCH):
            if broken_off():
                return None, ()
            found = found or _columns(rows, _SUSPECTS[database.dialect], low, min(size, low + STRETCH))
        found = found or _payloads(rows, size)
        return found, tuple(action for action, _ in rows.open_intents(OPEN_INTENTS_MAX))


def _columns(rows: Rows, suspects: str, low: int, high: int) -> Finding | None:
    """Those the store is not sure about are read here."""
    last = low - 1
    while found := rows.all(suspects, [last, high, ROWS_AT_ONCE]):
        for index, entry, *columns in found:
            if _described(entry) != columns:
                return Finding(index, f"what is searched of record {index} (kind, agent, action, time) is not what its entry says")
        last = found[-1][0]
    return None


def _described(entry: bytes) -> list[Any] | None:
    try:
        value = parse(entry)
    except CohortError:
        return None
    return [value.get(name) for name in ("action", "agent", "at_us", "kind")]


def _payloads(rows: Rows, size: int) -> Finding | None:
    """Every payload that was not erased fits the commitment in its entry."""
    last = ""
    columns = f"commitment, idx, name, {rows.as_bytes('salt')}, {rows.as_bytes('data')}, erased_us"
    statement = f"SELECT {columns} FROM audit_payloads WHERE commitment > ? AND idx < ? ORDER BY commitment LIMIT ?"  # noqa: S608
    while found := rows.all(statement, [last, size, PAYLOADS_AT_ONCE]):
        for row in found:
            if (why := _misfit(rows, *row)) is not None:
                return Finding(int(row[1]), why)
        last = found[-1][0]
    return None


def _misfit(rows: Rows, committed: str, index: int, name: str, salt: Any, data: Any, erased_us: int | None) -> str | None:
    what = f"the private payload {name!r} of record {index}"
    row = rows.row(index)
    said = None if row is None else _committed(row.entry, name)
    if said != committed:
        return f"{what} is not the one its entry commits to"
    if erased_us is None and (salt is None or data is None):
        return f"{what} is missing and was not erased"
    if salt is not None and data is not None and commitment(salt, data) != committed:
        return f"{what} was changed"
    return None


def _committed(entry: bytes, name: str) -> object:
    try:
        private = parse(entry).get("private")
    except CohortError:
        return None
    return private.get(name) if isinstance(private, dict) else None
