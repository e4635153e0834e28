"""openat2, for the few paths below a workspace that the sandbox itself has to look at: a path there is what an agent made of it."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable

OPENAT2 = 437
NO_MAGICLINKS, NO_SYMLINKS, BENEATH = 0x02, 0x04, 0x08

_libc = ctypes.CDLL(None, use_errno=True)


def identities(root: str, paths: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Device and inode of those of `paths` below `root` that there are, each reached through directories only.

    Raises:
        OSError: a path, or something on the way to it, is a symbolic link (ELOOP), or no openat2 (ENOSYS). `filename` is the path.
    """
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = {path: _deep(top, path) if "/" in path else _flat(top, path) for path in paths}
    finally:
        os.close(top)
    return {path: identity for path, identity in found.items() if identity is not None}


def _flat(top: int, name: str) -> tuple[int, int] | None:
    """As `_deep`, of a name without folders: there is nothing on the way, so one look at what it is says all."""
    try:
        found = os.stat(name, dir_fd=top, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode) or name in ("", ".", ".."):
        raise _refused(errno.ELOOP, name)
    return found.st_dev, found.st_ino


def _deep(top: int, path: str) -> tuple[int, int] | None:
    fd = _opened(top, path)
    if fd is None:
        return None
    try:
        found = os.fstat(fd)
        return found.st_dev, found.st_ino
    finally:
        os.close(fd)


def look(root: str, path: str) -> int | None:
    """An O_PATH descriptor of `path` below `root`; None when there is nothing. Errors: as `identities`."""
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _opened(top, path)
    finally:
        os.close(top)


def _opened(top: int, path: str) -> int | None:
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, NO_MAGICLINKS | NO_SYMLINKS | BENEATH)
    found = int(_libc.syscall(OPENAT2, top, os.fsencode(path), ctypes.c_char_p(how), ctypes.c_size_t(len(how))))
    if found >= 0:
        return found
    number = ctypes.get_errno()
    if number in (errno.ENOENT, errno.ENOTDIR):
        return None
    raise _refused(number, path)


def _refused(number: int, path: str) -> OSError:
    return OSError(number, f"opening {path!r}: {os.strerror(number)}", path)
