"""Every entry below a directory of a workspace, and the removal of whole trees; neither can be led out by renames, nor by depth."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from cohort.kernel.workspaces.beneath import Tree

_numbers = itertools.count()
_GONE = (FileNotFoundError, NotADirectoryError, PermissionError)


@dataclass(frozen=True, slots=True)
class Found:
    """`path`: from the root, as on disk: names that are not UTF-8 hold surrogates. `status`: of the entry itself, no link followed."""

    path: str
    status: os.stat_result

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)


def walked(tree: Tree, start: str = "", *, strict: bool = False) -> Iterator[Found]:
    """Depth first, names in order. What vanishes or becomes something else meanwhile is left out; what this user may not read too,
    unless `strict`, which raises PermissionError."""
    waiting = [start]
    while waiting:
        folder = waiting.pop()
        below = []
        for found in _children(tree, folder, (FileNotFoundError, NotADirectoryError) if strict else _GONE):
            yield found
            if found.is_directory:
                below.append(found.path)
        waiting.extend(reversed(below))


def _children(tree: Tree, folder: str, ignored: tuple[type[OSError], ...]) -> list[Found]:
    children = []
    with suppress(*ignored):
        opened = tree.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in sorted(os.listdir(opened)):
                with suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=opened, follow_symlinks=False)
                    children.append(Found(f"{folder}/{name}" if folder else name, status))
        finally:
            os.close(opened)
    return children


def empty(folder: int) -> None:
    """Delete everything in the directory `folder`, which nobody else changes. Directories are lifted up before they are opened, so
    depth costs neither recursion nor descriptors."""
    while names := os.listdir(folder):
        for name in names:
            if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=folder)
                continue
            _lift(folder, name)
            os.rmdir(name, dir_fd=folder)


def _lift(folder: int, name: str) -> None:
    os.chmod(name, 0o700, dir_fd=folder)
    opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        for child in os.listdir(opened):
            if not stat.S_ISDIR(os.stat(child, dir_fd=opened, follow_symlinks=False).st_mode):
                os.unlink(child, dir_fd=opened)
                continue
            os.chmod(child, 0o700, dir_fd=opened)  # who moves a directory has to be able to write in it
            os.rename(child, unused_name(), src_dir_fd=opened, dst_dir_fd=folder)
    finally:
        os.close(opened)


def unused_name() -> str:
    """A name in a staging directory that nothing in this process has used; other processes have their own prefix."""
    return f"{os.getpid():x}-{next(_numbers):x}"
