"""The file operations of the action gate, on one workspace each. Paths are given as text and made canonical here.

A write appears whole or not at all: it is written in `staging` and renamed into place. Reads open without blocking and take regular
files only. Nothing here decides whether an agent may; the action gate has, and the record is written.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from cohort.base.errors import CohortError, Retry
from cohort.base.ids import WorkspaceId
from cohort.kernel.model import Place
from cohort.kernel.workspaces import walking
from cohort.kernel.workspaces.backend import BLOCK_BYTES, STAGING_DIRECTORY, Used
from cohort.kernel.workspaces.beneath import Opener, Tree, in_our_words
from cohort.kernel.workspaces.entries import Entry, Listing, entry_of, kind_of, page_of, status_of
from cohort.kernel.workspaces.paths import canonical, shown
from cohort.kernel.workspaces.protected import check_writable

READ_BYTES_MAX = 8 << 20
WRITE_BYTES_MAX = 64 << 20
LIST_ENTRIES_MAX = 1000
DELETE_ENTRIES_MAX = 100_000
MODE_FILE, MODE_DIRECTORY = 0o644, 0o755
RENAME_NOREPLACE = 1


class How(StrEnum):
    """What a write does with what is there."""

    CREATE = "create"  # PATH_EXISTS when there is something
    OVERWRITE = "overwrite"  # replaces a file, or makes it
    APPEND = "append"  # adds to a file, or makes it


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a file. `size`: of the whole file in bytes."""

    data: bytes
    offset: int
    size: int

    @property
    def more(self) -> bool:
        return self.offset + len(self.data) < self.size


@dataclass(frozen=True, slots=True)
class Written:
    """`sha256`: of the bytes given. `size`: of the whole file afterwards."""

    path: str
    size: int
    created: bool
    sha256: str


class Ledger(Protocol):
    """Who keeps the quotas; `SqlWorkspaces` in the product."""

    def changing(self, workspace: WorkspaceId) -> AbstractContextManager[None]:
        """Alone among those that change this workspace. Errors: WORKSPACE_BUSY when that cannot be had in time."""
        ...

    def room(self, workspace: WorkspaceId) -> Used: ...
    def spent(self, workspace: WorkspaceId, change: Used | None) -> None: ...


