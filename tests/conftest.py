"""Fixtures for every kind of test. `database` is the product's database, migrated, once on SQLite and once on real Postgres."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import postgres_server
from cohort.base.clock import ManualClock
from cohort.storage.database import Database, open_database

_numbers = itertools.count()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.Server]:
    """One server per test process, with a migrated database `template` to copy from."""
    binaries = postgres_server.find_binaries()
    if binaries is None:
        if os.environ.get("CI") == "true":
            pytest.fail(postgres_server.MISSING)
        pytest.skip(postgres_server.MISSING)
    with postgres_server.running(binaries) as server:
        server.execute("CREATE DATABASE template")
        database = open_database(server.url("template"))
        database.migrate()
        database.close()
        yield server


@pytest.fixture
def postgres_url(postgres: postgres_server.Server) -> Iterator[str]:
    """A fresh migrated Postgres database."""
    name = f"test_{next(_numbers)}"
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE template STRATEGY file_copy")
    yield postgres.url(name)
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_postgres_url(postgres: postgres_server.Server) -> Iterator[str]:
    """A fresh Postgres database without a table."""
    name = f"empty_{next(_numbers)}"
    postgres.execute(f"CREATE DATABASE {name}")
    yield postgres.url(name)
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Where a SQLite database may be made; nothing is there yet."""
    return f"sqlite:///{tmp_path / 'cohort.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest) -> str:
    """A database without tables, on each store."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "empty_postgres_url"))


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """The product's database, migrated and empty, on each store."""
    opened = open_database(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def sqlite_database(sqlite_url: str) -> Iterator[Database]:
    """As `database`, on SQLite only."""
    opened = open_database(sqlite_url)
    opened.migrate()
    yield opened
    opened.close()
