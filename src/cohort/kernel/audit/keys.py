"""The log's signing key: a file of its own in the data directory, readable by its owner alone."""

from __future__ import annotations

import os
from pathlib import Path

from cohort.base.errors import CohortError
from cohort.base.ids import Entropy
from cohort.kernel.audit.notes import ED25519, Signer, parse_signer

SEED_BYTES = 32
KEY_FILE_BYTES_MAX = 4096


def read_key(path: Path) -> Signer | None:
    """The key in the file; None when there is no file.

    Raises:
        CohortError CONFIG_INVALID: the file cannot be read, or holds something else.
    """
    try:
        with path.open(encoding="ascii") as file:
            return parse_signer(file.read(KEY_FILE_BYTES_MAX))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, CohortError) as error:
        why = error.message if isinstance(error, CohortError) else str(error)
        raise CohortError(
            "CONFIG_INVALID", f"the key of the audit log, {path}, cannot be used: {why}", hint="Restore the file from a backup."
        ) from error


def create_key(path: Path, name: str, entropy: Entropy, kind: int = ED25519) -> Signer:
    """A new key, written durably before it is used; only its owner may read the file.

    Raises:
        CohortError CONFIG_INVALID: the file exists, or cannot be written.
    """
    signer = Signer.of(name, entropy(SEED_BYTES), kind)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(signer.text + "\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except OSError as error:
        what = f"the key of the audit log cannot be written to {path}: {error.strerror}"
        raise CohortError("CONFIG_INVALID", what, hint="Choose a folder you may write to.") from error
    return signer


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
