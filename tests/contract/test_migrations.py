"""The migrations make exactly the tables of schema.py, on each store, all or nothing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from cohort.base.errors import CohortError
from cohort.storage import revisions
from cohort.storage.database import open_database
from cohort.storage.schema import metadata

VERSIONS = Path(revisions.__file__).parent / "migrations" / "versions"


def test_the_migrated_database_is_the_schema(database):
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_the_partial_indexes_are_partial_on_each_store(database):
    with database.read() as connection:
        found = {index["name"]: index for table in ("rollouts", "calls") for index in inspect(connection).get_indexes(table)}
    for name, condition in (("one_active_rollout", "ended_us IS NULL"), ("ix_calls_open", "result IS NULL")):
        where = found[name]["dialect_options"][f"{database.dialect}_where"]
        assert condition in str(where)


def test_the_known_revisions_are_the_migration_files():
    assert list(revisions.REVISIONS) == sorted(path.stem for path in VERSIONS.glob("[0-9]*.py"))


def test_migrating_twice_does_something_once(empty_url):
    database = open_database(empty_url)
    assert database.migrate() is True
    assert database.migrate() is False
    database.check()
    database.close()


def test_many_processes_of_one_installation_may_migrate_at_once(empty_url):
    answers = []

    def migrate():
        database = open_database(empty_url)
        answers.append(database.migrate())
        database.check()
        database.close()

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False, False, False, True]


def test_an_empty_database_fails_its_check(empty_url):
    database = open_database(empty_url)
    with pytest.raises(CohortError) as caught:
        database.check()
    assert caught.value.code == "DATABASE_UNAVAILABLE"
    database.close()


def test_a_migration_that_fails_leaves_no_table_behind(empty_url):
    database = open_database(empty_url)

    def upgrade_and_fail():
        with database.write() as connection:
            revisions.upgrade(connection)
            assert "rollouts" in inspect(connection).get_table_names()
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        upgrade_and_fail()
    with database.read() as connection:
        assert inspect(connection).get_table_names() == []
    database.close()


def test_a_database_of_a_newer_version_is_named_and_left_alone(database):
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999_tomorrow'"))
    for attempt in (database.migrate, database.check):
        with pytest.raises(CohortError) as caught:
            attempt()
        assert caught.value.code == "DATABASE_NEWER"
        assert "0999_tomorrow" in caught.value.message
        assert revisions.HEAD in caught.value.message
        assert "newer" in caught.value.hint
    with database.read() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0999_tomorrow"


def test_a_database_of_something_else_is_refused(empty_url):
    database = open_database(empty_url)
    with database.write() as connection:
        connection.execute(text("CREATE TABLE services (id INTEGER)"))
    with pytest.raises(CohortError) as caught:
        database.migrate()
    assert caught.value.code == "CONFIG_INVALID"
    assert caught.value.field == "database.url"
    assert "services" in caught.value.message
    database.close()


def test_a_database_at_head_starts_without_alembic(sqlite_database, sqlite_url):
    script = f"""
import sys
from cohort.storage.database import open_database
database = open_database({sqlite_url!r})
assert database.migrate() is False
print(sorted(name for name in sys.modules if name.split(".")[0] in ("alembic", "mako", "psycopg")))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_first_opening_of_a_new_file_waits_for_another_process_that_writes_it(tmp_path):
    path = tmp_path / "cohort.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")  # for this lock SQLite answers "locked" at once, whatever its time-out
        released = threading.Timer(0.1, lambda: other.execute("ROLLBACK"))
        released.start()
        database = open_database(f"sqlite:///{path}")
        assert database.migrate() is True
        database.close()
        released.join()
