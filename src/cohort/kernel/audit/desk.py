"""People's side of the log: face `Audit`."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.kernel.audit import search, tiles, verify
from cohort.kernel.audit.anchors import Anchors
from cohort.kernel.audit.hashing import USUAL, Hashing
from cohort.kernel.audit.log import SqlAuditLog
from cohort.kernel.audit.marks import Mark, Marks
from cohort.kernel.audit.payloads import Payloads
from cohort.kernel.audit.proofs import TlogProof
from cohort.kernel.audit.recheck import Recheck
from cohort.kernel.audit.ring import RingNow
from cohort.kernel.audit.rotation import Rotation, key_view
from cohort.kernel.audit.store import Rows
from cohort.kernel.audit.verify import Landmark, Report
from cohort.kernel.face import AuditKey, AuditQuery, Entry, Proof, Verification
from cohort.kernel.model import Record, RecordKind
from cohort.storage.database import Database

NOTE_CHARACTERS_MAX = 4000
MARK_EVERY_S = 10.0
"""Between two marks of quick verifications: what a start has to read more for it is this much of a log."""
NO_DATA, VERIFIED, BROKEN = "no data", "verified", "broken"


@dataclass(frozen=True, slots=True)
class Parts:
    """What the desk speaks for. `log`, `rotation`: None where the log is only read."""

    database: Database
    clock: Clock
    ring: RingNow
    anchors: Anchors
    log: SqlAuditLog | None
    rotation: Rotation | None = None
    marks: Marks | None = None
    hashing: Hashing = USUAL


class AuditDesk:
    """Face `Audit`. Safe to use from many threads; every method may raise the errors of `Database`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._database = parts.database
        self._recheck = Recheck(parts.database, parts.ring, parts.marks.read if parts.marks else lambda: None)
        self._verifying = threading.Lock()
        self._done: tuple[int, int] | None = None
        self._marked: Mark | None = None
        self._mark_due_s = -math.inf
        self._sealed: CohortError | None = None  # what the log was sealed with when a verification did it
        self.payloads = Payloads(parts.database, parts.clock)

    @property
    def trouble(self) -> tuple[str, ...]:
        """What a person has to know now: the log is read-only, an anchor does not answer."""
        log = self._parts.log
        sealed = (log.trouble.message,) if log is not None and log.trouble is not None else ()
        return sealed + self._parts.anchors.trouble

    @property
    def vkey(self) -> str | None:
        """The newest public key, for verifiers elsewhere; None when it is missing."""
        ring = self._parts.ring()
        return ring.newest.vkey if ring else None

    def signing_keys(self) -> Sequence[AuditKey]:
        """Every key the log has had, the newest first; none when they are missing."""
        ring = self._parts.ring()
        return [key_view(term) for term in reversed(ring.terms)] if ring else []

    def rotate_key(self, actor: str) -> AuditKey:
        """As `Rotation.rotate`."""
        return self._rotation().rotate(actor)

    def retire_key(self, key: str | None, actor: str) -> AuditKey:
        """As `Rotation.retire`."""
        return self._rotation().retire(key, actor)

    def search(self, query: AuditQuery) -> Sequence[Entry]:
        return search.search(self._database, query)

    def entry(self, index: int) -> Entry:
        with self._database.read() as connection:
            row = Rows(connection).row(index) if 0 <= index < 1 << 63 else None
        if row is None:
            raise _no_record(index)
        return search.read(row.index, row.entry, row.leaf)

    def size(self) -> int:
        with self._database.read() as connection:
            head = Rows(connection).head()
        return head.size if head else 0

    def checkpoint(self) -> str:
        """The newest signed note. Errors: NOT_FOUND: nothing was recorded yet."""
        with self._database.read() as connection:
            head = Rows(connection).head()
        if head is None:
            raise CohortError("NOT_FOUND", "the audit log is empty; it has no checkpoint", hint="Record something first.")
        return head.note

    def verify(self, *, full: bool = True, progress: Callable[[int, int], None] | None = None) -> Verification:
        """`full`: every entry, checkpoint, payload and anchor. Otherwise what came since the last verification in this process.

        A log that is found broken is read-only in this process from then on, until a full verification finds it whole again, and that is
        recorded.
        """
        start_s = self._parts.clock.monotonic_s()
        with self._verifying:
            try:
                answer = self._full(progress) if full else self._recheck.run()
            except CohortError as error:
                if error.code != "DATABASE_DAMAGED":
                    raise
                answer = _damaged(error)
            self._judge(answer, full)
            if answer["integrity"] == VERIFIED:
                self._mark(full)
        duration_us = int((self._parts.clock.monotonic_s() - start_s) * 1e6)
        return Verification(**answer, duration_us=duration_us)

    def _mark(self, full: bool) -> None:
        """Leave word for the next process, when there is something new to say; of quick verifications not after each, as it costs two syncs."""
        mark, now_s = self._recheck.found_whole, self._parts.clock.monotonic_s()
        due = full or now_s >= self._mark_due_s
        if self._parts.marks is not None and mark is not None and mark != self._marked and due:
            self._parts.marks.write(mark)
            self._marked, self._mark_due_s = mark, now_s + MARK_EVERY_S

    def _judge(self, answer: Mapping[str, Any], full: bool) -> None:
        """Seal a log that this verification found broken; open one that only a verification had sealed."""
        log = self._parts.log
        if log is None:
            return
        if answer["integrity"] == BROKEN and log.trouble is None:
            self._sealed = log.seal(_place(answer))
        elif answer["integrity"] == VERIFIED and full and self._sealed is not None and log.trouble is self._sealed:
            why, self._sealed = self._sealed.message, None
            log.unseal()
            log.append(Record(RecordKind.NOTE, {"note": "whole_again", "was": why}))

    def verifying(self) -> tuple[int, int] | None:
        """How many records the full verification that runs now has done, and of how many; None when none runs."""
        return self._done

    def _checked(self, landmarks: Sequence[Landmark], progress: Callable[[int, int], None] | None) -> Report:
        def noted(done: int, count: int) -> None:
            self._done = (done, count)
            if progress is not None:
                progress(done, count)

        try:
            return verify.check(self._database, self._parts.ring, landmarks, noted, self._parts.hashing)
        finally:
            self._done = None

    def _full(self, progress: Callable[[int, int], None] | None) -> dict[str, Any]:
        heard = self._parts.anchors.hear()
        report = self._checked(heard.landmarks, progress)
        finding = report.finding or heard.finding
        if finding is None:
            self._recheck.remember(report.frontier, report.open_intents)
        empty = report.size == 0 and finding is None
        return {
            "integrity": NO_DATA if empty else BROKEN if finding else VERIFIED,
            "size": report.size,
            "root": report.root.hex() if report.root else None,
            "first_bad": finding.index if finding else None,
            "why": finding.why if finding else "",
            "complete": not report.open_intents,
            "open_intents": report.open_intents,
            "anchored_size": report.anchored,
            "anchors": heard.lines,
        }

    def prove(self, index: int) -> Proof:
        """Errors: NOT_FOUND."""
        with self._database.read() as connection:
            rows = Rows(connection)
            head, row = rows.head(), rows.row(index) if 0 <= index < 1 << 63 else None
            if head is None or row is None or index >= head.size:
                raise _no_record(index)
            path = rows.tree().inclusion(index, head.size)
        return Proof(index, row.entry, TlogProof(index, row.entry, tuple(path), head.note).text)

    def export(self, folder: str) -> Mapping[str, Any]:
        """Errors: FIELD_INVALID: the folder is not empty or cannot be written; NOT_FOUND: the log is empty."""
        note, ring = self.checkpoint(), self._parts.ring()
        return tiles.export(self._database, note, ring.text if ring else None, Path(folder))

    def anchor(self) -> Sequence[Mapping[str, Any]]:
        """One result for each anchor: `anchor`, `ok`, `size`, `detail`. A failure is a result, not an error."""
        return self._parts.anchors.send()

    def note(self, text: str, actor: str) -> int:
        """Errors: FIELD_INVALID, and those of `append`."""
        if not 1 <= len(text) <= NOTE_CHARACTERS_MAX:
            hint = f"Use 1 to {NOTE_CHARACTERS_MAX} characters."
            raise CohortError("FIELD_INVALID", f"a note of {len(text)} characters", field="text", hint=hint)
        return self._writing().append(Record(RecordKind.NOTE, {"note": "remark", "text": text, "actor": actor})).index

    def erase(self, subject: str, actor: str) -> int:
        """Remove every private payload about `subject`, and record that; how many those were. Errors: as `append`."""
        log = self._writing()
        erased = self.payloads.erase(subject)
        if erased:
            log.append(Record(RecordKind.NOTE, {"note": "payloads_erased", "records": erased, "actor": actor}))
        return len(erased)

    def _rotation(self) -> Rotation:
        if self._parts.rotation is None:
            raise _read_only()
        return self._parts.rotation

    def _writing(self) -> SqlAuditLog:
        log = self._parts.log
        if log is None or log.trouble is not None:
            raise (log.trouble if log and log.trouble else _read_only())
        return log


def _place(answer: Mapping[str, Any]) -> str:
    place, why = f"record {answer['first_bad']}", str(answer["why"])
    return why if answer["first_bad"] is None or place in why else f"{place}: {why}"


def _damaged(error: CohortError) -> dict[str, Any]:
    """The fields of a `Verification` of a file that cannot be read to its end."""
    return {
        "integrity": BROKEN,
        "size": 0,
        "root": None,
        "first_bad": None,
        "why": error.message,
        "complete": False,
        "open_intents": (),
        "anchored_size": 0,
        "anchors": (),
    }


def _no_record(index: int) -> CohortError:
    return CohortError("NOT_FOUND", f"the audit log has no record {index}", field="index", hint="Use an index below the log's size.")


def _read_only() -> CohortError:
    return CohortError("AUDIT_UNAVAILABLE", "the audit log was opened only to be read", hint="Start Cohort to write to it.")
