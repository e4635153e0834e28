"""Log files of child processes: bounded in size, and their last lines for people."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

LOG_BYTES_MAX = 16 << 20
LINES_SHOWN = 12
TAIL_BYTES = 16 << 10


def cap_log(path: Path, bytes_max: int = LOG_BYTES_MAX) -> bool:
    """Move the contents to `path.1` (replacing it) when they exceed `bytes_max`. True when that happened.

    Copies and truncates, because the writer keeps the file open for appending; lines written in between are lost.
    Without room for the copy (a full disk) the contents are dropped.
    """
    try:
        if path.stat().st_size <= bytes_max:
            return False
    except FileNotFoundError:
        return False
    aside = path.with_name(path.name + ".1")
    try:
        shutil.copyfile(path, aside)
    except OSError:
        aside.unlink(missing_ok=True)
    os.truncate(path, 0)
    return True


def last_lines(path: Path, count: int = LINES_SHOWN) -> list[str]:
    """At most the last `count` lines; none when there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []
