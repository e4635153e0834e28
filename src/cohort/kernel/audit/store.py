"""The log's tables in plain SQL, the same on both stores. The hot path speaks to the driver; its errors become the product's words.

SQLite keeps whatever type is put into a column. Who changes the log may leave a text or a number where bytes belong, so what is read is cast.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import IntegrityError as SqlIntegrityError

from cohort.kernel.audit.merkle import Frontier, Node, Tree, restore

LOCK_NAME = "cohort audit log"
ROWS_PER_INSERT = 32
"""SQLite's driver gives the interpreter's lock away for each statement, and waits for it again among all callers."""
_ROW = "(?, ?, ?, ?, ?, ?, ?)"
_INSERT = f"INSERT INTO audit_entries (idx, entry, leaf, at_us, kind, agent, action) VALUES {_ROW}"  # noqa: S608
_INSERT_MANY = _INSERT + f", {_ROW}" * (ROWS_PER_INSERT - 1)


@dataclass(frozen=True, slots=True)
class Head:
    """The newest checkpoint as stored."""

    size: int
    root: bytes
    note: str
    at_us: int


@dataclass(frozen=True, slots=True)
class Row:
    """One entry as stored."""

    index: int
    entry: bytes
    leaf: bytes
    at_us: int
    kind: str
    agent: str | None
    action: str | None


class Rows:
    """Statements on one connection; within its transaction."""

    def __init__(self, connection: Connection) -> None:
        if not connection.in_transaction():
            connection.begin()  # else each of the driver's statements would see a state of its own
        self._dbapi: Any = connection.dialect.loaded_dbapi
        self._error: type[Exception] = self._dbapi.Error
        self._driver: Any = connection.connection.driver_connection
        self._sqlite = connection.dialect.name == "sqlite"

    def as_bytes(self, column: str) -> str:
        """The column in a SELECT as bytes, whatever somebody has put there."""
        return f"CAST({column} AS BLOB)" if self._sqlite else column

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """A driver's cursor. `?` marks values on both stores."""
        try:
            if self._sqlite:
                return self._driver.execute(statement, values)
            return self._driver.cursor(binary=True).execute(statement.replace("?", "%s"), values)
        except self._error as error:
            raise self._wrapped(error) from error

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        try:
            if self._sqlite:
                self._driver.executemany(statement, rows)
            elif rows:
                self._driver.cursor(binary=True).executemany(statement.replace("?", "%s"), rows)
        except self._error as error:
            raise self._wrapped(error) from error

    def all(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        cursor = self.execute(statement, values)
        try:
            return list(cursor.fetchall())
        except self._error as error:
            raise self._wrapped(error) from error

    def one(self, statement: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        cursor = self.execute(statement, values)
        try:
            found: tuple[Any, ...] | None = cursor.fetchone()
        except self._error as error:
            raise self._wrapped(error) from error
        return found

    def _wrapped(self, error: Exception) -> DBAPIError:
        """A driver's error as SQLAlchemy would raise it, which `Database` puts into our words."""
        kind = SqlIntegrityError if isinstance(error, self._dbapi.IntegrityError) else DBAPIError
        return kind(None, None, error)

    @property
    def _checkpoint(self) -> str:
        return f"SELECT size, {self.as_bytes('root')}, CAST(note AS TEXT), CAST(at_us AS BIGINT) FROM audit_checkpoints"  # noqa: S608

    def head(self) -> Head | None:
        found = self.one(f"{self._checkpoint} ORDER BY size DESC LIMIT 1")
        return Head(*found) if found else None

    def newest(self) -> tuple[int, bytes] | None:
        """Size and root of the newest checkpoint as stored; what `head` costs is not needed before every append."""
        found = self.one(f"SELECT size, {self.as_bytes('root')} FROM audit_checkpoints ORDER BY size DESC LIMIT 1")  # noqa: S608
        return (found[0], found[1]) if found else None

    def checkpoints(self, size_max: int) -> list[Head]:
        """Every kept checkpoint up to that size, smallest first."""
        return [Head(*found) for found in self.all(f"{self._checkpoint} WHERE size <= ? ORDER BY size", [size_max])]

    def extent(self) -> tuple[int, int]:
        """How many entries there are, and the index after the last one: equal in a whole log."""
        found = self.one("SELECT count(*), coalesce(max(idx) + 1, 0) FROM audit_entries")
        return (int(found[0]), int(found[1])) if found else (0, 0)

    def end(self) -> int:
        """The index after the last entry."""
        found = self.one("SELECT coalesce(max(idx) + 1, 0) FROM audit_entries")
        return int(found[0]) if found else 0

    def run(self, height: int, low: int, high: int) -> list[bytes]:
        """Kept hashes; fewer than asked for when some are missing."""
        if height == 0:
            statement = f"SELECT {self.as_bytes('leaf')} FROM audit_entries WHERE idx >= ? AND idx < ? ORDER BY idx"  # noqa: S608
            found = self.all(statement, [low, high])
        else:
            statement = f"SELECT {self.as_bytes('hash')} FROM audit_nodes WHERE level = ? AND idx >= ? AND idx < ? ORDER BY idx"  # noqa: S608
            found = self.all(statement, [height, low, high])
        return [row[0] for row in found]

    def tree(self) -> Tree:
        return Tree(self._whole_run)

    def frontier(self, size: int) -> Frontier | None:
        """The tree's frontier at `size`; None when hashes are missing."""
        try:
            return restore(size, self._whole_run)
        except _Missing:
            return None

    def _whole_run(self, height: int, low: int, high: int) -> list[bytes]:
        found = self.run(height, low, high)
        if len(found) != high - low:
            raise _Missing(f"hashes {low} to {high} of height {height}")
        return found

    def entries(self, low: int, high: int) -> list[tuple[int, bytes, bytes]]:
        """`(index, entry, leaf)` from `low` to before `high`, in order."""
        columns = f"idx, {self.as_bytes('entry')}, {self.as_bytes('leaf')}"
        return self.all(f"SELECT {columns} FROM audit_entries WHERE idx >= ? AND idx < ? ORDER BY idx", [low, high])  # noqa: S608

    def of_kind(self, kind: str, low: int) -> list[tuple[int, bytes]]:
        """`(index, entry)` of that kind from `low` on, in order."""
        return self.all(f"SELECT idx, {self.as_bytes('entry')} FROM audit_entries WHERE kind = ? AND idx >= ? ORDER BY idx", [kind, low])  # noqa: S608

    def path(self, index: int, size: int) -> list[bytes] | None:
        """The inclusion path of a record in the tree of `size`; None when hashes are missing."""
        try:
            return self.tree().inclusion(index, size) if index < size else None
        except _Missing:
            return None

    def row(self, index: int) -> Row | None:
        columns = f"idx, {self.as_bytes('entry')}, {self.as_bytes('leaf')}, at_us, kind, agent, action"
        found = self.one(f"SELECT {columns} FROM audit_entries WHERE idx = ?", [index])  # noqa: S608
        return Row(*found) if found else None

    def last_at_us(self, size: int) -> int:
        found = self.one("SELECT CAST(at_us AS BIGINT) FROM audit_entries WHERE idx = ?", [size - 1])
        return int(found[0]) if found else 0

    def open_intents(self, limit: int, before_us: int | None = None) -> list[tuple[str, int]]:
        """Actions with an intent and no outcome, oldest first, with the index of the intent."""
        statement = (
            "SELECT action, min(idx) FROM audit_entries WHERE kind IN ('intent', 'outcome') AND action IS NOT NULL"
            " GROUP BY action HAVING sum(CASE WHEN kind = 'outcome' THEN 1 ELSE 0 END) = 0"
        )
        values: list[Any] = []
        if before_us is not None:
            statement += " AND min(at_us) < ?"
            values.append(before_us)
        return [(row[0], int(row[1])) for row in self.all(f"{statement} ORDER BY 2 LIMIT ?", [*values, limit])]

    def add_entries(self, rows: Sequence[Sequence[Any]]) -> None:
        """`(idx, entry, leaf, at_us, kind, agent, action)` each."""
        whole = len(rows) - len(rows) % ROWS_PER_INSERT if self._sqlite else 0
        for start in range(0, whole, ROWS_PER_INSERT):
            self.execute(_INSERT_MANY, list(chain.from_iterable(rows[start : start + ROWS_PER_INSERT])))
        if whole < len(rows):
            self.execute_many(_INSERT, rows[whole:])

    def add_nodes(self, nodes: Iterable[Node]) -> None:
        rows = [(node.height, node.index, node.hash) for node in nodes]
        if rows:
            self.execute_many("INSERT INTO audit_nodes (level, idx, hash) VALUES (?, ?, ?)", rows)

    def replace_nodes(self, nodes: Iterable[Node]) -> None:
        self.execute("DELETE FROM audit_nodes")
        self.add_nodes(nodes)

    def add_payloads(self, rows: Sequence[Sequence[Any]]) -> None:
        """`(commitment, idx, name, subject, salt, data)` each."""
        if rows:
            statement = "INSERT INTO audit_payloads (commitment, idx, name, subject, salt, data) VALUES (?, ?, ?, ?, ?, ?)"
            self.execute_many(statement, rows)

    def add_checkpoint(self, head: Head, replaces: int | None) -> None:
        """`replaces`: the size of the checkpoint that this one makes superfluous."""
        values: list[Any] = [head.size, head.root, head.note, head.at_us]
        if replaces is None:
            self.execute("INSERT INTO audit_checkpoints (size, root, note, at_us) VALUES (?, ?, ?, ?)", values)
        else:
            self.execute("UPDATE audit_checkpoints SET size = ?, root = ?, note = ?, at_us = ? WHERE size = ?", [*values, replaces])


class _Missing(Exception):
    """A hash that should be stored is not."""
