"""openat2, for the few paths below a workspace that the sandbox itself has to look at: a path there is what an agent made of it."""

from __future__ import annotations

import ctypes
import os
import struct

OPENAT2 = 437
NO_MAGICLINKS, NO_SYMLINKS, BENEATH = 0x02, 0x04, 0x08

_libc = ctypes.CDLL(None, use_errno=True)


def identity(root: str, path: str) -> tuple[int, int] | None:
    """Device and inode of `path` below `root`, reached through directories only; None when there is nothing.

    Raises:
        OSError: something on the way is a symbolic link (ELOOP), or no openat2 (ENOSYS).
    """
    fd = look(root, path)
    if fd is None:
        return None
    try:
        found = os.fstat(fd)
        return found.st_dev, found.st_ino
    finally:
        os.close(fd)


def look(root: str, path: str) -> int | None:
    """An O_PATH descriptor of `path` below `root`; None when there is nothing. Errors: as `identity`."""
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, NO_MAGICLINKS | NO_SYMLINKS | BENEATH)
        found = int(_libc.syscall(OPENAT2, top, os.fsencode(path), ctypes.c_char_p(how), ctypes.c_size_t(len(how))))
    finally:
        os.close(top)
    if found >= 0:
        return found
    number = ctypes.get_errno()
    if number in (2, 20):  # ENOENT, ENOTDIR
        return None
    raise OSError(number, f"opening {path!r}: {os.strerror(number)}")
