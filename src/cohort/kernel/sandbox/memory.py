"""Memory of everything in a sandbox where no cgroup limits it: a soft limit, looked at ten times a second.

A burst can pass it before it is seen: 512 MB were left behind by 5 to 25 MB in the trials of spec/kernel.md 5.2.7, at whatever speed the
command fills memory, times the period. The cheap sum of resident memory is looked at first; only when that is over the limit is shared
memory divided among its users (PSS), which costs milliseconds.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from cohort.kernel.sandbox.processes import descendants

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Watchdog:
    """Looks at `pid`, all below it, and what is in its temporary file systems, which is memory too: `temporary` has their paths and sizes."""

    def __init__(self, pid: int, limit_bytes: int, temporary: Mapping[str, int]) -> None:
        self._pid = pid
        self._limit_bytes = limit_bytes
        self._temporary = temporary
        self._peak_bytes = 0

    def over(self) -> bool:
        """Whether it is over the limit now."""
        pids = [self._pid, *descendants(self._pid)]
        stored = sum(_stored(f"/proc/{self._pid}/root{path}", size) for path, size in self._temporary.items())
        used = stored + sum(_resident(pid) for pid in pids)
        if used > self._limit_bytes:
            used = stored + sum(_proportional(pid) for pid in pids)
        self._peak_bytes = max(self._peak_bytes, used)
        return used > self._limit_bytes

    def peak(self) -> int | None:
        """The most that was seen; None when nothing was."""
        return self._peak_bytes or None


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/statm", "rb") as file:
        return int(file.read().split()[1]) * PAGE_BYTES
    return 0


def _proportional(pid: int) -> int:
    """PSS of a process; its resident memory where the system does not let us see more, so that nobody hides behind that."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except PermissionError:
        return _resident(pid)
    except OSError:
        return 0
    return 0


def _stored(path: str, size_bytes: int) -> int:
    """Bytes in the file system at `path`, if it is the sized one: while a sandbox is being set up, the host's is still there."""
    with contextlib.suppress(OSError):
        found = os.statvfs(path)
        if found.f_blocks * found.f_frsize <= size_bytes + PAGE_BYTES:
            return (found.f_blocks - found.f_bfree) * found.f_frsize
    return 0
