"""Who is below whom, as Linux lists it. Empty answers where it does not."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

DESCENDANTS_MAX = 10_000
SUPERVISORS = (None, 1, 2)
"""Of a box, as numbered inside: bubblewrap's first process, and stage two or the runner. None: gone."""


def children(pid: int) -> list[int]:
    """Children of any thread of `pid`; none when it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += [int(one) for one in file.read().split()]
    return found


def descendants(pid: int) -> list[int]:
    """All below `pid`, parents first. What is started meanwhile may be missed."""
    found: list[int] = []
    waiting = children(pid)
    while waiting and len(found) < DESCENDANTS_MAX:
        one = waiting.pop(0)
        found.append(one)
        waiting += children(one)
    return found


def payload(pid: int | None) -> list[int]:
    """A command's processes in the box whose first process is `pid`: all but that one and the second, which have to live until its end."""
    return [] if pid is None else [one for one in descendants(pid) if _number_inside(one) not in SUPERVISORS]


def _number_inside(pid: int) -> int | None:
    """The number of a process in the innermost namespace that it is in; None when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"NSpid:"):
                return int(line.split()[-1])
    return None


def signal_all(listed: Callable[[], list[int]], number: int) -> None:
    """A signal to every process that `listed` names, and to no other.

    Numbers are used again: each process is held by a descriptor first, and counts only if it is still listed then. Who ends meanwhile,
    or is no longer ours to signal, needs no signal.
    """
    held = {pid: fd for pid in listed() if (fd := _hold(pid)) is not None}
    still = set(listed())
    for pid, fd in held.items():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if pid in still:
                signal.pidfd_send_signal(fd, number)
        os.close(fd)


def _hold(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
