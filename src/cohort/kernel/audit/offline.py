"""Reading a log whose product is not running. Nothing is ever written to it."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.kernel.audit.anchors import Anchors, parse_anchor
from cohort.kernel.audit.desk import AuditDesk, Parts
from cohort.kernel.audit.keys import Keys
from cohort.kernel.audit.ring import Ring
from cohort.kernel.audit.rotation import settled
from cohort.storage.database import Database, open_database

CONNECTIONS_MAX = 4
LOCK_WAIT_S = 10.0


@contextmanager
def open_audit_offline(
    url: str, clock: Clock, keys: Keys | Ring | None, *, origin: str = "", anchors: Sequence[str] = ()
) -> Iterator[AuditDesk]:
    """The face of the log at `url`, to search, verify, prove and export; `note`, `erase` and `anchor` do nothing here.

    `keys`: the log's own (`read_keys(key_file)`), or its public ones; without them no log is whole. A SQLite file that
    was closed cleanly is not even locked; one that was not is read with its write-ahead log, and only SQLite's index of it is touched.

    Raises:
        CohortError NOT_FOUND: there is no such file.
        CohortError CONFIG_INVALID: not a URL of a database, or an anchor that cannot be used.
    """
    database = _read_only(url)
    try:
        ring = settled(database, keys).ring if isinstance(keys, Keys) else keys
        places = [parse_anchor(text, ring.name if ring else origin, clock, socket.gethostname(), database) for text in anchors]
        yield AuditDesk(Parts(database, clock, lambda: ring, Anchors(database, clock, lambda: ring, places, None), None))
    finally:
        database.close()


def _read_only(url: str) -> Database:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise CohortError("CONFIG_INVALID", "the audit log's URL cannot be read", hint="Write `sqlite:////path/audit.db`.") from error
    if parsed.get_backend_name() != "sqlite":
        return open_database(url)  # reads are in read-only transactions
    path = Path(parsed.database or "").resolve()
    if not path.is_file():
        raise CohortError("NOT_FOUND", f"there is no audit log at {path}", hint="Name the file `audit.db` of the data directory.")
    engine = create_engine(
        "sqlite://", creator=partial(_connect, path), poolclass=QueuePool, pool_size=CONNECTIONS_MAX, max_overflow=0, hide_parameters=True
    )
    event.listen(engine, "begin", _begin)
    return Database(engine, engine, str(path))  # SQLite refuses every change on these connections


def _connect(path: Path) -> sqlite3.Connection:
    """Without a write-ahead log beside it the file cannot change, and SQLite need not make its index."""
    pending = path.with_name(f"{path.name}-wal")
    mode = "mode=ro" if pending.exists() and pending.stat().st_size else "immutable=1"
    name = f"file:{quote(str(path))}?{mode}"
    connection = sqlite3.connect(name, uri=True, isolation_level=None, timeout=LOCK_WAIT_S, check_same_thread=False)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
