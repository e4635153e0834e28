"""Which limits of an agent hold on this machine, and by what. A limit that is only watched, or only counted, is said to be."""

from __future__ import annotations

from dataclasses import dataclass

from cohort.kernel.model import Held, Holding, Limits


@dataclass(frozen=True, slots=True)
class Mechanisms:
    """What there is to hold limits with, as probed: never what ought to be there. `system`: `linux`, `darwin` or `win32`."""

    system: str
    cgroup: bool = False  # memory, processes and cores of a workspace, by the kernel
    namespaces: bool = False  # a user namespace per sandbox, with RLIMIT_NPROC inside
    rlimits: bool = False
    job_object: bool = False  # Windows
    watchdog: bool = False  # looks at memory many times a second, and stops
    hard_disk_quota: bool = False  # a file system of its own, of that size
    no_network: bool = False  # commands have none, not even through the proxy
    priority: bool = False  # commands run below control's own priority


def holdings(limits: Limits, here: Mechanisms) -> tuple[Holding, ...]:
    """Each limit of an agent once, in the order of `Limits`."""
    return (
        *_disk(limits, here),
        _memory(limits, here),
        _processes(limits, here),
        _cores(limits, here),
        Holding("command_s", f"{limits.command_s:g} s", Held.ENFORCED, "control stops the command"),
        Holding(
            "output_bytes", f"{limits.output_bytes} bytes", Held.ENFORCED, "control keeps no more, and stops a command that goes far beyond"
        ),
        Holding("calls_per_minute", str(limits.calls_per_minute), Held.ENFORCED, "the action gate counts"),
        Holding(
            "cpu_s_per_day", f"{limits.cpu_s_per_day:g} s", Held.SOFT, "the action gate counts", "checked before a command, not during it"
        ),
        Holding("egress_bytes_per_day", f"{limits.egress_bytes_per_day} bytes", *_egress(here)),
        _priority(here),
    )


def _disk(limits: Limits, here: Mechanisms) -> tuple[Holding, Holding]:
    size, files = f"{limits.disk_bytes} bytes", str(limits.files)
    if here.hard_disk_quota:
        by = "a file system of its own"
        return Holding("disk_bytes", size, Held.ENFORCED, by), Holding("files", files, Held.ENFORCED, by)
    by, gap = "the kernel's own file operations count", "a command may write more before it is noticed"
    return Holding("disk_bytes", size, Held.SOFT, by, gap), Holding("files", files, Held.SOFT, by, gap)


def _memory(limits: Limits, here: Mechanisms) -> Holding:
    value = f"{limits.memory_bytes} bytes"
    if here.cgroup:
        return Holding("memory_bytes", value, Held.ENFORCED, "cgroup")
    if here.job_object:
        return Holding("memory_bytes", value, Held.ENFORCED, "job object")
    if here.watchdog:
        return Holding("memory_bytes", value, Held.SOFT, "a watchdog", "a fast burst gets beyond it before it is stopped")
    if here.rlimits and here.system == "linux":
        return Holding("memory_bytes", value, Held.SOFT, "RLIMIT_AS", "of each process, not of all together")
    return Holding("memory_bytes", value, Held.NOT_ENFORCED, "nothing", "a command may use all memory")


def _processes(limits: Limits, here: Mechanisms) -> Holding:
    value = str(limits.processes)
    for there, by in ((here.cgroup, "cgroup"), (here.namespaces, "RLIMIT_NPROC in its namespace"), (here.job_object, "job object")):
        if there:
            return Holding("processes", value, Held.ENFORCED, by)
    if here.rlimits:
        return Holding("processes", value, Held.SOFT, "RLIMIT_NPROC", "shared with everything of the same user")
    return Holding("processes", value, Held.NOT_ENFORCED, "nothing", "a command may start any number")


def _cores(limits: Limits, here: Mechanisms) -> Holding:
    value = f"{limits.cpu_cores:g}"
    for there, by in ((here.cgroup, "cgroup"), (here.job_object, "job object")):
        if there:
            return Holding("cpu_cores", value, Held.ENFORCED, by)
    if here.rlimits:
        return Holding("cpu_cores", value, Held.SOFT, "RLIMIT_CPU", "bounds the time of a command, not how many cores it takes meanwhile")
    return Holding("cpu_cores", value, Held.NOT_ENFORCED, "nothing", "a command may take every core")


def _egress(here: Mechanisms) -> tuple[Held, str, str]:
    if here.no_network:
        return Held.ENFORCED, "commands have no network", ""
    if here.namespaces:
        return Held.ENFORCED, "the egress proxy", "counts what connections carry, not the headers of packets"
    return Held.NOT_ENFORCED, "nothing", "a command reaches the network without the proxy"


def _priority(here: Mechanisms) -> Holding:
    if here.priority:
        return Holding(
            "priority", "low", Held.ENFORCED, "nice", "" if here.system != "win32" else "a process may raise its own class again"
        )
    return Holding("priority", "as control", Held.NOT_ENFORCED, "nothing", "commands compete with control on equal terms")
