"""Entries by partition: questions with their vectors and answers. Bounded, by value; time is kept by L1's own means."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from cohort.base.clock import Clock
from cohort.gateway.cache.answers import Answer
from cohort.gateway.cache.memory import Kept, Memory
from cohort.gateway.cache.semantic.asking import Question
from cohort.gateway.cache.semantic.index import COLUMNS_MIN, EXACT_MAX, VectorIndex
from cohort.gateway.cache.semantic.text import Features, features

if TYPE_CHECKING:
    from cohort.gateway.cache.semantic.embedding import Vector

NEAREST = 5
FEATURES_BYTES = 2000
PARTITION_BYTES = 1200
"""What a partition costs besides its vectors: many hold one question only."""
FOLLOWING_SHARE_MAX = 0.5
"""Part of the entries that may belong to conversations: what was said before them will seldom be said again."""
ON_LOOP_NUMBERS_MAX = 1 << 20
"""Products that a search may take on the event loop, a tenth of a millisecond; larger ones are left to a thread."""
CROWDED = 0.9
"""Part of the room that is taken before entries that nobody asked for again are cleared away early."""
KEY_BYTES = 16


@dataclass(slots=True, eq=False)
class Entry:
    """One question; its answer is kept under the same key."""

    key: bytes
    partition: bytes
    slot: int
    features: Features


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
        self._following: OrderedDict[bytes, None] = OrderedDict()
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

    async def nearest(self, partition: bytes, vector: Vector, cosine_min: float) -> list[tuple[Entry, float]]:
        """The entries nearest to a vector, best first. What takes long is looked for in a thread; what leaves meanwhile is not found."""
        found = self._partitions.get(partition)
        if found is None:
            return []
        index, entries = found
        if index.dimension != len(vector):
            self._restart(partition)
            return []
        if index.exact and index.numbers <= ON_LOOP_NUMBERS_MAX:
            near = index.nearest(vector, NEAREST, cosine_min)
        else:
            loop = asyncio.get_running_loop()
            slots = await loop.run_in_executor(None, index.search(), vector, NEAREST, cosine_min)
            near = index.confirmed(slots, vector, NEAREST, cosine_min)
        return [(entries[slot], cosine) for slot, cosine in near]

    def holds(self, entry: Entry) -> bool:
        """It has not left meanwhile."""
        return self._entries.get(entry.key) is entry

    def kept(self, entry: Entry, age_max_s: float | None = None) -> Kept | None:
        """The entry's answer, unless its time is over; being asked for renews its worth."""
        kept = self._memory.find(entry.key, age_max_s)
        if kept is not None and entry.key in self._following:
            self._following.move_to_end(entry.key)
        return kept

    def peek(self, entry: Entry) -> Kept | None:
        """The entry's answer, without being asked for."""
        return self._memory.peek(entry.key)

    def age_s(self, kept: Kept) -> float:
        return self._memory.age_s(kept)

    def keep(self, question: Question, vector: Vector, answer: Answer, unit: str, ttl_s: float) -> None:
        """Keep an answer; of the same text an older one is replaced."""
        key = key_of(question)
        known = self._partitions.get(question.partition)
        if known is not None and known[0].dimension != len(vector):
            self._restart(question.partition)
            known = None
        size = FEATURES_BYTES + COLUMNS_MIN * vector.nbytes + (PARTITION_BYTES if known is None else 0)
        if question.follows and not self._room_to_follow():
            return
        if not self._memory.keep(key, answer, unit, ttl_s, extra_bytes=size):
            return
        index, entries = self._partitions.setdefault(question.partition, (VectorIndex(len(vector), self._exact_max), {}))
        slot = index.add(vector)
        self._entries[key] = entries[slot] = Entry(key, question.partition, slot, features(question.text))
        if question.follows:
            self._following[key] = None

    def forget(self, entry: Entry) -> None:
        if self.holds(entry):
            self._memory.forget(entry.key)

    def erase(self, unit: str) -> int:
        return self._memory.erase(unit)

    def clear(self) -> None:
        self._memory.clear()

    def sweep(self) -> None:
        """Drop what is over its time; where room is short also what was never asked for in half of its time."""
        self._memory.sweep()
        if max(self._memory.used_bytes / self._bytes_max, len(self._memory) / self._entries_max) < CROWDED:
            return
        now_s = self._clock.monotonic_s()
        idle = [kept.key for kept in self._memory if not kept.found and now_s - kept.made_s > (kept.expires_s - kept.made_s) / 2]
        for key in idle:
            self._memory.forget(key)

    def _room_to_follow(self) -> bool:
        """Make room among the entries of conversations: what was not asked for longest goes."""
        most = int(self._entries_max * FOLLOWING_SHARE_MAX)
        while self._following and len(self._following) >= most:
            self._memory.forget(next(iter(self._following)))
        return most > 0

    def _restart(self, partition: bytes) -> None:
        self.restarted += 1
        for entry in list(self._partitions[partition][1].values()):
            self._memory.forget(entry.key)

    def _dropped(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._following.pop(key, None)
        index, entries = self._partitions[entry.partition]
        del entries[entry.slot]
        index.remove(entry.slot)
        if not entries:
            del self._partitions[entry.partition]


def key_of(question: Question) -> bytes:
    """Of a question's entry and of its labels."""
    return blake2b(question.partition + question.text.encode("utf-8", "replace"), digest_size=KEY_BYTES).digest()
