"""Snapshots of workspaces in the database: content once per digest, however many snapshots and workspaces have it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, select, update

from cohort.base.canonical import sha256_hex
from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.base.ids import Entropy, SnapshotId, WorkspaceId, new_id
from cohort.kernel.model import Place, Snapshot
from cohort.kernel.workspaces import collecting, scanning
from cohort.kernel.workspaces.beneath import Opener, Tree, in_our_words
from cohort.kernel.workspaces.collecting import Collected
from cohort.kernel.workspaces.manifests import Manifest, decode, encode, total_bytes
from cohort.kernel.workspaces.scanning import PART_BYTES, Scanner
from cohort.storage import blobs
from cohort.storage.database import Database
from cohort.storage.schema import snapshot_blobs, workspace_snapshots, workspaces

BYTES_MAX = 4 << 30
"""Of the files in one snapshot."""
PER_WORKSPACE_MAX = 1000
LISTED_MAX = 200
DIGESTS_PER_QUERY = 500


@dataclass(frozen=True, slots=True)
class Prepared:
    """A snapshot whose content is stored, and which exists for nobody yet."""

    snapshot: Snapshot
    manifest: Manifest


class Snapshots:
    """Safe to use from many threads, for different workspaces at once; the caller holds the workspace still."""

    def __init__(self, database: Database, clock: Clock, opener: Opener, entropy: Entropy) -> None:
        self._database = database
        self._clock = clock
        self._opener = opener
        self._entropy = entropy
        self._scanner = Scanner(opener)
        self._lock = threading.Lock()
        self._preparing = 0

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """From preparing a snapshot to keeping it nothing is collected."""
        with self._lock:
            self._preparing += 1
        try:
            yield
        finally:
            with self._lock:
                self._preparing -= 1

    def collect(self) -> Collected | None:
        """Take away what no snapshot needs; None while one is being made. Errors: as `collecting.collect`."""
        with self._lock:
            return collecting.collect(self._database, self._clock) if self._preparing == 0 else None

    def scan(self, place: Place) -> Manifest:
        """What is there now. Errors: those of `Scanner.scan`."""
        return self._scanner.scan(place)

    def prepare(self, place: Place, reason: str) -> Prepared:
        """Store everything a snapshot of now needs.

        Raises:
            CohortError FILE_TOO_LARGE: more than `BYTES_MAX`, or too many entries.
            CohortError QUOTA_EXCEEDED: the workspace has `PER_WORKSPACE_MAX` snapshots.
            CohortError WORKSPACE_BUSY: something changes while it is read.
        """
        self._check_count(place.workspace)
        manifest = self.scan(place)
        if total_bytes(manifest) > BYTES_MAX:
            message = f"the workspace has {total_bytes(manifest)} bytes; a snapshot holds at most {BYTES_MAX}"
            raise CohortError("FILE_TOO_LARGE", message, hint="Delete what can be made again.")
        self._store_content(place, manifest)
        encoded = encode(manifest)
        with self._database.write() as connection:
            blobs.put(self._database, connection, encoded, snapshot_blobs)
        id_ = SnapshotId(new_id("sn", self._entropy))
        files = sum(item.kind == "file" for item in manifest.values())
        now_us = self._clock.now_us()
        return Prepared(Snapshot(id_, place.workspace, sha256_hex(encoded), files, total_bytes(manifest), now_us, reason), manifest)

    def keep(self, prepared: Prepared, actor: str, *, as_base: bool) -> None:
        """Make the snapshot exist; `as_base`: later differences are to it. Errors: WORKSPACE_BUSY (its content was collected meanwhile)."""
        snapshot = prepared.snapshot
        row = {"id": snapshot.id, "workspace": snapshot.workspace, "digest": snapshot.digest, "files": snapshot.files}
        row |= {"bytes": snapshot.bytes, "created_us": snapshot.created_us, "created_by": actor, "reason": snapshot.reason}
        needed = (snapshot.digest, *(digest for item in prepared.manifest.values() for digest in item.parts))
        with self._database.write() as connection:
            self._database.lock(connection, collecting.LOCK)
            collecting.check_stored(connection, needed)
            connection.execute(workspace_snapshots.insert().values(row))
            if as_base:
                connection.execute(update(workspaces).where(workspaces.c.id == snapshot.workspace).values(base=snapshot.id))

    def find(self, workspace: WorkspaceId, snapshot: SnapshotId) -> Snapshot:
        """Errors: SNAPSHOT_UNKNOWN, also when it is another workspace's."""
        wanted = select(workspace_snapshots).where(workspace_snapshots.c.id == snapshot, workspace_snapshots.c.workspace == workspace)
        with self._database.read() as connection:
            row = connection.execute(wanted).one_or_none()
        if row is None:
            raise CohortError("SNAPSHOT_UNKNOWN", f"{workspace} has no snapshot {snapshot[:80]!r}", hint="List its snapshots.")
        return _snapshot(row)

    def listed(self, workspace: WorkspaceId) -> Sequence[Snapshot]:
        """The newest `LISTED_MAX`, newest first."""
        table = workspace_snapshots
        order = (table.c.created_us.desc(), table.c.id.desc())
        with self._database.read() as connection:
            rows = connection.execute(select(table).where(table.c.workspace == workspace).order_by(*order).limit(LISTED_MAX)).all()
        return [_snapshot(row) for row in rows]

    def manifest(self, snapshot: Snapshot | None) -> Manifest:
        """What was there; of None: nothing."""
        return decode(self.content(snapshot.digest)) if snapshot is not None else {}

    def content(self, digest: str) -> bytes:
        """Errors: DATABASE_DAMAGED."""
        with self._database.read() as connection:
            try:
                return blobs.get(connection, digest, snapshot_blobs)
            except blobs.BlobDamaged as error:
                raise CohortError("DATABASE_DAMAGED", f"a snapshot cannot be read: {error}", hint="Restore the database.") from error

    def current(self, place: Place, path: str) -> bytes:
        """The first `PART_BYTES` of a file as it is now."""
        with in_our_words(path), Tree(place.root, self._opener) as tree:
            return next(scanning.parts(tree, path), b"")

    def apply(self, place: Place, wanted: Manifest) -> None:
        """Make the workspace be as `wanted`. Repeatable after being killed anywhere. Errors: QUOTA_EXCEEDED, when it does not fit."""
        scanning.apply(place, self._opener, self.scan(place), wanted, self.content)

    def _check_count(self, workspace: WorkspaceId) -> None:
        count = select(func.count()).select_from(workspace_snapshots).where(workspace_snapshots.c.workspace == workspace)
        with self._database.read() as connection:
            if connection.execute(count).scalar_one() >= PER_WORKSPACE_MAX:
                message = f"{workspace} has {PER_WORKSPACE_MAX} snapshots"
                raise CohortError("QUOTA_EXCEEDED", message, hint="Register a new agent to go on with snapshots.")

    def _store_content(self, place: Place, manifest: Manifest) -> None:
        stored = self._stored({digest for item in manifest.values() for digest in item.parts})
        with in_our_words("the workspace"), Tree(place.root, self._opener) as tree:
            batch: dict[str, bytes] = {}
            for digest, part in _missing(tree, manifest, stored):
                batch[digest] = part
                if sum(map(len, batch.values())) >= PART_BYTES:  # one transaction each: other writers get their turn
                    self._put(batch)
                    batch = {}
            self._put(batch)

    def _put(self, batch: dict[str, bytes]) -> None:
        if batch:
            with self._database.write() as connection:
                for part in batch.values():
                    blobs.put(self._database, connection, part, snapshot_blobs)

    def _stored(self, digests: set[str]) -> set[str]:
        wanted = sorted(digests)
        found: set[str] = set()
        with self._database.read() as connection:
            for start in range(0, len(wanted), DIGESTS_PER_QUERY):
                chunk = wanted[start : start + DIGESTS_PER_QUERY]
                found.update(connection.execute(select(snapshot_blobs.c.digest).where(snapshot_blobs.c.digest.in_(chunk))).scalars())
        return found


def _missing(tree: Tree, manifest: Manifest, stored: set[str]) -> Iterator[tuple[str, bytes]]:
    """Each part that is not stored yet, read again and compared with what was scanned."""
    for path, item in manifest.items():
        if set(item.parts) <= stored:
            continue
        found = 0
        for digest, part in zip(item.parts, scanning.parts(tree, path), strict=False):
            if sha256_hex(part) != digest:
                raise scanning.changing(path)
            found += 1
            if digest not in stored:
                stored.add(digest)
                yield digest, part
        if found != len(item.parts):
            raise scanning.changing(path)


def _snapshot(row: Row[Any]) -> Snapshot:
    return Snapshot(SnapshotId(row.id), WorkspaceId(row.workspace), row.digest, row.files, row.bytes, row.created_us, row.reason)
