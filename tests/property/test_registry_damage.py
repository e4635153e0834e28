"""Whatever byte of a stored release changes, it is noticed; no changed byte ever yields a different release."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.delivery.model import Release
from cohort.delivery.registry import SqlRegistry
from cohort.storage.database import Database, open_database
from manifest_texts import MANIFEST, bundle

COLUMNS = {
    "blobs": ("digest", "logical_bytes", "data"),
    "releases": ("digest", "service", "version", "kind", "manifest", "created_us", "created_by"),
}
LONG_PROMPT = "".join(f"Rule {number}: be kind.\n" for number in range(50))


def without_pointers(release: Release) -> Release:
    """Tags and `stable` point at releases and are not part of them."""
    return dataclasses.replace(release, tags=(), stable=False)


class House:
    """A registry with three releases that share parts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database: Database = open_database(f"sqlite:///{path}")
        self.database.migrate()
        self.registry = SqlRegistry(self.database, ManualClock())
        other = MANIFEST.replace("temperature: 0.2", "temperature: 0.3")
        bundles = [bundle(prompt=LONG_PROMPT), bundle(other, version="4.2.0", prompt=LONG_PROMPT), bundle(service="other")]
        self.releases = [without_pointers(self.registry.create(each, "alice").release) for each in bundles]


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> House:
    return House(tmp_path_factory.mktemp("registry") / "cohort.db")


def flipped(value: object, place: int, bit: int) -> bytes | int:
    """`value` with one bit changed."""
    if isinstance(value, int):
        return value ^ (1 << bit + place % 6 * 8)
    data = bytearray(value if isinstance(value, bytes) else str(value).encode())
    data[place % len(data)] ^= 1 << bit
    return bytes(data)


def change(database: Database, table: str, column: str, rowid: int, value: bytes | int, *, is_text: bool) -> None:
    new = "CAST(:value AS TEXT)" if is_text else ":value"
    with database.write() as connection:
        connection.execute(text(f"UPDATE {table} SET {column} = {new} WHERE rowid = :rowid"), {"value": value, "rowid": rowid})


def answer(registry: SqlRegistry, release: Release) -> str:
    """`whole`, `damaged`, or what else came of reading it."""
    try:
        registry.verify(release.digest)
        found = without_pointers(registry.find(release.digest))
    except CohortError as error:
        return "damaged" if error.code == "RELEASE_DAMAGED" and error.details["object"] else error.code
    return "whole" if found == release else "changed"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_of_a_stored_release_is_found(house, data):
    table = data.draw(st.sampled_from(sorted(COLUMNS)))
    column = data.draw(st.sampled_from(COLUMNS[table]))
    with house.database.read() as connection:
        rowids = connection.execute(text(f"SELECT rowid FROM {table} ORDER BY rowid")).scalars().all()
        rowid = data.draw(st.sampled_from(rowids))
        value = connection.execute(text(f"SELECT {column} FROM {table} WHERE rowid = :rowid"), {"rowid": rowid}).scalar_one()
    changed = flipped(value, data.draw(st.integers(0, 10_000)), data.draw(st.integers(0, 7)))
    is_text = isinstance(value, str)
    change(house.database, table, column, rowid, changed, is_text=is_text)
    try:
        answers = [answer(house.registry, release) for release in house.releases]
    finally:
        change(house.database, table, column, rowid, value.encode() if is_text else value, is_text=is_text)
    assert set(answers) <= {"whole", "damaged"}
    assert "damaged" in answers
    if table == "releases":
        assert answers.count("damaged") == 1
    house.registry.verify(house.releases[0].digest)


@pytest.fixture(scope="module")
def image(house) -> bytes:
    """The bytes of the whole database file."""
    house.database.close()
    return house.path.read_bytes()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_of_the_database_file_never_yields_another_release(house, image, tmp_path, place, bit):
    damaged = bytearray(image)
    damaged[int(place * len(damaged))] ^= 1 << bit
    for leftover in tmp_path.glob("copy.db*"):
        leftover.unlink()
    (tmp_path / "copy.db").write_bytes(damaged)
    database = open_database(f"sqlite:///{tmp_path / 'copy.db'}")
    registry = SqlRegistry(database, ManualClock())
    for release in house.releases:
        try:
            found = without_pointers(registry.find(release.digest))
        except (CohortError, DBAPIError):
            continue
        assert found == release
    database.close()
