"""Entries of a workspace as they are told: what each is, and pages of a directory."""

from __future__ import annotations

import heapq
import os
import stat
from dataclasses import dataclass

from cohort.kernel.workspaces.paths import listed
from cohort.kernel.workspaces.protected import GIT, HOOKS, INFO, PLACEHOLDERS, is_furniture, protection


@dataclass(frozen=True, slots=True)
class Entry:
    """`kind`: file, directory, link or special. `usable`: whether `path` is how to ask for it; names with hidden characters are not."""

    path: str
    kind: str
    size: int
    mode: int
    modified_us: int
    protected: bool
    usable: bool = True


@dataclass(frozen=True, slots=True)
class Listing:
    """`after`: what to go on from; None at the end."""

    entries: tuple[Entry, ...]
    after: str | None


def page_of(folder: int, path: str, after: str | None, limit: int) -> Listing:
    """Entries of the opened directory `folder`, which is at `path`, by name, from behind `after`; no placeholders that nobody changed."""
    names = ((listed(entry.name)[0], entry.name) for entry in os.scandir(folder) if path or not _is_placeholder(entry.name, folder))
    page = heapq.nsmallest(limit + 1, (pair for pair in names if after is None or pair[0] > after))
    entries = [entry for _, name in page[:limit] if (entry := _child(path, name, folder)) is not None]
    return Listing(tuple(entries), page[limit - 1][0] if len(page) > limit else None)


def status_of(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _child(path: str, name: str, folder: int) -> Entry | None:
    """None when it is gone meanwhile."""
    text, usable = listed(name)
    status = status_of(folder, name)
    return entry_of(f"{path}/{text}" if path else text, status, usable) if status is not None else None


def _is_placeholder(name: str, root: int) -> bool:
    """Whether an entry of the root is there only to keep a protected name taken."""
    if name not in PLACEHOLDERS and name != GIT:
        return False
    status = status_of(root, name)
    if status is None or not is_furniture(name, status) or not stat.S_ISDIR(status.st_mode):
        return status is not None and is_furniture(name, status)
    inside = {f"{name}/{below}" for below in _names(root, name)}
    return inside == {HOOKS, INFO} and not _names(root, HOOKS) if name == GIT else not inside


def _names(folder: int, name: str) -> list[str]:
    opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.listdir(opened)
    finally:
        os.close(opened)


def entry_of(path: str, status: os.stat_result, usable: bool = True) -> Entry:
    mode, modified_us = stat.S_IMODE(status.st_mode), status.st_mtime_ns // 1000
    return Entry(path, kind_of(status), status.st_size, mode, modified_us, protection(path) is not None, usable)


def kind_of(status: os.stat_result) -> str:
    if stat.S_ISREG(status.st_mode):
        return "file"
    if stat.S_ISDIR(status.st_mode):
        return "directory"
    return "link" if stat.S_ISLNK(status.st_mode) else "special"
