"""Which URLs open, and what errors say of them."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest
from sqlalchemy import text

from cohort.base.errors import CohortError, Retry
from cohort.storage.database import open_database


def opened_and_read(url, **options):
    database = open_database(url, **options)
    try:
        with database.read() as connection:
            return connection.execute(text("SELECT 1")).scalar()
    finally:
        database.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cohort.db",
        "mysql://root:hunter2@host/x",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory",
        "://",
        "postgresql",
    ],
)
def test_a_wrong_url_names_the_setting_and_the_form(url):
    with pytest.raises(CohortError) as caught:
        open_database(url)
    assert caught.value.code == "CONFIG_INVALID"
    assert caught.value.field == "database.url"
    assert "sqlite:////" in caught.value.hint
    assert "hunter2" not in str(caught.value.problem())


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_an_unreachable_server_is_unavailable_and_the_password_is_not_shown(scheme):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        port = taken.getsockname()[1]
        with pytest.raises(CohortError) as caught:
            opened_and_read(f"{scheme}://cohort:hunter2@127.0.0.1:{port}/cohort?password=hunter2")
    assert caught.value.code == "DATABASE_UNAVAILABLE"
    assert caught.value.retry is Retry.SAFE
    assert str(port) in caught.value.message
    assert "hunter2" not in str(caught.value.problem())
    assert "hunter2" not in repr(open_database("postgresql://cohort:hunter2@h/d?password=hunter2"))


def test_a_missing_directory_is_unavailable_and_the_path_is_named(tmp_path):
    with pytest.raises(CohortError) as caught:
        opened_and_read(f"sqlite:///{tmp_path}/none/cohort.db")
    assert caught.value.code == "DATABASE_UNAVAILABLE"
    assert "none/cohort.db" in caught.value.message


def test_a_directory_in_place_of_the_file_is_unavailable(tmp_path):
    with pytest.raises(CohortError) as caught:
        opened_and_read(f"sqlite:///{tmp_path}")
    assert caught.value.code == "DATABASE_UNAVAILABLE"


def test_a_relative_path_is_fixed_when_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    database = open_database("sqlite:///cohort.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    database.migrate()
    database.close()
    assert (tmp_path / "cohort.db").exists()


def test_the_files_belong_to_their_owner_alone(sqlite_database, tmp_path):
    files = list(Path(tmp_path).glob("cohort.db*"))
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_sqlite_is_durable_and_checks_foreign_keys(sqlite_database):
    def pragma(connection, name):
        return connection.execute(text(f"PRAGMA {name}")).scalar()

    for context in (sqlite_database.read, sqlite_database.write):
        with context() as connection:
            assert pragma(connection, "journal_mode") == "wal"
            assert pragma(connection, "synchronous") == 2  # FULL
            assert pragma(connection, "foreign_keys") == 1


@pytest.mark.parametrize("content", [b"this is not a database" * 100, b"SQLite format 3\x00" + b"\xff" * 4080])
def test_a_file_that_is_no_database_is_damaged_and_left_alone(tmp_path, content):
    path = tmp_path / "cohort.db"
    path.write_bytes(content)
    for attempt in ("migrate", "check"):
        database = open_database(f"sqlite:///{path}")
        with pytest.raises(CohortError) as caught:
            getattr(database, attempt)()
        database.close()
        assert caught.value.code == "DATABASE_DAMAGED"
        assert "backup" in caught.value.hint
    assert path.read_bytes() == content
