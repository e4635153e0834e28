"""The configured anchors together: sending checkpoints, keeping receipts, listening to what each place vouches for.

Nothing here ever holds up an append: a place that does not answer is `trouble` for people to see. A place that holds a checkpoint of this
log's own key which the log does not continue is proof that the log was rolled back or replaced; the log is then sealed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.kernel.audit.anchor_file import FileAnchor
from cohort.kernel.audit.anchor_syslog import LOCAL, SyslogAnchor
from cohort.kernel.audit.anchor_witness import WitnessAnchor
from cohort.kernel.audit.anchoring import Anchor, Dated, Sent, failed
from cohort.kernel.audit.diagnosis import Finding
from cohort.kernel.audit.log import SqlAuditLog
from cohort.kernel.audit.notes import Verifier, parse_vkey
from cohort.kernel.audit.ring import RingNow
from cohort.kernel.audit.store import Head, Rows
from cohort.kernel.audit.verify import Landmark
from cohort.kernel.model import Record, RecordKind
from cohort.storage.database import Database
from cohort.storage.schema import audit_anchors

EVERY_S = 60.0
EVERY_S_MIN = 1.0
STOP_WAIT_S = 15.0
NAME_CHARACTERS_MAX = 200
SYSLOG_PORT = 514
STAMP = "rfc3161:"
RECEIPTS_MAX = 100

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Heard:
    """What the anchors vouch for. `lines`: one for each, in words. `finding`: one that holds checkpoints which are not this log's."""

    landmarks: tuple[Landmark, ...] = ()
    lines: tuple[str, ...] = ()
    finding: Finding | None = None


def parse_anchor(text: str, origin: str, clock: Clock, host: str, database: Database) -> Anchor:
    """`file:/path`, `http(s)://host:port[#VKEY]`, `syslog:`, `syslog://host:port` or `rfc3161:http(s)://host/path#/path/to/ca.pem`.

    `database`: where receipts are kept. Errors: CONFIG_INVALID.
    """
    name, _, key = text.partition("#")
    if len(name) > NAME_CHARACTERS_MAX:
        raise _wrong(text, f"it is longer than {NAME_CHARACTERS_MAX} characters")
    if name.startswith("file:/"):
        return FileAnchor(name, Path(name.removeprefix("file:")), clock)
    if name in ("syslog", "syslog:"):
        return SyslogAnchor("syslog:", LOCAL, clock, host)
    if name.startswith(STAMP):
        return _stamping(text, name, key, database)
    try:
        parts = urlsplit(name)
        port = parts.port
    except ValueError as error:
        raise _wrong(text, str(error)) from error
    if parts.hostname and parts.scheme == "syslog":
        return SyslogAnchor(name, (parts.hostname, port or SYSLOG_PORT), clock, host)
    if parts.hostname and parts.scheme in ("http", "https") and parts.username is None:
        return WitnessAnchor(name, name, origin, _pinned(text, key))
    raise _wrong(text, "it is none of the known kinds")


def _stamping(text: str, name: str, certificates: str, database: Database) -> Anchor:
    from cohort.kernel.audit.anchor_stamp import StampAnchor, read_certificates  # only who has a time-stamping authority loads its parts

    url = name.removeprefix(STAMP)
    try:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ValueError("behind rfc3161: stands no address")
        trusted = read_certificates(Path(certificates))
    except ValueError as error:
        raise _wrong(text, str(error)) from error
    return StampAnchor(name, url, trusted, partial(_receipts, database, name))


def _receipts(database: Database, name: str) -> list[str]:
    """The newest of one anchor, oldest first."""
    with database.read() as connection:
        found = Rows(connection).all("SELECT receipt FROM audit_anchors WHERE anchor = ? ORDER BY size DESC LIMIT ?", [name, RECEIPTS_MAX])
    return [str(row[0]) for row in found[::-1]]


def _pinned(text: str, key: str) -> Verifier | None:
    try:
        return parse_vkey(key) if key else None
    except CohortError as error:
        raise _wrong(text, error.message) from error


def _wrong(text: str, why: str) -> CohortError:
    hint = "Write `file:/path`, `http://host:port#VKEY`, `syslog:`, `syslog://host:port` or `rfc3161:https://host/path#/path/to/ca.pem`."
    return CohortError("CONFIG_INVALID", f"the anchor {text[:80]!r} cannot be used: {why}", field="kernel.anchors", hint=hint)


