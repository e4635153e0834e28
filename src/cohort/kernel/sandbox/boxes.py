"""A box is one run of bubblewrap: what it is asked for, how it is looked at from outside, and how it ends. Cold and warm sandboxes are boxes."""

from __future__ import annotations

import json
import os
import platform
import select
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from cohort.base.clock import Clock
from cohort.kernel.model import Command, Level, Limits, Place
from cohort.kernel.sandbox import commands, opening, profile, seccomp, stage_zero
from cohort.kernel.sandbox.cgroups import Cgroups, Group
from cohort.kernel.sandbox.ends import Ends
from cohort.kernel.sandbox.execution import Watch
from cohort.kernel.sandbox.memory import Watchdog
from cohort.kernel.sandbox.spawner import Line, OnSpawn, Order, Spawn, Spawner, unavailable
from cohort.kernel.sandbox.stage_two import Image
from cohort.kernel.sandbox.stage_zero import Start
from cohort.kernel.sandbox.ways_out import Fund, Listener, Proxy, unfunded, unobserved

SETUP_WAIT_S = 10.0
ARGUMENTS_KEPT = 64
"""A workspace's boxes are alike but for what they execute."""
INFO_BYTES_MAX = 4096
TELL, GO = 3, 4
"""Descriptors of what runs inside first: it tells on the one, and may wait on the other."""
INFO, FILTER, ARGUMENTS, DATA = 5, 6, 7, 8
"""Descriptors of bubblewrap; data files follow from `DATA`."""

Identities = Mapping[str, tuple[int, int]]
"""Device and inode by path."""
Files = tuple[tuple[str, int, bytes], ...]
"""Path inside, mode and content."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What backends are made with. `proxy` None: there is no way out. `cgroups` None: limits are soft. `on_egress`: told the
    command's label and what the proxy decided, from a thread of the proxy's; when it raises, nothing is dialled. `fund`: what pays
    for the bytes of a workspace's way out, which may pass so many a day. `binary`: bubblewrap's path.
    """

    spawner: Spawner
    clock: Clock
    on_spawn: OnSpawn
    proxy: Proxy | None = None
    on_egress: Callable[[str, Any], None] = unobserved
    fund: Callable[[str, int], Fund] = unfunded
    cgroups: Cgroups | None = None
    binary: str = "/usr/bin/bwrap"

    def journal(self, backend: str, place: Place, command: Command) -> None:
        """Tell of an execution before it happens."""
        self.on_spawn(Spawn(str(place.workspace), command.argv, command.label, self.clock.now_us(), backend))

    def enter(self, place: Place, limits: Limits, after: ExitStack) -> Group | None:
        """The workspace's cgroup, left again by `after`. Errors: SANDBOX_UNAVAILABLE: there were cgroups, and now there are not."""
        if self.cgroups is None:
            return None
        try:
            group = self.cgroups.enter(str(place.workspace), limits)
        except OSError as error:
            raise unavailable(f"the cgroup of {place.workspace} cannot be made: {error}") from error
        after.callback(self.cgroups.leave, group)
        return group


@dataclass(frozen=True, slots=True)
class Wanted:
    """A box to be. `argv`: what is executed inside first. `protected`: names of the place's read-only paths that exist."""

    place: Place
    limits: Limits
    argv: tuple[str, ...]
    files: Files
    protected: Identities
    timed: bool


def arguments(wanted: Wanted) -> bytes:
    """bubblewrap's, each with a NUL behind it. They go to it by a descriptor: a command line is for all to see."""
    files = tuple((path, mode) for path, mode, _ in wanted.files)
    return _arguments(wanted.place.root, profile.sized(wanted.limits), tuple(wanted.protected), files)


@lru_cache(ARGUMENTS_KEPT)
def _arguments(root: str, sizes: tuple[int, int], protected: tuple[str, ...], files: tuple[tuple[str, int], ...]) -> bytes:
    """In the order in which bubblewrap makes the mounts."""
    tmp, shm = sizes
    parts = [
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup"),
        *("--disable-userns", "--cap-drop", "ALL", "--new-session", "--die-with-parent", "--hostname", "sandbox", "--clearenv"),
        *("--ro-bind", "/usr", "/usr"),
        *(part for name in _system_links() for part in ("--symlink", f"usr/{name}", f"/{name}")),
        *("--proc", "/proc", "--dev", "/dev"),
        *("--perms", "1777", "--size", str(shm), "--tmpfs", "/dev/shm"),  # noqa: S108
        *("--perms", "1777", "--size", str(tmp), "--tmpfs", "/tmp"),  # noqa: S108
        *("--bind", root, commands.WORKSPACE),
        *(part for name in _above(protected) for part in ("--bind", f"{root}/{name}", f"{commands.WORKSPACE}/{name}")),
        *(part for name in protected for part in ("--ro-bind", f"{root}/{name}", f"{commands.WORKSPACE}/{name}")),
        *(part for number, file in enumerate(files, DATA) for part in _file(number, *file)),
        *("--remount-ro", "/proc", "--remount-ro", "/dev", "--remount-ro", "/"),
        *("--seccomp", str(FILTER), "--info-fd", str(INFO)),
    ]
    return b"".join(os.fsencode(part) + b"\0" for part in parts)


def _above(names: Iterable[str]) -> list[str]:
    """The folders on the way to `names`, outer ones first. Each is mounted on itself: a mount point cannot be moved, but a folder with one in it can."""
    parts = [name.split("/") for name in names]
    return sorted({"/".join(part[:depth]) for part in parts for depth in range(1, len(part))})


