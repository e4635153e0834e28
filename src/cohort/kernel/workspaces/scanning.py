"""From the disk to a manifest and back: hashing what is there, and making what a manifest says be there."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from cohort.base.errors import CohortError, Retry
from cohort.base.ids import WorkspaceId
from cohort.kernel.model import Place
from cohort.kernel.workspaces.backend import STAGING_DIRECTORY, place_holders
from cohort.kernel.workspaces.beneath import Opener, Tree, in_our_words
from cohort.kernel.workspaces.loop_devices import set_immutable
from cohort.kernel.workspaces.manifests import Item, Manifest
from cohort.kernel.workspaces.paths import shown
from cohort.kernel.workspaces.protected import is_furniture
from cohort.kernel.workspaces.walking import Found, unused_name, walked

PART_BYTES = 8 << 20
READ_TRIES_MAX = 3
KNOWN_WORKSPACES_MAX = 256
UNSURE_NS = 50_000_000
"""A file changed so shortly before it was read may change again without its times showing it: its digest is not kept."""


@dataclass(frozen=True, slots=True)
class _Known:
    """Digests of a file while nothing about it changed; the change time cannot be set back by the file's owner."""

    key: tuple[int, int, int, int]
    parts: tuple[str, ...]


class Scanner:
    """Reads workspaces into manifests. Remembers digests of files that did not change. Safe to use from many threads."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._known: OrderedDict[WorkspaceId, dict[str, _Known]] = OrderedDict()
        self._lock = threading.Lock()

    def scan(self, place: Place) -> Manifest:
        """Everything in the workspace, but for placeholders nobody changed.

        Raises:
            CohortError WORKSPACE_BUSY: a file changes faster than it can be read.
            CohortError PATH_PROTECTED: something in it is closed to this user.
        """
        with self._lock:
            before = self._known.get(place.workspace, {})
        known: dict[str, _Known] = {}
        manifest: dict[str, Item] = {}
        first: dict[int, str] = {}
        with in_our_words("the workspace"), Tree(place.root, self._opener) as tree:
            sure_ns = _now_ns(place) - UNSURE_NS
            for found in walked(tree, strict=True):
                if not is_furniture(found.path, found.status):
                    with suppress(FileNotFoundError):
                        item = _item(tree, found, before, known, sure_ns)
                        manifest[found.path] = replace(item, same=_first_name(found, first))
        self._remember(place.workspace, known)
        return manifest

    def forget(self, workspace: WorkspaceId) -> None:
        with self._lock:
            self._known.pop(workspace, None)

    def _remember(self, workspace: WorkspaceId, known: dict[str, _Known]) -> None:
        with self._lock:
            self._known[workspace] = known
            self._known.move_to_end(workspace)
            while len(self._known) > KNOWN_WORKSPACES_MAX:
                self._known.popitem(last=False)


def parts(tree: Tree, path: str) -> Iterator[bytes]:
    """The content of a file, part by part."""
    opened = tree.open(path, os.O_RDONLY)
    try:
        while part := _read_part(opened):
            yield part
    finally:
        os.close(opened)


def apply(place: Place, opener: Opener, current: Manifest, wanted: Manifest, content: Callable[[str], bytes]) -> None:
    """Make the workspace be as `wanted`, from `current`. Repeatable after being killed anywhere. `content`: the bytes of a part.

    What has to go goes first, so that room is there; each file is put in place whole. Special files are not made.
    """
    with in_our_words("the workspace"), Tree(place.root, opener) as tree:
        for path, item in current.items():
            if os.geteuid() != 0 and item.kind == "directory" and item.mode & 0o700 != 0o700:
                _set_mode(tree, path, item.mode | 0o700)
        for path in sorted(current, reverse=True):
            if current[path] != wanted.get(path) and not _both_directories(current[path], wanted.get(path)):
                _remove(tree, path)
        place_holders(place.root)
        missing = [(path, item) for path, item in sorted(wanted.items()) if current.get(path) != item]
        for path, item in missing:
            if not item.same:
                _make(place, tree, path, item, content)
        for path, item in missing:
            if item.same:
                _link(tree, item.same, path)
        for path, item in sorted(wanted.items(), reverse=True):
            if item.kind == "directory":  # last: a mode without write would keep us out as an ordinary user
                _set_mode(tree, path, item.mode)


def _now_ns(place: Place) -> int:
    """The file system's own time, which its change times are of."""
    staging = os.open(os.path.join(os.path.dirname(place.root), STAGING_DIRECTORY), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.utime(staging)
        return os.fstat(staging).st_mtime_ns
    finally:
        os.close(staging)


def _first_name(found: Found, first: dict[int, str]) -> str:
    """The name under which a file with several names was met first; empty for that one, and for all others."""
    if not found.is_file or found.status.st_nlink == 1:
        return ""
    name = first.setdefault(found.status.st_ino, found.path)
    return name if name != found.path else ""


def _item(tree: Tree, found: Found, before: dict[str, _Known], known: dict[str, _Known], sure_ns: int) -> Item:
    mode = stat.S_IMODE(found.status.st_mode)
    if found.is_directory:
        return Item("directory", mode)
    if stat.S_ISLNK(found.status.st_mode):
        with tree.parent(found.path) as (folder, name):
            return Item("link", 0o777, target=os.readlink(name, dir_fd=folder))
    if not found.is_file:
        return Item("special", mode)
    was = before.get(found.path)
    key = _key(found.status)
    if was is None or was.key != key:
        key, was = _hashed(tree, found.path)
    if key[3] < sure_ns:
        known[found.path] = was
    return Item("file", mode, key[1], was.parts)


def _key(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hashed(tree: Tree, path: str) -> tuple[tuple[int, int, int, int], _Known]:
    with in_our_words(path):
        for _ in range(READ_TRIES_MAX):
            opened = tree.open(path, os.O_RDONLY)
            try:
                before = _key(os.fstat(opened))
                digests = []
                while part := _read_part(opened):
                    digests.append(hashlib.sha256(part).hexdigest())
                if _key(os.fstat(opened)) == before:
                    return before, _Known(before, tuple(digests))
            finally:
                os.close(opened)
    raise changing(path)


def _read_part(opened: int) -> bytes:
    pieces, missing = [], PART_BYTES
    while missing and (piece := os.read(opened, missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def changing(path: str) -> CohortError:
    hint = "End what writes there and repeat it."
    return CohortError("WORKSPACE_BUSY", f"{shown(path)} changes while it is read", retry=Retry.SAFE, hint=hint)


def _both_directories(one: Item, other: Item | None) -> bool:
    return other is not None and one.kind == other.kind == "directory"


def _remove(tree: Tree, path: str) -> None:
    with suppress(FileNotFoundError), tree.parent(path) as (folder, name):
        remove = os.rmdir if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode) else os.unlink
        try:
            remove(name, dir_fd=folder)
        except PermissionError:  # a placeholder that a command has moved away with the directory it was in
            for one in (path.rpartition("/")[0], path):
                _set_changeable(tree, one)
            remove(name, dir_fd=folder)


def _set_changeable(tree: Tree, path: str) -> None:
    opened = tree.open(path, os.O_RDONLY)
    try:
        set_immutable(opened, False)
    finally:
        os.close(opened)


def _make(place: Place, tree: Tree, path: str, item: Item, content: Callable[[str], bytes]) -> None:
    with tree.parent(path) as (folder, name):
        if item.kind == "directory":
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=folder)
        elif item.kind == "link":
            with suppress(FileExistsError):
                os.symlink(item.target, name, dir_fd=folder)
        elif item.kind == "file":
            _make_file(place, folder, name, item, content)
            return
        else:
            return
        if os.geteuid() == 0:
            os.chown(name, place.uid, place.gid, dir_fd=folder, follow_symlinks=False)


def _link(tree: Tree, first: str, path: str) -> None:
    with tree.parent(first) as (above, name), tree.parent(path) as (folder, new), suppress(FileExistsError):
        os.link(name, new, src_dir_fd=above, dst_dir_fd=folder, follow_symlinks=False)


def _make_file(place: Place, folder: int, name: str, item: Item, content: Callable[[str], bytes]) -> None:
    temporary = os.path.join(os.path.dirname(place.root), STAGING_DIRECTORY, unused_name())
    with open(temporary, "xb") as file:
        for digest in item.parts:
            file.write(content(digest))
        if os.geteuid() == 0:
            os.fchown(file.fileno(), place.uid, place.gid)
        os.fchmod(file.fileno(), item.mode & 0o777)
    os.rename(temporary, name, dst_dir_fd=folder)


def _set_mode(tree: Tree, path: str, mode: int) -> None:
    with suppress(FileNotFoundError):
        opened = tree.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if stat.S_IMODE(os.fstat(opened).st_mode) != mode:
                os.fchmod(opened, mode)
        finally:
            os.close(opened)
