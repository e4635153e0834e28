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
from cohort.kernel.audit.keys import create_key, read_key
from cohort.kernel.audit.log import SqlAuditLog
from cohort.kernel.audit.notes import Signer
from cohort.kernel.audit.recovery import State
from cohort.kernel.audit.store import Rows
from cohort.storage.database import Database

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
        """Close the actions that the last process left open, then anchor in the background; how many were closed.

        Call it before any action is taken. A broken log is left as it is, and one that cannot be written just now is closed at the next start.
        """
        self.anchors.start(every_s)
        if self.log.trouble is not None:
            return 0
        try:
            return recovery.close_orphans(self._database, self.log, self._clock)
        except CohortError as error:
            _logger.warning("actions that the last process left open stay open: %s", error.message)
            return 0

    def stop(self) -> None:
        """End the anchoring and take no more records."""
        self.anchors.stop()
        self.log.close()


def open_audit(
    database: Database, clock: Clock, entropy: Entropy, *, key_file: Path, origin: str, anchors: Sequence[str] = ()
) -> AuditRoom:
    """The log in `database`, whose tables are there.

    `origin` names a new log, for example `cohort.local/audit/in_x`; a log that exists keeps the name its key was made with. `anchors`: as in
    the settings, `file:/path`, `http(s)://host:port[#VKEY]`, `syslog:`, `syslog://host:port`.

    A log that is not the one that was signed, or whose key is gone, is opened to be read: `log.trouble` says why, and `append` refuses.

    Raises:
        CohortError CONFIG_INVALID: an anchor cannot be used, or the key file.
        CohortError: those of `Database`.
    """
    database = database.beside()  # what is decided in a transaction of the same database is recorded before that ends
    signer = _signer(database, key_file, origin, entropy)
    state = _state(database, signer)
    log = SqlAuditLog(database, clock, signer, entropy, state)
    verifier = signer.verifier if signer else None
    host = socket.gethostname()
    places = [parse_anchor(text, verifier.name if verifier else origin, clock, host) for text in anchors]
    heard = Anchors(database, clock, verifier, places, log)
    desk = AuditDesk(Parts(database, clock, verifier, heard, log))
    return AuditRoom(log, desk, heard, database, clock)


def _signer(database: Database, key_file: Path, origin: str, entropy: Entropy) -> Signer | None:
    """The key; a new one only for a new log, because a log that exists was signed by another."""
    signer = read_key(key_file)
    if signer is not None:
        return signer
    with database.read() as connection:
        rows = Rows(connection)
        fresh = rows.head() is None and rows.extent() == (0, 0)
    return create_key(key_file, origin, entropy) if fresh else None


def _state(database: Database, signer: Signer | None) -> State | CohortError:
    if signer is None:
        error = recovery.broken("its signing key is missing")
    else:
        try:
            return recovery.load(database, signer.verifier)
        except CohortError as found:
            if found.code not in ("AUDIT_BROKEN", "DATABASE_DAMAGED"):
                raise
            error = found if found.code == "AUDIT_BROKEN" else recovery.broken(found.message)
    _logger.error("%s", error.message)
    return error
