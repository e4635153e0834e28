"""Whether a path can be led out of a workspace by renames: a directory is exchanged for a link over and over while a file is read through it.

    python bench/paths.py [--seconds 60] [--json]

Three ways for the same time each: openat2, the walk part by part, and, for comparison, what is usually written: `os.path.realpath`, a check
that the result is inside, then `open`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cohort.kernel.workspaces.beneath import OpenAt2, Tree, Walk, best_opener

SECRET, INSIDE = b"secret", b"inside"
RENAME_EXCHANGE = 2
PER_LOOK = 1000
Row = dict[str, Any]


def exchange(root: str, stop: Any) -> None:
    """Swap `d`, a directory, and `l`, a link that leads out, until stopped."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder = os.open(root, os.O_RDONLY)
    while not stop.is_set():
        for _ in range(PER_LOOK):
            libc.renameat2(folder, b"d", folder, b"l", RENAME_EXCHANGE)


def naive(root: str) -> bytes:
    path = os.path.realpath(f"{root}/d/x")
    if not path.startswith(f"{root}/"):
        raise PermissionError(path)
    with open(path, "rb") as file:
        return file.read()


def beneath(tree: Tree) -> bytes:
    opened = tree.open("d/x", os.O_RDONLY)
    try:
        return os.read(opened, 100)
    finally:
        os.close(opened)


def race(name: str, read: Callable[[], bytes], seconds: float) -> Row:
    counts = {"reads": 0, "refused": 0, "leaks": 0}
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        for _ in range(PER_LOOK):
            try:
                counts["leaks" if read() == SECRET else "reads"] += 1
            except OSError:
                counts["refused"] += 1
    total = sum(counts.values())
    return {"way": name, "seconds": seconds, **counts, "us_each": round(seconds * 1e6 / total, 2)}


def run(seconds: float) -> list[Row]:
    context = multiprocessing.get_context("spawn")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root, outside = Path(folder).resolve() / "root", Path(folder) / "outside"
        for where, content in ((root / "d", INSIDE), (outside, SECRET)):
            where.mkdir(parents=True)
            (where / "x").write_bytes(content)
        (root / "l").symlink_to(outside)
        stop = context.Event()
        process = context.Process(target=exchange, args=(str(root), stop), daemon=True)
        process.start()
        try:
            openers = [OpenAt2(), Walk()] if best_opener().name == "openat2" else [Walk()]
            for opener in openers:
                with Tree(str(root), opener) as tree:
                    rows.append(race(opener.name, lambda tree=tree: beneath(tree), seconds))
            rows.append(race("peer: realpath, check, open", lambda: naive(str(root)), seconds))
        finally:
            stop.set()
            process.join()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each way")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    chosen = parser.parse_args()
    rows = run(chosen.seconds)
    if chosen.json:
        print(json.dumps(rows, indent=1))
    else:
        print("| way | seconds | reads | refused | leaks | us each |\n| --- | ---: | ---: | ---: | ---: | ---: |")
        for row in rows:
            print("| " + " | ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()) + " |")
    if any(row["leaks"] for row in rows if not row["way"].startswith("peer")):
        sys.exit("a path was led out")


if __name__ == "__main__":
    main()
