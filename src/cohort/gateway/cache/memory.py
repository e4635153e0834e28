"""L1: answers in this process, bounded in bytes and number. What saves the least money for its room, and longest ago, goes first.

The order is GreedyDual-Size (Cao and Irani, 1997): an entry is worth the level of the last eviction plus what it saves for each byte.
Where all entries are worth the same this is least recently used.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cohort.base.clock import Clock
from cohort.gateway.cache.answers import Answer

ENTRY_BYTES = 600
"""What an entry costs besides its answer: key, objects, its places in the dictionary and the heap."""
STALE_MAX = 64
"""Outdated places in the heap, besides as many as there are entries, before it is built again."""


@dataclass(slots=True, eq=False)
class Kept:
    """An answer in memory. `unit`: the pseudonym of whose call it answered. Times are on the monotonic clock, in seconds."""

    key: bytes
    answer: Answer
    unit: str
    made_s: float
    expires_s: float
    size: int
    worth: float = 0.0
    place: int = 0
    found: int = 0


class Memory:
    """The answers. `dropped` hears of every key that leaves.

    `used_bytes` never exceeds `bytes_max`, `len()` never `entries_max`, and nothing is found after its time.
    """

    def __init__(self, bytes_max: int, entries_max: int, clock: Clock, dropped: Callable[[bytes], object] | None = None) -> None:
        self._bytes_max = bytes_max
        self._entries_max = entries_max
        self._clock = clock
        self._dropped = dropped
        self._entries: dict[bytes, Kept] = {}
        self._order: list[tuple[float, int, bytes]] = []
        self._level = 0.0
        self._places = 0
        self.used_bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Kept]:
        return iter(self._entries.values())

    def find(self, key: bytes, age_max_s: float | None = None) -> Kept | None:
        """The entry of `key`, unless its time is over or it is older than `age_max_s`; being found renews its worth."""
        kept = self._entries.get(key)
        if kept is None:
            return None
        now_s = self._clock.monotonic_s()
        if now_s >= kept.expires_s:
            self._drop(kept)
            return None
        if age_max_s is not None and now_s - kept.made_s > age_max_s:
            return None
        kept.found += 1
        self._value(kept)
        return kept

    def peek(self, key: bytes) -> Kept | None:
        """The entry of `key`, unless its time is over. Its worth stays what it was."""
        kept = self._entries.get(key)
        return kept if kept is not None and self._clock.monotonic_s() < kept.expires_s else None

    def age_s(self, kept: Kept) -> float:
        return max(self._clock.monotonic_s() - kept.made_s, 0.0)

    def keep(self, key: bytes, answer: Answer, unit: str, ttl_s: float, age_s: float = 0.0, extra_bytes: int = 0) -> bool:
        """Keep an answer that is `age_s` old until it is `ttl_s` old. False when it has no time left, or is larger than all the room.

        `extra_bytes`: what is held elsewhere for as long as the answer.
        """
        known = self._entries.get(key)
        if known is not None:
            self._drop(known)
        size = len(answer.body) + ENTRY_BYTES + extra_bytes
        if age_s >= ttl_s or size > self._bytes_max or self._entries_max < 1:
            return False
        if self.used_bytes + size > self._bytes_max or len(self._entries) >= self._entries_max:
            self._make_room(size)
        made_s = self._clock.monotonic_s() - age_s
        kept = Kept(key, answer, unit, made_s, made_s + ttl_s, size)
        self._entries[key] = kept
        self.used_bytes += size
        self._value(kept)
        return True

    def forget(self, key: bytes) -> None:
        kept = self._entries.get(key)
        if kept is not None:
            self._drop(kept)

    def erase(self, unit: str) -> int:
        """Drop what answered calls of `unit`; how many there were."""
        found = [kept for kept in self._entries.values() if kept.unit == unit]
        for kept in found:
            self._drop(kept)
        return len(found)

    def clear(self) -> None:
        """Drop everything."""
        for kept in list(self._entries.values()):
            self._drop(kept)

    def sweep(self) -> int:
        """Drop everything whose time is over; how many that were."""
        now_s = self._clock.monotonic_s()
        over = [kept for kept in self._entries.values() if now_s >= kept.expires_s]
        for kept in over:
            self._drop(kept)
        return len(over)

    def _make_room(self, size: int) -> None:
        while self._entries and (self.used_bytes + size > self._bytes_max or len(self._entries) >= self._entries_max):
            worth, place, key = heapq.heappop(self._order)
            kept = self._entries.get(key)
            if kept is not None and kept.place == place:
                self._level = worth
                self.evicted += 1
                self._drop(kept)

    def _value(self, kept: Kept) -> None:
        self._places += 1
        kept.place = self._places
        kept.worth = self._level + (kept.answer.saved_usd_micro + 1) / kept.size
        heapq.heappush(self._order, (kept.worth, kept.place, kept.key))
        if len(self._order) > 2 * len(self._entries) + STALE_MAX:
            self._order = [(k.worth, k.place, k.key) for k in self._entries.values()]
            heapq.heapify(self._order)

    def _drop(self, kept: Kept) -> None:
        del self._entries[kept.key]
        self.used_bytes -= kept.size
        if self._dropped is not None:
            self._dropped(kept.key)
