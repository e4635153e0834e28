"""Content-addressed objects, on each store."""

from __future__ import annotations

import hashlib
import os

import pytest
from sqlalchemy import select, update

from cohort.base.errors import CohortError
from cohort.storage import blobs
from cohort.storage.schema import blobs as table


def put(database, data):
    with database.write() as connection:
        return blobs.put(database, connection, data)


def get(database, digest):
    with database.read() as connection:
        return blobs.get(connection, digest)


@pytest.mark.parametrize("data", [b"", b"x", b"text " * 1000, bytes(range(256)) * 10])
def test_what_was_put_comes_back_under_its_sha256(database, data):
    digest = put(database, data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert get(database, digest) == data


def test_a_big_object_comes_back(database):
    data = os.urandom(8 << 20)
    assert get(database, put(database, data)) == data


def test_an_object_too_big_is_refused(database):
    with pytest.raises(CohortError) as caught:
        put(database, bytes(blobs.BLOB_BYTES_MAX + 1))
    assert caught.value.code == "FILE_TOO_LARGE"


def test_the_same_bytes_are_stored_once(database):
    assert put(database, b"same" * 100) == put(database, b"same" * 100)
    with database.read() as connection:
        figures = blobs.stored(connection)
    assert figures.objects == 1
    assert figures.logical_bytes == 400
    assert 0 < figures.physical_bytes < 100


def test_an_empty_table_has_figures_too(database):
    with database.read() as connection:
        assert blobs.stored(connection) == blobs.Stored(0, 0, 0)


def test_an_object_of_a_transaction_that_failed_is_not_there(database):
    def fail():
        with database.write() as connection:
            blobs.put(database, connection, b"lost")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with pytest.raises(blobs.BlobDamaged, match="gone"):
        get(database, hashlib.sha256(b"lost").hexdigest())


def test_many_objects_are_read_at_once(database):
    with database.write() as connection:
        digests = [blobs.put(database, connection, b"%d" % number) for number in range(blobs.DIGESTS_PER_QUERY_MAX + 10)]
    with database.read() as connection:
        found = blobs.get_many(connection, digests)
    assert [found[digest] for digest in digests] == [b"%d" % number for number in range(len(digests))]


def test_every_changed_byte_is_found(database):
    digest = put(database, b"The quick brown fox. " * 20)
    with database.read() as connection:
        packed = connection.execute(select(table.c.data)).scalar_one()
    for place in range(len(packed)):
        changed = bytearray(packed)
        changed[place] ^= 1 << place % 8
        with database.write() as connection:
            connection.execute(update(table).values(data=bytes(changed)))
        with pytest.raises(blobs.BlobDamaged):
            get(database, digest)


@pytest.mark.parametrize("change", [{"data": b""}, {"data": b"abc"}, {"logical_bytes": 3}])
def test_a_changed_row_is_found(database, change):
    digest = put(database, b"content")
    with database.write() as connection:
        connection.execute(update(table).values(change))
    with pytest.raises(blobs.BlobDamaged) as caught:
        get(database, digest)
    assert caught.value.digest == digest


def test_the_bytes_of_another_object_are_found(database):
    digest, other = put(database, b"content"), put(database, b"another")
    with database.write() as connection:
        row = select(table.c.data).where(table.c.digest == other).scalar_subquery()
        connection.execute(update(table).where(table.c.digest == digest).values(data=row))
    with pytest.raises(blobs.BlobDamaged, match="digest"):
        get(database, digest)
