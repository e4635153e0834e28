"""One database, two stores: SQLite on one machine, Postgres 15 or newer at scale. Transactions, dialects and errors end here.

SQLite runs in WAL with `synchronous=FULL`: control acknowledges outcomes after its commit, upon which a gateway deletes them, so a commit
must outlive a power cut. NORMAL would save one fsync (about 0.2 ms) per commit and could lose the last ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from cohort.base.errors import CohortError
from cohort.storage import failures, revisions
from cohort.storage.onlooker import Generation, Onlooker
from cohort.storage.turns import Turns

if TYPE_CHECKING:
    import psycopg

LOCK_WAIT_S = 10.0
FIRST_OPEN_PAUSE_S = 0.005
CONNECTIONS_MAX = 16
WAL_BYTES_KEPT = 64 << 20
CHECKPOINT_PAGES = 1000
POSTGRES_MAJOR_MIN = 15
POSTGRES_CONNECT_WAIT_S = 5

Upsert = sqlite.Insert | postgresql.Insert


class Database:
    """A pool of connections. Safe to use from many threads; every method may raise the errors of `failures.py`."""

    def __init__(self, reading: Engine, writing: Engine, shown: str, wait_s: float = LOCK_WAIT_S) -> None:
        self._reading = reading
        self._writing = writing
        self._shown = shown
        self._here = threading.local()
        self._onlooker = Onlooker(reading)
        self._turns = Turns(writing, wait_s)

    def __repr__(self) -> str:
        return f"<Database {self._shown}>"

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._writing.dialect.name

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One snapshot; a write inside it is refused by the store."""
        with self._in_our_words(), self._reading.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed at the end, rolled back by any exception.

        SQLite: the only writer, from the first statement on. Postgres: READ COMMITTED; lock rows, or `lock` a name, before you
        decide on them.

        Raises:
            CohortError DISK_FULL, DATABASE_UNAVAILABLE, DATABASE_DAMAGED: nothing was written.
            CohortError OUTCOME_UNKNOWN: the commit was sent and its answer lost.
        """
        with self._one_per_thread(), self._in_our_words(), self._writer() as connection:
            connection.begin()
            yield connection
            # Commit point. Before this line no other connection sees the change; after it, all of them do.
            self._commit(connection)

    def generation(self) -> Generation | None:
        """What is another value after any commit by anybody, this process or another; None where the store cannot say so (Postgres).

        Ask before you read: what was read afterwards is still so for as long as the answer stays the same.
        """
        if self.dialect != "sqlite":
            return None
        with self._in_our_words():
            return self._onlooker.generation()

    def beside(self) -> Database:
        """The same Postgres database, for transactions that run while the same thread is in one of this object's: they see and lock nothing of
        each other's rows. On SQLite, where there is one writer, this object itself.
        """
        return Database(self._reading, self._writing, self._shown) if self.dialect == "postgresql" else self

    def lock(self, connection: Connection, name: str) -> None:
        """Hold `name` until the end of the transaction, against other writers that lock it; on SQLite a writer is alone already."""
        if self.dialect == "postgresql":
            key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})

    def upsert(self, table: Table) -> Upsert:
        """An INSERT that knows `on_conflict_do_update`, `on_conflict_do_nothing` and `excluded`."""
        return postgresql.insert(table) if self.dialect == "postgresql" else sqlite.insert(table)

    def migrate(self) -> bool:
        """Bring the tables to this version, all or nothing; True when something was done.

        Raises:
            CohortError DATABASE_NEWER: a newer version of Cohort wrote it.
            CohortError CONFIG_INVALID: the database belongs to something else, or the server is too old.
        """
        with self.read() as connection:
            self._refuse_old_server(connection)
            if revisions.stored(connection, self._shown) == revisions.HEAD:
                return False
        with self.write() as connection:
            self.lock(connection, "cohort migrations")
            if revisions.stored(connection, self._shown) == revisions.HEAD:
                return False  # another process was faster
            revisions.upgrade(connection)
        self._reading.dispose()  # SQLite's PRAGMAs on a connection from before would answer from the old schema
        return True

    def check(self) -> None:
        """One cheap question to the store; raises when it does not answer or its tables are not this version's."""
        with self.read() as connection:
            found = revisions.stored(connection, self._shown)
        if found != revisions.HEAD:
            raise CohortError(
                "DATABASE_UNAVAILABLE",
                f"{self._shown} is at revision {found}, not {revisions.HEAD}",
                hint="Start control; it migrates the database.",
            )

    def close(self) -> None:
        """Give every idle connection back to the store."""
        self._onlooker.close()
        self._turns.close()
        self._reading.dispose()
        self._writing.dispose()

    def _writer(self) -> AbstractContextManager[Connection]:
        return self._turns.turn() if self.dialect == "sqlite" else self._writing.connect()

    def _commit(self, connection: Connection) -> None:
        try:
            connection.commit()
        except DBAPIError as error:
            raise failures.at_commit(error, self._shown) or error from error

    def _refuse_old_server(self, connection: Connection) -> None:
        found = connection.dialect.server_version_info
        if self.dialect == "postgresql" and found and int(found[0]) < POSTGRES_MAJOR_MIN:
            raise CohortError(
                "CONFIG_INVALID",
                f"{self._shown} runs Postgres {found[0]}",
                field="database.url",
                hint=f"Use Postgres {POSTGRES_MAJOR_MIN} or newer.",
            )

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            known = failures.translated(error, self._shown)
            if known is None:
                raise
            raise known from error
        except UnicodeDecodeError as error:  # sqlite3 decodes text and error messages itself; everything stored is UTF-8
            if self.dialect != "sqlite":
                raise
            raise failures.damaged(self._shown, "it holds text that is not UTF-8") from error

    @contextmanager
    def _one_per_thread(self) -> Iterator[None]:
        if getattr(self._here, "writing", False):
            raise RuntimeError("a transaction inside a transaction of the same thread would wait for itself")
        self._here.writing = True
        try:
            yield
        finally:
            self._here.writing = False


