"""Opening what is beneath a directory, whatever anybody renames meanwhile.

On Linux 5.6 and newer this is one system call, openat2 with RESOLVE_BENEATH, NO_SYMLINKS, NO_MAGICLINKS and NO_XDEV. Elsewhere, and
where a container's filter forbids it, the path is walked part by part, each opened relative to the one before without following
links. Both refuse symbolic links altogether, also those that would stay inside: who may place a link may change where it leads
between the check and the use, and an answer that depends on whether a link happens to stay inside helps nobody.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from cohort.base.errors import CohortError, Retry
from cohort.kernel.workspaces.paths import shown

SYS_OPENAT2 = 437  # the same number on every architecture
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
TRIES_MAX = 32
"""How often openat2 is repeated when it says that something was renamed meanwhile (EAGAIN)."""
SYSTEM_PATH_BYTES = 4096
O_PATH = getattr(os, "O_PATH", os.O_RDONLY)
DIRECTORY = O_PATH | os.O_DIRECTORY


class Opener(Protocol):
    """One way of opening `path`, canonical, beneath the directory `root`. Returns a descriptor; raises OSError, ELOOP for any link."""

    @property
    def name(self) -> str: ...
    def open(self, root: int, path: str, flags: int, mode: int = 0) -> int: ...


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class OpenAt2:
    """The kernel's own guarantee, one system call."""

    name = "openat2"

    def __init__(self) -> None:
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long

    def open(self, root: int, path: str, flags: int, mode: int = 0) -> int:
        how = _OpenHow(flags | os.O_CLOEXEC, mode, RESOLVE)
        name = os.fsencode(path or ".")
        if len(name) >= SYSTEM_PATH_BYTES:  # a command in a sandbox can nest deeper than one system call can name
            return Walk().open(root, path, flags, mode)
        size = ctypes.c_size_t(ctypes.sizeof(how))
        for _ in range(TRIES_MAX):
            found = int(self._syscall(ctypes.c_long(SYS_OPENAT2), ctypes.c_int(root), name, ctypes.byref(how), size))
            if found >= 0:
                return found
            number = ctypes.get_errno()
            if number not in (errno.EAGAIN, errno.EINTR):
                break
        raise OSError(number, os.strerror(number), path)


class Walk:
    """Part by part, each relative to the descriptor of the one before; no part may be a link or on another file system."""

    name = "walk"

    def open(self, root: int, path: str, flags: int, mode: int = 0) -> int:
        parts = path.split("/") if path else ["."]
        device = os.fstat(root).st_dev
        here = os.dup(root)
        try:
            for part in parts[:-1]:
                below = _step(here, part, DIRECTORY, 0, device)
                os.close(here)
                here = below
            return _step(here, parts[-1], flags, mode, device)
        finally:
            os.close(here)


def _step(here: int, part: str, flags: int, mode: int, device: int) -> int:
    try:
        found = os.open(part, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=here)
    except OSError as error:
        if error.errno == errno.ENOTDIR and _is_link(here, part):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), part) from error
        raise
    if os.fstat(found).st_dev != device:
        os.close(found)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), part)
    return found


def _is_link(here: int, part: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(part, dir_fd=here, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def best_opener() -> Opener:
    """openat2 where it works, the walk where it does not."""
    if sys.platform != "linux":
        return Walk()
    candidate = OpenAt2()
    root = os.open("/", DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(candidate.open(root, "", DIRECTORY))
    except OSError:  # ENOSYS: an old kernel; EPERM: a filter that does not know the call
        return Walk()
    finally:
        os.close(root)
    return candidate


class Tree:
    """The root of a workspace, opened. Every access to what is beneath starts here."""

    def __init__(self, root: str, opener: Opener) -> None:
        self._root = os.open(root, DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._opener = opener

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)

    @property
    def descriptor(self) -> int:
        return self._root

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """A descriptor of `path`, which the caller closes; a FIFO never holds the caller, a terminal never becomes its own."""
        return self._opener.open(self._root, path, flags | os.O_NONBLOCK | os.O_NOCTTY, mode)

    @contextmanager
    def parent(self, path: str) -> Iterator[tuple[int, str]]:
        """The directory that `path` is in, for calls that take `dir_fd`, and the last part. The root has no parent."""
        above, _, name = path.rpartition("/")
        opened = self._opener.open(self._root, above, DIRECTORY)
        try:
            yield opened, name
        finally:
            os.close(opened)


_ANSWERS = {
    errno.ELOOP: ("PATH_ESCAPES", "a part of it is a symbolic link", "Use the path of the file itself."),
    errno.EXDEV: ("PATH_ESCAPES", "a part of it is on another file system", "Use a path inside the workspace."),
    errno.ENOENT: (
        "PATH_MISSING",
        "it does not exist, or a directory above it does not",
        "List the directory above it; `files.mkdir` makes one.",
    ),
    errno.ENOTDIR: ("PATH_WRONG_KIND", "a part of it is not a directory", "List its directory to see what is there."),
    errno.EISDIR: ("PATH_WRONG_KIND", "it is a directory", "Use the path of a file."),
    errno.ENXIO: ("PATH_WRONG_KIND", "it is not a regular file", "Use the path of a regular file."),
    errno.EEXIST: ("PATH_EXISTS", "it exists already", "Choose another path, or delete it first."),
    errno.ENOTEMPTY: ("PATH_EXISTS", "the directory is not empty", "Delete it recursively."),
    errno.EINVAL: ("PATH_INVALID", "the file system refuses it", "Choose another path."),
    errno.ENAMETOOLONG: ("PATH_INVALID", "a part of it is too long", "Use shorter names."),
    errno.EACCES: ("PATH_PROTECTED", "its permissions do not allow it", "Change its mode first."),
    errno.EPERM: ("PATH_PROTECTED", "it is read-only", "Use another path."),
    errno.ENOSPC: ("QUOTA_EXCEEDED", "the workspace is full", "Delete what is not needed, or ask for a larger workspace."),
    errno.EDQUOT: ("QUOTA_EXCEEDED", "the workspace is full", "Delete what is not needed, or ask for a larger workspace."),
    errno.EFBIG: ("QUOTA_EXCEEDED", "the file would be too large", "Write less."),
    errno.ETXTBSY: ("WORKSPACE_BUSY", "it is being executed", "Repeat it when the command has ended."),
}


def refusal(error: OSError, path: str, field: str = "path") -> CohortError:
    """`error` in our words."""
    code, why, hint = _ANSWERS.get(error.errno or 0, ("WORKSPACE_UNAVAILABLE", error.strerror or str(error), "Look at its file system."))
    retry = Retry.SAFE if code in ("WORKSPACE_BUSY", "WORKSPACE_UNAVAILABLE", "QUOTA_EXCEEDED") else Retry.NEVER
    return CohortError(code, f"{shown(path) or 'the root'}: {why}", retry=retry, hint=hint, field=field)


@contextmanager
def in_our_words(path: str, field: str = "path") -> Iterator[None]:
    """Turns every OSError of the block into the CohortError of `refusal`."""
    try:
        yield
    except OSError as error:
        raise refusal(error, path, field) from error
