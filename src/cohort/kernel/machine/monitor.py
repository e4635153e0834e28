"""The machine's figures, looked at every few seconds and kept for a while. With psutil: Linux, macOS and Windows alike."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.kernel.machine import figures
from cohort.kernel.machine.figures import Disk, Sample

SAMPLE_S = 2.0
HISTORY = 300
"""Samples kept: ten minutes."""
SCANNED_MAX = 20_000
SHOWN_MAX = 10
NAME_CHARS_MAX = 64

Look = Callable[[float], Sample]
T = TypeVar("T")
_log = logging.getLogger(__name__)
_FIGURES: Mapping[str, Callable[[Sequence[Sample]], dict[str, Any]]] = {
    "cpu": figures.cpu,
    "memory": figures.memory,
    "disk": figures.disk,
    "network": figures.network,
}


class Monitor:
    """Samples of this machine. `disks`: folders whose file systems matter. Safe to use from many threads.

    It works without `start`, too: a question whose newest sample is too old takes one itself.
    """

    def __init__(self, clock: Clock, disks: Sequence[Path] = (), look: Look | None = None) -> None:
        self._clock = clock
        self._look = look or (lambda at_s: sample(at_s, disks))
        self._samples: deque[Sample] = deque(maxlen=HISTORY)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look every `SAMPLE_S` seconds until `stop`."""
        self._thread = threading.Thread(target=self._run, name="machine monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def take(self) -> None:
        """One sample, now."""
        now_s = self._clock.monotonic_s()
        taken = self._look(now_s)
        with self._lock:
            self._samples.append(taken)

    def read(self, what: str) -> dict[str, Any]:
        """Plain JSON values about `cpu`, `memory`, `disk`, `network` or `processes`; what is not known is said to be `unknown`.

        Raises:
            CohortError ARGUMENT_INVALID: another word.
        """
        if what == "processes":
            return processes()
        make = _FIGURES.get(what)
        if make is None:
            known = ", ".join([*_FIGURES, "processes"])
            raise CohortError("ARGUMENT_INVALID", f"there are no figures of {what[:40]!r}", field="what", hint=f"Use one of: {known}.")
        if self._stale():
            self.take()
        with self._lock:
            samples = list(self._samples)
        return make(samples)

    def _stale(self) -> bool:
        with self._lock:
            newest = self._samples[-1] if self._samples else None
        return newest is None or self._clock.monotonic_s() - newest.at_s >= SAMPLE_S

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.take()
            except (OSError, psutil.Error) as error:
                _log.warning("the machine could not be looked at: %s", error)
            self._stopping.wait(SAMPLE_S)


def sample(at_s: float, disks: Sequence[Path]) -> Sample:
    """One look at this machine."""
    io = _said(lambda: psutil.disk_io_counters(nowrap=False))
    memory, swap = _said(psutil.virtual_memory), _said(psutil.swap_memory)
    nics = _said(lambda: psutil.net_io_counters(pernic=True, nowrap=False))
    cores = _said(lambda: psutil.cpu_times(percpu=True))
    return Sample(
        at_s=at_s,
        cpu_s=_busy(_said(psutil.cpu_times)),
        cores_s=tuple(pair for core in cores if (pair := _busy(core)) is not None) if cores else None,
        load=_said(psutil.getloadavg),
        memory=(memory.total, memory.available) if memory else None,
        swap=(swap.total, swap.used) if swap else None,
        disks={str(path): _disk(path) for path in disks},
        disk_io=(io.read_bytes, io.write_bytes) if io else None,
        network={name: (nic.bytes_recv, nic.bytes_sent) for name, nic in nics.items()} if nics is not None else None,
    )


def processes() -> dict[str, Any]:
    """How many there are, and the largest. Names only: command lines and environments of others may hold secrets."""
    states: Counter[str] = Counter()
    found: list[tuple[int, float, str]] = []
    for count, process in enumerate(psutil.process_iter()):
        if count >= SCANNED_MAX:
            break
        with contextlib.suppress(psutil.Error, OSError), process.oneshot():  # it has ended, or is not ours to look at
            states[process.status()] += 1
            times = process.cpu_times()
            found.append((process.memory_info().rss, times.user + times.system, process.name()[:NAME_CHARS_MAX]))
    largest = sorted(found, reverse=True)[:SHOWN_MAX]
    busiest = sorted(found, key=lambda each: -each[1])[:SHOWN_MAX]
    return {
        "count": sum(states.values()) if states else figures.UNKNOWN,
        "states": dict(sorted(states.items())),
        "largest": [{"name": name, "memory_bytes": memory} for memory, _, name in largest],
        "busiest": [{"name": name, "cpu_s": round(cpu_s, 1)} for _, cpu_s, name in busiest],
    }


def _busy(times: Any) -> tuple[float, float] | None:
    """Busy and total seconds. Time spent in guests is part of `user` already."""
    if times is None:
        return None
    said = times._asdict()
    total = sum(value for name, value in said.items() if name not in ("guest", "guest_nice"))
    return total - said.get("idle", 0.0) - said.get("iowait", 0.0), total


def _disk(path: Path) -> Disk | None:
    usage = _said(lambda: psutil.disk_usage(str(path)))
    return Disk(usage.total, usage.used, usage.free) if usage else None


def _said(ask: Callable[[], T]) -> T | None:
    """The answer, or None where this machine has none."""
    try:
        return ask()
    except (OSError, NotImplementedError, psutil.Error, RuntimeError):
        return None
