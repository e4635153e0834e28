"""What a driver's error means: one mapping, for both stores."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cohort.base.errors import CohortError, Retry

_SQLITE_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_SQLITE_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SQLITE_CLOSED_TO_US = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH}
# ENOSPC is SQLITE_FULL; a file-size limit or a quota (EFBIG, EDQUOT) arrives as a failed write or a failed growth of the shared index.
_SQLITE_NO_ROOM = {sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}
_SQLITE_NOT_TEXT = "Could not decode to UTF-8"  # the driver's own error, without a code

_POSTGRES_NO_ROOM = {"53100"}
_POSTGRES_DAMAGED = {"XX001", "XX002"}
_POSTGRES_LOCKED = {"55P03", "40P01", "40001"}
_POSTGRES_AWAY = ("08", "57P", "53")  # connection, operator intervention, out of resources


def translated(error: SQLAlchemyError, shown: str) -> CohortError | None:
    """`error` in our words; None where it is the caller's own (a constraint, a wrong statement).

    `shown` is the database's URL without its password. Inside a transaction every one of these means: nothing was written.
    """
    if isinstance(error, PoolTimeout):
        return _locked(shown, "every connection is in use")
    if not isinstance(error, DBAPIError) or isinstance(error, IntegrityError):
        return None
    if isinstance(error.orig, sqlite3.Error):
        return _from_sqlite(error.orig, shown)
    return _from_postgres(error, shown)


def at_commit(error: DBAPIError, shown: str) -> CohortError | None:
    """As `translated`, for an error of COMMIT itself: where the answer was lost, the outcome is unknown."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    if error.connection_invalidated or code in {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC}:
        return CohortError(
            "OUTCOME_UNKNOWN",
            f"{shown} gave no answer to a commit: {_first_line(error)}",
            retry=Retry.CHECK_FIRST,
            hint="Look whether the change is there before repeating it.",
        )
    return translated(error, shown)


def _from_sqlite(error: sqlite3.Error, shown: str) -> CohortError | None:
    extended: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    code = extended & 0xFF
    if code == sqlite3.SQLITE_FULL or extended in _SQLITE_NO_ROOM:
        return _full(shown)
    if code in _SQLITE_DAMAGED or str(error).startswith(_SQLITE_NOT_TEXT):
        return damaged(shown, str(error).partition(" with text")[0])
    if code in _SQLITE_LOCKED:
        return _locked(shown, str(error))
    if code in _SQLITE_CLOSED_TO_US:
        return _unavailable(shown, str(error), "Make sure that its directory exists and that this user may write there.")
    if code == sqlite3.SQLITE_IOERR:
        return _unavailable(shown, str(error), "Look at the file system that holds it.")
    return None


def _from_postgres(error: DBAPIError, shown: str) -> CohortError | None:
    state = getattr(error.orig, "sqlstate", None)
    if state in _POSTGRES_NO_ROOM:
        return _full(shown)
    if state in _POSTGRES_DAMAGED:
        return damaged(shown, _first_line(error))
    if state in _POSTGRES_LOCKED:
        return _locked(shown, _first_line(error))
    if error.connection_invalidated or (state or "").startswith(_POSTGRES_AWAY) or _never_connected(error):
        return _unavailable(shown, _first_line(error), "Start Postgres, or correct `database.url`.")
    return None


def _never_connected(error: DBAPIError) -> bool:
    return error.statement is None and getattr(error.orig, "sqlstate", None) is None


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]


def damaged(shown: str, why: str) -> CohortError:
    return CohortError(
        "DATABASE_DAMAGED", f"{shown} is damaged: {why}", hint="Restore it from a backup; keep the damaged file for analysis."
    )


def _full(shown: str) -> CohortError:
    return CohortError("DISK_FULL", f"no room left for {shown}; nothing was written", retry=Retry.SAFE, hint="Free disk space.")


def _locked(shown: str, why: str) -> CohortError:
    return CohortError("DATABASE_UNAVAILABLE", f"{shown} is busy: {why}", retry=Retry.SAFE, hint="Repeat it in a moment.")


def _unavailable(shown: str, why: str, hint: str) -> CohortError:
    return CohortError("DATABASE_UNAVAILABLE", f"{shown} cannot be used: {why}", retry=Retry.SAFE, hint=hint)
