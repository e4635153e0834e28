"""Workspaces as plain directories, for ordinary users and systems without loop devices: the quota is soft.

The file API counts what is on the disk before each change and refuses what would be over. A command in a sandbox is not stopped
while it writes; what it wrote is seen by the next change and by `usage`, and nothing more can be written through the API until there is room.
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from dataclasses import dataclass

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.kernel.workspaces.backend import (
    FILES_DIRECTORY,
    HALF_MADE,
    SPARE,
    Size,
    Used,
    furnish,
    hand_over,
    sweep_staging,
    unavailable,
)
from cohort.kernel.workspaces.beneath import Opener, Tree
from cohort.kernel.workspaces.protected import PLACEHOLDERS, is_furniture
from cohort.kernel.workspaces.walking import empty, walked

COUNT_LIFE_S = 1.0
"""How long the file API relies on a count, with its own changes added, before it counts again."""
SECTOR_BYTES = 512


@dataclass(slots=True)
class _Count:
    used: Used
    at_s: float


class DirectoryBackend:
    """`root`: a directory that the agents' users can pass through."""

    name = "directory"
    hard = False
    read_only = PLACEHOLDERS

    def __init__(self, root: str, clock: Clock, opener: Opener) -> None:
        self._root = os.path.realpath(root)
        self._clock = clock
        self._opener = opener
        os.makedirs(self._root, 0o711, exist_ok=True)
        self._verified: dict[str, tuple[int, int]] = {}
        self._counts: dict[str, _Count] = {}
        self._swept: set[str] = set()  # of what another process may have left; our own writes are not to be swept away
        self._lock = threading.Lock()

    def make(self, directory: str, size: Size) -> None:  # noqa: ARG002  nothing is set aside
        part = self._base(directory) + HALF_MADE
        try:
            os.mkdir(part)
            furnish(part)
            os.rename(part, self._base(directory) + SPARE)  # from here on it exists
        except OSError as error:
            with suppress(CohortError):
                self.remove(directory)
            raise unavailable(directory, error, "Make sure that this user may write in the workspaces' directory.") from error

    def assign(self, directory: str, uid: int | None) -> None:
        spare = self._base(directory) + SPARE
        try:
            if uid is not None:
                hand_over(spare if os.path.exists(spare) else self._base(directory), uid)
            with suppress(FileNotFoundError):  # it is assigned already
                os.rename(spare, self._base(directory))
        except OSError as error:
            raise unavailable(directory, error, "Make sure that this user may write in the workspaces' directory.") from error

    def release(self, directory: str) -> None:
        try:
            with suppress(FileNotFoundError):  # it is spare already
                os.rename(self._base(directory), self._base(directory) + SPARE)
        except OSError as error:
            raise unavailable(directory, error, "Make sure that this user may write in the workspaces' directory.") from error

    def made(self, directory: str) -> bool:
        return any(os.path.exists(self._base(directory) + end) for end in ("", SPARE))

    def attach(self, directory: str, size: Size) -> str:  # noqa: ARG002  there is nothing to verify
        base = self._base(directory)
        try:
            if directory not in self._swept:
                sweep_staging(base)
                self._swept.add(directory)
            self._verified[directory] = _identity(os.path.join(base, FILES_DIRECTORY))
        except OSError as error:
            raise unavailable(directory, error, "Restore it from a backup, or remove the agent's workspace.") from error
        return os.path.join(base, FILES_DIRECTORY)

    def check(self, directory: str) -> None:
        known = self._verified.get(directory)
        try:
            found = _identity(os.path.join(self._base(directory), FILES_DIRECTORY))
        except OSError as error:
            raise unavailable(directory, error, "Restore it from a backup, or remove the agent's workspace.") from error
        if known != found:
            self._verified.pop(directory, None)
            raise unavailable(directory, "its directory is not the one expected", "Start control again.")

    def free(self, directory: str, size: Size) -> Used:
        used = _counted(os.path.join(self._base(directory), FILES_DIRECTORY), self._opener)
        with self._lock:
            self._counts[directory] = _Count(used, self._clock.monotonic_s())
        return Used(size.bytes_max - used.bytes, size.files_max - used.files)

    def room(self, directory: str, size: Size) -> Used:
        with self._lock:
            count = self._counts.get(directory)
            if count is not None and self._clock.monotonic_s() - count.at_s < COUNT_LIFE_S:
                return Used(size.bytes_max - count.used.bytes, size.files_max - count.used.files)
        return self.free(directory, size)

    def spent(self, directory: str, change: Used | None) -> None:
        with self._lock:
            count = self._counts.get(directory)
            if count is None:
                return
            if change is None:
                del self._counts[directory]
            else:
                count.used = Used(count.used.bytes + change.bytes, count.used.files + change.files)

    def detach(self, directory: str) -> None:
        self._verified.pop(directory, None)
        with self._lock:
            self._counts.pop(directory, None)

    def remove(self, directory: str) -> None:
        self.detach(directory)
        self._swept.discard(directory)
        for end in ("", SPARE, HALF_MADE):
            _delete_tree(self._base(directory) + end)

    def spares(self) -> set[str]:
        named = {os.path.splitext(name) for name in os.listdir(self._root)}
        return {name for name, end in named if end in (SPARE, HALF_MADE)}

    def _base(self, directory: str) -> str:
        return os.path.join(self._root, directory)


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(path)
    return found.st_dev, found.st_ino


def _counted(files: str, opener: Opener) -> Used:
    """Every inode once, by the blocks it has; the layout's own are not counted."""
    seen: set[tuple[int, int]] = set()
    total_bytes = 0
    with Tree(files, opener) as tree:
        for found in walked(tree):
            status = found.status
            if not is_furniture(found.path, status) and (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total_bytes += status.st_blocks * SECTOR_BYTES
    return Used(total_bytes, len(seen))


def _delete_tree(path: str) -> None:
    """Delete everything, also what its owner has closed to himself."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        empty(opened)
        os.rmdir(path)
    except OSError as error:
        raise unavailable(os.path.basename(path), error, "Delete it by hand.") from error
    finally:
        os.close(opened)
