"""The audit log: how many records a second, beside what the disk and plain SQLite do in the same run; how long a verification takes.

    python bench/audit.py [--quick] [--entries N] [--folder FOLDER] [--json]

`--folder` is where the log is written; it should be on the disk that counts, not in memory. Nothing is left there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import secrets
import shutil
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cohort.base.clock import SystemClock
from cohort.kernel.audit.room import CHECKPOINT_PAGES, AuditRoom, open_audit
from cohort.kernel.model import Record, RecordKind
from cohort.storage.database import open_database

ENTRIES = 1_000_000
CALLERS = 64
ROUNDS = 5
CHUNK = 5000

Row = dict[str, Any]


def intent(number: int) -> Record:
    body = {
        "operation": "files.write",
        "resource": "ws_abcdefghijklmnop/src/main.py",
        "arguments": {"path": "src/main.py", "bytes": 80, "sha256": "a" * 64},
        "digest": "a" * 64,
        "answer": "allow",
        "code": None,
        "reason": "inside the workspace",
        "rules": ["inside", "standard"],
        "policy_hash": "b" * 64,
        "risk": 0.2,
        "risk_level": "low",
        "token": "tk_abcdefghijklmnop",
        "scopes": ["files.write"],
        "grant": None,
        "level": 4,
    }
    return Record(RecordKind.INTENT, body, agent=f"ag_{number % 50:016d}", session="se_abcdefghijklmnop", action=f"act_{number:016x}")  # type: ignore[arg-type]


def outcome(number: int) -> Record:
    body = {
        "outcome": "done",
        "code": None,
        "result": {"bytes": 80},
        "output_digest": "c" * 64,
        "duration_us": 812,
        "usage": {"cpu_us": 95},
    }
    return Record(RecordKind.OUTCOME, body, agent=f"ag_{number % 50:016d}", session="se_abcdefghijklmnop", action=f"act_{number:016x}")  # type: ignore[arg-type]


def opened(folder: Path, name: str) -> AuditRoom:
    database = open_database(f"sqlite:///{folder / name}.db", checkpoint_pages=CHECKPOINT_PAGES)
    database.migrate()
    return open_audit(database, SystemClock(), secrets.token_bytes, key_file=folder / f"{name}.key", origin="bench.example/audit")


def rate(callers: int, each: int, call: Callable[[int], object]) -> float:
    """Calls a second when `callers` threads make `each` calls each."""
    threads = [threading.Thread(target=lambda first=caller * each: [call(first + n) for n in range(each)]) for caller in range(callers)]
    start_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return callers * each / (time.perf_counter() - start_s)


def syncs_per_s(folder: Path, count: int) -> float:
    """What the disk does: append 4 KiB and wait for it."""
    descriptor = os.open(folder / "sync", os.O_CREAT | os.O_WRONLY)
    start_s = time.perf_counter()
    for _ in range(count):
        os.write(descriptor, bytes(4096))
        os.fdatasync(descriptor)
    took_s = time.perf_counter() - start_s
    os.close(descriptor)
    (folder / "sync").unlink()
    return count / took_s


def plain_inserts_per_s(folder: Path, count: int) -> float:
    """What SQLite does: one row of 700 bytes per transaction, WAL, synchronous=FULL, no index."""
    connection = sqlite3.connect(folder / "plain.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE one (idx INTEGER PRIMARY KEY, entry BLOB)")
    start_s = time.perf_counter()
    for number in range(count):
        connection.execute("INSERT INTO one VALUES (?, ?)", (number, bytes(700)))
    took_s = time.perf_counter() - start_s
    connection.close()
    return count / took_s


def appends(folder: Path, quick: bool) -> list[Row]:
    """Alternating, so that what else the machine does falls on all alike; the median of the rounds."""
    room = opened(folder, "appends")
    count, rows = (200, 40) if quick else (2000, 400), {"disk": [], "sqlite": [], "one": [], "many": []}  # type: dict[str, list[float]]
    spent: dict[str, list[float]] = {"one": [], "many": []}
    numbers = iter(range(0, 1 << 40, 1 << 20))
    for _ in range(ROUNDS):
        rows["disk"].append(syncs_per_s(folder, count[0]))
        rows["sqlite"].append(plain_inserts_per_s(folder, count[0]))
        for path in folder.glob("plain.db*"):
            path.unlink()
        base = next(numbers)
        for name, callers, each in (("one", 1, count[0]), ("many", CALLERS, count[1])):
            start_s = time.process_time()
            rows[name].append(
                rate(callers, each, lambda n, base=base, name=name: room.log.append(intent(base + n + 500_000 * (name == "many"))))
            )
            spent[name].append((time.process_time() - start_s) / (callers * each) * 1e6)
    room.stop()
    names = {
        "disk": "4 KiB appended and synced to disk",
        "sqlite": "plain SQLite, one row per commit, synchronous=FULL",
        "one": "audit log, 1 caller",
        "many": f"audit log, {CALLERS} callers",
    }
    disk = statistics.median(rows["disk"])
    return [
        {
            "what": names[key],
            "per second": round(statistics.median(found)),
            "best": round(max(found)),
            "worst": round(min(found)),
            "/ disk": statistics.median(found) / disk,
            "processor us": round(statistics.median(spent[key]), 1) if key in spent else "",
        }
        for key, found in rows.items()
    ]


def verification(folder: Path, entries: int) -> list[Row]:
    room = opened(folder, "verify")
    start_s = time.perf_counter()
    for first in range(0, entries // 2, CHUNK // 2):
        numbers = range(first, min(entries // 2, first + CHUNK // 2))
        for part in range(0, len(numbers), 1000):
            room.log.append_all([make(number) for number in numbers[part : part + 1000] for make in (intent, outcome)])
        print(f"\r{2 * (first + len(numbers)):>10,} of {entries:,}", end="", file=sys.stderr)
    written_s = time.perf_counter() - start_s
    print(file=sys.stderr)
    full, spent = [], []
    for _ in range(3):
        start_s = time.process_time()
        full.append(room.desk.verify())
        spent.append(time.process_time() - start_s)
    quick = []
    for number in range(50):
        room.log.append(intent(entries + number))
        quick.append(room.desk.verify(full=False).duration_us)
    opened_s = _timed(lambda: opened(folder, "verify"))
    room.stop()
    size = os.path.getsize(folder / "verify.db")
    if any(one.integrity != "verified" for one in full):
        raise SystemExit("the log does not verify")
    return [
        {
            "what": f"full verification of {full[0].size:,} records, seconds",
            "median": statistics.median(one.duration_us for one in full) / 1e6,
        },
        {"what": "its processor time in this process, seconds", "median": statistics.median(spent)},
        {"what": "the best of three, seconds", "median": min(one.duration_us for one in full) / 1e6},
        {"what": "quick verification after one more record, milliseconds", "median": statistics.median(quick) / 1e3},
        {"what": "proof of one record, milliseconds", "median": 1e3 * _timed(lambda: room.desk.prove(entries // 3))},
        {"what": "opening the log at start, seconds", "median": opened_s},
        {"what": "writing them, in batches, records per second", "median": entries / written_s},
        {"what": "bytes on disk per record", "median": size / entries},
    ]


def _timed(call: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    call()
    return time.perf_counter() - start_s


def machine(folder: Path) -> Row:
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "load_at_start": round(os.getloadavg()[0], 1),
        "free_gib": shutil.disk_usage(folder).free >> 30,
    }


def table(title: str, rows: list[Row]) -> str:
    names = list(rows[0])
    shown = [[_shown(row[name]) for name in names] for row in rows]
    lines = [f"## {title}", "", "| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in shown)]) + "\n"


def _shown(value: Any) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer appends, and 20,000 records to verify")
    parser.add_argument("--entries", type=int, default=None, help=f"records to verify, {ENTRIES:,} unless told")
    parser.add_argument("--folder", type=Path, default=None, help="where to write; the system's temporary folder unless told")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    chosen = parser.parse_args()
    entries = chosen.entries or (20_000 if chosen.quick else ENTRIES)
    with tempfile.TemporaryDirectory(prefix="cohort-audit-", dir=chosen.folder) as name:
        folder = Path(name)
        facts = machine(folder)
        results = {"Appends": appends(folder, chosen.quick), "Verification": verification(folder, entries)}
    if chosen.json:
        print(json.dumps({"machine": facts, "quick": chosen.quick, "results": results}, indent=1))
        return
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items()) + ".\n")
    for title, rows in results.items():
        print(table(title, rows))


if __name__ == "__main__":
    main()
