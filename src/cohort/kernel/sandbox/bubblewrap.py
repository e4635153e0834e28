"""Levels 3 and 4: the profile of spec/kernel.md 5.3, by bubblewrap, which is never started as root.

A cold sandbox is one run of bubblewrap: namespaces, the mounts, the filter, then stage two (`stage_two.py`), which sets what has to be
set inside and executes the command. Nothing of the kernel's own is given to it but the ends of pipes.
"""

from __future__ import annotations

import json
import os
import platform
import select
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.kernel.model import Command, Completed, Level, Limits, Place, StoppedBy
from cohort.kernel.ports import Running
from cohort.kernel.sandbox import landlock, opening, profile, seccomp, stage_two
from cohort.kernel.sandbox.ends import Ends
from cohort.kernel.sandbox.execution import Bounds, Execution, LongRunning, Pipes, Told, lines, signal_all
from cohort.kernel.sandbox.spawner import OnSpawn, Order, Spawn, Spawner, unavailable
from cohort.kernel.sandbox.ways_out import Listener, Proxy, unobserved

SETUP_WAIT_S = 10.0
INFO_BYTES_MAX = 4096
DESCENDANTS_MAX = 10_000
STAGE_TWO = "/.cohort/stage-two"
INFO, FILTER, ARGUMENTS, DATA = 5, 6, 7, 8
"""Descriptors of bubblewrap, after those of stage two; data files follow from 8."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One sandbox to be. `files`: path inside, mode, content. `protected`: names of the place's read-only paths that exist."""

    place: Place
    limits: Limits
    protected: tuple[str, ...]
    files: tuple[tuple[str, int, bytes], ...]
    variables: tuple[tuple[str, str], ...]


def arguments(wanted: Profile) -> list[str]:
    """bubblewrap's, in the order in which it makes the mounts. They go to it by a descriptor: a command line is for all to see."""
    tmp, shm = profile.sized(wanted.limits)
    return [
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup"),
        *("--disable-userns", "--cap-drop", "ALL", "--new-session", "--die-with-parent", "--hostname", "sandbox", "--clearenv"),
        *("--ro-bind", "/usr", "/usr"),
        *(part for name in _system_links() for part in ("--symlink", f"usr/{name}", f"/{name}")),
        *("--proc", "/proc", "--dev", "/dev"),
        *("--perms", "1777", "--size", str(shm), "--tmpfs", "/dev/shm"),  # noqa: S108
        *("--perms", "1777", "--size", str(tmp), "--tmpfs", "/tmp"),  # noqa: S108
        *("--bind", wanted.place.root, profile.WORKSPACE),
        *(part for name in wanted.protected for part in ("--ro-bind", f"{wanted.place.root}/{name}", f"{profile.WORKSPACE}/{name}")),
        *(part for number, file in enumerate(wanted.files, DATA) for part in _file(number, *file[:2])),
        *("--remount-ro", "/proc", "--remount-ro", "/dev", "--remount-ro", "/"),
        *(part for name, value in wanted.variables for part in ("--setenv", name, value)),
        *("--seccomp", str(FILTER), "--info-fd", str(INFO)),
    ]


