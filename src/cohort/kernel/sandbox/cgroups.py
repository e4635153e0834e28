"""Hard limits of memory, processes and cores for all commands of one workspace together, where cgroups are ours to make.

Version 1 with the controllers mounted apart, or version 2 where this process's own group may pass its controllers on. What is in the
sandbox's temporary file systems counts as memory. Where nothing is permitted, `find` says why, and limits are soft.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cohort.kernel.model import Limits
from cohort.kernel.sandbox import profile

CONTROLLERS = ("memory", "pids", "cpu")
PARENT = "cohort"
LEAF = "cohort-itself"
PERIOD_US = 100_000
QUOTA_US_MIN = 1000
SANDBOXES_TOGETHER = 4
"""The limit of processes is of one command; a workspace gets this many times as many, for the commands it runs at the same time."""
REMOVE_TRIES, REMOVE_WAIT_S = 50, 0.02
"""A group whose last process was just reaped may be busy for a moment."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where groups may be made: a folder per controller, all the same one in version 2."""

    version: int
    folders: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class Found:
    """`hierarchy` None: limits stay soft, because of `reason`."""

    hierarchy: Hierarchy | None
    reason: str


def find(parent: str = PARENT, mountinfo: Path = Path("/proc/self/mountinfo"), own: Path = Path("/proc/self/cgroup")) -> Found:
    """Look, and try: a folder that can be made and limited is the only proof. `parent`: of all groups; one per installation."""
    try:
        mounts, groups = _mounts(mountinfo.read_text()), _groups(own.read_text())
    except OSError as error:
        return Found(None, f"no cgroups on this system: {error.strerror}")
    both = (_version_1(mounts, groups, parent), _version_2(mounts, groups, parent))
    tried = [hierarchy for hierarchy in both if hierarchy is not None]
    reasons = []
    for hierarchy in tried:
        reason = _refusal(hierarchy)
        if reason is None:
            return Found(hierarchy, f"cgroup version {hierarchy.version}")
        reasons.append(reason)
    return Found(None, "; ".join(reasons) or "memory, pids and cpu controllers are not mounted")


def _mounts(text: str) -> dict[str, tuple[str, Path]]:
    """Controller, or `2`, to the root of the mount and its place; proc(5), mountinfo."""
    found: dict[str, tuple[str, Path]] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = [*right.split(" "), "", ""][:3]
        root, place = left.split(" ")[3:5]
        if kind == "cgroup2":
            found["2"] = (root, Path(place))
        elif kind == "cgroup":
            found |= {name: (root, Path(place)) for name in options.split(",") if name in CONTROLLERS}
    return found


