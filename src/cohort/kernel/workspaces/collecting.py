"""Taking away the content of snapshots that nobody can reach: left by one that was cut short, or of a workspace removed long ago.

Content is stored before the snapshot that needs it exists, so what no snapshot names may be needed in a moment. Deleting and keeping are
therefore one after the other: both hold the same lock, deleting looks at the snapshots that have come since, keeping looks whether all it
needs is still there. Whatever is killed between two steps leaves content that the next round finds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.kernel.workspaces.manifests import decode
from cohort.storage import blobs
from cohort.storage.database import Database
from cohort.storage.schema import snapshot_blobs, workspace_snapshots, workspaces

LOCK = "snapshot blobs"
REMOVED_KEPT_US = 30 * 86_400_000_000
"""How long the snapshots of a removed workspace stay after they were made."""
FORGOTTEN_AT_ONCE = 100
DELETED_AT_ONCE = 200
DIGESTS_PER_QUERY = 500


@dataclass(frozen=True, slots=True)
class Collected:
    """What one round has taken away: snapshots of removed workspaces, and objects of content."""

    snapshots: int
    objects: int


def collect(database: Database, clock: Clock) -> Collected:
    """One round. Errors: those of `Database`; DATABASE_DAMAGED: a manifest cannot be read, and nothing is deleted."""
    forgotten = _forget(database, clock.now_us() - REMOVED_KEPT_US)
    with database.read() as connection:
        known = set(connection.execute(select(workspace_snapshots.c.id)).scalars())
        needed = _needed(connection, connection.execute(select(workspace_snapshots.c.digest)).scalars())
        stored = connection.execute(select(snapshot_blobs.c.digest)).scalars().all()
    spare = sorted(set(stored) - needed)
    deleted = 0
    for start in range(0, len(spare), DELETED_AT_ONCE):
        deleted += _delete(database, spare[start : start + DELETED_AT_ONCE], known)
    return Collected(forgotten, deleted)


def check_stored(connection: Connection, digests: Iterable[str]) -> None:
    """That all content a snapshot needs is there, under the lock that the caller holds. Errors: WORKSPACE_BUSY."""
    wanted = sorted(set(digests))
    found = 0
    for start in range(0, len(wanted), DIGESTS_PER_QUERY):
        chunk = wanted[start : start + DIGESTS_PER_QUERY]
        found += connection.execute(select(func.count()).select_from(snapshot_blobs).where(snapshot_blobs.c.digest.in_(chunk))).scalar_one()
    if found != len(wanted):
        what = "some of its content was taken away while it was read"
        raise CohortError("WORKSPACE_BUSY", what, retry=Retry.SAFE, hint="Ask again.")


def _forget(database: Database, before_us: int) -> int:
    """Snapshots of workspaces that are gone, some at a time."""
    gone = select(workspaces.c.id).where(workspaces.c.state == "removed")
    old = select(workspace_snapshots.c.id).where(workspace_snapshots.c.workspace.in_(gone), workspace_snapshots.c.created_us < before_us)
    with database.write() as connection:
        ids = connection.execute(old.limit(FORGOTTEN_AT_ONCE)).scalars().all()
        connection.execute(delete(workspace_snapshots).where(workspace_snapshots.c.id.in_(ids)))
    return len(ids)


def _delete(database: Database, spare: list[str], known: set[str]) -> int:
    """Of `spare`, what no snapshot needs that has come since; `known` grows by those."""
    with database.write() as connection:
        database.lock(connection, LOCK)
        rows = connection.execute(select(workspace_snapshots.c.id, workspace_snapshots.c.digest)).all()
        fresh = [row for row in rows if row.id not in known]
        needed = _needed(connection, [row.digest for row in fresh])
        chosen = [digest for digest in spare if digest not in needed]
        # Commit point. What is deleted here no snapshot names, and none that is kept after this can.
        return connection.execute(delete(snapshot_blobs).where(snapshot_blobs.c.digest.in_(chosen))).rowcount


def _needed(connection: Connection, manifests: Iterable[str]) -> set[str]:
    """The manifests themselves, and every part of a file that they name."""
    found: set[str] = set()
    for digest in set(manifests):
        try:
            manifest = decode(blobs.get(connection, digest, snapshot_blobs))
        except blobs.BlobDamaged as error:
            raise CohortError("DATABASE_DAMAGED", f"a snapshot cannot be read: {error}", hint="Restore the database.") from error
        found |= {digest, *(part for item in manifest.values() for part in item.parts)}
    return found