def open_database(url: str, *, wait_s: float = LOCK_WAIT_S, checkpoint_pages: int = CHECKPOINT_PAGES) -> Database:
    """The database at `url`: `sqlite:////path/cohort.db`, or `postgresql://user@host/name`. Nothing is connected yet.

    `wait_s` is how long a writer waits for its turn before DATABASE_UNAVAILABLE. `checkpoint_pages`: SQLite copies its write-ahead log into
    the file when it has so many pages of 4 KiB; more of them spare a busy database the copying, and take room.

    Raises:
        CohortError CONFIG_INVALID: not such a URL; names `database.url`, never shows a password.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise _wrong_url("it cannot be read as a URL") from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return _open_sqlite(parsed, wait_s, checkpoint_pages)
    if backend in ("postgresql", "postgres"):
        return _open_postgres(parsed.set(drivername="postgresql+psycopg"), wait_s)
    raise _wrong_url(f"{backend} is not a store of Cohort")


def _wrong_url(why: str) -> CohortError:
    hint = "Write `sqlite:////absolute/path/cohort.db` or `postgresql://user@host:5432/cohort`."
    return CohortError("CONFIG_INVALID", f"database.url: {why}", field="database.url", hint=hint)


def _open_sqlite(url: URL, wait_s: float, checkpoint_pages: int) -> Database:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise _wrong_url("SQLite needs a file")
    url = URL.create("sqlite", database=os.path.abspath(url.database))
    arguments = {"isolation_level": None, "timeout": wait_s}  # transactions are begun by the events below, not guessed by the driver
    writing = _engine(url, pool_size=1, pool_timeout=wait_s, connect_args=arguments)  # one connection is the queue of writers
    reading = _engine(url, pool_size=CONNECTIONS_MAX, pool_timeout=wait_s, connect_args=arguments)
    for engine in (writing, reading):
        event.listen(engine, "do_connect", partial(_create_private, str(url.database)))
        event.listen(
            engine, "connect", partial(_prepare_sqlite, reads_only=engine is reading, wait_s=wait_s, checkpoint_pages=checkpoint_pages)
        )
    event.listen(writing, "begin", partial(_begin, "BEGIN IMMEDIATE"))  # a transaction never upgrades, so it never deadlocks
    event.listen(reading, "begin", partial(_begin, "BEGIN"))
    return Database(reading, writing, str(url), wait_s)


def _open_postgres(url: URL, wait_s: float) -> Database:
    shown = URL.create("postgresql", url.username, None, url.host, url.port, url.database).render_as_string()
    arguments = {"connect_timeout": POSTGRES_CONNECT_WAIT_S, "application_name": "cohort"}
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    engine = _engine(url, pool_size=CONNECTIONS_MAX, pool_timeout=wait_s, pool_pre_ping=True, connect_args=arguments)
    event.listen(engine, "connect", partial(_prepare_postgres, wait_s))
    reading = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return Database(reading, engine.execution_options(isolation_level="READ COMMITTED"), shown)


def _engine(url: URL, **options: Any) -> Engine:
    return create_engine(
        url,
        poolclass=QueuePool,
        max_overflow=0,
        execution_options={"preserve_rowcount": True},  # without it, `rowcount` of an INSERT differs between the stores
        hide_parameters=True,  # values never reach a log through an error's text
        json_serializer=partial(
            json.dumps, allow_nan=False, separators=(",", ":")
        ),  # Postgres refuses NaN; so SQLite does not take it either
        **options,
    )


def _create_private(path: str, *_: object) -> None:
    """A new database file belongs to its owner alone; SQLite gives its -wal and -shm the same mode.

    A file that is there is never opened here: closing it again would drop every lock that this process holds on it (POSIX), and the next
    program that looks into the database would take itself for its only user and delete the log that we still write to.
    """
    with suppress(OSError):  # it is there, or SQLite says what is wrong with the path in the same moment
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _prepare_sqlite(connection: sqlite3.Connection, _record: object, *, reads_only: bool, wait_s: float, checkpoint_pages: int) -> None:
    with closing(connection.cursor()) as cursor:
        mode = _with_a_log(cursor, wait_s)
        if mode != "wal":
            raise sqlite3.OperationalError(f"its file system cannot hold a write-ahead log (journal mode {mode})")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA secure_delete=ON")  # what is erased or written over does not stay in free pages
        cursor.execute(f"PRAGMA wal_autocheckpoint={checkpoint_pages}")
        cursor.execute(f"PRAGMA journal_size_limit={WAL_BYTES_KEPT}")
        cursor.execute(f"PRAGMA query_only={int(reads_only)}")


def _with_a_log(cursor: sqlite3.Cursor, wait_s: float) -> str:
    """The journal mode after asking for WAL. The first change of a new file needs it alone, and for that SQLite does not wait itself."""
    until_s = time.monotonic() + wait_s
    while True:
        try:
            return str(cursor.execute("PRAGMA journal_mode=WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until_s:
                raise
        time.sleep(FIRST_OPEN_PAUSE_S)


def _prepare_postgres(wait_s: float, connection: psycopg.Connection[Any], _record: object) -> None:
    wait_ms = max(1, int(wait_s * 1000))
    connection.execute("SELECT set_config('lock_timeout', %s, false), set_config('timezone', 'UTC', false)", [f"{wait_ms}ms"])
    connection.commit()


def _begin(statement: str, connection: Connection) -> None:
    """To the driver itself: SQLAlchemy would take ten times as long for these two words. Its error is raised as SQLAlchemy raises one."""
    driver: Any = connection.connection.driver_connection
    try:
        driver.execute(statement)
    except sqlite3.Error as error:
        raise DBAPIError(statement, None, error, hide_parameters=True) from error
