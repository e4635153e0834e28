"""L3: answers on disk, one compressed file each, named by their key. Bounded; whole after any crash; what is damaged is dropped.

A file is written beside its place and renamed, without waiting for the disk: after a power cut it may be empty or torn, and its digest
says so. Nothing here may run on the event loop; any thread may call.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cohort.base.clock import Clock
from cohort.gateway.cache.answers import Answer
from cohort.gateway.cache.packing import HEAD, Damaged, Found, Packing

SUFFIX, FRESH = ".answer", ".fresh"


@dataclass(slots=True)
class _Place:
    size: int
    unit: str
    expires_s: float


class Disk:
    """The files under `folder`. `used_bytes` never exceeds `bytes_max` once it was opened, `len()` never `entries_max`."""

    def __init__(self, folder: Path, bytes_max: int, entries_max: int, clock: Clock, packing: Packing) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._entries_max = entries_max
        self._clock = clock
        self._packing = packing
        self._lock = threading.Lock()
        self._places: OrderedDict[bytes, _Place] = OrderedDict()
        self._opened = False
        self.used_bytes = self.damaged = self.evicted = 0

    def __len__(self) -> int:
        return len(self._places)

    def find(self, key: bytes) -> Found | None:
        """The answer of `key`. One that is damaged, over its time or made in the future is removed. Raises OSError."""
        try:
            data = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        found = self._unpacked(key, data)
        with self._lock:
            if found is None:
                self._drop(key)
            elif key in self._places:
                self._places.move_to_end(key)
        return found

    def keep(self, key: bytes, answer: Answer, unit: str, ttl_s: float) -> bool:
        """Keep an answer made now; False when it is larger than all the room. Raises OSError: it is not kept."""
        data = self._packing.pack(key, answer, unit, ttl_s)
        if len(data) > self._bytes_max or self._entries_max < 1:
            return False
        with self._lock:
            self._open()
            self._drop(key)
            self._make_room(self._bytes_max - len(data), self._entries_max - 1)
            self._write(self._path(key), data)
            self._places[key] = _Place(len(data), unit, self._clock.monotonic_s() + ttl_s)
            self.used_bytes += len(data)
            return True

    def erase(self, unit: str) -> int:
        """Remove the answers to calls of `unit`; how many there were. Raises OSError: some may still be there; ask again."""
        with self._lock:
            self._open()
            keys = [key for key, place in self._places.items() if place.unit == unit]
            for key in keys:
                self._drop(key)
            return len(keys)

    def sweep(self) -> int:
        """Remove what is over its time; how many that were. Raises OSError."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            keys = [key for key, place in self._places.items() if now_s >= place.expires_s]
            for key in keys:
                self._drop(key)
            return len(keys)

    def _unpacked(self, key: bytes, data: bytes) -> Found | None:
        try:
            return self._packing.unpack(key, data)
        except Damaged:
            self.damaged += 1
            return None

    # --- under the lock --------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Learn what an earlier process left, oldest first, and bring it within the bounds."""
        if self._opened:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        left = []
        for path in self._files():
            found = self._left(path)
            if found is None:
                path.unlink(missing_ok=True)
            else:
                left.append(found)
        for _, key, place in sorted(left, key=lambda entry: entry[0]):
            self._places[key] = place
            self.used_bytes += place.size
        self._opened = True
        self._make_room(self._bytes_max, self._entries_max)

    def _files(self) -> Iterator[Path]:
        for folder in sorted(self._folder.iterdir()):
            if folder.is_dir() and len(folder.name) == 2:
                yield from sorted(folder.iterdir())

    def _left(self, path: Path) -> tuple[float, bytes, _Place] | None:
        """What a file is, from its head alone; None for what is none of ours or over its time. The rest is checked when it is read."""
        key = _key(path)
        if key is None:
            return None
        with path.open("rb") as file:
            head, status = file.read(HEAD.size), os.fstat(file.fileno())
        try:
            label = self._packing.label(head)
        except Damaged:
            self.damaged += 1
            return None
        place = _Place(status.st_size, label.unit, self._clock.monotonic_s() + label.left_s)
        return (status.st_mtime, key, place) if label.left_s > 0 else None

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        fresh = path.with_suffix(FRESH)
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
            fresh.replace(path)  # Commit point: from here on the answer is found.
        except OSError:
            fresh.unlink(missing_ok=True)
            raise

    def _make_room(self, bytes_max: int, entries_max: int) -> None:
        while self.used_bytes > bytes_max or len(self._places) > entries_max:
            self.evicted += 1
            self._drop(next(iter(self._places)))

    def _drop(self, key: bytes) -> None:
        self._path(key).unlink(missing_ok=True)
        place = self._places.pop(key, None)
        if place is not None:
            self.used_bytes -= place.size

    def _path(self, key: bytes) -> Path:
        name = key.hex()
        return self._folder / name[:2] / (name + SUFFIX)


def _key(path: Path) -> bytes | None:
    try:
        return bytes.fromhex(path.stem) if path.suffix == SUFFIX else None
    except ValueError:
        return None
