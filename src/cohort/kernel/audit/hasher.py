"""Hashes stretches of the log in a process of its own. Run as a file, with Python's own library and nothing else: it starts in a moment.

    python hasher.py FILE        then on standard input one `LOW HIGH` per line; it ends when that is closed

For each stretch one byte: 1 when the entries from LOW to before HIGH are all there and hash to the leaves stored beside them, and behind it
those leaf hashes and the hash of each whole tile; 0 otherwise. What is 0 is read again by whoever asked, who then says what is wrong.
"""

from __future__ import annotations

import signal
import sqlite3
import sys
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

TILE_WIDTH = 256
LOCK_WAIT_S = 10.0
WHOLE, NOT_WHOLE = b"\x01", b"\x00"
STRETCH = "SELECT CAST(entry AS BLOB), CAST(leaf AS BLOB) FROM audit_entries WHERE idx >= ? AND idx < ? ORDER BY idx"


def connected(path: Path) -> sqlite3.Connection:
    """Without a write-ahead log beside it nobody writes to the file, and SQLite need not make its index."""
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    return sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, isolation_level=None, timeout=LOCK_WAIT_S)


def tile_hash(hashes: list[bytes]) -> bytes:
    """The root over a power of two of leaf hashes (RFC 6962)."""
    while len(hashes) > 1:
        pairs = iter(hashes)
        hashes = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
    return hashes[0]


def answer(rows: list[tuple[bytes, bytes]], count: int) -> bytes:
    """What is said about a stretch that should have `count` records."""
    leaves = [sha256(b"\x00" + entry).digest() for entry, _ in rows]
    if len(rows) != count or leaves != [leaf for _, leaf in rows]:
        return NOT_WHOLE
    tiles = [tile_hash(leaves[start : start + TILE_WIDTH]) for start in range(0, count - count % TILE_WIDTH, TILE_WIDTH)]
    return b"".join([WHOLE, *leaves, *tiles])


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asked, who then closes our input
    connection = connected(Path(sys.argv[1]))
    for line in sys.stdin:
        low, high = map(int, line.split())
        sys.stdout.buffer.write(answer(connection.execute(STRETCH, (low, high)).fetchall(), high - low))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
