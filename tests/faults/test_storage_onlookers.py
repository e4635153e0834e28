"""Another program looks into the SQLite file of a running control, as any person with `sqlite3` does, and goes away again."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import text

from cohort.storage.database import Database

LOOK = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(c.execute('SELECT count(*) FROM blobs').fetchone()[0]); c.close()"


def look(file: Path) -> int:
    return int(subprocess.run([sys.executable, "-c", LOOK, str(file)], capture_output=True, text=True, check=True).stdout)


def add(database: Database, name: str) -> None:
    with database.write() as connection:
        connection.execute(text("INSERT INTO blobs (digest, logical_bytes, data) VALUES (:name, 1, x'00')"), {"name": name})


def test_what_is_written_after_an_onlooker_has_left_is_seen_by_the_next(sqlite_database: Database, tmp_path: Path) -> None:
    """It left the log alone: this process's locks hold although it has opened connection after connection."""
    with ExitStack() as several:
        for _ in range(3):  # each opens a connection of its own
            several.enter_context(sqlite_database.read())
    file = tmp_path / "cohort.db"
    seen = []
    for number in range(2):
        add(sqlite_database, f"{number}" * 64)
        seen.append(look(file))
        assert file.with_name("cohort.db-wal").exists()
    assert seen == [1, 2]
