"""Private payloads: beside the log, by salted commitment, so that they can be erased while every proof goes on to hold.

The commitment is SHA-256 over 32 random bytes and the payload in UTF-8. Without the salt it says nothing about the payload, even to
somebody who guesses it; with salt and payload gone it says nothing to anybody.
"""

from __future__ import annotations

from typing import Any

from cohort.base.clock import Clock
from cohort.kernel.audit.store import Rows
from cohort.storage.database import Database

ERASED_AT_ONCE = 1000


class Payloads:
    """Every method may raise the errors of `Database`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def of(self, index: int) -> dict[str, str | None]:
        """The payloads of one record by name; None for one that was erased."""
        with self._database.read() as connection:
            rows = Rows(connection)
            found = rows.all(f"SELECT name, {rows.as_bytes('data')} FROM audit_payloads WHERE idx = ? ORDER BY name", [index])  # noqa: S608
        return {name: None if data is None else data.decode(errors="replace") for name, data in found}

    def erase(self, subject: str) -> list[int]:
        """Remove salt and data of everything about `subject`; the records it was of. Repeating it is harmless.

        SQLite overwrites the bytes in its file and empties its write-ahead log; on Postgres they stay in dead rows until VACUUM.
        """
        erased: list[int] = []
        while len(found := self._erase_some(subject)) == ERASED_AT_ONCE:
            erased += found
        erased += found
        if erased and self._database.dialect == "sqlite":
            self._empty_wal()
        return sorted(set(erased))

    def _erase_some(self, subject: str) -> list[int]:
        with self._database.write() as connection:
            rows = Rows(connection)
            if self._database.dialect == "sqlite":
                rows.execute("PRAGMA secure_delete = ON")
            statement = "SELECT commitment, idx FROM audit_payloads WHERE subject = ? AND erased_us IS NULL LIMIT ?"
            found = rows.all(statement, [subject, ERASED_AT_ONCE])
            change = "UPDATE audit_payloads SET salt = NULL, data = NULL, erased_us = ? WHERE commitment = ?"
            rows.execute_many(change, [(self._clock.now_us(), row[0]) for row in found])
        return [int(row[1]) for row in found]

    def _empty_wal(self) -> None:
        with self._database.read() as connection:
            driver: Any = connection.connection.driver_connection  # a checkpoint runs outside of a transaction; none has begun here
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
