"""Changing the log's keys. The log says that they changed, the key file says what they are, and a crash between the two leaves a mark in the
file that the log answers at the next start.

    mark in the key file  ->  record and checkpoint, in one transaction  ->  the file without the mark

The checkpoint over the record that adds a key is signed by the old key and the new one; so is each one after it, until a record retires
the old key. Who knows only the old key can verify the log up to there, and finds the new key in a record under that signature.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cohort.base.errors import CohortError
from cohort.base.ids import Entropy
from cohort.kernel.audit.entries import parse
from cohort.kernel.audit.keys import SEED_BYTES, Change, Held, Keys, write_keys
from cohort.kernel.audit.log import SqlAuditLog
from cohort.kernel.audit.merkle import leaf_hash, root_from_inclusion
from cohort.kernel.audit.notes import Signer, Verifier
from cohort.kernel.audit.ring import ACTIVE_MAX, KEYS_MAX, Term, refused
from cohort.kernel.audit.store import Head, Rows
from cohort.kernel.face import AuditKey
from cohort.kernel.model import Record, RecordKind
from cohort.storage.database import Database

ADDED, RETIRED = "audit_key_added", "audit_key_retired"
EVENTS = {Change.ADDING: ADDED, Change.RETIRING: RETIRED}


class Rotation:
    """Safe to use from many threads."""

    def __init__(self, log: SqlAuditLog, size: Callable[[], int], path: Path, entropy: Entropy) -> None:
        """`size`: how many records the log has."""
        self._log = log
        self._size = size
        self._path = path
        self._entropy = entropy
        self._changing = threading.Lock()

    def rotate(self, actor: str) -> AuditKey:
        """A new key beside the one in use; from now on both sign. `retire` ends the old one.

        Raises:
            CohortError AUDIT_KEY_REFUSED: two are active already.
            CohortError CONFIG_INVALID: the key file cannot be written. And those of `append`: the keys are what they were.
        """
        with self._changing:
            keys = self._keys()
            if len(keys.ring.active) >= ACTIVE_MAX:
                raise refused(f"{ACTIVE_MAX} keys are active", "Retire the older one first: `cohort audit key retire`.")
            if len(keys.held) >= KEYS_MAX:
                raise refused(f"the log has had {KEYS_MAX}", "Begin a new log.")
            signer = Signer.of(keys.ring.name, self._entropy(SEED_BYTES))
            return self._change(keys.adding(signer, self._size()), signer.verifier, actor)

    def retire(self, key_id: str | None, actor: str) -> AuditKey:
        """End a key: it signs nothing from now on, and its secret is gone. `key_id`: the older of two when it is None.

        Raises:
            CohortError NOT_FOUND: no active key has that id.
            CohortError AUDIT_KEY_REFUSED: it is the only one. And those of `rotate`.
        """
        with self._changing:
            keys = self._keys()
            active = keys.ring.active
            term = active[0] if key_id is None else next((one for one in active if one.verifier.id.hex() == key_id), None)
            if term is None:
                hint = "Use an id that `cohort audit key list` shows as active."
                raise CohortError("NOT_FOUND", f"no active key of the log has the id {str(key_id)[:40]!r}", field="key", hint=hint)
            if len(active) == 1:
                raise refused("it is the only one that is active", "Add its successor first: `cohort audit key rotate`.")
            return self._change(keys.retiring(term.verifier, self._size()), term.verifier, actor)

    def _change(self, marked: Keys, verifier: Verifier, actor: str) -> AuditKey:
        event = EVENTS[Change(marked.find(verifier).change or "")]
        write_keys(self._path, marked)
        try:
            # Commit point: the record, and the checkpoint over it by the new set of keys.
            self._log.rekey(
                Record(RecordKind.KEY, {"event": event, "vkey": verifier.vkey, "actor": actor}),
                lambda index: marked.changed(verifier, index),
            )
        except CohortError as error:
            if error.code != "OUTCOME_UNKNOWN":  # else the next start finds out
                write_keys(self._path, marked.unchanged(verifier))
            raise
        after = self._keys()
        write_keys(self._path, after)
        return key_view(after.find(verifier).term)

    def _keys(self) -> Keys:
        if self._log.keys is None or self._log.trouble is not None:
            raise self._log.trouble or CohortError("AUDIT_BROKEN", "the log has no key", hint="Restore the key file.")
        return self._log.keys


def settled(database: Database, keys: Keys) -> Keys:
    """The keys after every change that was under way when the last process ended: each happened if its record is under the checkpoint that
    the keys after it have signed. Nothing is written. May raise the errors of `Database`.
    """
    for one in [held for held in keys.held if held.change is not None]:
        with database.read() as connection:
            rows = Rows(connection)
            head, index = rows.head(), _recorded(rows, one)
            after = keys if index is None else keys.changed(one.term.verifier, index)
            happened = head is not None and index is not None and _under(rows, head, index, after)
        keys = after if happened else keys.unchanged(one.term.verifier)
    return keys


def _recorded(rows: Rows, held: Held) -> int | None:
    """Where the log says that the change of that key has happened."""
    wanted = (EVENTS[Change(held.change or "")], held.term.verifier.vkey)
    return next((index for index, entry in rows.of_kind(RecordKind.KEY.value, held.change_from) if _event(entry) == wanted), None)


def _event(entry: bytes) -> tuple[Any, Any] | None:
    try:
        body = parse(entry)["body"]
        return body.get("event"), body.get("vkey")
    except (CohortError, KeyError, AttributeError):
        return None


def _under(rows: Rows, head: Head, index: int, keys: Keys) -> bool:
    """Whether that record is under the newest checkpoint, and that one signed by these keys."""
    try:
        checkpoint = keys.ring.open(head.note)
        row, path = rows.row(index), rows.path(index, checkpoint.size)
    except CohortError:
        return False
    if row is None or path is None:
        return False
    return root_from_inclusion(leaf_hash(row.entry), index, checkpoint.size, path) == checkpoint.root


def key_view(term: Term) -> AuditKey:
    return AuditKey(term.verifier.id.hex(), term.verifier.vkey, term.active, term.since, term.until, term.text)
