"""Unpredictable bytes for units that have no name, taken from the system in larger pieces."""

from __future__ import annotations

from cohort.base.ids import Entropy

PIECE_BYTES = 4096


class Randomness:
    """An Entropy that asks the system once for many requests: a system call for each was 2 % of a request."""

    __slots__ = ("_at", "_piece", "_source")

    def __init__(self, source: Entropy) -> None:
        self._source = source
        self._piece = b""
        self._at = 0

    def __call__(self, count: int) -> bytes:
        """`count` bytes, at most `PIECE_BYTES`, given to nobody else."""
        if self._at + count > len(self._piece):
            self._piece, self._at = self._source(PIECE_BYTES), 0
        self._at += count
        return self._piece[self._at - count : self._at]
