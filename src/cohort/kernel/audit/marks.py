"""How far the log was found whole, signed, in a file beside its key: a start begins there, and need not believe what came since.

The text is no checkpoint: its first line can be no log's name, so that neither is ever taken for the other.
"""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cohort.base.errors import CohortError
from cohort.kernel.audit.keys import Keys, sync_folder
from cohort.kernel.audit.merkle import HASH_BYTES
from cohort.kernel.audit.notes import NOTE_BYTES_MAX, Note, base64_bytes, parse_note, signed_by, wrong

FIRST_LINE = "found whole by cohort"
NAME = "audit.verified"
DIGITS_MAX = 19

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mark:
    """The first `size` records were found whole, with this root."""

    size: int
    root: bytes

    def text(self, origin: str) -> str:
        return f"{FIRST_LINE}\n{origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


class Marks:
    """One file. It only ever helps: a mark that is not there, or not to be believed, is none."""

    def __init__(self, path: Path, keys: Callable[[], Keys | None]) -> None:
        self._path = path
        self._keys = keys

    def read(self) -> Mark | None:
        """The mark, if every active key has signed it."""
        keys = self._keys()
        try:
            with self._path.open(encoding="utf-8") as file:
                return None if keys is None else _opened(file.read(NOTE_BYTES_MAX), keys)
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, CohortError) as error:
            _log.warning("how far the audit log was found whole cannot be told from %s: %s", self._path, error)
            return None

    def write(self, mark: Mark) -> None:
        """Durably; what cannot be written is a warning, because the next start only has to read more."""
        keys = self._keys()
        if keys is None:
            return
        text = mark.text(keys.ring.name)
        note = Note(text, tuple(one.secret.sign(text) for one in keys.held if one.secret is not None and one.term in keys.ring.active))
        fresh = self._path.with_name(f"{self._path.name}.new")
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                file.write(str(note))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            _log.warning("how far the audit log was found whole cannot be written to %s: %s", self._path, error.strerror)


def _opened(text: str, keys: Keys) -> Mark:
    note = parse_note(text)
    active = [term.verifier for term in keys.ring.active]
    if len(signed_by(note, active)) < len(active):
        raise wrong("it is not signed by every active key of the log")
    lines = note.text.split("\n")
    if len(lines) != 5 or lines[:2] != [FIRST_LINE, keys.ring.name] or not lines[2].isdigit() or len(lines[2]) > DIGITS_MAX:
        raise wrong("it is not a mark of this log")
    root = base64_bytes(lines[3])
    if len(root) != HASH_BYTES:
        raise wrong("its root does not have 32 bytes")
    return Mark(int(lines[2]), root)
