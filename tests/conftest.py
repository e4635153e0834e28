"""Fixtures for every kind of test. `database` is the product's database, migrated, once on SQLite and once on real Postgres."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import migrated_database
import postgres_server
from cohort.base.clock import ManualClock
from cohort.storage import revisions
from cohort.storage.database import Database, open_database
from cohort.storage.schema import metadata
from support_engine import House

_numbers = itertools.count()
LONGEST_FIRST = (
    "e2e/test_demo_run.py",
    "e2e/test_cli_up.py",
    "e2e/test_kernel_up.py",
    "faults/test_rollout_crashes.py",
    "faults/test_house_bad_input.py",
    "e2e/test_contained_agent.py",
    "e2e/test_gateway_handover.py",
    "property/test_approval_machine.py",
    "property/test_delegation.py",
    "e2e/test_mcp_stdio.py",
    "e2e/test_dashboard_browser.py",
    "e2e/test_kernel_browser.py",
    "e2e/test_kernel_product.py",
    "contract/test_attacks.py",
    "contract/test_sandbox_ordinary.py",
    "faults/test_workspace_kills.py",
    "faults/test_audit_rotation_killed.py",
)
"""Files begun first: a file is one process's, and a long one begun last is waited for alone."""

# A shell starts what it runs in the background with SIGINT ignored, and every program that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples every time: a red run can be run again. `--hypothesis-profile=default` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, the others in their order."""
    here, last = Path(__file__).parent, len(LONGEST_FIRST)
    ranks = {here / name: rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path, last))


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
        for name in ("template", "shared"):
            server.execute(f"CREATE DATABASE {name}")
            database = open_database(server.url(name))
            database.migrate()
            database.close()
        yield server


@pytest.fixture
def postgres_url(postgres: postgres_server.Server) -> Iterator[str]:
    """A migrated Postgres database without rows. One for all tests, emptied after each: a copy would take 0.1 s, this takes 1 ms."""
    yield postgres.url("shared")
    postgres.empty("shared", [table.name for table in reversed(metadata.sorted_tables)], revisions.HEAD)


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


@pytest.fixture
def migrated_sqlite_url(sqlite_url: str) -> str:
    """A migrated SQLite database without rows."""
    migrated_database.place(Path(sqlite_url.removeprefix("sqlite:///")))
    return sqlite_url


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """Where `database` is: a migrated database without rows, on each store."""
    return str(request.getfixturevalue("migrated_sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """The product's database, migrated and empty, on each store."""
    opened = open_database(url)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_database(migrated_sqlite_url: str) -> Iterator[Database]:
    """As `database`, on SQLite only."""
    opened = open_database(migrated_sqlite_url)
    opened.check()
    yield opened
    opened.close()


@pytest.fixture
def house(database: Database, clock: ManualClock) -> House:
    """The rollout engine on either store: releases 1, 2 and 3 of `support`, and a gateway that serves the first."""
    house = House(database, clock)
    house.ready("1", "2", "3")
    return house


@pytest.fixture
def lone(sqlite_database: Database, clock: ManualClock) -> House:
    """The same on SQLite alone."""
    house = House(sqlite_database, clock)
    house.ready("1", "2", "3")
    return house
