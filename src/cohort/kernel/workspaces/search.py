"""Finding a text in the files of a workspace, literally, within limits. No regular expressions: a hostile one takes for ever."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.kernel.model import Place
from cohort.kernel.workspaces.beneath import Opener, Tree, in_our_words
from cohort.kernel.workspaces.paths import NAME_BYTES_MAX, canonical, listed
from cohort.kernel.workspaces.walking import Found, walked

MATCHES_MAX = 1000
FILES_MAX = 10_000
BYTES_MAX = 256 << 20
FILE_BYTES_MAX = 8 << 20
"""Larger files are not looked into; the answer says how many were left out."""
TIME_MAX_S = 5.0
TEXT_CHARACTERS_MAX = 1000
LINE_BYTES_MAX = 500
BINARY_PROBE_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Match:
    """`line`: from 1. `text`: the line, cut at `LINE_BYTES_MAX` bytes."""

    path: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Matches:
    """`complete`: everything was looked at. `skipped`: files left out as binary, too large, or closed."""

    matches: tuple[Match, ...]
    files: int
    skipped: int
    complete: bool


class Search:
    """Safe to use from many threads."""

    def __init__(self, opener: Opener, clock: Clock) -> None:
        self._opener = opener
        self._clock = clock

    def find(self, place: Place, text: str, path: str = "", names: str = "*", limit: int = 100) -> Matches:
        """Places of `text` in the text files below `path`, or in that one file, whose names match the shell pattern `names`.

        Raises:
            CohortError ARGUMENT_INVALID, and those of paths.
        """
        path = canonical(path)
        _check(text, names, limit)
        with in_our_words(path), Tree(place.root, self._opener) as tree:
            return self._find(tree, path, text.encode(), names, limit)

    def _find(self, tree: Tree, path: str, wanted: bytes, names: str, limit: int) -> Matches:
        until_s = self._clock.monotonic_s() + TIME_MAX_S
        matches: list[Match] = []
        files = skipped = total_bytes = 0
        for found in _files(tree, path):
            if not fnmatch.fnmatchcase(found.path.rpartition("/")[2], names):
                continue
            if files >= FILES_MAX or total_bytes >= BYTES_MAX or self._clock.monotonic_s() >= until_s:
                return Matches(tuple(matches), files, skipped, False)
            files += 1
            data = _content(tree, found)
            if data is None:
                skipped += 1
                continue
            total_bytes += len(data)
            for match in _matches(found.path, data, wanted):
                if len(matches) == limit:
                    return Matches(tuple(matches), files, skipped, False)
                matches.append(match)
        return Matches(tuple(matches), files, skipped, True)


def _check(text: str, names: str, limit: int) -> None:
    for field, value, ok, hint in (
        (
            "text",
            text[:80],
            0 < len(text) <= TEXT_CHARACTERS_MAX and "\n" not in text,
            f"Give 1 to {TEXT_CHARACTERS_MAX} characters of one line.",
        ),
        ("names", names[:80], 0 < len(names) <= NAME_BYTES_MAX, f"Use at most {NAME_BYTES_MAX} characters."),
        ("limit", limit, 1 <= limit <= MATCHES_MAX, f"Use a number from 1 to {MATCHES_MAX}."),
    ):
        if not ok:
            raise CohortError("ARGUMENT_INVALID", f"{field}: {value!r}", field=field, hint=hint)


def _files(tree: Tree, path: str) -> Iterator[Found]:
    if path:
        with tree.parent(path) as (folder, name):
            found = Found(path, os.stat(name, dir_fd=folder, follow_symlinks=False))
        if not found.is_directory:
            yield found
            return
    for found in walked(tree, path):
        if found.is_file:
            yield found


def _content(tree: Tree, found: Found) -> bytes | None:
    """None when it is not a text file that can be looked into."""
    if not found.is_file or found.status.st_size > FILE_BYTES_MAX:
        return None
    with suppress(OSError):
        opened = tree.open(found.path, os.O_RDONLY)
        try:
            data = os.pread(opened, FILE_BYTES_MAX, 0)
        finally:
            os.close(opened)
        return None if b"\0" in data[:BINARY_PROBE_BYTES] else data
    return None


def _matches(path: str, data: bytes, wanted: bytes) -> Iterator[Match]:
    """One for each line that has the text."""
    line, counted_to, at = 1, 0, data.find(wanted)
    while at >= 0:
        line += data.count(b"\n", counted_to, at)
        counted_to = at
        start, end = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
        end = len(data) if end < 0 else end
        shown_from = max(start, at - LINE_BYTES_MAX // 2)
        yield Match(listed(path)[0], line, data[shown_from : min(end, shown_from + LINE_BYTES_MAX)].decode(errors="replace"))
        at = data.find(wanted, end)
