"""The log's signing keys: a file of its own in the data directory, readable by its owner alone.

One line for each key, oldest first: its text as in `notes.py`, secret while it is active and public when it was retired, then `since N` and
`until N` as in `ring.py`. `adding N` and `retiring N` mark a change that a record at index N or behind it makes true; without that record it
did not happen.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from cohort.base.errors import CohortError
from cohort.base.ids import Entropy
from cohort.kernel.audit.notes import ED25519, SECRET_PREFIX, Checkpoint, Note, Signer, Verifier, parse_signer, parse_vkey
from cohort.kernel.audit.ring import KEYS_MAX, Ring, Term

SEED_BYTES = 32
LINE_BYTES_MAX = 512
DIGITS_MAX = 19


class Change(StrEnum):
    """What is happening to a key."""

    ADDING = "adding"
    RETIRING = "retiring"


@dataclass(frozen=True, slots=True)
class Held:
    """One line of the file. `secret`: None once the key is retired. `change`: under way since the log had `change_from` records."""

    term: Term
    secret: Signer | None
    change: Change | None = None
    change_from: int = 0

    @property
    def text(self) -> str:
        term = self.term.text
        if self.secret is not None:
            term = term.replace(self.term.verifier.vkey, self.secret.text, 1)
        return term if self.change is None else f"{term} {self.change.value} {self.change_from}"


@dataclass(frozen=True, slots=True)
class Keys:
    """What is in the file. At least one key is active and not being added."""

    held: tuple[Held, ...]

    @classmethod
    def of(cls, signer: Signer) -> Keys:
        return cls((Held(Term(signer.verifier), signer),))

    @property
    def ring(self) -> Ring:
        """Without a key that is only being added."""
        return Ring(tuple(one.term for one in self.held if one.change is not Change.ADDING))

    def signed(self, checkpoint: Checkpoint) -> Note:
        """By every key in whose term it lies."""
        settled = (one for one in self.held if one.change is not Change.ADDING)
        return checkpoint.signed(*(one.secret for one in settled if one.secret is not None and one.term.holds(checkpoint.size)))

    def find(self, verifier: Verifier) -> Held:
        return next(one for one in self.held if one.term.verifier == verifier)

    def adding(self, signer: Signer, size: int) -> Keys:
        """With a key that a record from `size` on will add."""
        return Keys((*self.held, Held(Term(signer.verifier), signer, Change.ADDING, size)))

    def retiring(self, verifier: Verifier, size: int) -> Keys:
        """With a key marked that a record from `size` on will retire."""
        return self._with(replace(self.find(verifier), change=Change.RETIRING, change_from=size))

    def changed(self, verifier: Verifier, index: int) -> Keys:
        """Record `index` has made the change of that key true. The secret of a retired key is gone."""
        one = self.find(verifier)
        if one.change is Change.ADDING:
            return self._with(Held(Term(verifier, index + 1), one.secret))
        return self._with(Held(replace(one.term, until=index), None))

    def unchanged(self, verifier: Verifier) -> Keys:
        """The change of that key did not happen."""
        one = self.find(verifier)
        if one.change is Change.ADDING:
            return Keys(tuple(other for other in self.held if other is not one))
        return self._with(replace(one, change=None, change_from=0))

    def _with(self, new: Held) -> Keys:
        return Keys(tuple(new if one.term.verifier == new.term.verifier else one for one in self.held))


def read_keys(path: Path) -> Keys | None:
    """The keys in the file; None when there is no file.

    Raises:
        CohortError CONFIG_INVALID: the file cannot be read, or holds something else.
    """
    try:
        with path.open(encoding="ascii") as file:
            return _parse(file.read(KEYS_MAX * LINE_BYTES_MAX))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, CohortError) as error:
        why = error.message if isinstance(error, CohortError) else str(error)
        raise CohortError(
            "CONFIG_INVALID", f"the key of the audit log, {path}, cannot be used: {why}", hint="Restore the file from a backup."
        ) from error


def read_key(path: Path) -> Signer | None:
    """The only key in the file. Errors: as `read_keys`."""
    keys = read_keys(path)
    return keys.held[0].secret if keys is not None else None


def create_key(path: Path, name: str, entropy: Entropy, kind: int = ED25519) -> Signer:
    """A new key, written durably before it is used; only its owner may read the file.

    Raises:
        CohortError CONFIG_INVALID: the file exists, or cannot be written.
    """
    signer = Signer.of(name, entropy(SEED_BYTES), kind)
    try:
        _write(path, signer.text + "\n")
        sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    return signer


def write_keys(path: Path, keys: Keys) -> None:
    """Put `keys` into the place of what the file holds: after a crash it has the one or the other.

    Raises:
        CohortError CONFIG_INVALID: it cannot be written; it holds what it held.
    """
    fresh = _unfinished(path)
    try:
        fresh.unlink(missing_ok=True)
        _write(fresh, "".join(f"{one.text}\n" for one in keys.held))
        fresh.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def drop_unfinished(path: Path) -> None:
    """Remove what a crash left beside the file: it may hold a secret. Errors: CONFIG_INVALID."""
    try:
        _unfinished(path).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _unwritable(path: Path, error: OSError) -> CohortError:
    what = f"the key of the audit log cannot be written to {path}: {error.strerror}"
    return CohortError("CONFIG_INVALID", what, hint="Choose a folder you may write to.")


def _parse(text: str) -> Keys:
    keys = Keys(tuple(_parse_line(line) for line in text.splitlines()))
    if not any(one.term.active and one.change is not Change.ADDING for one in keys.held):
        raise _wrong("no key in it is active")
    if len({one.term.verifier for one in keys.held}) < len(keys.held) or len({one.term.verifier.name for one in keys.held}) > 1:
        raise _wrong("its keys are not different ones of one name")
    return keys


def _parse_line(line: str) -> Held:
    key, *rest = line.split(" ")
    said = _said(rest)
    secret = parse_signer(key) if key.startswith(SECRET_PREFIX) else None
    term = Term(secret.verifier if secret else parse_vkey(key), said.get("since", 0), said.get("until"))
    change = next((change for change in Change if change.value in said), None)
    if (secret is None) != (term.until is not None):
        raise _wrong("a key in it is active without its secret, or retired with it")
    return Held(term, secret, change, said[change.value] if change else 0)


def _said(words: Sequence[str]) -> dict[str, int]:
    """`since 3 until 9` as a mapping."""
    names, numbers = words[::2], words[1::2]
    if len(names) != len(numbers) or not {*names} <= {"since", "until", *Change}:
        raise _wrong("behind a key stands something else than since, until, adding or retiring, and a number")
    if not all(number.isascii() and number.isdigit() and len(number) <= DIGITS_MAX for number in numbers):
        raise _wrong("behind since, until, adding or retiring stands no number")
    return dict(zip(names, map(int, numbers), strict=True))


def _wrong(why: str) -> CohortError:
    return CohortError("DOCUMENT_INVALID", why, hint="Restore the file from a backup.")
