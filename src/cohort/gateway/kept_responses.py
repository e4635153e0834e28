"""Responses that a later call may go on from, on disk: one file each, so that they outlive the process and every worker of the machine finds them.

A file is looked for by its name in one of 256 folders, so a response is there for all workers as soon as one has kept it. Number and bytes are
counted in a file that the workers share, and when there are too many the oldest go. Not synced: a machine that loses power may lose the newest.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.gateway.cache.erasing import Erased
from cohort.gateway.log import Log
from cohort.gateway.settings import Limits
from cohort.gateway.spend.book import FREE_WORDS_AT, HEADER_WORDS, Book, BookBusy, BookUnavailable

_ID = re.compile(r"resp_([0-9a-f]{2})[0-9a-f]{30}")
_NAME = re.compile(r"(resp_[0-9a-f]{32})\.([0-9a-f]{32})")
UNFINISHED_S = 60.0
"""A file that is still not in its place after so long was being written when its process was killed."""
FOLDERS = 256
ROOM_SHARE = 16
"""When there is too much, one in so many goes as well, so that not every response has to make room for itself."""
_COUNT, _BYTES = FREE_WORDS_AT, FREE_WORDS_AT + 1
_NOT_KEPT = (OSError, BookBusy, BookUnavailable)


class _File(NamedTuple):
    at_s: float
    bytes: int
    path: str


class KeptResponses:
    """`directory` is shared by the workers of a machine and made when the first response is kept; the limits hold for all of them together."""

    def __init__(self, directory: Path, limits: Limits, clock: Clock, log: Log, erased: Erased) -> None:
        self._directory = directory
        self._limits = limits
        self._clock = clock
        self._log = log
        self._erased = erased
        self._book: Book | None = None
        self._swept = 0

    def get(self, response_id: str) -> dict[str, Any] | None:
        """`unit`, `owner`, `messages` and `response`; None when it is not there, too old or cannot be read."""
        file = self._find(response_id)
        if file is None or self._now_s() - file.at_s > self._limits.responses_kept_s:
            return None
        try:
            value = orjson.loads(Path(file.path).read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return None
        return value if isinstance(value, dict) else None

    def now_s(self) -> float:
        """Monotonic."""
        return self._clock.monotonic_s()

    def keep(
        self, response_id: str, unit: str, owner: str, messages: list[dict[str, Any]], response: dict[str, Any], began_s: float
    ) -> None:
        """Keep one, unless its unit was erased since the call began. What cannot be kept is said in the log; the caller gets its answer all the same."""
        if self._erased.since(unit, began_s):
            return
        data = orjson.dumps({"unit": unit, "owner": owner, "messages": messages, "response": response})
        if len(data) > self._limits.response_bytes_max:
            self._log.seldom("response_not_kept", reason="larger than response_bytes_max")
            return
        path = f"{self._folder(response_id)}/{response_id}.{unit}"
        try:
            book = self._opened()
            _write(f"{path}.new", data)
            self._put(book, path, len(data), unit, began_s)
        except _NOT_KEPT as error:
            with contextlib.suppress(OSError):
                os.unlink(f"{path}.new")
            self._log.seldom("response_not_kept", reason=_reason(error))

    def delete(self, response_id: str) -> bool:
        """Whether it was there."""
        file = self._find(response_id)
        return file is not None and self._drop([file]) == 1

    def erase(self, unit: str) -> int:
        """Forget every response of a unit, those of calls under way in any worker included; how many there were.

        Raises:
            CohortError CACHE_NOT_ERASED: the directory cannot be read, or a file not removed; some may still be there.
        """
        self._erased.add(unit)
        try:
            gone = [file for file in self._files(f".{unit}", f".{unit}.new") if _unlinked(file)]
            return self._discount(gone)
        except _NOT_KEPT as error:
            what = f"not every kept response could be erased: {_reason(error)}"
            raise CohortError("CACHE_NOT_ERASED", what, retry=Retry.SAFE, hint="Ask again once it works.") from error

    def sweep(self) -> None:
        """Remove what is too old, and what killed processes left, from one of the folders; call now and then."""
        self._swept = (self._swept + 1) % FOLDERS
        now_s, old = self._now_s(), []
        try:
            for file in _listed(f"{self._directory}/{self._swept:02x}"):
                age_s = now_s - file.at_s
                if age_s > (UNFINISHED_S if file.path.endswith(".new") else self._limits.responses_kept_s):
                    old.append(file)
            self._drop(old)
        except OSError as error:
            self._log.seldom("response_not_deleted", reason=_reason(error))

    # --- files -----------------------------------------------------------------------------------------------------------------

    def _find(self, response_id: str) -> _File | None:
        if not _ID.fullmatch(response_id):
            return None
        try:
            found = [file for file in _listed(self._folder(response_id), f"{response_id}.") if not file.path.endswith(".new")]
        except OSError:
            return None
        return found[0] if found else None

    def _folder(self, response_id: str) -> str:
        return f"{self._directory}/{response_id[5:7]}"

    def _files(self, *ends: str) -> Iterator[_File]:
        for number in range(FOLDERS):
            yield from _listed(f"{self._directory}/{number:02x}", "", ends)

    def _put(self, book: Book, path: str, size: int, unit: str, began_s: float) -> None:
        book.lock()
        try:
            if self._erased.since(unit, began_s):  # while it was being written; from here on an erasure finds it
                os.unlink(f"{path}.new")
                return
            # Commit point. Before this line no worker finds the response; after it, all do.
            os.rename(f"{path}.new", path)
            book.change([(_COUNT, book.words[_COUNT] + 1), (_BYTES, book.words[_BYTES] + size)])
            if book.words[_COUNT] > self._limits.responses_max or book.words[_BYTES] > self._limits.responses_bytes_max:
                self._make_room(book)
        finally:
            book.unlock()

    def _make_room(self, book: Book) -> None:
        """Look at everything, which also puts the count right after a process was killed between a file and its count. The lock is held."""
        limits, oldest_s = self._limits, self._now_s() - self._limits.responses_kept_s
        files = sorted(file for file in self._files() if _NAME.fullmatch(os.path.basename(file.path)))
        count, size = len(files), sum(file.bytes for file in files)
        count_max, bytes_max = limits.responses_max, limits.responses_bytes_max
        if count > count_max or size > bytes_max:
            count_max, bytes_max = count_max - count_max // ROOM_SHARE, bytes_max - bytes_max // ROOM_SHARE
        for file in files:
            if count <= count_max and size <= bytes_max and file.at_s >= oldest_s:
                break
            Path(file.path).unlink(missing_ok=True)
            count, size = count - 1, size - file.bytes
        book.change([(_COUNT, count), (_BYTES, size)])

    def _drop(self, files: list[_File]) -> int:
        """Remove files; how many were there. Those that another worker removed first are counted by it."""
        try:
            return self._discount([file for file in files if _unlinked(file)])
        except _NOT_KEPT as error:
            self._log.seldom("response_not_deleted", reason=_reason(error))
            return 0

    def _discount(self, gone: list[_File]) -> int:
        """Take files that were removed from the count; how many were responses. Raises BookBusy, BookUnavailable."""
        responses = [file for file in gone if not file.path.endswith(".new")]
        if responses:
            book, size = self._opened(), sum(file.bytes for file in responses)
            book.lock()
            try:
                book.change([(_COUNT, max(book.words[_COUNT] - len(responses), 0)), (_BYTES, max(book.words[_BYTES] - size, 0))])
            finally:
                book.unlock()
        return len(responses)

    def _opened(self) -> Book:
        """The count, which the first of a process's responses puts right. Raises BookUnavailable, BookBusy."""
        if self._book is None:
            book = Book(self._directory / "count", HEADER_WORDS)
            book.lock()
            try:
                self._make_room(book)
            finally:
                book.unlock()
            self._book = book
        return self._book

    def _now_s(self) -> float:
        return self._clock.now_us() / 1e6


def _listed(folder: str, begins: str = "", ends: tuple[str, ...] = ()) -> Iterator[_File]:
    """The files of a folder whose names fit; none where there is no folder. Raises OSError."""
    try:
        with os.scandir(folder) as entries:
            names = [entry for entry in entries if entry.name.startswith(begins) and (not ends or entry.name.endswith(ends))]
    except FileNotFoundError:
        return
    for entry in names:
        try:
            status = entry.stat()
        except FileNotFoundError:
            continue
        yield _File(status.st_mtime, status.st_size, entry.path)


def _unlinked(file: _File) -> bool:
    """Whether this call removed it. Raises OSError."""
    try:
        os.unlink(file.path)
    except FileNotFoundError:
        return False
    return True


def _write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # it holds what people wrote
        file.write(data)


def _reason(error: Exception) -> str:
    return os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
