"""How much of this machine is promised to agents, and that it is not more than there is."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from cohort.base.errors import CohortError
from cohort.base.ids import AgentId
from cohort.kernel.model import Agent, AgentState, Limits

OVERCOMMIT_MAX = 100.0
_CGROUP_MEMORY = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True, slots=True)
class Capacity:
    """What this machine can give; None: it does not say, and nothing is refused on its account."""

    cores: float
    memory_bytes: int | None
    disk_bytes: int | None


@dataclass(frozen=True, slots=True)
class Promised:
    """What agents were promised together."""

    agents: int
    cores: float
    memory_bytes: int
    disk_bytes: int


class Resources:
    """Promises to agents. Safe to use from many threads; one control process makes them.

    `overcommit`: how many times over cores and memory may be promised, since agents are seldom busy at the same time. The disk is promised
    once: what is written stays.
    """

    def __init__(self, capacity: Capacity, overcommit: float = 1.0) -> None:
        if not 1.0 <= overcommit <= OVERCOMMIT_MAX:
            raise CohortError("CONFIG_INVALID", f"an overcommit of {overcommit}", hint=f"Use 1 to {OVERCOMMIT_MAX:g}.")
        self._capacity = capacity
        self._overcommit = overcommit
        self._lock = threading.Lock()
        self._promises: dict[AgentId, Limits] = {}

    def load(self, agents: Iterable[Agent]) -> None:
        """Take over what was promised before, without refusing any of it: a smaller machine revokes nothing."""
        found = {agent.id: agent.limits for agent in agents if agent.state is not AgentState.REVOKED}
        with self._lock:
            self._promises = found

    def reserve(self, agent: AgentId, limits: Limits) -> None:
        """Promise `limits` to `agent`, in place of what it had.

        Raises:
            CohortError QUOTA_EXCEEDED: says of what there is not enough; nothing has changed.
        """
        with self._lock:
            others = {name: promised for name, promised in self._promises.items() if name != agent}
            self._check(_together(others), limits)
            self._promises = {**others, agent: limits}

    def release(self, agent: AgentId) -> None:
        """The agent needs nothing any more. Again: changes nothing."""
        with self._lock:
            self._promises.pop(agent, None)

    def promised(self) -> Promised:
        with self._lock:
            return _together(self._promises)

    def _check(self, now: Promised, more: Limits) -> None:
        here = self._capacity
        for what, used, wanted, most in (
            ("cores", now.cores, more.cpu_cores, here.cores * self._overcommit),
            ("bytes of memory", now.memory_bytes, more.memory_bytes, _times(here.memory_bytes, self._overcommit)),
            ("bytes of disk", now.disk_bytes, more.disk_bytes, here.disk_bytes),
        ):
            if most is not None and used + wanted > most:
                said = f"{wanted:g} {what} are wanted, {used:g} of {most:g} are promised already"
                raise CohortError("QUOTA_EXCEEDED", said, hint="Ask for less, revoke an agent that is not needed, or use a larger machine.")


def capacity(disk: Path | None = None) -> Capacity:
    """Of this machine, or of the container that this process is confined to. `disk`: where workspaces are kept."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (psutil.cpu_count() or 1)
    memory = min((limit for limit in (psutil.virtual_memory().total, *_cgroup_limits(_CGROUP_MEMORY))), default=None)
    return Capacity(float(cores), memory, _free(disk))


def _cgroup_limits(files: Iterable[Path]) -> list[int]:
    found = []
    for file in files:
        try:
            text = file.read_text().strip()
        except OSError:
            continue  # this machine has no such file
        if text.isdigit():
            found.append(int(text))
    return found


def _free(disk: Path | None) -> int | None:
    """What is there for workspaces: all of the file system, because what agents hold is part of what they were promised."""
    try:
        return None if disk is None else shutil.disk_usage(disk).total
    except OSError:
        return None


def _times(amount: int | None, factor: float) -> float | None:
    return None if amount is None else amount * factor


def _together(promises: Mapping[AgentId, Limits]) -> Promised:
    all_of = list(promises.values())
    return Promised(
        len(all_of),
        sum(each.cpu_cores for each in all_of),
        sum(each.memory_bytes for each in all_of),
        sum(each.disk_bytes for each in all_of),
    )
