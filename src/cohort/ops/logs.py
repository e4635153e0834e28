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
    if size(path) <= bytes_max:
        return False
    aside = path.with_name(path.name + ".1")
    try:
        shutil.copyfile(path, aside)
    except OSError:
        aside.unlink(missing_ok=True)
    os.truncate(path, 0)
    return True


def size(path: Path) -> int:
    """In bytes; 0 when there is no such file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def last_lines(path: Path, count: int = LINES_SHOWN, since_byte: int = 0) -> list[str]:
    """At most the last `count` lines, of those behind `since_byte`; none when there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(min(since_byte, file.tell()), file.tell() - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []
