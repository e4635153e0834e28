"""Looking into the log: newest first, by what is kept beside the entries."""

from __future__ import annotations

import json
from typing import Any

from cohort.base.errors import CohortError
from cohort.kernel.audit import entries
from cohort.kernel.audit.store import Rows
from cohort.kernel.face import AuditQuery, Entry
from cohort.storage.database import Database

LIMIT_MAX = 1000
TEXT_CHARACTERS_MAX = 200
TEXT_ROWS_AT_ONCE = 50_000
TEXT_ROWS_MAX = 1_000_000
"""A search for text reads every entry; it stops after so many."""
SORTED_MAX = 20_000
MICROSECONDS_MAX = (1 << 63) - 1
_COMMON = ("intent", "outcome")
_RARE = "kind = ? AND kind NOT IN ('intent', 'outcome')"  # says what the index on rare kinds is limited to


def search(database: Database, query: AuditQuery) -> list[Entry]:
    """What fits, newest first, at most `limit`. A search for text ends TEXT_ROWS_MAX records below where it began.

    Errors: FIELD_INVALID.
    """
    _check(query)
    conditions, values = _conditions(query, "sqlite" if database.dialect == "sqlite" else "postgresql")
    with database.read() as connection:
        rows = Rows(connection)
        top = rows.end() if query.before is None else query.before
        if query.text is None:
            place = "+idx" if _is_short(rows, query) else "idx"  # with the plus the stores use the index on time, and sort
            return _found(rows, [*conditions, f"{place} < ?"], [*values, top], query.limit, place)
        found: list[Entry] = []
        for high in range(top, max(0, top - TEXT_ROWS_MAX), -TEXT_ROWS_AT_ONCE):
            window = [*values, high, max(0, high - TEXT_ROWS_AT_ONCE)]
            found += _found(rows, [*conditions, "idx < ?", "idx >= ?"], window, query.limit - len(found))
            if len(found) >= query.limit:
                break
        return found


def _check(query: AuditQuery) -> None:
    if not 1 <= query.limit <= LIMIT_MAX:
        raise CohortError("FIELD_INVALID", f"limit: {query.limit}", field="limit", hint=f"Use 1 to {LIMIT_MAX}.")
    if query.text is not None and not 1 <= len(query.text) <= TEXT_CHARACTERS_MAX:
        what = f"text: {len(query.text)} characters"
        raise CohortError("FIELD_INVALID", what, field="text", hint=f"Use 1 to {TEXT_CHARACTERS_MAX} characters.")


def _is_short(rows: Rows, query: AuditQuery) -> bool:
    """Whether so little was recorded between the two times that it is quicker to sort it than to look for it from the newest on."""
    if query.since_us is None and query.until_us is None:
        return False
    between = [query.since_us or 0, MICROSECONDS_MAX if query.until_us is None else query.until_us, SORTED_MAX]
    found = rows.one("SELECT count(*) FROM (SELECT 1 FROM audit_entries WHERE at_us >= ? AND at_us < ? LIMIT ?) AS found", between)
    return found is not None and found[0] < SORTED_MAX


def _conditions(query: AuditQuery, dialect: str) -> tuple[list[str], list[Any]]:
    asked = [
        ("agent = ?", query.agent),
        ("kind = ?" if query.kind in _COMMON else _RARE, query.kind),
        ("action = ?", query.action),
        ("at_us >= ?", query.since_us),
        ("at_us < ?", query.until_us),
    ]
    wanted: list[tuple[str, Any]] = [(condition, value) for condition, value in asked if value is not None]
    if query.text is not None:
        within = "instr(CAST(entry AS TEXT), ?) > 0" if dialect == "sqlite" else "position(?::text IN convert_from(entry, 'UTF8')) > 0"
        wanted.append((within, json.dumps(query.text, ensure_ascii=False)[1:-1]))
    return [condition for condition, _ in wanted], [value for _, value in wanted]


def _found(rows: Rows, conditions: list[str], values: list[Any], limit: int, place: str = "idx") -> list[Entry]:
    statement = f"SELECT idx, {rows.as_bytes('entry')}, {rows.as_bytes('leaf')} FROM audit_entries WHERE {' AND '.join(conditions)} ORDER BY {place} DESC LIMIT ?"  # noqa: S608
    return [read(index, entry, leaf) for index, entry, leaf in rows.all(statement, [*values, limit])]


def read(index: int, entry: bytes, leaf: bytes) -> Entry:
    """An entry as it is shown. One that is no JSON any more is shown as such; `verify` names it."""
    try:
        body = entries.parse(entry)
    except CohortError:
        body = {"unreadable": entry[: entries.ENTRY_BYTES_MAX].decode(errors="replace")}
    return Entry(index, leaf.hex(), body)
