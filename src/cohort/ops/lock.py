"""One supervisor per data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class DirectoryLock:
    """A lock that ends with its process, however that ends. Children do not inherit it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> bool:
        """False when another process holds it."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def held(path: Path) -> bool:
    """Whether some process holds the lock now."""
    if not path.exists():
        return False
    probe = DirectoryLock(path)
    free = probe.acquire()
    probe.release()
    return not free


def free(path: Path) -> bool:
    """Whether the file is there and no process holds its lock."""
    return path.exists() and not held(path)
