"""A damaged database file is noticed, named, and not made worse."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from cohort.base.errors import CohortError
from cohort.storage import blobs
from cohort.storage.database import open_database
from cohort.storage.schema import blobs as table

PAGE_BYTES = 4096


@pytest.fixture
def filled(sqlite_url, tmp_path):
    """The path of a database with a few hundred pages, closed."""
    database = open_database(sqlite_url)
    database.migrate()
    with database.write() as connection:
        for number in range(200):
            blobs.put(database, connection, b"%d" % number + bytes(range(256)) * (number + 1))
    database.close()
    return tmp_path / "cohort.db"


def read_everything(url):
    database = open_database(url)
    try:
        database.migrate()
        with database.read() as connection:
            return connection.execute(select(table)).all()
    finally:
        database.close()


def test_a_page_that_was_overwritten_is_damage(filled, sqlite_url):
    data = bytearray(filled.read_bytes())
    root = 2 * PAGE_BYTES
    data[root : len(data) - PAGE_BYTES] = b"\xa5" * (len(data) - PAGE_BYTES - root)
    filled.write_bytes(data)
    with pytest.raises(CohortError) as caught:
        read_everything(sqlite_url)
    assert caught.value.code == "DATABASE_DAMAGED"
    assert str(filled) in caught.value.message
    assert filled.read_bytes() == data


def test_a_file_cut_in_half_is_damage(filled, sqlite_url):
    data = filled.read_bytes()
    filled.write_bytes(data[: len(data) // 2])
    with pytest.raises(CohortError) as caught:
        read_everything(sqlite_url)
    assert caught.value.code == "DATABASE_DAMAGED"


def test_text_that_is_not_unicode_is_damage_and_is_not_repeated(filled, sqlite_url):
    database = open_database(sqlite_url)
    with database.write() as connection:
        connection.exec_driver_sql("INSERT INTO facts VALUES (CAST(X'70726976617465FF' AS TEXT), '1')")

    def read():
        with database.read() as connection:
            connection.exec_driver_sql("SELECT name FROM facts").all()

    with pytest.raises(CohortError) as caught:
        read()
    database.close()
    assert caught.value.code == "DATABASE_DAMAGED"
    assert "private" not in caught.value.message
