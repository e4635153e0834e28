"""Pages of lists that only ever grow at their end: the cursor is how many rows came before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar

from fastapi import Query

from cohort.base.errors import CohortError
from cohort.surfaces.http.ports import NUMBER_MAX, PAGE_ROWS_MAX

Rows = Annotated[int, Query(ge=1, le=PAGE_ROWS_MAX)]
Cursor = Annotated[str | None, Query(max_length=20, description="`next` of the page before.")]

T = TypeVar("T")


def paged(rows: Sequence[T], limit: int, cursor: str | None) -> tuple[tuple[T, ...], str | None]:
    """The page behind `cursor`, and the cursor of the next one. Errors: FIELD_INVALID."""
    start = cursor_number(cursor) or 0
    end = start + limit
    return tuple(rows[start:end]), str(end) if end < len(rows) else None


def cursor_number(cursor: str | None) -> int | None:
    """What a client brings back to us as a number. Errors: FIELD_INVALID when it cannot be one of ours."""
    if cursor is None:
        return None
    number = int(cursor) if cursor.isascii() and cursor.isdecimal() and len(cursor) <= len(str(NUMBER_MAX)) else NUMBER_MAX + 1
    if number > NUMBER_MAX:
        raise CohortError("FIELD_INVALID", f"cursor: {cursor!r} is none of ours", field="cursor", hint="Use `next` of the page before.")
    return number
