"""Holding one long-running command to less than its agent has. Each limit is answered with what holds it, and how well."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

from cohort.kernel.machine.priority import lower
from cohort.kernel.model import Held, Holding, Limits, Priority, ProcessLimits
from cohort.kernel.ports import Running
from cohort.kernel.sandbox.shares import every

BEFORE = "what it has already counts for its workspace"
EACH = "each of its processes may have so much"
PRLIMIT = "/usr/bin/prlimit"
PRLIMIT_WAIT_S = 5.0
FORKS = "it starts processes faster than they are limited"


def limit(running: Running, wanted: ProcessLimits, limits: Limits) -> tuple[Holding, ...]:
    """Every limit that is wanted, in the order of `ProcessLimits`. None can give more than `limits`, the agent's own, allow."""
    cores = None if wanted.cpu_cores is None else min(wanted.cpu_cores, limits.cpu_cores)
    memory = None if wanted.memory_bytes is None else min(wanted.memory_bytes, limits.memory_bytes)
    held = running.confine(cores, memory)
    found = []
    if cores is not None:
        found.append(_cores(cores, "cpu" in held))
    if memory is not None:
        found.append(_memory(running, memory, "memory" in held))
    if wanted.priority is not None:
        found.append(_priority(running, wanted.priority))
    return tuple(found)


def _cores(cores: float, held: bool) -> Holding:
    if held:
        return Holding("cpu_cores", f"{cores:g}", Held.ENFORCED, "cgroup")
    return Holding("cpu_cores", f"{cores:g}", Held.NOT_ENFORCED, "nothing", "there is no control group here that can be divided")


def _memory(running: Running, most: int, held: bool) -> Holding:
    value = f"{most} bytes"
    if held:
        return Holding("memory_bytes", value, Held.ENFORCED, "cgroup", BEFORE)
    if sys.platform != "linux":
        return Holding("memory_bytes", value, Held.NOT_ENFORCED, "nothing", "this system limits no process that runs")
    done = _all(running, lambda pid: _limit_memory(pid, most))
    if done is None:
        return Holding("memory_bytes", value, Held.NOT_ENFORCED, "nothing", "a process could not be limited")
    return Holding("memory_bytes", value, Held.SOFT, "RLIMIT_AS", EACH if done else FORKS)


def _priority(running: Running, priority: Priority) -> Holding:
    def give(pid: int) -> bool:
        return lower(pid, priority) is Held.ENFORCED

    done = _all(running, give)
    if done is None:
        return Holding("priority", priority.value, Held.NOT_ENFORCED, "nothing", "a process could not be given it")
    return Holding("priority", priority.value, Held.ENFORCED if done else Held.SOFT, "nice", "" if done else FORKS)


def _all(running: Running, act: Callable[[int], bool]) -> bool | None:
    """Whether `act` was done to all processes; None when there are none, or one that still lives could not be changed."""
    seen, failed = set[int](), set[int]()

    def each(pid: int) -> None:
        seen.add(pid)
        if not act(pid):
            failed.add(pid)

    settled = every(lambda: list(running.processes()), each)
    if not seen or failed & set(running.processes()):
        return None
    return settled


def _limit_memory(pid: int, most: int) -> bool:
    """Its address space, and that of what it starts; it cannot raise it again."""
    if sys.platform != "linux":
        return False
    import resource

    try:
        least = min(most, _address_space(pid))
        resource.prlimit(pid, resource.RLIMIT_AS, (least, least))
    except PermissionError:
        return _limit_as_its_owner(pid, least)
    except OSError:
        return False
    return True


def _address_space(pid: int) -> int:
    """The most that `pid` may have now, in bytes. Errors: OSError."""
    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
        found = next((line.split()[-2] for line in file if line.startswith("Max address space")), "unlimited")
    return sys.maxsize if found == "unlimited" else int(found)


def _limit_as_its_owner(pid: int, most: int) -> bool:
    """Root without CAP_SYS_RESOURCE, as in most containers, may limit nobody else; the owner may."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            ids = {line.split()[0]: int(line.split()[1]) for line in file if line.startswith(("Uid:", "Gid:"))}
        argv = [PRLIMIT, "--pid", str(pid), f"--as={most}:{most}"]
        who: dict[str, Any] = {"user": ids["Uid:"], "group": ids["Gid:"], "extra_groups": []}
        return subprocess.run(argv, env={}, cwd="/", capture_output=True, timeout=PRLIMIT_WAIT_S, **who).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
