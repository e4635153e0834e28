"""Processes under test: started on one core, measured from outside."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 120.0


@dataclass(slots=True)
class Target:
    """A server under test; `headers` go with every request to it; `rewrites`: it writes answers out again, so bytes may differ.

    `numbered`: no two requests to it are the same.
    """

    name: str
    ports: dict[str, int]  # by case
    pids: list[int]
    headers: dict[str, str] = field(default_factory=dict)
    rewrites: bool = False
    numbered: bool = False


def start(command: list[str], core: int, log: Path, more: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **(more or {})}
    with log.open("ab") as out:
        return subprocess.Popen(["taskset", "-c", str(core), *command], stdout=out, stderr=out, env=environment)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int) -> None:
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.005)
        else:
            return
    raise SystemExit(f"nothing listens on port {port} within {WAIT_S} s")


def cpu_s(pids: list[int]) -> float:
    """User and system time of processes so far: of their threads, to the nanosecond (ticks of 10 ms are too coarse for paced streams)."""
    tasks = (task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def resident_mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
