"""Bytes named by what they are: zstandard in the table `blobs`, each object once, checked at every read.

A stored object is a CRC-32 of the frame (4 bytes, big endian) and the zstandard frame. The digest alone would miss a changed bit that
decodes to the same content, and a frame has such bits; the CRC finds every single changed byte.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import zstandard
from sqlalchemy import Connection, Table, func, select

from cohort.base.errors import CohortError
from cohort.storage.database import Database
from cohort.storage.schema import blobs

BLOB_BYTES_MAX = 64 << 20
COMPRESSION_LEVEL = 6
CRC_BYTES = 4
DIGESTS_PER_QUERY_MAX = 500


class BlobDamaged(Exception):
    """The stored object is not what its digest says, or is gone."""

    def __init__(self, digest: str, why: str) -> None:
        super().__init__(f"blob {digest[:12]}: {why}")
        self.digest = digest
        self.why = why


@dataclass(frozen=True, slots=True)
class Stored:
    """What the table holds. `physical_bytes` are those of the compressed objects, without the database's own."""

    objects: int
    logical_bytes: int
    physical_bytes: int


def put(database: Database, connection: Connection, data: bytes, table: Table = blobs) -> str:
    """Store `data` in the caller's transaction, unless it is there already; returns its digest. `table`: `blobs`, or one like it.

    Raises:
        CohortError FILE_TOO_LARGE: more than `BLOB_BYTES_MAX`.
    """
    if len(data) > BLOB_BYTES_MAX:
        raise CohortError("FILE_TOO_LARGE", f"an object of {len(data)} bytes; at most {BLOB_BYTES_MAX}", hint="Store it elsewhere.")
    digest = hashlib.sha256(data).hexdigest()
    row = {"digest": digest, "logical_bytes": len(data), "data": _pack(data)}
    connection.execute(database.upsert(table).values(row).on_conflict_do_nothing(index_elements=["digest"]))
    return digest


def get(connection: Connection, digest: str, table: Table = blobs) -> bytes:
    """The bytes named `digest`.

    Raises:
        BlobDamaged: they are gone, or no longer those.
    """
    return get_many(connection, [digest], table)[digest]


def get_many(connection: Connection, digests: Iterable[str], table: Table = blobs) -> Mapping[str, bytes]:
    """As `get`, for several at once.

    Raises:
        BlobDamaged: the first one found damaged.
    """
    wanted = sorted(set(digests))
    found: dict[str, bytes] = {}
    for start in range(0, len(wanted), DIGESTS_PER_QUERY_MAX):
        chunk = wanted[start : start + DIGESTS_PER_QUERY_MAX]
        rows = connection.execute(select(table.c.digest, table.c.logical_bytes, table.c.data).where(table.c.digest.in_(chunk)))
        found.update((digest, _unpack(digest, logical_bytes, data)) for digest, logical_bytes, data in rows)
    for digest in wanted:
        if digest not in found:
            raise BlobDamaged(digest, "it is gone")
    return found


def stored(connection: Connection) -> Stored:
    """Figures of the whole table."""
    size = func.coalesce(func.sum(func.length(blobs.c.data)), 0)
    row = connection.execute(select(func.count(), func.coalesce(func.sum(blobs.c.logical_bytes), 0), size).select_from(blobs)).one()
    return Stored(int(row[0]), int(row[1]), int(row[2]))


def _pack(data: bytes) -> bytes:
    frame = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(data)
    return zlib.crc32(frame).to_bytes(CRC_BYTES, "big") + frame


def _unpack(digest: str, logical_bytes: object, packed: object) -> bytes:
    if not isinstance(packed, bytes) or not isinstance(logical_bytes, int):
        raise BlobDamaged(digest, "its row does not hold bytes and a length")
    crc, frame = packed[:CRC_BYTES], packed[CRC_BYTES:]
    if crc != zlib.crc32(frame).to_bytes(CRC_BYTES, "big"):
        raise BlobDamaged(digest, "its stored bytes have changed")
    data = _decompress(digest, frame)
    if len(data) != logical_bytes:
        raise BlobDamaged(digest, f"it has {len(data)} bytes, its row says {logical_bytes}")
    if hashlib.sha256(data).hexdigest() != digest:
        raise BlobDamaged(digest, "its content does not have this digest")
    return data


def _decompress(digest: str, frame: bytes) -> bytes:
    try:
        if zstandard.frame_content_size(frame) > BLOB_BYTES_MAX:
            raise BlobDamaged(digest, f"its frame claims more than {BLOB_BYTES_MAX} bytes")
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=BLOB_BYTES_MAX)
    except zstandard.ZstdError as error:
        raise BlobDamaged(digest, f"it cannot be decompressed: {error}") from error
