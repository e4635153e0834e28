"""What a kind of storage for workspaces promises, and the layout that all kinds share.

A workspace is a directory with an opaque name, and in it: `files`, which is the agent's (`Place.root`); `staging`, on the same file
system and out of the agent's reach, where files are written before a rename puts them in place.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from cohort.base.errors import CohortError, Retry
from cohort.kernel.model import Limits
from cohort.kernel.workspaces.protected import CLOSED, CONTENTS, GIT
from cohort.kernel.workspaces.walking import empty

FILES_DIRECTORY = "files"
STAGING_DIRECTORY = "staging"
BLOCK_BYTES = 4096
PASSABLE, OPEN, SHUT = 0o711, 0o755, 0o555
HALF_MADE, SPARE = ".part", ".spare"
"""Ends of names on disk that are not somebody's yet."""
DISK_BYTES_MIN, DISK_BYTES_MAX = 1 << 20, 64 << 30
FILES_MIN, FILES_MAX = 16, 4_000_000


@dataclass(frozen=True, slots=True)
class Size:
    """The quota of a workspace. `bytes_max`: whole blocks. `files_max`: files, directories and links together."""

    bytes_max: int
    files_max: int

    @classmethod
    def of(cls, limits: Limits) -> Size:
        """Errors: FIELD_INVALID."""
        for field, value, low, high in (
            ("limits.disk_bytes", limits.disk_bytes, DISK_BYTES_MIN, DISK_BYTES_MAX),
            ("limits.files", limits.files, FILES_MIN, FILES_MAX),
        ):
            if not low <= value <= high:
                raise CohortError("FIELD_INVALID", f"{field}: {value}", field=field, hint=f"Use a number from {low} to {high}.")
        return cls(limits.disk_bytes // BLOCK_BYTES * BLOCK_BYTES, limits.files)


@dataclass(frozen=True, slots=True)
class Used:
    """What is on the disk, in blocks, by the agent's own files; nothing of the product's is counted."""

    bytes: int
    files: int


class Backend(Protocol):
    """One kind of storage. Safe to use from many threads for different names. `directory`: the opaque name.

    Errors everywhere: WORKSPACE_UNAVAILABLE, with what to do; DISK_FULL.
    """

    @property
    def name(self) -> str: ...
    @property
    def hard(self) -> bool:
        """Whether the quota holds against everything that writes there, not only against the file API."""
        ...

    @property
    def read_only(self) -> tuple[str, ...]:
        """Paths that only the sandbox can keep read-only; the other placeholders are so by themselves."""
        ...

    def make(self, directory: str, size: Size) -> None:
        """Make an empty spare workspace. All or nothing: what fails or is killed half-way is no workspace, and swept at the next start."""
        ...

    def assign(self, directory: str, uid: int | None) -> None:
        """Give a spare one its owner; from here on it is kept until `remove`. None: nobody else than this process's user. Repeatable."""
        ...

    def release(self, directory: str) -> None:
        """The opposite of assign: it is swept at the next start, unless it is assigned again."""
        ...

    def made(self, directory: str) -> bool:
        """Whether it exists, spare or assigned."""
        ...

    def attach(self, directory: str, size: Size) -> str:
        """The agent's directory, mounted and its quota verified."""
        ...

    def check(self, directory: str) -> None:
        """Verify again, in microseconds, that what is attached is what was attached."""
        ...

    def free(self, directory: str, size: Size) -> Used:
        """Disk truth: the quota less what is used; below zero where the quota is soft and was exceeded."""
        ...

    def room(self, directory: str, size: Size) -> Used:
        """As `free`, quick enough for each change by the file API: where the quota is soft a count of up to a second ago, kept up to date with
        the API's own changes."""
        ...

    def spent(self, directory: str, change: Used | None) -> None:
        """The file API has changed what is used by `change`; None: by it does not know what."""
        ...

    def detach(self, directory: str) -> None:
        """The opposite of attach. Errors: WORKSPACE_BUSY, when something is open in it."""
        ...

    def remove(self, directory: str) -> None:
        """Delete it and whatever a half-made one left. Errors: WORKSPACE_BUSY."""
        ...

    def spares(self) -> set[str]:
        """The names of all that nobody was given, ready or half made."""
        ...


def furnish(base: str) -> None:
    """Make the layout in the empty directory `base`."""
    os.chmod(base, PASSABLE)
    os.mkdir(os.path.join(base, STAGING_DIRECTORY), 0o700)
    os.mkdir(os.path.join(base, FILES_DIRECTORY), 0o700)
    place_holders(os.path.join(base, FILES_DIRECTORY))


def place_holders(files: str) -> None:
    """Make every placeholder that is missing."""
    for name in (GIT, *CLOSED):
        with suppress(FileExistsError):
            os.mkdir(os.path.join(files, name), OPEN)
    for name, content in CONTENTS.items():
        with suppress(FileExistsError), open(os.path.join(files, name), "xb", opener=_read_only) as file:
            file.write(content)
    for name in CLOSED:
        if os.stat(os.path.join(files, name), follow_symlinks=False).st_mode & 0o777 != SHUT:
            os.chmod(os.path.join(files, name), SHUT)


def _read_only(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o444)


def hand_over(base: str, uid: int) -> None:
    """Give the agent its directory; the placeholders stay the product's."""
    for path in (os.path.join(base, FILES_DIRECTORY), os.path.join(base, FILES_DIRECTORY, GIT)):
        os.chown(path, uid, uid, follow_symlinks=False)


def sweep_staging(base: str) -> None:
    """Delete what a killed process was writing."""
    opened = os.open(os.path.join(base, STAGING_DIRECTORY), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        empty(opened)
    finally:
        os.close(opened)


def unavailable(what: str, why: object, hint: str) -> CohortError:
    return CohortError("WORKSPACE_UNAVAILABLE", f"the workspace {what} cannot be used: {why}", retry=Retry.SAFE, hint=hint)


def busy(what: str) -> CohortError:
    hint = "End what runs there and repeat it."
    return CohortError("WORKSPACE_BUSY", f"something runs in the workspace {what}, or has a file of it open", retry=Retry.SAFE, hint=hint)
