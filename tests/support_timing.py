"""How long calls take, for the benchmarks, and the durable commit that several of them compare with."""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path


def measured(call: Callable[[], object], rounds: int, warm_up: int) -> dict[str, float]:
    """Median and 99th percentile in microseconds."""
    for _ in range(warm_up):
        call()
    taken = []
    for _ in range(rounds):
        start_ns = time.perf_counter_ns()
        call()
        taken.append((time.perf_counter_ns() - start_ns) / 1000)
    taken.sort()
    return {"p50_us": round(statistics.median(taken), 1), "p99_us": round(taken[int(len(taken) * 0.99)], 1)}


def committing(file: Path) -> Callable[[], None]:
    """One durable commit of a small row, as the product's databases are set up."""
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE t (x TEXT)")

    def commit() -> None:
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO t VALUES (?)", ("x" * 500,))
        database.execute("COMMIT")

    return commit
