"""For each level that was missed, what to do about it: a command to paste, wherever there is one. Decided from what is known of the machine."""

from __future__ import annotations

from cohort.kernel.model import Level
from cohort.kernel.sandbox.probe_machine import NAMESPACES_ADVISED, Machine

APPARMOR_PROFILE = """abi <abi/4.0>,
include <tunables/global>

profile bwrap /usr/bin/bwrap flags=(unconfined) {
  userns,
}
"""
"""Lets bubblewrap make user namespaces where AppArmor forbids them to programs without a profile (Ubuntu 24.04 and later)."""
APPARMOR_PATH = "/etc/apparmor.d/bwrap"


def fixes_for(machine: Machine, level: Level) -> tuple[str, ...]:
    """What would raise the level, in the order in which it has to be done; empty at the highest that this software reaches."""
    if machine.system != "linux":
        return (
            () if level >= Level.FILES else ("Run Cohort on Linux, or in a Linux virtual machine (on Windows: WSL 2), for levels 3 and 4.",)
        )
    found: list[str] = []
    if level < Level.LIMITS and machine.python is None:
        found.append("The probe's programs need the system's own Python: apt-get install python3")
    if level < Level.NAMESPACES:
        found += _namespaces(machine)
    if level < Level.FILES and machine.landlock == 0:
        found.append("This kernel has no Landlock (5.13 or later): boot it with lsm=landlock,lockdown,yama,integrity,apparmor,bpf")
    if level < Level.FULL:
        found += _full(machine)
    return tuple(found)


def _namespaces(machine: Machine) -> list[str]:
    found = []
    if machine.bubblewrap is None:
        found.append("apt-get install bubblewrap")
    if machine.namespaces_unprivileged == 0:
        found.append("sysctl -w kernel.unprivileged_userns_clone=1")
    if machine.namespaces_max == 0:
        found.append(f"sysctl -w user.max_user_namespaces={NAMESPACES_ADVISED}")
    if machine.apparmor_restricts == 1 and not machine.apparmor_profile:
        lines = APPARMOR_PROFILE.replace("\n", "\\n")
        found.append(f"printf '{lines}' > {APPARMOR_PATH} && apparmor_parser -r {APPARMOR_PATH}")
    if machine.container:
        found.append(
            "Let the container make user namespaces: docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined ..."
        )
    return found or ["Let ordinary users make user namespaces; `bwrap --unshare-all --ro-bind / / true` says what forbids it"]


def _full(machine: Machine) -> list[str]:
    found = []
    if machine.groups and machine.systemd and not machine.root:
        found.append("For hard limits of memory and processes: systemd-run --user --scope -p Delegate=yes cohort up")
    elif machine.groups:
        found.append(f"For hard limits of memory and processes, run Cohort as root or in a control group of its own ({machine.groups})")
    if not machine.root:
        found.append("For hard limits of disk, run Cohort as root: each workspace is then a file system of its own")
    return found
