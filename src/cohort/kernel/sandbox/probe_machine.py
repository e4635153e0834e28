"""What of this machine decides how well it can contain, read from it; nothing is changed."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from cohort.kernel.sandbox import cgroups, landlock

NAMESPACES_ADVISED = 15_000


@dataclass(frozen=True, slots=True)
class Machine:
    """`setting`s are None where the kernel has none of that name. `groups`: why control groups cannot be used, empty when they can."""

    system: str
    root: bool
    bubblewrap: str | None
    python: str | None
    namespaces_max: int | None
    namespaces_unprivileged: int | None
    apparmor_restricts: int | None
    apparmor_profile: bool
    container: bool
    landlock: int
    groups: str
    systemd: bool


def look(top: Path = Path("/")) -> Machine:
    """`top`: where the machine's files are; another than `/` is for tests."""
    return Machine(
        system=sys.platform,
        root=os.geteuid() == 0,
        bubblewrap=shutil.which("bwrap"),
        python=next((str(path) for path in (top / "usr/local/bin/python3", top / "usr/bin/python3") if path.exists()), None),
        namespaces_max=_setting(top / "proc/sys/user/max_user_namespaces"),
        namespaces_unprivileged=_setting(top / "proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restricts=_setting(top / "proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        apparmor_profile=(top / "etc/apparmor.d/bwrap").exists() or (top / "etc/apparmor.d/bwrap-userns-restrict").exists(),
        container=(top / ".dockerenv").exists() or (top / "run/.containerenv").exists(),
        landlock=landlock.abi(),
        groups=_no_groups() if sys.platform == "linux" else "",
        systemd=(top / "run/systemd/system").is_dir(),
    )


def _no_groups() -> str:
    """Why control groups cannot be used; tried with a parent of our own, which is taken away again."""
    found = cgroups.find(parent=f"cohort-look-{os.getpid()}")
    if found.hierarchy is None:
        return found.reason
    cgroups.Cgroups(found.hierarchy).close()
    return ""


def _setting(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdigit() else None