class Files:
    """Safe to use from many threads. Errors everywhere: PATH_INVALID, PATH_ESCAPES, PATH_MISSING, PATH_WRONG_KIND; those of changes
    also PATH_PROTECTED, PATH_EXISTS, QUOTA_EXCEEDED, WORKSPACE_BUSY; nothing is changed then."""

    def __init__(self, ledger: Ledger, opener: Opener) -> None:
        self._ledger = ledger
        self._opener = opener

    def read(self, place: Place, path: str, offset: int = 0, limit: int = READ_BYTES_MAX) -> Piece:
        """Up to `limit` bytes from `offset`."""
        path = canonical(path)
        _check_number("offset", offset, 0, 1 << 62)
        _check_number("limit", limit, 0, READ_BYTES_MAX)
        with self._tree(place, path) as tree, _opened(tree, path, os.O_RDONLY) as (file, status):
            _check_regular(path, status, place)
            wanted = min(limit, max(0, status.st_size - offset))
            return Piece(os.pread(file, wanted, offset), offset, status.st_size)

    def stat(self, place: Place, path: str) -> Entry:
        path = canonical(path)
        with self._tree(place, path) as tree:
            if not path:
                return entry_of(path, os.fstat(tree.descriptor))
            with tree.parent(path) as (folder, name):
                return entry_of(path, os.stat(name, dir_fd=folder, follow_symlinks=False))

    def list(self, place: Place, path: str = "", after: str | None = None, limit: int = LIST_ENTRIES_MAX) -> Listing:
        """Entries of a directory by name, from behind `after`. Placeholders of protected names are left out while they are empty."""
        path = canonical(path)
        _check_number("limit", limit, 1, LIST_ENTRIES_MAX)
        with self._tree(place, path) as tree, _opened(tree, path, os.O_RDONLY | os.O_DIRECTORY) as (folder, _):
            return page_of(folder, path, after, limit)

    def write(self, place: Place, path: str, data: bytes, how: How = How.OVERWRITE, mode: int | None = None) -> Written:
        """Write a whole file, or append. `mode`: permission bits; None keeps those there are. While a file is replaced in a workspace
        with a hard quota, old and new need room together."""
        path = canonical(path)
        check_writable(path, whole=True)  # a file `.git` would name any directory as a repository, hooks and all
        _check_number("content", len(data), 0, WRITE_BYTES_MAX)
        with self._ledger.changing(place.workspace), self._tree(place, path) as tree, tree.parent(path) as (folder, name):
            before = status_of(folder, name)
            _check_target(path, before, how)
            self._check_room(place, data, before, how)
            if how is How.APPEND and before is not None:
                after = self._append(place, tree, path, data)
            else:
                after = self._replace(place, folder, name, data, mode if mode is not None else _mode_of(before), how)
            self._ledger.spent(place.workspace, _difference(before, after))
        return Written(path, after.st_size, before is None, hashlib.sha256(data).hexdigest())

    def mkdir(self, place: Place, path: str, parents: bool = False) -> Entry:
        """Make a directory; with `parents` also those above it, and it may exist already."""
        path = canonical(path)
        check_writable(path, whole=True)
        parts = path.split("/")
        wanted = ["/".join(parts[: count + 1]) for count in range(len(parts))] if parents else [path]
        with self._ledger.changing(place.workspace), self._tree(place, path) as tree:
            self._check_files(place, len(wanted) if not parents else 1)
            for one in wanted:
                with tree.parent(one) as (folder, name):
                    _make_directory(place, folder, name, parents)
            self._ledger.spent(place.workspace, None)
        return self.stat(place, path)

    def move(self, place: Place, path: str, to: str) -> Entry:
        """Rename a file or directory; never onto something."""
        source, destination = canonical(path, "path"), canonical(to, "to")
        check_writable(source, "path", whole=True)
        check_writable(destination, "to", whole=True)
        for one, field in ((source, "path"), (destination, "to")):
            if not one:
                raise _root_stays(field)
        with self._ledger.changing(place.workspace), self._tree(place, source) as tree:
            with tree.parent(source) as (folder, name), in_our_words(destination, "to"), tree.parent(destination) as (target, new):
                _rename(name, new, folder, target, replace=False)
            self._ledger.spent(place.workspace, None)
        return self.stat(place, destination)

    def delete(self, place: Place, path: str, recursive: bool = False) -> int:
        """Delete a file, a link, or an empty directory; with `recursive` a directory and what is in it. Returns how many entries.

        A tree vanishes at once; its blocks come back before this returns.
        """
        path = canonical(path)
        if not path:
            raise _root_stays("path")
        check_writable(path, whole=recursive)
        with self._ledger.changing(place.workspace), self._tree(place, path) as tree, tree.parent(path) as (folder, name):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                os.unlink(name, dir_fd=folder)
                count = 1
            elif not recursive:
                os.rmdir(name, dir_fd=folder)
                count = 1
            else:
                count = 1 + _counted(tree, path)
                self._delete_tree(place, folder, name)
            self._ledger.spent(place.workspace, None)
        return count

    @contextmanager
    def _tree(self, place: Place, path: str, field: str = "path") -> Iterator[Tree]:
        with in_our_words(path, field), Tree(place.root, self._opener) as tree:
            yield tree

    def _check_room(self, place: Place, data: bytes, before: os.stat_result | None, how: How) -> None:
        room = self._ledger.room(place.workspace)
        needed = -(-len(data) // BLOCK_BYTES) * BLOCK_BYTES
        if before is not None and how is How.APPEND:
            needed = max(0, -(-(before.st_size + len(data)) // BLOCK_BYTES) * BLOCK_BYTES - before.st_blocks * 512)
        elif before is not None and not place.hard_quota:
            needed -= before.st_blocks * 512
        if needed > room.bytes:
            raise _full(f"{len(data)} bytes", f"{room.bytes} bytes are free")
        if room.files < (1 if before is None or (place.hard_quota and how is not How.APPEND) else 0):
            raise _full("a file", "no file is free")

    def _check_files(self, place: Place, count: int) -> None:
        room = self._ledger.room(place.workspace)
        if room.files < count or room.bytes < BLOCK_BYTES * count:
            raise _full("a directory", f"{room.files} files and {room.bytes} bytes are free")

    def _append(self, place: Place, tree: Tree, path: str, data: bytes) -> os.stat_result:
        with _opened(tree, path, os.O_WRONLY | os.O_APPEND) as (file, before):
            _check_regular(path, before, place)
            try:
                _write_all(file, data)
            except OSError:
                os.ftruncate(file, before.st_size)
                raise
            return os.fstat(file)

    def _replace(self, place: Place, folder: int, name: str, data: bytes, mode: int, how: How) -> os.stat_result:
        with _staging(place) as staging:
            temporary = walking.unused_name()
            file = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=staging)
            try:
                _write_all(file, data)
                if os.geteuid() == 0:
                    os.fchown(file, place.uid, place.gid)
                os.fchmod(file, mode)
                # Commit point. Before this line readers see what was there; after it, the new file.
                _rename(temporary, name, staging, folder, replace=how is not How.CREATE)
                return os.fstat(file)
            except OSError:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=staging)
                raise
            finally:
                os.close(file)

    def _delete_tree(self, place: Place, folder: int, name: str) -> None:
        with _staging(place) as staging:
            bin_name = walking.unused_name()
            os.mkdir(bin_name, 0o700, dir_fd=staging)
            opened = os.open(bin_name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=staging)
            try:
                # Commit point: from here on the tree is gone for its readers.
                os.rename(name, "tree", src_dir_fd=folder, dst_dir_fd=opened)
                walking.empty(opened)
            finally:
                os.close(opened)
                with suppress(OSError):  # what is left is swept when the workspace is attached again
                    os.rmdir(bin_name, dir_fd=staging)


@contextmanager
def _opened(tree: Tree, path: str, flags: int) -> Iterator[tuple[int, os.stat_result]]:
    opened = tree.open(path, flags)
    try:
        yield opened, os.fstat(opened)
    finally:
        os.close(opened)


@contextmanager
def _staging(place: Place) -> Iterator[int]:
    path = os.path.join(os.path.dirname(place.root), STAGING_DIRECTORY)
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield opened
    finally:
        os.close(opened)


def _check_regular(path: str, status: os.stat_result, place: Place) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = kind_of(status)
        raise CohortError(
            "PATH_WRONG_KIND", f"{shown(path) or 'the root'} is a {kind}", hint="Use the path of a regular file.", field="path"
        )
    if status.st_nlink > 1 and not place.hard_quota:
        # On a file system of the workspace's own every name of the file is in the workspace. Here another one may be anywhere.
        message = f"{shown(path)} is a hard link: the file has {status.st_nlink} names, and not all need to be in the workspace"
        raise CohortError("PATH_ESCAPES", message, hint="Write the file anew instead.", field="path")


def _check_target(path: str, before: os.stat_result | None, how: How) -> None:
    if not path:
        raise _root_stays("path")
    if before is None:
        return
    if stat.S_ISLNK(before.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    if how is How.CREATE:
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    if stat.S_ISDIR(before.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(before.st_mode):
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO), path)


def _mode_of(before: os.stat_result | None) -> int:
    return stat.S_IMODE(before.st_mode) & 0o777 if before is not None else MODE_FILE


def _difference(before: os.stat_result | None, after: os.stat_result) -> Used:
    """Another name of the old file keeps its blocks; the next count sees that."""
    return Used((after.st_blocks - (before.st_blocks if before else 0)) * 512, 0 if before else 1)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _make_directory(place: Place, folder: int, name: str, may_exist: bool) -> None:
    try:
        os.mkdir(name, MODE_DIRECTORY, dir_fd=folder)
    except FileExistsError:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not (may_exist and stat.S_ISDIR(status.st_mode)):
            raise
        return
    if os.geteuid() == 0:
        os.chown(name, place.uid, place.gid, dir_fd=folder, follow_symlinks=False)


def _rename(old: str, new: str, source: int, target: int, *, replace: bool) -> None:
    """`replace` False: OSError EEXIST when `new` is there, in one step where the system has renameat2."""
    if replace:
        os.rename(old, new, src_dir_fd=source, dst_dir_fd=target)
        return
    renameat2 = getattr(_libc, "renameat2", None)
    if renameat2 is not None:
        if renameat2(source, os.fsencode(old), target, os.fsencode(new), ctypes.c_uint(RENAME_NOREPLACE)) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number), new)
    if status_of(target, new) is not None:
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    os.rename(old, new, src_dir_fd=source, dst_dir_fd=target)


_libc = ctypes.CDLL(None, use_errno=True)


def _counted(tree: Tree, path: str) -> int:
    count = 0
    for _ in walking.walked(tree, path):
        count += 1
        if count > DELETE_ENTRIES_MAX:
            message = f"{shown(path)} holds more than {DELETE_ENTRIES_MAX} entries"
            raise CohortError("PATH_WRONG_KIND", message, hint="Delete its parts one by one.", field="path")
    return count


def _check_number(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise CohortError("ARGUMENT_INVALID", f"{field}: {value}", hint=f"Use a number from {low} to {high}.", field=field)


def _root_stays(field: str) -> CohortError:
    return CohortError("PATH_WRONG_KIND", "the path is the workspace's root itself", hint="Give a path below it.", field=field)


def _full(what: str, why: str) -> CohortError:
    hint = "Delete what is not needed, or ask for a larger workspace."
    return CohortError("QUOTA_EXCEEDED", f"the workspace has no room for {what}: {why}", retry=Retry.SAFE, hint=hint)
