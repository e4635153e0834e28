"""The vectors of one partition and what lies nearest: exactly with numpy, approximately with usearch when there are very many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cohort.gateway.cache.semantic.embedding import Vector

EXACT_MAX = 20_000
ROWS_MIN = 16


class VectorIndex:
    """Vectors of one dimension, each in a slot until it is removed."""

    def __init__(self, dimension: int, exact_max: int = EXACT_MAX) -> None:
        import numpy

        self.dimension = dimension
        self._exact_max = exact_max
        self._rows: Vector = numpy.zeros((ROWS_MIN, dimension), dtype=numpy.float32)
        self._free = list(range(ROWS_MIN - 1, -1, -1))
        self._used: set[int] = set()
        self._high = 0
        self._graph: Any = None

    def __len__(self) -> int:
        return len(self._used)

    def add(self, vector: Vector) -> int:
        """Its slot."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._high = max(self._high, slot + 1)
        self._rows[slot] = vector
        self._used.add(slot)
        if self._graph is not None:
            self._graph.add(slot, vector)
        elif len(self._used) > self._exact_max:
            self._to_graph()
        return slot

    def remove(self, slot: int) -> None:
        self._used.discard(slot)
        self._rows[slot] = 0.0
        self._free.append(slot)
        if self._graph is not None:
            self._graph.remove(slot)

    def nearest(self, vector: Vector, count: int, cosine_min: float) -> list[tuple[int, float]]:
        """At most `count` slots with at least this cosine, the nearest first."""
        if self._graph is None:
            cosines = self._rows[: self._high] @ vector
            near = (cosines >= cosine_min).nonzero()[0]
            found = [(int(slot), float(cosines[slot])) for slot in near]
        else:
            slots = [int(key) for key in self._graph.search(vector, count).keys]
            found = [(slot, float(self._rows[slot] @ vector)) for slot in slots]
        able = [(slot, cosine) for slot, cosine in found if slot in self._used and cosine >= cosine_min]
        return sorted(able, key=lambda entry: -entry[1])[:count]

    def _grow(self) -> None:
        import numpy

        before = len(self._rows)
        self._rows = numpy.concatenate([self._rows, numpy.zeros_like(self._rows)])
        self._free = list(range(2 * before - 1, before - 1, -1))

    def _to_graph(self) -> None:
        import numpy
        from usearch.index import Index

        self._graph = Index(ndim=self.dimension, metric="cos", dtype="f32")
        slots = numpy.array(sorted(self._used), dtype=numpy.uint64)
        self._graph.add(slots, self._rows[slots])
