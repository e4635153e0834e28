"""What was in a workspace, as a value: one item per entry, content by digest. Encoding, and the difference of two."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cohort.base.canonical import canonical_json
from cohort.base.errors import CohortError
from cohort.kernel.model import Change
from cohort.kernel.workspaces.backend import BLOCK_BYTES, Used
from cohort.kernel.workspaces.paths import listed

VERSION = 1
ENTRIES_MAX = 200_000
_RAW = "\0"
"""Begins a name that is not UTF-8, in hexadecimal; no name on disk can have it."""


@dataclass(frozen=True, slots=True)
class Item:
    """`kind`: file, directory, link or special, which has no content here. `parts`: digests of a file's consecutive parts.

    `target`: of a link. `same`: another name of this very file, when it has several. `mode`: permission bits.
    """

    kind: str
    mode: int
    size: int = 0
    parts: tuple[str, ...] = ()
    target: str = ""
    same: str = ""


Manifest = Mapping[str, Item]
"""By path from the root, as on disk."""


def encode(manifest: Manifest) -> bytes:
    """Canonical, so that the same content always has the same digest.

    Raises:
        CohortError FILE_TOO_LARGE: more than `ENTRIES_MAX` entries.
    """
    if len(manifest) > ENTRIES_MAX:
        message = f"the workspace has {len(manifest)} entries; a snapshot holds at most {ENTRIES_MAX}"
        raise CohortError("FILE_TOO_LARGE", message, hint="Delete what can be made again.")
    rows = [
        [_text(path), item.kind, item.mode, item.size, list(item.parts), _text(item.target), _text(item.same)]
        for path, item in sorted(manifest.items())
    ]
    return canonical_json({"version": VERSION, "items": rows})


def decode(data: bytes) -> Manifest:
    """The opposite of `encode`. The bytes come from the blob store, which has checked their digest."""
    rows: list[list[Any]] = json.loads(data)["items"]
    return {
        _name(path): Item(kind, mode, size, tuple(parts), _name(target), _name(same))
        for path, kind, mode, size, parts, target, same in rows
    }


def difference(before: Manifest, after: Manifest) -> list[Change]:
    """What was added, changed and removed, by path. A directory is named only when nothing below it is."""
    changed = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    above = {path[:place] for path in changed for place in range(len(path)) if path[place] == "/"}
    shown = [path for path in changed if path not in above or not _is_directory_in_both(path, before, after)]
    return [_change(path, before.get(path), after.get(path)) for path in sorted(shown)]


def total_bytes(manifest: Manifest) -> int:
    return sum(item.size for item in manifest.values() if not item.same)


def least_used(manifest: Manifest) -> Used:
    """What it takes on a disk, not counting how the file system describes it."""
    blocks = sum(-(-item.size // BLOCK_BYTES) for item in manifest.values() if not item.same)
    return Used(blocks * BLOCK_BYTES, sum(not item.same for item in manifest.values()))


def _is_directory_in_both(path: str, before: Manifest, after: Manifest) -> bool:
    return all(item is None or item.kind == "directory" for item in (before.get(path), after.get(path)))


def _change(path: str, before: Item | None, after: Item | None) -> Change:
    kind = "added" if before is None else "removed" if after is None else "changed"
    return Change(listed(path)[0], kind, _bytes(before), _bytes(after))


def _bytes(item: Item | None) -> int | None:
    return item.size if item is not None and item.kind == "file" else None


def _text(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        return _RAW + os.fsencode(name).hex()
    return name


def _name(text: str) -> str:
    return os.fsdecode(bytes.fromhex(text[1:])) if text.startswith(_RAW) else text
