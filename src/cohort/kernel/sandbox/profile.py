"""What a sandbox looks like from inside, as values: generated files, limits, and what Landlock allows. Shared by the backends of Linux."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterable

from cohort.base.errors import CohortError, Retry
from cohort.kernel.model import Limits, Place
from cohort.kernel.sandbox import landlock
from cohort.kernel.sandbox.commands import PROXY_PORT, WORKSPACE

OPEN_FILES = 1024
ADDRESS_SPACE_MIN = 64 << 30
"""Of one process. Memory is limited by the cgroup or the watchdog; this only keeps page tables within reason, as run-times reserve much."""
TMP_BYTES, SHM_BYTES = 64 << 20, 64 << 20
SHARE_OF_MEMORY = 4
"""The temporary file systems get at most this part of the memory limit each, because what is in them is memory."""
MSGQUEUE, NPROC = 12, resource.RLIMIT_NPROC
SUPERVISORS = 4
"""Processes of the sandbox itself, which count against its limit of processes."""


def rlimits(limits: Limits, timed: bool) -> tuple[tuple[int, int], ...]:
    """What holds for every process of a sandbox. The number of processes is not among them: see `nproc`."""
    found = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, limits.disk_bytes),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_AS, max(ADDRESS_SPACE_MIN, limits.memory_bytes * 8)),
        (resource.RLIMIT_MEMLOCK, 0),
        (MSGQUEUE, 0),
    ]
    return (*found, cpu_limit(limits)) if timed else tuple(found)


def cpu_limit(limits: Limits) -> tuple[int, int]:
    """RLIMIT_CPU of a command that has a time limit: what all its cores can do in that time."""
    wanted = math.ceil(limits.command_s * max(1.0, limits.cpu_cores)) + 1
    return resource.RLIMIT_CPU, _at_most(resource.getrlimit(resource.RLIMIT_CPU)[1], wanted)


def nproc(limits: Limits) -> tuple[int, int]:
    """RLIMIT_NPROC; counts per sandbox only when it is set inside the new user namespace. Never above this process's own hard limit."""
    return NPROC, _at_most(resource.getrlimit(NPROC)[1], limits.processes + SUPERVISORS)


def _at_most(hard: int, wanted: int) -> int:
    return wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)


def within(rlimits: Iterable[tuple[int, int]], pid: int | None) -> tuple[tuple[int, int], ...]:
    """The same limits, none of them beyond what process `pid` may have: whoever it starts, and is not root, cannot go beyond it either.

    Errors: SANDBOX_UNAVAILABLE: there is no such process any more.
    """
    try:
        return tuple((kind, _at_most(resource.prlimit(pid or 0, kind)[1], value)) for kind, value in rlimits)
    except ProcessLookupError as error:
        raise CohortError("SANDBOX_UNAVAILABLE", "the spawner has ended", retry=Retry.SAFE, hint="Try again.") from error


def sized(limits: Limits) -> tuple[int, int]:
    """Bytes of /tmp and of /dev/shm."""
    share = limits.memory_bytes // SHARE_OF_MEMORY
    return min(TMP_BYTES, share), min(SHM_BYTES, share)


def rules(network: bool) -> landlock.Rules:
    """What commands may touch. `network`: there is a way out through the proxy, and TCP leads nowhere else."""
    return landlock.Rules(
        files=(
            ("/", landlock.READ_DIR),
            ("/usr", landlock.RUN),
            ("/etc", landlock.READ),
            ("/proc", landlock.READ),
            ("/dev", landlock.READ | landlock.WRITE_FILE | landlock.IOCTL_DEV),
            ("/dev/shm", landlock.RUN | landlock.CHANGE),  # noqa: S108
            ("/tmp", landlock.RUN | landlock.CHANGE),  # noqa: S108
            (WORKSPACE, landlock.RUN | landlock.CHANGE),
        ),
        connect_ports=(PROXY_PORT,) if network else None,
    )


def etc(uid: int, gid: int) -> dict[str, str]:
    """The four files that lookups of names need."""
    return {
        "hosts": "127.0.0.1 localhost\n::1 localhost\n",
        "passwd": f"root:x:0:0::/:/usr/sbin/nologin\nagent:x:{uid}:{gid}::{WORKSPACE}:/bin/sh\n",
        "group": f"root:x:0:\nagent:x:{gid}:\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }


def owner(place: Place) -> tuple[int, int] | None:
    """Whom to become before anything is executed: the place's private uid where this process is root; nobody else otherwise.

    Raises:
        CohortError SANDBOX_UNAVAILABLE: the place belongs to root. A sandbox started as root is none: it keeps root's rights on
            kernel settings, and escapes its limit of processes.
    """
    if place.uid == 0 or place.gid == 0:
        raise CohortError("SANDBOX_UNAVAILABLE", "a workspace of root", hint="Give the workspace a private uid, or do not run as root.")
    return (place.uid, place.gid) if os.geteuid() == 0 else None
