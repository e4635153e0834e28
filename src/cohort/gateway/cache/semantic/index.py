"""The vectors of one partition and what lies nearest: exactly with numpy, approximately with usearch when there are very many.

Vectors are columns of blocks, each block one piece of memory: a search is one product per block, copies nothing and masks nothing, and a
full block is never moved. A search may run in a thread while this is changed: `search` says how, `confirmed` looks again at what it found. The
graph itself is changed only while no thread is in it; until then what came is looked for exactly, and what left is not confirmed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cohort.gateway.cache.semantic.embedding import Vector

    Search = Callable[[Vector, int, float], list[int]]

EXACT_MAX = 20_000
COLUMNS_MIN, BLOCK_COLUMNS = 2, 2048
"""Columns of the first block at first, and of every whole block. A first block grows by doubling, so that a small partition stays small."""
MOVED_AT_ONCE = 4
"""Vectors that go into the graph with each one that is added, so that no call waits for all of them. Until all are in, search is exact."""
ROUNDING = 1e-5
"""By how much two products of the same vectors may differ when their terms are added in another order."""
SPARE = 4
"""Of candidates that a thread found, as many times more than asked for are looked at again: some may have left meanwhile."""


class VectorIndex:
    """Vectors of one dimension, each in a slot until it is removed."""

    def __init__(self, dimension: int, exact_max: int = EXACT_MAX) -> None:
        self.dimension = dimension
        self._exact_max = exact_max
        self._blocks: list[Vector] = []
        self._free: list[int] = []
        self._used: set[int] = set()
        self._graph: Any = None
        self._in_graph: set[int] = set()
        self._waiting: list[int] = []
        self._leaving: list[int] = []
        self._in_use = threading.Lock()

    def __len__(self) -> int:
        return len(self._used)

    @property
    def exact(self) -> bool:
        """Every vector is looked at."""
        return self._graph is None or bool(self._waiting)

    @property
    def numbers(self) -> int:
        """How many products an exact search takes."""
        return self._columns() * self.dimension

    def add(self, vector: Vector) -> int:
        """Its slot."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._blocks[slot // BLOCK_COLUMNS][:, slot % BLOCK_COLUMNS] = vector
        self._used.add(slot)
        if self._graph is not None:
            self._waiting.append(slot)
            self._settle()
        elif len(self._used) > self._exact_max:
            self._begin_graph()
        return slot

    def remove(self, slot: int) -> None:
        self._used.discard(slot)
        self._blocks[slot // BLOCK_COLUMNS][:, slot % BLOCK_COLUMNS] = 0.0
        self._free.append(slot)
        if slot in self._in_graph:
            self._in_graph.discard(slot)
            self._leaving.append(slot)
            self._settle()

    def nearest(self, vector: Vector, count: int, cosine_min: float) -> list[tuple[int, float]]:
        """At most `count` slots with at least this cosine, the nearest first."""
        return self.confirmed(self.search()(vector, count, cosine_min), vector, count, cosine_min)

    def search(self) -> Search:
        """A search of what is here now, for any thread. What it finds may have left since, or its slot be another's: `confirmed` tells."""
        if not self.exact:
            return self._approximately
        blocks = list(self._blocks)
        return lambda vector, count, cosine_min: candidates(blocks, vector, count, cosine_min)

    def confirmed(self, slots: list[int], vector: Vector, count: int, cosine_min: float) -> list[tuple[int, float]]:
        """Of these the at most `count` nearest, as they are now; of equals the first."""
        found = [(slot, float(self._vector(slot) @ vector)) for slot in slots if slot in self._used]
        return sorted((entry for entry in found if entry[1] >= cosine_min), key=lambda entry: (-entry[1], entry[0]))[:count]

    def _vector(self, slot: int) -> Vector:
        column: Vector = self._blocks[slot // BLOCK_COLUMNS][:, slot % BLOCK_COLUMNS]
        return column

    def _columns(self) -> int:
        return sum(block.shape[1] for block in self._blocks)

    def _grow(self) -> None:
        import numpy

        before = self._columns()
        if before == 0 or before >= BLOCK_COLUMNS:
            more = COLUMNS_MIN if before == 0 else BLOCK_COLUMNS
            self._blocks.append(numpy.zeros((self.dimension, more), dtype=numpy.float32))
        else:
            more = before
            self._blocks[0] = numpy.hstack([self._blocks[0], numpy.zeros((self.dimension, more), dtype=numpy.float32)])
        self._free = list(range(before + more - 1, before - 1, -1))

    def _begin_graph(self) -> None:
        from usearch.index import Index

        self._graph = Index(ndim=self.dimension, metric="cos", dtype="f32")
        self._waiting = sorted(self._used)

    def _settle(self) -> None:
        """Bring the graph nearer to what is here, unless a thread is in it."""
        if not self._in_use.acquire(blocking=False):
            return
        try:
            for slot in self._leaving:
                self._graph.remove(slot)
            self._leaving.clear()
            for _ in range(min(MOVED_AT_ONCE, len(self._waiting))):
                slot = self._waiting.pop()
                if slot in self._used and slot not in self._in_graph:
                    self._in_graph.add(slot)
                    self._graph.add(slot, self._vector(slot).copy())
        finally:
            self._in_use.release()

    def _approximately(self, vector: Vector, count: int, _cosine_min: float) -> list[int]:
        with self._in_use:
            return [int(key) for key in self._graph.search(vector, count).keys]


def candidates(blocks: list[Vector], vector: Vector, count: int, cosine_min: float) -> list[int]:
    """The slots that may be the nearest, in no order. Any thread may call; the interpreter's lock is free during the products."""
    import numpy

    wanted, found, above = SPARE * count, [], cosine_min - ROUNDING
    for number, block in enumerate(blocks):
        cosines = vector @ block
        near = numpy.flatnonzero(cosines >= above)
        if len(near) > wanted:
            near = near[numpy.argpartition(cosines[near], len(near) - wanted)[-wanted:]]
        found += [(-float(cosines[at]), number * BLOCK_COLUMNS + int(at)) for at in near]
    return [slot for _, slot in sorted(found)[:wanted]]
