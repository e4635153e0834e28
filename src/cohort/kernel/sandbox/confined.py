"""Level 2: Landlock, the system-call filter and rlimits, without namespaces; for Linux where bubblewrap or user namespaces are missing.

Held: files (only the workspace can be written, secrets of the host cannot be read), system calls, sockets (there are none but pairs),
and, from Landlock ABI 6 on, signals. Not held, and so said by `GAPS`: see there.
"""

from __future__ import annotations

import base64
import platform
from functools import partial

from cohort.kernel.model import Command, Level, Limits, Place
from cohort.kernel.sandbox import landlock, seccomp
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.direct import Direct, Dress
from cohort.kernel.sandbox.spawner import unavailable

GAPS = (
    "processes of others are visible in /proc, though not their memory or environment",
    "file names and attributes outside of the workspace can be asked for, though not the contents",
    "protected paths of the workspace can be written",
    "there is no private /tmp; temporary files go to the workspace",
    "no network at all, not even to allowed hosts",
    "memory is limited by a cgroup or softly; disk by the workspace's quota or not at all",
)
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
ETC = (
    "passwd",
    "group",
    "nsswitch.conf",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "localtime",
    "alternatives",
    "ssl/certs",
    "ssl/openssl.cnf",
)
DEVICES = ("null", "zero", "full", "random", "urandom")


def confined(parts: Parts, level: Level = Level.FILES) -> Direct:
    """The backend.

    Raises:
        CohortError SANDBOX_UNAVAILABLE: no Landlock in this kernel, or no filter for this machine.
    """
    abi = landlock.abi()
    if abi == 0:
        raise unavailable("this kernel has no Landlock", "Install bubblewrap, or boot with `lsm=landlock,...`.")
    program = base64.b64encode(seccomp.program(platform.machine(), families=())).decode()

    def dress(place: Place, limits: Limits, command: Command) -> Dress:
        del limits
        return Dress(command.argv, partial(landlock.ruleset, rules(place), abi), program)

    return Direct(parts, "confined", level, dress)


def rules(place: Place) -> landlock.Rules:
    """What commands of `place` may touch: no TCP port at all, should a socket ever be had."""
    system = tuple((path, landlock.RUN) for path in SYSTEM)
    etc = tuple((f"/etc/{name}", landlock.READ) for name in ETC)
    devices = tuple((f"/dev/{name}", landlock.READ_FILE | landlock.WRITE_FILE) for name in DEVICES)
    files = (*system, *etc, *devices, ("/proc", landlock.READ), (place.root, landlock.RUN | landlock.CHANGE))
    return landlock.Rules(files=files, connect_ports=(), bind_ports=())
