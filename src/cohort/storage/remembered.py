"""What was read from a database, believed again only while nothing at all was committed to it since."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from cohort.storage.database import Database
from cohort.storage.onlooker import Generation

K = TypeVar("K")
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """Values by key, at most `most`: the oldest is forgotten for the next. Safe to use from many threads. On Postgres nothing is remembered."""

    def __init__(self, database: Database, most: int) -> None:
        self._database = database
        self._most = most
        self._lock = threading.Lock()
        self._kept: dict[K, tuple[Generation, V]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K, look: Callable[[], V]) -> V:
        """What `look` reads, or has read before. Errors: those of `look`, which are not remembered, and of `Database`."""
        generation = self._database.generation()  # before the rows: what is committed in between makes it another one
        kept = self._kept.get(key)
        if kept is not None and kept[0] == generation:
            return kept[1]
        value = look()
        if generation is not None:
            self._keep(key, (generation, value))
        return value

    def _keep(self, key: K, kept: tuple[Generation, V]) -> None:
        with self._lock:
            self._kept.pop(key, None)
            while len(self._kept) >= self._most:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = kept
