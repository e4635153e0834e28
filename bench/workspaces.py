"""What a workspace costs: registering one, using its files, seeing what changed in it; beside the system's own calls in the same run.

    python bench/workspaces.py [--quick] [--json]

Prints the tables of docs/reference/workspaces-bench.md. Image workspaces need root; without it their rows are left out. The audit log is a
list in memory, so that its own cost is not in the figures.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from cohort.kernel.model import Limits
from cohort.kernel.workspaces import loop_devices
from cohort.kernel.workspaces.backend import Size
from cohort.kernel.workspaces.backend_image import ImageBackend
from cohort.kernel.workspaces.files import How
from cohort.kernel.workspaces.pool import Pool
from cohort.storage.database import Database, open_database
from cohort.storage.schema import facts
from support_workspaces import Room, unmounted_after, why_no_images

BLOCK = b"x" * 4096
LIMITS = Limits()
SNAPSHOT_FILES, SNAPSHOT_FILE_BYTES = 900, 50_000
FILL_WAIT_S = 60.0
Row = dict[str, Any]


def timed(call: Callable[[], object]) -> float:
    """Milliseconds."""
    start_ns = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start_ns) / 1e6


def summary(name: str, taken_ms: list[float], limit_ms: float | None = None) -> Row:
    taken_ms.sort()
    p50 = statistics.median(taken_ms)
    row = {"what": name, "p50_ms": round(p50, 4), "p99_ms": round(taken_ms[int(len(taken_ms) * 0.99)], 4), "runs": len(taken_ms)}
    return row | ({"times_the_limit": round(p50 / limit_ms, 1)} if limit_ms else {})


@contextmanager
def opened(folder: Path) -> Iterator[Database]:
    folder.mkdir()
    database = open_database(f"sqlite:///{folder / 'cohort.db'}")
    database.migrate()
    with unmounted_after(folder):
        yield database
    database.close()


def registrations(folder: Path, kind: str, count: int) -> list[float]:
    """Agents' workspaces made one after the other, without a pool: rows, disk, mount, verification."""
    with opened(folder) as database:
        room = Room(folder, database, kind, private_uids=os.geteuid() == 0)
        agents = [room.agent(f"a{number}") for number in range(count)]
        taken = [timed(lambda agent=agent: room.workspaces.create(agent, LIMITS)) for agent in agents]
        room.workspaces.stop()
    return taken


def pooled(folder: Path, count: int) -> list[float]:
    """The same from a pool that is full each time."""
    with opened(folder) as database:
        backend = ImageBackend(str(folder / "images"), str(folder / "mounts"))
        pool = Pool(backend, Size.of(LIMITS), 4, secrets.token_bytes)
        room = Room(folder, database, "image", pool=pool, private_uids=True)
        taken = []
        for number in range(count):
            agent = room.agent(f"a{number}")
            if not pool.wait_full(FILL_WAIT_S):
                raise SystemExit("the pool was not filled in time")
            taken.append(timed(lambda agent=agent: room.workspaces.create(agent, LIMITS)))
        room.workspaces.stop()
    return taken


def by_shell(folder: Path, count: int) -> list[float]:
    """Peer: what a script does, mkfs.ext4 and mount -o loop as programs."""
    folder.mkdir()
    taken = []
    for number in range(count):
        image, point = folder / f"{number}.img", folder / f"{number}"
        point.mkdir()

        def make(image: Path = image, point: Path = point) -> None:
            with image.open("wb") as file:
                file.truncate(LIMITS.disk_bytes)
            subprocess.run(["mkfs.ext4", "-q", "-F", "-N", "1100", image], check=True, capture_output=True)
            subprocess.run(["mount", "-o", "loop,nosuid,nodev", image, point], check=True)

        taken.append(timed(make))
        subprocess.run(["umount", point], check=True)
    return taken


def two_commits(folder: Path, count: int) -> list[float]:
    """Limit of anything that is durable in two steps, as a registration is: two empty-handed commits of SQLite."""
    with opened(folder) as database:

        def commit(number: int) -> None:
            with database.write() as connection:
                connection.execute(facts.insert().values(name=f"{number}", value=number))

        return [timed(lambda n=n: (commit(2 * n), commit(2 * n + 1))) for n in range(count)]


def tmpfs_mounts(folder: Path, count: int) -> list[float]:
    """Physical limit: a sized tmpfs, one system call; nothing is kept."""
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={LIMITS.disk_bytes},nr_inodes={LIMITS.files}".encode()
    taken = []
    for _ in range(count):
        taken.append(timed(lambda: libc.mount(b"none", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(6), options)))
        loop_devices.unmount(str(folder))
    return taken


def registration_table(folder: Path, count: int) -> list[Row]:
    limit = two_commits(folder / "commits", count)
    limit_ms = statistics.median(limit)
    rows = [summary("directory, no pool", registrations(folder / "directory", "directory", count), limit_ms)]
    if why_no_images() is None:
        rows.append(summary("image, no pool (target 50 ms)", registrations(folder / "image", "image", count), limit_ms))
        rows.append(summary("image from the pool (target 5 ms)", pooled(folder / "pooled", count), limit_ms))
        rows.append(summary("peer: mkfs.ext4 and mount as programs, no record of it", by_shell(folder / "shell", count), limit_ms))
        rows.append(summary("limit: mount a sized tmpfs, nothing kept", tmpfs_mounts(folder / "tmpfs", count), limit_ms))
    rows.append(summary("limit: two commits of SQLite", limit, limit_ms))
    return rows


