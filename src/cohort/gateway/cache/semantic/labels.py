"""What comparisons said of entries and of their like, over restarts: a file of places of one size, each with a digest of its own.

A change is one write to its place, so a process that is killed at any moment loses nothing that was written, and a torn place, as a power cut
may leave it, is told by its digest and counts as never written. Bounded: when every place is taken, what was not changed for longest goes.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from struct import Struct

from cohort.base.clock import Clock
from cohort.gateway.cache.semantic.acceptance import Grade, Labels

PLACE = Struct("<8s16s16sIIqI4x")
"""Digest, key, unit, right, not shown to be right, made (us since 1970), time to live (ms)."""
DIGEST_BYTES = 8
KEY_BYTES = 16
NOBODY = "0" * 32
COUNT_MAX = (1 << 32) - 1
NONE = Labels()


@dataclass(slots=True)
class _Held:
    place: int
    unit: str
    labels: Labels
    expires_s: float


class LabelBook:
    """Labels by key, at most `places_max`. What cannot be written to `path` is kept in memory alone, and `failed` hears of it.

    Each lives for the time that came with its last change; a clock that is set back prolongs none. Not thread-safe, but for `sync`.
    """

    def __init__(self, path: Path, places_max: int, clock: Clock, failed: Callable[[OSError], object]) -> None:
        self._path = path
        self._places_max = places_max
        self._clock = clock
        self._failed = failed
        self._held: OrderedDict[bytes, _Held] = OrderedDict()
        self._free: list[int] = []
        self._begun = 0  # places from here on were never written
        self._fd = -1
        self._unsynced = False
        self._handed_over = False
        self._to_clear: set[int] = set()
        self.damaged = 0

    def __len__(self) -> int:
        return len(self._held)

    def load(self) -> None:
        """Take in what a former process left; nothing is opened where none did. Raises OSError."""
        if not self._path.exists():
            return
        data = self._path.read_bytes()[: self._places_max * PLACE.size]
        places: list[tuple[int, bytes, bytes, int, int, int, int]] = []
        written = set()
        for place, (digest, *rest) in enumerate(PLACE.iter_unpack(data[: len(data) - len(data) % PLACE.size])):
            if not any(digest):
                continue
            written.add(place)
            if digest != _digest(data[place * PLACE.size :][: PLACE.size]):
                self.damaged += 1
            else:
                places.append((place, *rest))
        self._take(places)
        self._to_clear = written - {held.place for held in self._held.values()}
        self._begun = max(written, default=-1) + 1
        self._free = [place for place in range(self._begun) if place not in written or place in self._to_clear]

    def find(self, key: bytes) -> Labels:
        """What is known, to be read only; nothing is known of what is over its time."""
        held = self._held.get(key)
        return held.labels if held is not None and self._clock.monotonic_s() < held.expires_s else NONE

    def add(self, key: bytes, unit: str, grade: Grade, ttl_s: float) -> None:
        """One more comparison. `unit`: whose answer it is about; with its erasure the labels go."""
        held, now_s = self._held.get(key), self._clock.monotonic_s()
        if held is None:
            held = self._held[key] = _Held(self._place(), unit, Labels(), now_s)
        elif now_s >= held.expires_s:
            held.labels = Labels()
        held.unit, held.expires_s = unit, now_s + ttl_s
        held.labels.add(grade)
        self._held.move_to_end(key)
        labels = held.labels
        counts = (min(labels.same, COUNT_MAX), min(labels.against, COUNT_MAX))
        rest = PLACE.pack(b"", key, bytes.fromhex(unit), *counts, self._clock.now_us(), min(int(ttl_s * 1000), COUNT_MAX))
        self._write(held.place, _digest(rest) + rest[DIGEST_BYTES:])

    def erase(self, unit: str) -> int:
        """Drop the labels of a unit's answers; how many there were. `sync` brings it to disk."""
        keys = [key for key, held in self._held.items() if held.unit == unit]
        for key in keys:
            self._drop(key)
        return len(keys)

    def sweep(self) -> None:
        """Drop what is over its time."""
        now_s = self._clock.monotonic_s()
        for key in [key for key, held in self._held.items() if now_s >= held.expires_s]:
            self._drop(key)

    def sync(self) -> None:
        """Bring to disk what was written, and clear what could not be cleared before, from any thread. Raises OSError."""
        for place in sorted(self._to_clear):
            os.pwrite(self._opened(), bytes(PLACE.size), place * PLACE.size)
            self._to_clear.discard(place)
            self._unsynced = True
        if self._unsynced and self._fd >= 0:
            self._unsynced = False
            os.fsync(self._fd)

    def hand_over(self) -> None:
        """Write nothing from now on: another process has the file, and its own order of places in it."""
        self._handed_over = True
        self._to_clear.clear()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _take(self, places: list[tuple[int, bytes, bytes, int, int, int, int]]) -> None:
        now_us, now_s = self._clock.now_us(), self._clock.monotonic_s()
        for place, key, unit, same, against, made_us, ttl_ms in sorted(places, key=lambda entry: entry[5]):
            left_s = (ttl_ms - (now_us - made_us) / 1000) / 1000
            if 0 < left_s <= ttl_ms / 1000:
                self._held.pop(key, None)  # of two places of one key, which a place that could not be cleared makes, the newer holds
                self._held[key] = _Held(place, unit.hex(), Labels(same, against), now_s + left_s)

    def _place(self) -> int:
        """One that is free; where none is, that of what was not changed for longest."""
        if not self._free and self._begun < self._places_max:
            self._begun += 1
            return self._begun - 1
        if not self._free:
            self._drop(next(iter(self._held)))
        return self._free.pop()

    def _drop(self, key: bytes) -> None:
        held = self._held.pop(key)
        self._free.append(held.place)
        if not self._write(held.place, bytes(PLACE.size)):
            self._to_clear.add(held.place)

    def _write(self, place: int, data: bytes) -> bool:
        if self._handed_over:
            return True
        try:
            os.pwrite(self._opened(), data, place * PLACE.size)  # Commit point: from here on a process that starts again knows it.
        except OSError as error:
            self._failed(error)
            return False
        self._to_clear.discard(place)
        self._unsynced = True
        return True

    def _opened(self) -> int:
        if self._fd < 0:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._fd


def _digest(place: bytes) -> bytes:
    return blake2b(place[DIGEST_BYTES:], digest_size=DIGEST_BYTES, person=b"cohort label").digest()