def _groups(text: str) -> dict[str, str]:
    """Controller, or `2`, to the group this process is in; cgroups(7)."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        number, names, path = line.split(":", 2)
        found |= {"2": path} if number == "0" else {name: path for name in names.split(",") if name in CONTROLLERS}
    return found


def _version_1(mounts: Mapping[str, tuple[str, Path]], groups: Mapping[str, str], parent: str) -> Hierarchy | None:
    if not all(name in mounts and name in groups for name in CONTROLLERS):
        return None
    return Hierarchy(1, {name: _below(*mounts[name], groups[name]) / parent for name in CONTROLLERS})


def _version_2(mounts: Mapping[str, tuple[str, Path]], groups: Mapping[str, str], parent: str) -> Hierarchy | None:
    if "2" not in mounts or "2" not in groups:
        return None
    folder = _below(*mounts["2"], groups["2"])
    try:
        offered = (folder / "cgroup.controllers").read_text().split()
    except OSError:
        return None
    return Hierarchy(2, dict.fromkeys(CONTROLLERS, folder / parent)) if set(CONTROLLERS) <= set(offered) else None


def _below(root: str, place: Path, group: str) -> Path:
    """The folder of `group` in a mount that shows `root` and what is below it."""
    inside = group[len(root.rstrip("/")) :] if group.startswith(root.rstrip("/")) else "/"
    found = place / inside.lstrip("/")
    return found if found.is_dir() else place


def _refusal(hierarchy: Hierarchy) -> str | None:
    """Why no group can be made there; None when one was made, limited and removed."""
    group = Group(hierarchy, f"probe-{os.getpid()}")
    try:
        group.open(Limits())
    except OSError as error:
        return f"cgroup version {hierarchy.version}: {error.strerror or error}"
    finally:
        group.remove()
        _remove_parents(hierarchy)
    return None


class Group:
    """The group of one workspace."""

    def __init__(self, hierarchy: Hierarchy, name: str) -> None:
        self._version = hierarchy.version
        self._folders = {controller: folder / name for controller, folder in hierarchy.folders.items()}
        self._limits: Limits | None = None
        self._shares = itertools.count(1)
        self._killed_in_shares = 0
        self.users = 0
        """Sandboxes in it now; kept by `Cgroups`."""

    @property
    def joins(self) -> tuple[str, ...]:
        """Files to write a 0 to from inside a process of one thread that is to be in the group.

        In version 1 the file for threads: `cgroup.procs` keeps every process of the machine from forking meanwhile, and waits 5 to 15 ms for that.
        """
        name = "tasks" if self._version == 1 else "cgroup.procs"
        return tuple(dict.fromkeys(str(folder / name) for folder in self._folders.values()))

    def open(self, limits: Limits) -> None:
        """Make the group, or fit it to other limits. Errors: OSError."""
        if limits == self._limits:
            return
        for folder in self._folders.values():
            if self._version == 2:
                _pass_on(folder.parent.parent)
                folder.parent.mkdir(exist_ok=True)
                _pass_on(folder.parent)
            folder.mkdir(parents=True, exist_ok=True)
        self._write_limits(limits)
        self._limits = limits

    def processes(self) -> list[int]:
        return [int(one) for one in _read(self._folders["pids"] / "cgroup.procs").split()]

    def out_of_memory(self) -> int:
        """How often the system has killed in this group for want of memory."""
        memory = self._folders["memory"]
        if self._version == 2:
            return _kills(memory / "memory.events")
        return sum(_kills(folder / "memory.oom_control") for folder in (memory, *_inside(memory))) + self._killed_in_shares

    def peak(self) -> int | None:
        """The most memory it had since `forget_peak`; None where the system does not say."""
        text = _read(self._folders["memory"] / ("memory.max_usage_in_bytes" if self._version == 1 else "memory.peak")).strip()
        return int(text) if text.isdigit() else None

    def forget_peak(self) -> None:
        """Begin to count anew; where the system cannot, the peak goes on from before."""
        with contextlib.suppress(OSError):
            _write(self._folders["memory"] / ("memory.max_usage_in_bytes" if self._version == 1 else "memory.peak"), "0")

    def name_share(self) -> str:
        """A name that no share of this group has had."""
        return f"share-{next(self._shares)}"

    def divide(self, name: str, controller: str, value: float) -> bool:
        """Make the share `name` of `controller`: `cpu` in cores, `memory` in bytes; False where groups cannot be divided. Errors: OSError."""
        folder = self._folders[controller] / name
        if self._version == 2 or self._limits is None:
            return False
        if controller == "memory" and _read(folder.parent / "memory.use_hierarchy").strip() != "1":
            return False  # what is in a share would not count in its workspace
        folder.mkdir(exist_ok=True)
        if controller == "cpu":
            _limit_cores_1(folder, min(value, self._limits.cpu_cores))
        else:
            _limit_memory_1(folder, min(int(value), self._limits.memory_bytes))
        return True

    def move(self, pid: int, name: str, controller: str) -> None:
        """Move a process of this group into its share `name`; one that has ended meanwhile needs no moving. Errors: OSError."""
        with contextlib.suppress(ProcessLookupError):
            _write(self._folders[controller] / name / "cgroup.procs", str(pid))

    def drop(self, name: str) -> None:
        """Take the share `name` away, of every controller that has it. It has to be empty."""
        self._killed_in_shares += _kills(self._folders["memory"] / name / "memory.oom_control")
        for folder in self._folders.values():
            _remove(folder / name)

    def remove(self) -> None:
        """Take it away; it has to be empty by now, which the caller has seen to. What stays is said in the log."""
        for folder in dict.fromkeys(self._folders.values()):
            for share in _inside(folder):
                _remove(share)
            _remove(folder)

    def _write_limits(self, limits: Limits) -> None:
        memory, cpu = self._folders["memory"], self._folders["cpu"]
        processes = SANDBOXES_TOGETHER * (limits.processes + profile.SUPERVISORS)
        quota_us = _quota_us(limits.cpu_cores)
        _write(self._folders["pids"] / "pids.max", str(processes))
        if self._version == 2:
            _write(memory / "memory.max", str(limits.memory_bytes))
            _write_if_there(memory / "memory.swap.max", "0")
            _write(cpu / "cpu.max", f"{quota_us} {PERIOD_US}")
            return
        for share in _inside(cpu):
            if int(_read(share / "cpu.cfs_quota_us") or 0) > quota_us:  # a share may not have more than the whole
                _limit_cores_1(share, limits.cpu_cores)
        _limit_cores_1(cpu, limits.cpu_cores)
        _limit_memory_1(memory, limits.memory_bytes)


class Cgroups:
    """A group per workspace, made when first needed. Safe to use from many threads. All groups below the parent are its own: what a former
    life that was killed left there, empty, is taken away."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self._lock = threading.Lock()
        self._groups: dict[str, Group] = {}
        _sweep(hierarchy)

    def enter(self, workspace: str, limits: Limits) -> Group:
        """The workspace's group, to be left again. Errors: OSError."""
        with self._lock:
            group = self._groups.get(workspace) or Group(self._hierarchy, workspace)
            group.open(limits)
            self._groups[workspace] = group
            if group.users == 0:
                group.forget_peak()
            group.users += 1
            return group

    def leave(self, group: Group) -> None:
        with self._lock:
            group.users -= 1

    def remove(self, workspace: str) -> None:
        with self._lock:
            group = self._groups.pop(workspace, None)
            if group is not None:
                group.remove()

    def close(self) -> None:
        """Take all groups away, and their parent unless somebody else has groups there."""
        with self._lock:
            for group in self._groups.values():
                group.remove()
            self._groups.clear()
            _sweep(self._hierarchy)
            _remove_parents(self._hierarchy)


