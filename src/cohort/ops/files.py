"""Small files written whole or not at all, readable by their owner only."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from cohort.base.errors import CohortError, Retry

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


def write_private(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, durably.

    Raises:
        CohortError DISK_FULL: the old contents are still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # Commit point: before this line readers see the old contents, after it the new.
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(path.parent) from error
        raise


def write_json(path: Path, value: Any) -> None:
    write_private(path, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`; None when there is no such file or it is not a JSON object."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def disk_full(folder: Path) -> CohortError:
    return CohortError("DISK_FULL", f"no space left for {folder}", retry=Retry.SAFE, hint=f"Free space on the disk that holds {folder}.")
