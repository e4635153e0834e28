"""A histogram with bins of constant relative width: quantiles and ranks of a stream in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Self

from cohort.stats.mixture import field

VALUE_MIN = 1e-9  # smaller values share the bin of zero
VALUE_MAX = 1e15  # larger values share the top bin
RELATIVE_ERROR_MIN = 0.001
RELATIVE_ERROR_MAX = 0.1
BLOCK_BINS = 64  # bins whose sum is kept; a rank adds up at most one block and the sums of the others


class Sketch:
    """Counts of values >= 0, in logarithmic bins; mergeable, and the same whatever the order of its values.

    A quantile is within `relative_error` of the true one for values from VALUE_MIN to VALUE_MAX. At the default of 1 % a bin is 2 %
    wide (the rank histogram of gates.md section 6.4) and there are at most 2,766 of them. The layout is that of DDSketch (Masson, Rim &
    Lee, VLDB 2019): bin i holds VALUE_MIN * [g^i, g^(i+1)), g = (1 + e)/(1 - e). Adding costs O(1); a rank, the sum of at most
    BLOCK_BINS bins and of the blocks.
    """

    __slots__ = ("_blocks", "_inverse", "_log_width", "_relative_error", "_sums", "_top", "count")
    KIND = "sketch"

    def __init__(self, relative_error: float = 0.01) -> None:
        if not RELATIVE_ERROR_MIN <= relative_error <= RELATIVE_ERROR_MAX:
            raise ValueError(f"relative_error is {relative_error!r}; it must be from {RELATIVE_ERROR_MIN} to {RELATIVE_ERROR_MAX}")
        self._relative_error = relative_error
        self._log_width = math.log1p(relative_error) - math.log1p(-relative_error)
        self._inverse = 1.0 / self._log_width
        self._top = 1 + int(math.log(VALUE_MAX / VALUE_MIN) * self._inverse)
        self._sums = [0] * (self._top // BLOCK_BINS + 1)
        self._blocks: dict[int, list[int]] = {}  # made when first used
        self.count = 0

    @property
    def relative_error(self) -> float:
        return self._relative_error

    def add(self, value: float, count: int = 1) -> None:
        """Count `value` (finite, >= 0) `count` times. Raises ValueError otherwise, and nothing is counted."""
        if count < 1:
            raise ValueError(f"count is {count}; it must be at least 1")
        self._add_bin(self._bin(value), count)

    def merge(self, other: Sketch) -> None:
        """Count everything `other` has counted. Both must have the same relative error."""
        if other._relative_error != self._relative_error:
            raise ValueError(f"cannot merge a sketch of relative error {other._relative_error} into one of {self._relative_error}")
        for index, count in list(other._bins()):
            self._add_bin(index, count)

    def absorb(self, other: Sketch) -> None:
        """As `merge`, for a sketch of any relative error: the values of its bins stand for what is in them."""
        if other._relative_error == self._relative_error:
            self.merge(other)
            return
        for index, count in other._bins():
            self.add(other._value(index), count)

    def quantile(self, q: float) -> float | None:
        """The value below which a part `q` (0 to 1) of the counted values lies; None when nothing was counted."""
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"q is {q!r}; it must be from 0 to 1")
        if not self.count:
            return None
        left = int(q * (self.count - 1))  # this many smaller or equal values come before it
        for block, total in enumerate(self._sums):
            if left < total:
                return self._value(block * BLOCK_BINS + _place(self._blocks[block], left))
            left -= total
        raise AssertionError("the sums of the blocks do not add up to the count")

    def rank(self, value: float) -> float:
        """Mid-rank of `value` among those counted, above 0 and below 1; 1/2 when nothing was counted.

        (below + half of those in the same bin + 1/2) / (count + 1).
        """
        block, place = divmod(self._bin(value), BLOCK_BINS)
        below = sum(self._sums[:block])
        same = 0
        bins = self._blocks.get(block)
        if bins is not None:
            below += sum(bins[:place])
            same = bins[place]
        return (2 * below + same + 1) / (2 * self.count + 2)

    def _bin(self, value: float) -> int:
        if not 0.0 <= value < math.inf:
            raise ValueError(f"value is {value!r}; it must be a finite number of at least 0")
        if value < VALUE_MIN:
            return 0
        if value >= VALUE_MAX:
            return self._top
        return 1 + int(math.log(value / VALUE_MIN) * self._inverse)

    def _value(self, index: int) -> float:
        """What stands for every value of one bin: the point with the same relative distance to both of its ends."""
        if index == 0:
            return 0.0
        return VALUE_MIN * math.exp((index - 1) * self._log_width) * (1.0 + self._relative_error)

    def _add_bin(self, index: int, count: int) -> None:
        block, place = divmod(index, BLOCK_BINS)
        bins = self._blocks.get(block)
        if bins is None:
            bins = self._blocks[block] = [0] * BLOCK_BINS
        bins[place] += count
        self._sums[block] += count
        self.count += count

    def _bins(self) -> Iterator[tuple[int, int]]:
        """Every bin that is not empty, smallest first."""
        for block in sorted(self._blocks):
            for place, count in enumerate(self._blocks[block]):
                if count:
                    yield block * BLOCK_BINS + place, count

    def to_state(self) -> dict[str, Any]:
        """Plain JSON values: the bins that are not empty, as [index, count]."""
        return {"kind": self.KIND, "relative_error": self._relative_error, "bins": [list(pair) for pair in self._bins()]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Raises ValueError if `state` is not one of `to_state`."""
        made = cls(float(field(state, cls.KIND, "relative_error")))
        for index, count in field(state, cls.KIND, "bins"):
            if not (0 <= index <= made._top and count > 0):
                raise ValueError(f"state of 'sketch' has bin {index} with count {count}; bins are 0 to {made._top}, counts above 0")
            made._add_bin(index, count)
        return made


def _place(bins: list[int], left: int) -> int:
    """The bin that holds the value number `left` of a block, counted from zero."""
    for place, count in enumerate(bins):
        if left < count:
            return place
        left -= count
    raise AssertionError("the bins of a block do not add up to its sum")