def plain_write(path: str) -> None:
    opened = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    os.write(opened, BLOCK)
    os.close(opened)


def plain_read(path: str) -> None:
    opened = os.open(path, os.O_RDONLY)
    os.read(opened, 4096)
    os.close(opened)


def file_table(folder: Path, kind: str, rounds: int) -> list[Row]:
    with opened(folder) as database, tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        room = Room(folder, database, kind, private_uids=os.geteuid() == 0)
        files, place = room.files, room.place("bench", Limits(disk_bytes=256 << 20, files=rounds + 1000))
        files.mkdir(place, "src/deep", parents=True)
        for number in range(100):
            files.write(place, f"src/{number}", BLOCK)
        target = f"{memory}/x"
        limit_write = statistics.median([timed(lambda: plain_write(target)) for _ in range(rounds)])
        limit_read = statistics.median([timed(lambda: plain_read(target)) for _ in range(rounds)])
        acts: dict[str, tuple[Callable[[int], object], float]] = {
            "place, checked again": (lambda _: room.workspaces.place(place.workspace), limit_read),
            "read 4 KiB": (lambda _: files.read(place, "src/0"), limit_read),
            "stat": (lambda _: files.stat(place, "src/0"), limit_read),
            "list 100 entries": (lambda _: files.list(place, "src"), limit_read),
            "write 4 KiB over a file": (lambda _: files.write(place, "src/0", BLOCK), limit_write),
            "create a file of 4 KiB": (lambda n: files.write(place, f"src/deep/{n}", BLOCK, How.CREATE), limit_write),
            "append 100 bytes": (lambda _: files.write(place, "log", BLOCK[:100], How.APPEND), limit_write),
            "delete a file": (lambda n: files.delete(place, f"src/deep/{n}"), limit_write),
            "usage": (lambda _: room.workspaces.usage(place.workspace), limit_read),
        }
        rows = [
            summary(f"{kind}: {name}", [timed(lambda n=n, act=act: act(n)) for n in range(rounds)], limit)
            for name, (act, limit) in acts.items()
        ]
        room.workspaces.stop()
    rows.append({"what": "limit: open, write 4 KiB, close on tmpfs", "p50_ms": round(limit_write, 4), "runs": rounds})
    rows.append({"what": "limit: open, read 4 KiB, close on tmpfs", "p50_ms": round(limit_read, 4), "runs": rounds})
    return rows


def snapshot_table(folder: Path, kind: str) -> list[Row]:
    with opened(folder) as database:
        room = Room(folder, database, kind, private_uids=os.geteuid() == 0)
        place = room.place("bench", LIMITS)
        for number in range(SNAPSHOT_FILES):
            room.files.write(place, f"{number}", secrets.token_bytes(SNAPSHOT_FILE_BYTES))
        time.sleep(0.2)  # until the files are older than what counts as just changed
        facts = f"{SNAPSHOT_FILES} files, {SNAPSHOT_FILES * SNAPSHOT_FILE_BYTES >> 20} MiB of noise"
        rows = [
            {"what": f"{kind}: first diff, every file read ({facts})", "ms": round(timed(lambda: room.desk.diff("bench")), 1)},
            {"what": f"{kind}: first commit", "ms": round(timed(lambda: room.desk.commit("bench", "bench", "")), 1)},
            {"what": f"{kind}: diff when nothing changed", "ms": round(timed(lambda: room.desk.diff("bench")), 1)},
        ]
        room.files.write(place, "0", b"changed")
        rows.append({"what": f"{kind}: diff when one file changed", "ms": round(timed(lambda: room.desk.diff("bench")), 1)})
        rows.append({"what": f"{kind}: discard it", "ms": round(timed(lambda: room.desk.discard("bench", "bench", "")), 1)})
        room.workspaces.stop()
    return rows


def run(quick: bool) -> dict[str, list[Row]]:
    kinds = ["image", "directory"] if why_no_images() is None else ["directory"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {"Registration": registration_table(folder, 10 if quick else 50)}
        for kind in kinds:
            found[f"Files ({kind})"] = file_table(folder / f"files-{kind}", kind, 300 if quick else 3000)
            found[f"Snapshots ({kind})"] = snapshot_table(folder / f"snapshots-{kind}", kind)
    return found


def table(title: str, rows: list[Row]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"## {title}", "", "| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(str(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    chosen = parser.parse_args()
    results = run(chosen.quick)
    machine = {"cores": os.cpu_count(), "system": f"{platform.system()} {platform.release()}", "python": platform.python_version()}
    if chosen.json:
        print(json.dumps({"machine": machine, "results": results}, indent=1))
        return
    print(f"{machine['cores']} cores, {machine['system']}, Python {machine['python']}.\n")
    for title, rows in results.items():
        print(table(title, rows))


if __name__ == "__main__":
    main()
