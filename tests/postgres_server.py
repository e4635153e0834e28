"""A real Postgres for the tests: started from the installed server binaries, on a Unix socket, as an ordinary user, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

START_WAIT_S = 30.0
MISSING = "Postgres server binaries are not installed; install the Debian package `postgresql` (or put initdb and postgres on PATH)"
OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",  # the tests kill our processes, never this server
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "60",
    "shared_buffers": "16MB",
    "max_wal_size": "64MB",
    "autovacuum": "off",
}


@dataclass(frozen=True, slots=True)
class Server:
    directory: Path
    pid: int

    def url(self, database: str) -> str:
        return f"postgresql://cohort@/{database}?host={self.directory}"

    def execute(self, statement: str) -> None:
        """One statement on the maintenance database, outside any transaction."""
        with psycopg.connect(f"host={self.directory} user=cohort dbname=postgres", autocommit=True) as connection:
            connection.execute(statement.encode())

    def empty(self, database: str, tables: list[str], revision: str) -> None:
        """Delete every row of `tables`, in this order; connections that a test left behind are ended first."""
        with psycopg.connect(f"host={self.directory} user=cohort dbname={database}") as connection:
            others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
            connection.execute(others, [database])
            for table in tables:
                connection.execute(f"DELETE FROM {table}".encode())
            connection.execute("UPDATE alembic_version SET version_num = %s", [revision])


def find_binaries() -> Path | None:
    """The directory with initdb and postgres: PATH first, then Debian's places, newest first."""
    found = shutil.which("postgres")
    candidates = [Path(found).resolve().parent] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
    return next((path for path in candidates if (path / "initdb").exists() and (path / "postgres").exists()), None)


@contextmanager
def running(binaries: Path) -> Iterator[Server]:
    """A server with an empty cluster and the superuser `cohort`, for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as name:  # a socket's path may have 107 bytes
        directory, user = Path(name), ordinary_user()
        if user is not None:
            shutil.chown(directory, user)
        data = directory / "data"
        initdb = [binaries / "initdb", "-D", data, "-U", "cohort", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, user=user, cwd=directory)
        process = _start(binaries, data, directory, user)
        try:
            _wait_until_ready(process, directory)
            yield Server(directory, process.pid)
        finally:
            process.send_signal(signal.SIGINT)  # ends the connections that are still open
            process.wait(START_WAIT_S)


def ordinary_user() -> str | None:
    """Whom the server runs as: None for ourselves, or when we are root (which Postgres refuses) the first of these that exists."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def _start(binaries: Path, data: Path, directory: Path, user: str | None) -> subprocess.Popen[bytes]:
    options = [part for name, value in OPTIONS.items() for part in ("-c", f"{name}={value}")]
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(
            [binaries / "postgres", "-D", data, "-k", directory, *options], stdout=log, stderr=log, user=user, cwd=directory
        )


def _wait_until_ready(process: subprocess.Popen[bytes], directory: Path) -> None:
    deadline = time.monotonic() + START_WAIT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            psycopg.connect(f"host={directory} user=cohort dbname=postgres").close()
            return
        except psycopg.OperationalError:
            time.sleep(0.02)
    raise RuntimeError(f"Postgres did not start:\n{(directory / 'log').read_text()}")
