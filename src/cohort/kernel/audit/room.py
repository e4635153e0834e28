"""The room put together: what `compose` calls."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.base.ids import Entropy
from cohort.kernel.audit import recovery
from cohort.kernel.audit.anchors import EVERY_S, Anchors, parse_anchor
from cohort.kernel.audit.desk import AuditDesk, Parts
from cohort.kernel.audit.hashing import USUAL, Hashing
from cohort.kernel.audit.keys import Keys, create_key, drop_unfinished, read_keys, write_keys
from cohort.kernel.audit.log import Batching, SqlAuditLog
from cohort.kernel.audit.marks import NAME, Marks
from cohort.kernel.audit.recovery import State
from cohort.kernel.audit.rotation import Rotation, settled
from cohort.kernel.audit.store import Rows
from cohort.storage.database import Database

CHECKPOINT_PAGES = 8192
"""32 MiB. A batch of records touches as many index pages as it has agents and actions; copied seldom, most of them are copied once."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AuditRoom:
    """`log` is the port `AuditLog`, `desk` the face `Audit`."""

    log: SqlAuditLog
    desk: AuditDesk
    anchors: Anchors
    _database: Database
    _clock: Clock

    def start(self, every_s: float = EVERY_S) -> int:
        """Verify what was recorded since the log was last found whole, close the actions that the last process left open, then anchor in the
        background; how many were closed.

        Call it before any action is taken. A broken log is left as it is, and one that cannot be written just now is closed at the next start.
        """
        self._verify()
        self.anchors.start(every_s)
        if self.log.trouble is not None:
            return 0
        try:
            return recovery.close_orphans(self._database, self.log, self._clock)
        except CohortError as error:
            _logger.warning("actions that the last process left open stay open: %s", error.message)
            return 0

    def _verify(self) -> None:
        if self.log.trouble is not None:
            return
        try:
            found = self.desk.verify(full=False)
        except CohortError as error:
            _logger.warning("the newest records of the audit log could not be verified: %s", error.message)
            return
        if found.integrity == "broken":
            _logger.error("the audit log is broken: %s; no action of an agent runs", found.why)

    def stop(self) -> None:
        """End the anchoring and take no more records."""
        self.anchors.stop()
        self.log.close()


def open_audit(
    database: Database,
    clock: Clock,
    entropy: Entropy,
    *,
    key_file: Path,
    origin: str,
    anchors: Sequence[str] = (),
    batching: Batching | None = None,
    hashing: Hashing = USUAL,
) -> AuditRoom:
    """The log in `database`, whose tables are there.

    `origin` names a new log, for example `cohort.local/audit/in_x`; a log that exists keeps the name its key was made with. `anchors`: as in
    the settings, as `parse_anchor` reads them.

    A log that is not the one that was signed, or whose key is gone, is opened to be read: `log.trouble` says why, and `append` refuses.

    Raises:
        CohortError CONFIG_INVALID: an anchor cannot be used, or the key file.
        CohortError: those of `Database`.
    """
    database = database.beside()  # what is decided in a transaction of the same database is recorded before that ends
    keys, state = _opened(database, key_file, origin, entropy)
    log = SqlAuditLog(database, clock, keys, entropy, state, batching)
    host = socket.gethostname()
    places = [parse_anchor(text, keys.ring.name if keys else origin, clock, host, database) for text in anchors]
    heard = Anchors(database, clock, log.ring, places, log)
    rotation = Rotation(log, lambda: desk.size(), key_file, entropy)
    marks = Marks(key_file.with_name(NAME), lambda: log.keys)
    desk = AuditDesk(Parts(database, clock, log.ring, heard, log, rotation, marks, hashing))
    return AuditRoom(log, desk, heard, database, clock)


def _opened(database: Database, key_file: Path, origin: str, entropy: Entropy) -> tuple[Keys | None, State | CohortError]:
    """The keys and where the log stands. A change of keys that the last process did not finish is finished or undone."""
    found = _keys(database, key_file, origin, entropy)
    if found is None:
        return None, _told(recovery.broken("its signing key is missing"))
    try:
        keys = settled(database, found)
        state = recovery.load(database, keys.ring)
    except CohortError as error:
        if error.code not in ("AUDIT_BROKEN", "DATABASE_DAMAGED"):
            raise
        return found, _told(error if error.code == "AUDIT_BROKEN" else recovery.broken(error.message))
    if keys != found:
        write_keys(key_file, keys)
        _logger.warning("a change of the audit log's keys that control's end had interrupted is settled: %d active", len(keys.ring.active))
    return keys, state


def _keys(database: Database, key_file: Path, origin: str, entropy: Entropy) -> Keys | None:
    """The keys; a new one only for a new log, because a log that exists was signed by another."""
    drop_unfinished(key_file)
    keys = read_keys(key_file)
    if keys is not None:
        return keys
    with database.read() as connection:
        rows = Rows(connection)
        fresh = rows.head() is None and rows.extent() == (0, 0)
    return Keys.of(create_key(key_file, origin, entropy)) if fresh else None


def _told(error: CohortError) -> CohortError:
    _logger.error("%s", error.message)
    return error
