"""Whose turn it is when there are not enough cores: agents' commands come after control and the gateway. With psutil, on every system."""

from __future__ import annotations

import sys
from enum import StrEnum

import psutil

from cohort.kernel.model import Held


class Priority(StrEnum):
    NORMAL = "normal"
    LOW = "low"
    IDLE = "idle"  # only what nobody else wants


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
