"""A whole workspace from one file system to another, when its quota changes."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress

from cohort.kernel.workspaces.beneath import Opener, Tree
from cohort.kernel.workspaces.protected import CLOSED, is_furniture
from cohort.kernel.workspaces.walking import Found, walked

COPY_BYTES = 1 << 20


def copy_tree(source: str, target: str, opener: Opener) -> None:
    """Everything below `source` into the furnished `target`: modes, owners, times and hard links are kept; sockets and extended attributes
    are not. Nothing may run in either. Raises OSError, ENOSPC when it does not fit.
    """
    copied: dict[int, str] = {}
    directories: list[Found] = []
    with Tree(source, opener) as old, Tree(target, opener) as new:
        for found in walked(old, strict=True):
            if found.is_directory:
                directories.append(found)
            if not is_furniture(found.path, found.status):
                _copy(old, new, found, copied)
        for found in reversed(directories):  # children first: making them changes the times of their directory
            if found.path not in CLOSED:
                _set_status(new, found)


def _copy(old: Tree, new: Tree, found: Found, copied: dict[int, str]) -> None:
    first = copied.setdefault(found.status.st_ino, found.path)
    with new.parent(found.path) as (folder, name):
        if first != found.path and not found.is_directory:
            with new.parent(first) as (above, link):
                os.link(link, name, src_dir_fd=above, dst_dir_fd=folder, follow_symlinks=False)
        elif found.is_directory:
            os.mkdir(name, 0o700, dir_fd=folder)
        elif found.is_file:
            _copy_file(old, folder, name, found)
            _set_status(new, found)
        elif stat.S_ISLNK(found.status.st_mode):
            with old.parent(found.path) as (above, link):
                os.symlink(os.readlink(link, dir_fd=above), name, dir_fd=folder)
            os.chown(name, found.status.st_uid, found.status.st_gid, dir_fd=folder, follow_symlinks=False)
        elif stat.S_ISFIFO(found.status.st_mode):
            os.mkfifo(name, 0o600, dir_fd=folder)
            os.chown(name, found.status.st_uid, found.status.st_gid, dir_fd=folder, follow_symlinks=False)


def _copy_file(old: Tree, folder: int, name: str, found: Found) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(old.open(found.path, os.O_RDONLY), "rb") as source, open(os.open(name, flags, 0o600, dir_fd=folder), "wb") as target:
        shutil.copyfileobj(source, target, COPY_BYTES)


def _set_status(new: Tree, found: Found) -> None:
    status = found.status
    with suppress(FileNotFoundError):
        opened = new.open(found.path, os.O_RDONLY)
        try:
            os.fchown(opened, status.st_uid, status.st_gid)
            os.fchmod(opened, stat.S_IMODE(status.st_mode))
            os.utime(opened, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(opened)