def _system_links() -> list[str]:
    return [name for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32") if os.path.isdir(f"/usr/{name}")]


def _file(number: int, path: str, mode: int) -> tuple[str, ...]:
    return ("--perms", f"{mode:04o}", "--file", str(number), path)


def ask(ends: Ends, wanted: Wanted) -> None:
    """Everything bubblewrap reads and tells, beside what runs inside."""
    ends.hear("info", INFO)
    ends.give(FILTER, seccomp.program(platform.machine()))
    ends.give(ARGUMENTS, arguments(wanted))
    for number, (_, _, content) in enumerate(wanted.files, DATA):
        ends.give(number, content)


@dataclass(frozen=True, slots=True)
class Asked:
    """A box that the spawner was asked for. `program`: what it starts it by, None where it forks."""

    line: Line
    id: int
    told: int
    program: Image | None


def start(parts: Parts, wanted: Wanted, group: Group | None, ends: Ends, *, program: bool) -> Asked:
    """Have the spawner start the box with all that `ends` has for it. `program`: by one of machine code, where the system lets us.

    Errors: SANDBOX_UNAVAILABLE, also as `profile.owner`; those of `Line.start`.
    """
    line = parts.spawner.line()
    argv = (parts.binary, "--args", str(ARGUMENTS), "--", *wanted.argv)
    owner, rlimits = profile.owner(wanted.place), profile.rlimits(wanted.limits, timed=wanted.timed)
    groups = () if group is None else group.joins
    image = _program(Start(parts.binary, _free(ends), groups, owner, profile.within(rlimits, parts.spawner.pid)), ends) if program else None
    order = Order(argv) if image is not None else Order(argv, owner=owner, rlimits=rlimits, cgroups=groups)
    id, told = line.start(order, ends.theirs)
    return Asked(line, id, told, image)


def _program(start: Start, ends: Ends) -> Image | None:
    image = stage_zero.image(start)
    possible = max(ends.theirs) < stage_zero.LOW and ends.lend_program(image.file) is not None
    return image if possible else None


def _free(ends: Ends) -> int:
    return next(number for number in range(len(ends.theirs) + 1) if number not in ends.theirs)


def etc_files(place: Place) -> Files:
    """The four generated files that lookups of names need."""
    return tuple((f"/etc/{name}", 0o444, text.encode()) for name, text in profile.etc(place.uid, place.gid).items())


def protected_paths(place: Place) -> dict[str, tuple[int, int]]:
    """The read-only paths of the place that exist, with what they are.

    Raises:
        CohortError SANDBOX_UNAVAILABLE: one is a symbolic link, or behind one; a mount would follow it to where the agent points.
    """
    try:
        return opening.identities(place.root, place.read_only)
    except OSError as error:
        raise unavailable(f"the protected path {error.filename} cannot be opened: {error.strerror}", "Remove the symbolic link.") from error


def check_protected(pid: int, protected: Identities) -> None:
    """That what is mounted is what was looked at, read-only: an agent could have exchanged it in between.

    Raises:
        CohortError SANDBOX_UNAVAILABLE.
    """
    for name, identity in protected.items():
        try:
            fd = opening.look(f"/proc/{pid}/root{commands.WORKSPACE}", name)
        except OSError as error:
            raise unavailable(f"the protected path {name} cannot be looked at inside: {error}", "Try again.") from error
        try:
            if fd is None or not _is(fd, identity):
                raise unavailable(f"the protected path {name} was exchanged", "Stop what runs in the workspace, then try again.")
        finally:
            if fd is not None:
                os.close(fd)


def _is(fd: int, identity: tuple[int, int]) -> bool:
    found = os.fstat(fd)
    return (found.st_dev, found.st_ino) == identity and bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY)


def first_process(info: int, clock: Clock) -> int | None:
    """The box's first process, as numbered here; None when bubblewrap ended without one. Errors: SANDBOX_UNAVAILABLE: nothing came in time."""
    said, until_s = b"", clock.monotonic_s() + SETUP_WAIT_S
    poll = select.poll()
    poll.register(info, select.POLLIN)
    while b"}" not in said and len(said) < INFO_BYTES_MAX:
        left_s = until_s - clock.monotonic_s()
        if left_s <= 0 or not poll.poll(left_s * 1000):
            raise unavailable(f"bubblewrap did not set up a sandbox within {SETUP_WAIT_S:g} s")
        with suppress(BlockingIOError):
            chunk = os.read(info, INFO_BYTES_MAX)
            if not chunk:
                return None
            said += chunk
    return int(json.loads(said)["child-pid"])


def watch(group: Group | None, pid: int, limits: Limits) -> Watch:
    """What to ask about memory: the cgroup, or the watchdog where there is none."""
    if group is None:
        dog = Watchdog(pid, limits.memory_bytes, dict(zip(("/tmp", "/dev/shm"), profile.sized(limits), strict=True)))  # noqa: S108
        return Watch(over=dog.over, peak=dog.peak)
    before, alone = group.out_of_memory(), group.users == 1
    return Watch(stopped=lambda: group.out_of_memory() > before, peak=group.peak if alone else lambda: None)


def way_out(parts: Parts, pid: int, place: Place, limits: Limits, command: Command) -> Listener:
    """The egress proxy's listener in the box of `pid`. Errors: SANDBOX_UNAVAILABLE."""
    if parts.proxy is None:
        raise unavailable("there is no egress proxy", "Run the command without hosts, or start Cohort with its proxy.")
    told, most = partial(parts.on_egress, command.label), limits.egress_bytes_per_day
    return parts.proxy.listen(pid, command.hosts, most, told, parts.fund(str(place.workspace), most))


def level(shown: Level, place: Place, group: Group | None) -> Level:
    """What one execution may claim: what the probe has shown, less what this workspace lacks."""
    whole = place.hard_quota and group is not None
    return shown if whole else min(shown, Level.NAMESPACES)
