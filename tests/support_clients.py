"""The gateway's clients for tests of surfaces: the real ones, over a database that is made when it is first asked."""

from __future__ import annotations

import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from cohort.base.clock import Clock
from cohort.delivery.clients import Clients
from cohort.storage.database import Database, open_database
from cohort.storage.schema import metadata


class _Late:
    """A database in a folder of its own, which goes when this does."""

    @cached_property
    def _folder(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="clients-")

    @cached_property
    def _database(self) -> Database:
        database = open_database(f"sqlite:///{Path(self._folder.name) / 'clients.db'}")
        with database.write() as connection:
            metadata.create_all(connection)
        return database

    def read(self) -> Any:
        return self._database.read()

    def write(self) -> Any:
        return self._database.write()


def late_clients(clock: Clock) -> Clients:
    """Clients without an audit log and without gateways."""
    database: Any = _Late()
    return Clients(database, clock)
