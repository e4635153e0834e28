"""Responses that a later call may go on from, on disk: one file each, so that they outlive the process and any worker finds them.

Bounded in number, bytes and age; the oldest go first. Not synced: a machine that loses power may lose the newest.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.gateway.cache.erasing import Erased
from cohort.gateway.log import Log
from cohort.gateway.settings import Limits

_NAME = re.compile(r"(resp_[0-9a-f]{32})\.([0-9a-f]{32})")
_UNFINISHED = re.compile(r"resp_[0-9a-f]{32}\.[0-9a-f]{32}\.new")
UNFINISHED_S = 60.0
"""A file that is still not in its place after so long was being written when its process was killed."""
RESCAN_S = 1.0
"""Another worker's responses are looked for at most this often."""


class _File(NamedTuple):
    name: str
    bytes: int
    at_s: float


class KeptResponses:
    """`directory` is made when the first response is kept. The limits hold for each worker's own writing."""

    def __init__(self, directory: Path, limits: Limits, clock: Clock, log: Log) -> None:
        self._directory = directory
        self._limits = limits
        self._clock = clock
        self._log = log
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._bytes = 0
        self._scanned_s = -RESCAN_S
        self._erased = Erased(clock)

    def get(self, response_id: str) -> dict[str, Any] | None:
        """`unit`, `owner`, `messages` and `response`; None when it is not there, too old or cannot be read."""
        file = self._find(response_id)
        if file is None:
            return None
        if self._now_s() - file.at_s > self._limits.responses_kept_s:
            self._drop(response_id)
            return None
        try:
            value = orjson.loads((self._directory / file.name).read_bytes())
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
        self._scan()
        name = f"{response_id}.{unit}"
        try:
            self._write(self._directory / name, data)
        except OSError as error:
            self._log.seldom("response_not_kept", reason=os.strerror(error.errno or 0))
            return
        self._files[response_id] = _File(name, len(data), self._now_s())
        self._bytes += len(data)
        self._evict()

    def delete(self, response_id: str) -> bool:
        """Whether it was there."""
        return self._find(response_id) is not None and self._drop(response_id)

    def erase(self, unit: str) -> int:
        """Forget every response of a unit, those of calls under way included; how many there were.

        Raises:
            CohortError CACHE_NOT_ERASED: the directory cannot be read, or a file not removed; some may still be there.
        """
        self._erased.add(unit)
        try:
            names = [name for name in os.listdir(self._directory) if name.endswith((f".{unit}", f".{unit}.new"))]
            for name in names:
                (self._directory / name).unlink(missing_ok=True)
        except FileNotFoundError:  # nothing was ever kept
            return 0
        except OSError as error:
            raise CohortError(
                "CACHE_NOT_ERASED",
                f"not every kept response could be erased: {os.strerror(error.errno or 0)}",
                retry=Retry.SAFE,
                hint="Ask again once it works.",
            ) from error
        self._scanned_s = -RESCAN_S
        self._scan()
        return sum(not name.endswith(".new") for name in names)

    def _find(self, response_id: str) -> _File | None:
        if response_id not in self._files:
            self._scan()
        return self._files.get(response_id)

    def _scan(self) -> None:
        """Learn what is on disk, of earlier processes and of other workers, oldest first."""
        now_s = self._clock.monotonic_s()
        if now_s - self._scanned_s < RESCAN_S:
            return
        self._scanned_s = now_s
        try:
            with os.scandir(self._directory) as scanned:
                entries = list(scanned)
            found = [(match[1], _file(entry)) for entry in entries if (match := _NAME.fullmatch(entry.name))]
            self._tidy(entries)
        except OSError:  # nothing is kept yet; that nothing can be is said when something is to be
            found = []
        files = sorted(((name, file) for name, file in found if file is not None), key=lambda pair: pair[1].at_s)
        self._files = OrderedDict(files)
        self._bytes = sum(file.bytes for file in self._files.values())
        self._evict()

    def _tidy(self, entries: list[os.DirEntry[str]]) -> None:
        oldest_s = self._now_s() - UNFINISHED_S
        try:
            for entry in entries:
                if _UNFINISHED.fullmatch(entry.name) and (file := _file(entry)) is not None and file.at_s < oldest_s:
                    (self._directory / entry.name).unlink(missing_ok=True)
        except OSError as error:  # the next look finds it again
            self._log.seldom("response_not_deleted", reason=os.strerror(error.errno or 0))

    def _evict(self) -> None:
        limits, oldest_s = self._limits, self._now_s() - self._limits.responses_kept_s
        while self._files:
            response_id, file = next(iter(self._files.items()))
            over = len(self._files) > limits.responses_max or self._bytes > limits.responses_bytes_max
            if not over and file.at_s >= oldest_s:
                return
            self._drop(response_id)

    def _drop(self, response_id: str) -> bool:
        file = self._files.pop(response_id)
        self._bytes -= file.bytes
        try:
            (self._directory / file.name).unlink(missing_ok=True)
        except OSError as error:  # it is found again by the next look at the directory
            self._log.seldom("response_not_deleted", reason=os.strerror(error.errno or 0))
            return False
        return True

    def _write(self, path: Path, data: bytes) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        fresh = path.with_name(f"{path.name}.new")
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # it holds what people wrote
                file.write(data)
            fresh.replace(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise

    def _now_s(self) -> float:
        return self._clock.now_us() / 1e6


def _file(entry: os.DirEntry[str]) -> _File | None:
    try:
        status = entry.stat()
    except FileNotFoundError:
        return None
    return _File(entry.name, status.st_size, status.st_mtime)
