"""Who listens on a port, from Linux's /proc. Everywhere else, and for other users' processes: nobody knows."""

from __future__ import annotations

import os
from pathlib import Path

LISTEN = "0A"


def listener(port: int) -> int | None:
    """The id of a process that listens on TCP `port`; None when that cannot be told."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _inodes(Path("/proc/net") / table, port)}
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    return next((int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _holds(entry, wanted)), None)


def _inodes(table: Path, port: int) -> list[str]:
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == LISTEN and int(row[1].rsplit(":", 1)[1], 16) == port]


def _holds(entry: Path, wanted: set[str]) -> bool:
    try:
        return any(os.readlink(fd) in wanted for fd in (entry / "fd").iterdir())
    except OSError:
        return False  # it ended, or is not ours to look into
