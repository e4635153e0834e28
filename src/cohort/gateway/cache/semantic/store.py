"""Entries by partition: questions with their vectors, answers and labels. Bounded, by value; time is kept by L1's own means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

from cohort.base.clock import Clock
from cohort.gateway.cache.answers import Answer
from cohort.gateway.cache.memory import Kept, Memory
from cohort.gateway.cache.semantic.acceptance import Labels
from cohort.gateway.cache.semantic.asking import Question
from cohort.gateway.cache.semantic.index import EXACT_MAX, VectorIndex
from cohort.gateway.cache.semantic.text import Features, features

if TYPE_CHECKING:
    from cohort.gateway.cache.semantic.embedding import Vector

NEAREST = 5
FEATURES_BYTES = 2000
FAULTS_MAX = 2
"""Wrong answers of one entry before it is removed."""
CROWDED = 0.9
"""Part of the room that is taken before entries that nobody asked for again are cleared away early."""
KEY_BYTES = 16


@dataclass(slots=True, eq=False)
class Entry:
    """One question and what is known of how its answer serves others."""

    key: bytes
    partition: bytes
    slot: int
    features: Features
    labels: Labels = field(default_factory=Labels)


class Store:
    """All entries of a gateway. A partition whose vectors change their dimension begins anew, and is counted."""

    def __init__(self, bytes_max: int, entries_max: int, clock: Clock, exact_max: int = EXACT_MAX) -> None:
        self._memory = Memory(bytes_max, entries_max, clock, self._dropped)
        self._bytes_max = bytes_max
        self._entries_max = entries_max
        self._clock = clock
        self._exact_max = exact_max
        self._entries: dict[bytes, Entry] = {}
        self._partitions: dict[bytes, tuple[VectorIndex, dict[int, Entry]]] = {}
        self.restarted = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def used_bytes(self) -> int:
        return self._memory.used_bytes

    @property
    def evicted(self) -> int:
        return self._memory.evicted

    @property
    def partitions(self) -> int:
        return len(self._partitions)

    def nearest(self, partition: bytes, vector: Vector, cosine_min: float) -> Iterator[tuple[Entry, float]]:
        """The entries nearest to a vector, best first."""
        found = self._partitions.get(partition)
        if found is None:
            return
        index, entries = found
        if index.dimension != len(vector):
            self._restart(partition)
            return
        for slot, cosine in index.nearest(vector, NEAREST, cosine_min):
            yield entries[slot], cosine

    def kept(self, entry: Entry, age_max_s: float | None = None) -> Kept | None:
        """The entry's answer, unless its time is over; being asked for renews its worth."""
        return self._memory.find(entry.key, age_max_s)

    def age_s(self, kept: Kept) -> float:
        return self._memory.age_s(kept)

    def keep(self, question: Question, vector: Vector, answer: Answer, unit: str, ttl_s: float) -> None:
        """Keep an answer; of the same text an older one is replaced."""
        key = blake2b(question.partition + question.text.encode("utf-8", "replace"), digest_size=KEY_BYTES).digest()
        known = self._partitions.get(question.partition)
        if known is not None and known[0].dimension != len(vector):
            self._restart(question.partition)
        if not self._memory.keep(key, answer, unit, ttl_s, extra_bytes=vector.nbytes + FEATURES_BYTES):
            return
        index, entries = self._partitions.setdefault(question.partition, (VectorIndex(len(vector), self._exact_max), {}))
        slot = index.add(vector)
        self._entries[key] = entries[slot] = Entry(key, question.partition, slot, features(question.text))

    def judge(self, entry: Entry, *, against: bool) -> None:
        """An answer was compared with the model's; one that was wrong too often goes."""
        if against and entry.labels.against >= FAULTS_MAX:
            self._memory.forget(entry.key)

    def erase(self, unit: str) -> int:
        return self._memory.erase(unit)

    def sweep(self) -> None:
        """Drop what is over its time; where room is short also what was never asked for in half of its time."""
        self._memory.sweep()
        if max(self._memory.used_bytes / self._bytes_max, len(self._memory) / self._entries_max) < CROWDED:
            return
        now_s = self._clock.monotonic_s()
        idle = [kept.key for kept in self._memory if not kept.found and now_s - kept.made_s > (kept.expires_s - kept.made_s) / 2]
        for key in idle:
            self._memory.forget(key)

    def _restart(self, partition: bytes) -> None:
        self.restarted += 1
        for entry in list(self._partitions[partition][1].values()):
            self._memory.forget(entry.key)

    def _dropped(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        index, entries = self._partitions[entry.partition]
        del entries[entry.slot]
        index.remove(entry.slot)
        if not entries:
            del self._partitions[entry.partition]