def _system_links() -> list[str]:
    return [name for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32") if os.path.isdir(f"/usr/{name}")]


def _file(number: int, path: str, mode: int) -> tuple[str, ...]:
    return ("--perms", f"{mode:04o}", "--file", str(number), path)


@dataclass(frozen=True, slots=True)
class Parts:
    """What backends are made with. `proxy`: None where there is no way out at all. `binary`: bubblewrap's path."""

    spawner: Spawner
    clock: Clock
    on_spawn: OnSpawn
    proxy: Proxy | None = None
    on_egress: Callable[[Any], None] = unobserved
    binary: str = "/usr/bin/bwrap"


@dataclass(slots=True)
class Begun:
    """A cold sandbox whose command runs, or that failed on the way, which its execution tells. `after`: what to close at its end."""

    execution: Execution
    stdin: int
    pid: int | None
    after: ExitStack


class Cold:
    """One sandbox per command. Does not write the journal."""

    def __init__(self, parts: Parts, level: Level) -> None:
        self._parts = parts
        self._level = level
        self._abi = landlock.abi()
        self._filter = seccomp.program(platform.machine())

    def run(self, place: Place, limits: Limits, command: Command) -> Completed:
        """Errors: as `ports.Sandbox.run`."""
        begun = self._begin(place, limits, command, limits.command_s)
        with begun.after:
            return begun.execution.finish()

    def start(self, place: Place, limits: Limits, command: Command) -> LongRunning:
        """Errors: as `ports.Sandbox.run`."""
        begun = self._begin(place, limits, command, None)
        return LongRunning(begun.execution, begun.stdin, lambda number: signal_all(payload(begun.pid), number), begun.after.close)

    def _begin(self, place: Place, limits: Limits, command: Command, time_s: float | None) -> Begun:
        profile.check(command)
        protected = protected_paths(place)
        image = stage_two.image(self._plan(limits, command))
        with Ends() as ends:
            self._open(ends, place, limits, command, tuple(protected), image.file)
            order = Order(
                argv=(self._parts.binary, "--args", str(ARGUMENTS), "--", STAGE_TWO, *command.argv),
                owner=profile.owner(place),
                rlimits=profile.rlimits(limits, timed=time_s is not None),
            )
            line = self._parts.spawner.line()
            id, told = line.start(order, ends.theirs)
        ours = ends.ours
        timed = time_s is not None
        pipes = Pipes(told, ours["stdout"], ours["stderr"], ours["stdin"] if timed else None, ours["tell"])
        level = self._level if place.hard_quota else min(self._level, Level.NAMESPACES)
        execution = Execution(
            line,
            id,
            pipes,
            Bounds(time_s, limits.output_bytes, level),
            self._parts.clock,
            _understanding(image, command),
            stdin=command.stdin,
        )
        begun = Begun(execution, ours["stdin"], None, ExitStack())
        self._let_go(begun, ours["info"], ours["go"], limits, command, protected)
        return begun

    def _let_go(self, begun: Begun, info: int, go: int, limits: Limits, command: Command, protected: Identities) -> None:
        """Look at the sandbox from outside once it is set up, and only then let it begin."""
        try:
            begun.pid = first_process(info, self._parts.clock)
            if begun.pid is not None and begun.execution.hear_extra(stage_two.SET_UP, SETUP_WAIT_S):
                check_protected(begun.pid, protected)
                if command.hosts:
                    begun.after.callback(self._way_out(begun.pid, limits, command).close)
                os.write(go, stage_two.GO_AHEAD)
        except (CohortError, OSError) as error:
            begun.after.close()
            begun.execution.stop(StoppedBy.SANDBOX)
            begun.execution.finish()
            raise error if isinstance(error, CohortError) else unavailable(f"the sandbox cannot be looked at: {error}") from error
        finally:
            os.close(info)
            os.close(go)

    def _way_out(self, pid: int, limits: Limits, command: Command) -> Listener:
        if self._parts.proxy is None:
            raise unavailable("there is no egress proxy", "Run the command without hosts, or start Cohort with its proxy.")
        return self._parts.proxy.listen(pid, command.hosts, limits.egress_bytes_per_day, self._parts.on_egress)

    def _plan(self, limits: Limits, command: Command) -> stage_two.Plan:
        return stage_two.Plan(
            rules=profile.rules(bool(command.hosts)),
            abi=self._abi,
            processes=profile.nproc(limits),
            cwd=profile.folder(command),
            paths=profile.candidates(command.argv[0], profile.variables(command)),
            name=command.argv[0],
        )

    def _open(self, ends: Ends, place: Place, limits: Limits, command: Command, protected: tuple[str, ...], stage: bytes) -> None:
        ends.speak("stdin", 0)
        for name, number in (("stdout", 1), ("stderr", 2), ("tell", stage_two.TELL), ("info", INFO)):
            ends.hear(name, number)
        ends.speak("go", stage_two.GO)
        ends.give(FILTER, self._filter)
        files = ((STAGE_TWO, 0o555, stage), *etc_files(place))
        wanted = Profile(place, limits, protected, files, tuple(sorted(profile.variables(command).items())))
        ends.give(ARGUMENTS, b"".join(os.fsencode(part) + b"\0" for part in arguments(wanted)))
        for number, (_, _, content) in enumerate(files, DATA):
            ends.give(number, content)


Identities = Mapping[str, tuple[int, int]]
"""Device and inode by path."""


def etc_files(place: Place) -> tuple[tuple[str, int, bytes], ...]:
    """The generated files, as path inside, mode and content."""
    return tuple((f"/etc/{name}", 0o444, text.encode()) for name, text in profile.etc(place.uid, place.gid).items())


def protected_paths(place: Place) -> dict[str, tuple[int, int]]:
    """The read-only paths of the place that exist, with what they are.

    Raises:
        CohortError SANDBOX_UNAVAILABLE: one is a symbolic link, or behind one; a mount would follow it to where the agent points.
    """
    found = {}
    for name in place.read_only:
        try:
            identity = opening.identity(place.root, name)
        except OSError as error:
            raise unavailable(f"the protected path {name} cannot be opened: {error.strerror}", "Remove the symbolic link.") from error
        if identity is not None:
            found[name] = identity
    return found


def check_protected(pid: int, protected: Identities) -> None:
    """That what is mounted is what was looked at, read-only: an agent could have exchanged it in between.

    Raises:
        CohortError SANDBOX_UNAVAILABLE.
    """
    for name, identity in protected.items():
        fd = opening.look(f"/proc/{pid}/root{profile.WORKSPACE}", name)
        if fd is None:
            raise unavailable(f"the protected path {name} is gone", "Try again.")
        try:
            found = os.fstat(fd)
            if (found.st_dev, found.st_ino) != identity or not os.fstatvfs(fd).f_flag & os.ST_RDONLY:
                raise unavailable(f"the protected path {name} was exchanged", "Stop what runs in the workspace, then try again.")
        finally:
            os.close(fd)


def first_process(info: int, clock: Clock) -> int | None:
    """The sandbox's first process, as numbered here; None when bubblewrap ended without one."""
    said, until_s = b"", clock.monotonic_s() + SETUP_WAIT_S
    poll = select.poll()
    poll.register(info, select.POLLIN)
    while b"}" not in said and len(said) < INFO_BYTES_MAX:
        left_s = until_s - clock.monotonic_s()
        if left_s <= 0 or not poll.poll(left_s * 1000):
            raise unavailable(f"bubblewrap did not set up a sandbox within {SETUP_WAIT_S:g} s")
        chunk = os.read(info, INFO_BYTES_MAX)
        if not chunk:
            return None
        said += chunk
    return int(json.loads(said)["child-pid"])


def payload(pid: int | None) -> list[int]:
    """The command's processes: those of the sandbox but for its first and stage two, which have to live until its end."""
    if pid is None:
        return []
    return [grandchild for child in children(pid) for grandchild in descendants(child)]


def descendants(pid: int) -> list[int]:
    """All below `pid`, parents first. What is started meanwhile may be missed."""
    found: list[int] = []
    waiting = children(pid)
    while waiting and len(found) < DESCENDANTS_MAX:
        one = waiting.pop(0)
        found.append(one)
        waiting += children(one)
    return found


def children(pid: int) -> list[int]:
    """Children of any thread of `pid`; none when it is gone."""
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += [int(one) for one in file.read().split()]
    return found


def _understanding(image: stage_two.Image, command: Command) -> Callable[[bytes, bytes], Told]:
    """What bubblewrap's end and stage two's words mean together."""

    def understand(told: bytes, extra: bytes) -> Told:
        outer, ended = lines(told), stage_two.ending(extra, image)
        if "error" in outer:
            return Told(False, None, 0, None, f"bubblewrap was not started: {outer['error']}")
        if ended.failed == "folder":
            return Told(False, None, 0, None, f"{command.cwd!r} is not a folder that can be entered", field="cwd")
        cpu_us = max(ended.cpu_us, int(str(outer.get("cpu_us", 0))))
        memory = ended.memory_bytes or int(str(outer.get("memory_bytes", 0)))
        return Told(ended.started, ended.status, cpu_us, memory, "" if ended.started else stage_two.reason(ended))

    return understand


class Bubblewrap:
    """`ports.Sandbox`. Levels 3 and 4."""

    def __init__(self, parts: Parts, level: Level = Level.NAMESPACES) -> None:
        self._parts = parts
        self._level = level
        self._cold = Cold(parts, level)

    @property
    def name(self) -> str:
        return "bubblewrap"

    @property
    def level(self) -> Level:
        return self._level

    def run(self, place: Place, limits: Limits, command: Command) -> Completed:
        self._journal(place, command)
        return self._cold.run(place, limits, command)

    def start(self, place: Place, limits: Limits, command: Command) -> Running:
        self._journal(place, command)
        return self._cold.start(place, limits, command)

    def close(self, place: Place) -> None:
        """Nothing lives longer than its command here."""

    def _journal(self, place: Place, command: Command) -> None:
        at_us = self._parts.clock.now_us()
        self._parts.on_spawn(Spawn(str(place.workspace), command.argv, command.label, at_us, self.name))
