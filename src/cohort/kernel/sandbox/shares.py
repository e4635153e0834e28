"""A smaller share of its workspace's control group for one command that runs: fewer cores, less memory, taken by the system.

Only version 1: a group of version 2 that has processes cannot be divided. Shares lie inside the workspace's group, so what they are given
never widens what the agent has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from cohort.kernel.sandbox.cgroups import Group

ROUNDS_MAX = 50
"""Looks at the processes of a command; each finds those that were started during the one before."""


class Share:
    """Of one command. `group` None: there is nothing to divide. `listed`: the command's processes. Safe to use from many threads."""

    def __init__(self, group: Group | None, listed: Callable[[], list[int]]) -> None:
        self._group = group
        self._listed = listed
        self._lock = threading.Lock()
        self._name = "" if group is None else group.name_share()
        self._closed = False

    def processes(self) -> list[int]:
        """As numbered here; empty when it has ended, or where the system does not list them."""
        return [] if self._closed else self._listed()

    def confine(self, cpu_cores: float | None, memory_bytes: int | None) -> frozenset[str]:
        """Limit the command, those of its processes that are to come included; which of the two the system holds from now on."""
        wanted: dict[str, float] = {name: value for name, value in (("cpu", cpu_cores), ("memory", memory_bytes)) if value is not None}
        with self._lock:
            if self._closed or self._group is None:
                return frozenset()
            return frozenset(name for name, value in wanted.items() if self._confine(self._group, name, value))

    def close(self) -> None:
        """Take it away. The command must have ended."""
        with self._lock:
            self._closed = True
            if self._group is not None:
                self._group.drop(self._name)

    def _confine(self, group: Group, controller: str, value: float) -> bool:
        try:
            return group.divide(self._name, controller, value) and every(
                self.processes, lambda pid: group.move(pid, self._name, controller)
            )
        except OSError:  # it is busy, or asks for less than is used now
            return False


def every(listed: Callable[[], list[int]], act: Callable[[int], object]) -> bool:
    """Do `act` to every process that `listed` names, until two looks find none that is new; False when that takes too long.

    What a process gives to its children needs no more: a child is born before it was done to its parent, and is found, or after it.
    """
    done: set[int] = set()
    quiet = 0
    for _ in range(ROUNDS_MAX):
        new = [pid for pid in listed() if pid not in done]
        quiet = 0 if new else quiet + 1
        if quiet == 2:
            return True
        for pid in new:
            act(pid)
        done.update(new)
    return False
