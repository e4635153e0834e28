"""The tree of RFC 6962 (section 2.1): hashes, growth, proofs and their verification. Pure.

Of the inner nodes only those at heights 8, 16, 24, ... are kept, as in C2SP tlog-tiles: one for every 256 leaves. A node in between is
computed from at most 256 kept ones, so that a proof reads a few short runs instead of one row per height.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()
HASH_BYTES = 32
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
PROOF_HASHES_MAX = 63

ReadRun = Callable[[int, int, int], Sequence[bytes]]
"""`(height, low, high)`: the kept nodes at that height, 0, 8, 16, ..., from index `low` to before `high`."""


@dataclass(frozen=True, slots=True)
class Node:
    """The hash of a complete subtree of `2**height` leaves, the `index`-th of its height."""

    height: int
    index: int
    hash: bytes


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def complete(hashes: Sequence[bytes]) -> bytes:
    """The root over a power of two of hashes of equal height."""
    while len(hashes) > 1:
        pairs = iter(hashes)
        hashes = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
    return hashes[0]


@dataclass(slots=True)
class Frontier:
    """All that has to be remembered of a tree to let it grow: its size, and the roots of its complete subtrees, largest first."""

    size: int = 0
    peaks: list[bytes] = field(default_factory=list)

    def append(self, leaf: bytes) -> list[Node]:
        """Add one leaf hash; the nodes to keep that it completed."""
        kept: list[Node] = []
        hashed, height, rest = leaf, 0, self.size
        while rest & 1:
            hashed = sha256(b"\x01" + self.peaks.pop() + hashed).digest()
            height += 1
            rest >>= 1
            if height % TILE_HEIGHT == 0:
                kept.append(Node(height, self.size >> height, hashed))
        self.peaks.append(hashed)
        self.size += 1
        return kept

    def extend(self, leaves: Iterable[bytes]) -> list[Node]:
        return [node for leaf in leaves for node in self.append(leaf)]

    def extend_tile(self, leaves: Sequence[bytes]) -> Node:
        """Add a full tile at once; the size must be a multiple of its width. The node of the tile itself."""
        if len(leaves) != TILE_WIDTH:
            raise ValueError(f"{len(leaves)} leaves are no tile")
        return self.add_tile(complete(leaves))

    def add_tile(self, hashed: bytes) -> Node:
        """Add a full tile by its hash; the size must be a multiple of its width. The node of the tile itself."""
        if self.size % TILE_WIDTH:
            raise ValueError(f"a tile cannot be added at {self.size}")
        node = Node(TILE_HEIGHT, self.size >> TILE_HEIGHT, hashed)
        rest = self.size >> TILE_HEIGHT
        while rest & 1:
            hashed = node_hash(self.peaks.pop(), hashed)
            rest >>= 1
        self.peaks.append(hashed)
        self.size += TILE_WIDTH
        return node

    def root(self) -> bytes:
        if not self.peaks:
            return EMPTY_ROOT
        hashed = self.peaks[-1]
        for left in reversed(self.peaks[:-1]):
            hashed = node_hash(left, hashed)
        return hashed

    def copy(self) -> Frontier:
        return Frontier(self.size, list(self.peaks))


def restore(size: int, read: ReadRun) -> Frontier:
    """The frontier of a tree of `size` leaves from its kept nodes."""
    runs: list[Sequence[bytes]] = []
    for height in range(0, max(size.bit_length(), 1), TILE_HEIGHT):
        count = size >> height
        low = count - count % TILE_WIDTH
        runs.append(read(height, low, count) if count > low else [])
    peaks: list[bytes] = []
    for run in reversed(runs):
        peaks += _peaks(run)
    return Frontier(size, peaks)


def _peaks(run: Sequence[bytes]) -> list[bytes]:
    """The roots of the complete subtrees over a run of fewer than 256 hashes, largest first."""
    peaks, start = [], 0
    for bit in reversed(range(TILE_HEIGHT)):
        width = 1 << bit
        if len(run) & width:
            peaks.append(complete(run[start : start + width]))
            start += width
    return peaks


def _split(size: int) -> int:
    """The largest power of two below `size`, which is at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


class Tree:
    """Any hash of a tree, from its kept nodes."""

    def __init__(self, read: ReadRun) -> None:
        self._read = read

    def hash(self, low: int, high: int) -> bytes:
        """The root over the leaves from `low` to before `high`, a range that RFC 6962 splits a tree into."""
        size = high - low
        if size & (size - 1) == 0 and low % size == 0:
            return self._subtree(size.bit_length() - 1, low)
        middle = low + _split(size)
        return node_hash(self.hash(low, middle), self.hash(middle, high))

    def root(self, size: int) -> bytes:
        return self.hash(0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """PATH of RFC 6962, 2.1.1: from the leaf's sibling to the root's child."""
        if not 0 <= index < size:
            raise ValueError(f"leaf {index} is not in a tree of {size}")
        low, high, path = 0, size, []
        while high - low > 1:
            middle = low + _split(high - low)
            if index < middle:
                path.append(self.hash(middle, high))
                high = middle
            else:
                path.append(self.hash(low, middle))
                low = middle
        return path[::-1]

    def consistency(self, old: int, size: int) -> list[bytes]:
        """PROOF of RFC 6962, 2.1.2: that the tree of `old` leaves is the beginning of that of `size`. Empty for 0 and for the same size."""
        if not 0 <= old <= size:
            raise ValueError(f"a tree of {old} leaves is not the beginning of one of {size}")
        if old in (0, size):
            return []
        low, high, path = 0, size, []
        while old < high:
            middle = low + _split(high - low)
            if old <= middle:
                path.append(self.hash(middle, high))
                high = middle
            else:
                path.append(self.hash(low, middle))
                low = middle
        if low:
            path.append(self.hash(low, high))
        return path[::-1]

    def _subtree(self, height: int, low: int) -> bytes:
        kept = height - height % TILE_HEIGHT
        first = low >> kept
        return complete(self._read(kept, first, first + (1 << (height - kept))))


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that an inclusion proof leads to (RFC 9162, 2.1.3.2); None when the proof has the wrong shape."""
    if not 0 <= index < size:
        return None
    here, last, hashed = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if here & 1 or here == last:
            hashed = node_hash(sibling, hashed)
            while not here & 1 and here:
                here >>= 1
                last >>= 1
        else:
            hashed = node_hash(hashed, sibling)
        here >>= 1
        last >>= 1
    return hashed if last == 0 else None


def consistent(old: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> bool:
    """Whether a consistency proof holds (RFC 9162, 2.1.4.2)."""
    if not 0 <= old <= size:
        return False
    if old in (0, size):
        return not path and old_root == (root if old == size else EMPTY_ROOT)
    hashes = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not hashes:
        return False
    here, last = old - 1, size - 1
    while here & 1:
        here >>= 1
        last >>= 1
    was = now = hashes[0]
    for hashed in hashes[1:]:
        if last == 0:
            return False
        if here & 1 or here == last:
            was, now = node_hash(hashed, was), node_hash(hashed, now)
            while not here & 1 and here:
                here >>= 1
                last >>= 1
        else:
            now = node_hash(now, hashed)
        here >>= 1
        last >>= 1
    return last == 0 and was == old_root and now == root