class Anchors:
    """Safe to use from many threads. `log`: None where the log is only read, and nothing is sent."""

    def __init__(self, database: Database, clock: Clock, ring: RingNow, places: Sequence[Anchor], log: SqlAuditLog | None) -> None:
        self._database = database
        self._clock = clock
        self._ring = ring
        self._places = tuple(places)
        self._log = log
        self._failing: dict[str, str] = {}
        self._sending = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def trouble(self) -> tuple[str, ...]:
        """What did not work when it was last tried, one line for each place."""
        return tuple(self._failing.values())

    def start(self, every_s: float = EVERY_S) -> None:
        """Send what is new now and every `every_s`, in the background."""
        if self._places and self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(max(every_s, EVERY_S_MIN),), name="audit-anchors", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STOP_WAIT_S)

    def _run(self, every_s: float) -> None:
        while True:
            try:
                self.send(only_new=True)
            except Exception:  # a supervisor: the next round tries again
                _logger.exception("a round of anchoring failed")
            if self._stop.wait(every_s):
                return

    def hear(self) -> Heard:
        """Ask every place what it vouches for. One that does not answer is a line, not an error."""
        landmarks: list[Landmark] = []
        lines: list[str] = []
        finding: Finding | None = None
        for place in self._places:
            try:
                found = self._landmarks(place)
                line = place.said() if isinstance(place, Dated) else _heard_line(place.name, found)
            except CohortError as error:
                lines.append(error.message)
                finding = finding or (Finding(None, error.message) if error.code == "AUDIT_BROKEN" else None)
                continue
            landmarks += found or ()
            lines.append(line)
        return Heard(tuple(landmarks), tuple(lines), finding)

    def _landmarks(self, place: Anchor) -> list[Landmark] | None:
        """Errors: ANCHOR_FAILED; AUDIT_BROKEN: it holds checkpoints of another log or key."""
        notes = place.notes()
        if notes is None:
            return None
        ring = self._ring()  # after the notes: it is never older than they are
        if ring is None:
            raise failed(place.name, "cannot be compared: the log's key is missing", "Restore the key.")
        found = []
        for note in notes:
            try:
                checkpoint = ring.open(note)
            except CohortError as error:
                what = f"{place.name} holds a checkpoint that is not of this log and its key: {error.message}"
                raise CohortError("AUDIT_BROKEN", what, hint="Restore this log's key, or give the log another anchor.") from error
            if checkpoint.size:
                found.append(Landmark(place.name, checkpoint.size, checkpoint.root))
        return found

    def send(self, *, only_new: bool = False) -> list[Mapping[str, Any]]:
        """The newest checkpoint to every place, or to those that do not have everything but receipts; one result for each."""
        with self._sending:
            with self._database.read() as connection:
                head = Rows(connection).head()
            if head is None or self._log is None:
                return []
            return [self._one(place, head) for place in self._places if not only_new or self._is_due(place)]

    def _is_due(self, place: Anchor) -> bool:
        """Whether more was recorded than receipts of anchors since this place was last given a checkpoint, and it is not to be left alone."""
        with self._database.read() as connection:
            rows = Rows(connection)
            last = rows.one(
                "SELECT coalesce(max(size), 0), CAST(coalesce(max(at_us), 0) AS BIGINT) FROM audit_anchors WHERE anchor = ?", [place.name]
            )
            if last is not None and self._clock.now_us() - last[1] < place.pause_s * 1e6:
                return False
            news = rows.one("SELECT idx FROM audit_entries WHERE idx >= ? AND kind <> 'checkpoint' LIMIT 1", [last[0] if last else 0])
        return news is not None

    def _one(self, place: Anchor, head: Head) -> Mapping[str, Any]:
        try:
            self._refuse_contradiction(place, head)
            sent = place.send(head.note, head.size, lambda old: self._proof(old, head.size))
            self._keep(place, head, sent)
        except CohortError as error:
            self._failing[place.name] = error.message
            return {"anchor": place.name, "ok": False, "size": head.size, "detail": error.message}
        self._failing.pop(place.name, None)
        return {"anchor": place.name, "ok": True, "size": head.size, "detail": sent.detail}

    def _refuse_contradiction(self, place: Anchor, head: Head) -> None:
        """Seal the log when this place holds something the log's own key has signed and the log does not continue."""
        found = self._landmarks(place)
        if not found or self._log is None:
            return
        newest = max(found, key=lambda one: one.size)
        if newest.size > head.size:
            with self._database.read() as connection:
                now = Rows(connection).head()
            if now is None or newest.size > now.size:
                raise self._log.seal(f"{place.name} holds a signed checkpoint of {newest.size} records, and the log has {head.size}")
        elif self._root(newest.size) != newest.root:
            raise self._log.seal(f"{place.name} holds a signed checkpoint of {newest.size} records, and theirs are others")

    def _root(self, size: int) -> bytes:
        with self._database.read() as connection:
            return Rows(connection).tree().root(size)

    def _proof(self, old: int, size: int) -> list[bytes]:
        with self._database.read() as connection:
            return Rows(connection).tree().consistency(old, size)

    def _keep(self, place: Anchor, head: Head, sent: Sent) -> None:
        """The receipt: in its table, and as a record of the log."""
        values = {"receipt": sent.receipt, "root": head.root, "at_us": self._clock.now_us()}
        insert = self._database.upsert(audit_anchors).values(anchor=place.name, size=head.size, **values)
        with self._database.write() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=["anchor", "size"], set_=values))
        if self._log is not None:
            body = {"anchor": place.name, "size": head.size, "root": head.root.hex(), "receipt": sent.recorded or sent.receipt}
            self._log.append(Record(RecordKind.CHECKPOINT, body))


def _heard_line(name: str, found: Sequence[Landmark] | None) -> str:
    if found is None:
        return f"{name} cannot be asked"
    return f"{name} vouches for {max((one.size for one in found), default=0)} records"
