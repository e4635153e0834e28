"""The gateway's clients for tests of surfaces: the real ones, over a database that is made when it is first asked."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.delivery.accounts import Accounts, Balance, Recent
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

    def upsert(self, table: Any) -> Any:
        return self._database.upsert(table)


class LateAccounts(Accounts):
    """`left`: what the gateway says; None: it does not answer."""

    def __init__(self, database: Any) -> None:
        super().__init__(database, Recent(), self._asked)
        self.left: Sequence[Balance] | None = None

    def _asked(self) -> Sequence[Balance]:
        if self.left is None:
            raise CohortError("DATA_PLANE_UNAVAILABLE", "there is no gateway")
        return self.left


def late_rooms(clock: Clock) -> tuple[Clients, LateAccounts]:
    """Clients and their accounts, without an audit log; the gateway does not answer."""
    database: Any = _Late()
    return Clients(database, clock), LateAccounts(database)
