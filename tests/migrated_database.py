"""The file of a migrated SQLite database without rows. Writing it takes a millisecond, migrating for every test a tenth of a second."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from cohort.storage.database import Database, open_database


@functools.cache
def content() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cohort.db"
        opened = open_database(f"sqlite:///{path}")
        opened.migrate()
        opened.close()
        return path.read_bytes()


def place(path: Path) -> None:
    """Write one where none is."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(content())


def migrated(path: Path) -> Database:
    """One that was not there, opened."""
    place(path)
    return open_database(f"sqlite:///{path}")
