"""Whose turn it is when there are not enough cores: agents' commands come after control and the gateway. With psutil, on every system."""

from __future__ import annotations

import os
import sys

import psutil

from cohort.kernel.model import Held, Priority

_NICE = {Priority.NORMAL: 0, Priority.LOW: 10, Priority.IDLE: 19}
_WINDOWS = {Priority.NORMAL: "NORMAL_PRIORITY_CLASS", Priority.LOW: "BELOW_NORMAL_PRIORITY_CLASS", Priority.IDLE: "IDLE_PRIORITY_CLASS"}


def give(pid: int, priority: Priority) -> Held:
    """Set the priority of `pid`; what it starts from now on inherits it, and cannot raise it again without privilege.

    Says whether it holds, by reading it back. A process that has ended, or that is not ours to change, is NOT_ENFORCED.
    """
    try:
        process = psutil.Process(pid)
        wanted = getattr(psutil, _WINDOWS[priority]) if sys.platform == "win32" else _NICE[priority]
        process.nice(wanted)
        if int(process.nice() or 0) != int(wanted):
            return Held.NOT_ENFORCED
    except (psutil.Error, OSError):
        return Held.NOT_ENFORCED
    return Held.SOFT if sys.platform == "win32" else Held.ENFORCED


def lower(pid: int, priority: Priority) -> Held:
    """As `give`, to every thread of a process that runs, and never to more than it has."""
    if sys.platform != "linux":
        return give(pid, priority)
    try:
        threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
        for thread in threads:
            wanted = max(_NICE[priority], os.getpriority(os.PRIO_PROCESS, thread))
            os.setpriority(os.PRIO_PROCESS, thread, wanted)
    except OSError:
        return Held.NOT_ENFORCED
    return Held.ENFORCED
