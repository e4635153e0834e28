"""Writes objects to a database until it refuses, and remembers what was committed."""

from __future__ import annotations

import os

from cohort.base.errors import CohortError
from cohort.storage import blobs
from cohort.storage.database import Database


def noise(number: int) -> bytes:
    """Bytes that do not compress, different for each number."""
    return os.urandom(40_000) + b"%d" % number


def write_until_refused(database: Database) -> tuple[dict[str, bytes], CohortError]:
    """What was committed before the disk was full, and the error."""
    kept: dict[str, bytes] = {}
    for number in range(10_000):
        data = noise(number)
        try:
            with database.write() as connection:
                digest = blobs.put(database, connection, data)
        except CohortError as error:
            return kept, error
        kept[digest] = data
    raise AssertionError("the disk did not fill")


def stored(database: Database, kept: dict[str, bytes]) -> dict[str, bytes]:
    with database.read() as connection:
        return dict(blobs.get_many(connection, kept))