def _sweep(hierarchy: Hierarchy) -> None:
    """Take empty groups below the parent away, those inside of them first; one that has processes stays."""
    for parent in dict.fromkeys(hierarchy.folders.values()):
        for group in _inside(parent):
            for folder in (*_inside(group), group):
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _remove_parents(hierarchy: Hierarchy) -> None:
    """Unless somebody has groups there."""
    for folder in dict.fromkeys(hierarchy.folders.values()):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _pass_on(folder: Path) -> None:
    """Let groups below `folder` have the controllers. A group that passes them on may have no processes itself, so they move to a leaf.

    Version 2 only; Cohort's own group has to have been delegated to it for this. Errors: OSError.
    """
    switch = folder / "cgroup.subtree_control"
    if set(CONTROLLERS) <= set(_read(switch).split()):
        return
    inside = _read(folder / "cgroup.procs").split()
    if inside and (folder / "cgroup.type").exists():  # the root of all groups has no type, and may keep its processes
        leaf = folder / LEAF
        leaf.mkdir(exist_ok=True)
        for pid in inside:
            _write(leaf / "cgroup.procs", pid)
    _write(switch, " ".join(f"+{name}" for name in CONTROLLERS))


def _limit_cores_1(folder: Path, cores: float) -> None:
    _write(folder / "cpu.cfs_period_us", str(PERIOD_US))
    _write(folder / "cpu.cfs_quota_us", str(_quota_us(cores)))


def _quota_us(cores: float) -> int:
    return max(QUOTA_US_MIN, int(cores * PERIOD_US))


def _limit_memory_1(folder: Path, most: int) -> None:
    """Memory with swap can never be below memory, so the order depends on which way it goes."""
    plain, swap = folder / "memory.limit_in_bytes", folder / "memory.memsw.limit_in_bytes"
    _write_if_there(swap, "-1")
    _write(plain, str(most))
    _write_if_there(swap, str(most))


def _kills(file: Path) -> int:
    """What a file of memory events says of kills."""
    words = _read(file).split()
    return int(words[words.index("oom_kill") + 1]) if "oom_kill" in words else 0


def _inside(folder: Path) -> list[Path]:
    """The groups in it. A folder of a group has dozens of files, so none of them is looked at but for its kind."""
    try:
        with os.scandir(folder) as found:
            return [folder / entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _remove(folder: Path) -> None:
    """Take one empty group away, if it is there."""
    for left in reversed(range(REMOVE_TRIES)):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if left == 0:
                _log.warning("the cgroup %s could not be removed: %s", folder, error)
            time.sleep(REMOVE_WAIT_S)
        else:
            return


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _write_if_there(path: Path, text: str) -> None:
    if path.exists():
        _write(path, text)
