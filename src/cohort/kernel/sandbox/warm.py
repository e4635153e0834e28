"""Warm sandboxes: one per workspace, in which one command after the other is executed within a millisecond or two.

What commands of a workspace share in one: /tmp and /dev/shm, which live until the sandbox ends, and the namespaces. What they do not
share: time. The runner takes one command at a time, and before it tells of its end it kills every other process of the pid namespace,
so nothing a command leaves behind meets the next one. A command that finds the sandbox busy gets a cold one of its own.

There is no network in a warm sandbox. It ends after `IDLE_S`, when the workspace is closed, when a command had to be stopped, when its
limits or protected paths change, and when it is the least recently used of more than `WARM_MAX`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from cohort.base.errors import CohortError
from cohort.kernel.model import Command, Completed, Level, Limits, Place
from cohort.kernel.sandbox import boxes, commands, landlock, profile
from cohort.kernel.sandbox.active import Active
from cohort.kernel.sandbox.boxes import Parts, Wanted
from cohort.kernel.sandbox.ends import Ends
from cohort.kernel.sandbox.execution import KILL_WAIT_S, Bounds, Execution, Pipes, Told, lines
from cohort.kernel.sandbox.spawner import Line, Order, unavailable

IDLE_S = 300.0
WARM_MAX = 16
PYTHON = "/usr/bin/python3"
HOME = "/.cohort"
START = f"import sys; sys.path.insert(0, {HOME!r}); from cohort.kernel.sandbox.runner import main; main()"
MODULES = ("runner.py", "forker.py", "landlock.py")
READY_WORD = b"SET UP\0\0"
SAID_BYTES_MAX = 2000


Key = tuple[Place, Limits, tuple[tuple[str, tuple[int, int]], ...]]
"""What a sandbox was made for; a command for anything else needs another one."""


@dataclass(slots=True)
class Sandbox:
    """One that is up. `line`: to its runner; `outer`, `id`, `told`: to bubblewrap, and how that ended; `pid`: its first process."""

    key: Key
    line: Line
    outer: Line
    id: int
    told: int
    stderr: int
    pid: int
    used_s: float
    busy: bool = True
    ended: bool = False

    def gone(self) -> bool:
        """Whether it has ended by itself, and nothing of it is left."""
        return self._ended_within(0.0)

    def end(self) -> None:
        """Kill it and wait until nothing of it is left. Errors: PROCESS_FAILED: it does not end."""
        self.outer.signal(self.id, signal.SIGKILL)
        try:
            if not self._ended_within(KILL_WAIT_S):
                raise CohortError("PROCESS_FAILED", "a sandbox does not end though it was killed", hint="Look at it with `ps`.")
        finally:
            self.line.close()
            os.close(self.told)
            os.close(self.stderr)

    def _ended_within(self, wait_s: float) -> bool:
        poll = select.poll()
        poll.register(self.told, select.POLLIN)
        while not self.ended and poll.poll(wait_s * 1000):
            data = os.read(self.told, 4096)
            self.ended = not data or b'"status"' in data
        return self.ended


class Warm:
    """The warm sandboxes of all workspaces. Safe to use from many threads."""

    def __init__(self, parts: Parts, level: Level, active: Active, sandboxes_max: int = WARM_MAX) -> None:
        self._most = sandboxes_max
        self._parts = parts
        self._level = level
        self._active = active
        self._abi = landlock.abi()
        self._clock = parts.clock
        self._python = os.path.exists(PYTHON)
        self._lock = threading.Lock()
        self._up: dict[str, Sandbox] = {}
        self._starting: set[str] = set()
        self._sweeper: threading.Timer | None = None

    def run(self, place: Place, limits: Limits, command: Command) -> Completed | None:
        """Execute in the workspace's warm sandbox, made if there is none; None when it is busy or none can be had now.

        Errors: as `ports.Sandbox.run`.
        """
        if not self._python:
            return None
        protected = boxes.protected_paths(place)
        key = (place, replace(limits, command_s=0.0, output_bytes=0), tuple(protected.items()))
        sandbox = self._take(key)
        if sandbox is None:
            return None
        whole = False
        try:
            done = self._execute(sandbox, place, limits, command)
            whole = done.stopped_by is None
            return done
        finally:
            self._give_back(str(place.workspace), sandbox, whole)

    def close(self, workspace: str) -> None:
        """End the sandbox of `workspace`. Its command must have ended, or been stopped, before."""
        with self._lock:
            sandbox = self._up.pop(workspace, None)
        if sandbox is not None:
            sandbox.end()

    def close_idle(self, idle_s: float = IDLE_S) -> None:
        """End those that were not used for `idle_s`."""
        until_s = self._clock.monotonic_s() - idle_s
        with self._lock:
            old = [name for name, one in self._up.items() if not one.busy and one.used_s <= until_s]
            ended = [self._up.pop(name) for name in old]
        for sandbox in ended:
            sandbox.end()

    def _take(self, key: Key) -> Sandbox | None:
        """The workspace's sandbox, now busy, made if need be; None when it is busy already, or as many as may be are."""
        workspace = str(key[0].workspace)
        with self._lock:
            known = self._up.get(workspace)
            if workspace in self._starting or (known is not None and known.busy):
                return None
            if known is not None and known.key == key and not known.gone():
                known.busy = True
                return known
            leaving = [self._up.pop(workspace)] if known is not None else self._least_used()
            if len(self._up) + len(self._starting) >= self._most:
                return None
            self._starting.add(workspace)
        try:
            for one in leaving:
                one.end()
            sandbox = self._open(key)
            with self._lock:
                self._up[workspace] = sandbox
            return sandbox
        finally:
            with self._lock:
                self._starting.discard(workspace)

    def _least_used(self) -> list[Sandbox]:
        """Make room for one more, if that can be; the lock is held."""
        idle = sorted((one.used_s, name) for name, one in self._up.items() if not one.busy)
        full = len(self._up) + len(self._starting) >= self._most
        return [self._up.pop(idle[0][1])] if full and idle else []

    def _give_back(self, workspace: str, sandbox: Sandbox, whole: bool) -> None:
        """Leave it to the next command; or end it, when its command had to be stopped."""
        with self._lock:
            sandbox.used_s = self._clock.monotonic_s()
            sandbox.busy = False
            ours = self._up.get(workspace) is sandbox
            if ours and not whole:
                del self._up[workspace]
            if whole and self._sweeper is None:
                self._sweep_later()
        if ours and not whole:
            sandbox.end()

    def _sweep_later(self) -> None:
        self._sweeper = threading.Timer(IDLE_S / 2, self._sweep)
        self._sweeper.daemon = True
        self._sweeper.start()

    def _sweep(self) -> None:
        self.close_idle()
        with self._lock:
            self._sweeper = None
            if self._up:
                self._sweep_later()

    def _execute(self, sandbox: Sandbox, place: Place, limits: Limits, command: Command) -> Completed:
        with ExitStack() as after:
            group = self._parts.enter(place, limits, after)
            environment = commands.variables(command)
            order = Order(
                argv=command.argv,
                env=environment,
                cwd=commands.folder(command),
                rlimits=((profile.NPROC, profile.nproc(limits)), profile.cpu_limit(limits)),
                forgive=True,
                tell=(boxes.TELL,),
            )
            with Ends() as ends:
                ends.speak("stdin", 0)
                for name, number in (("stdout", 1), ("stderr", 2), ("tell", boxes.TELL)):
                    ends.hear(name, number)
                _, told = sandbox.line.start(order, ends.theirs)
            ours = ends.ours
            pipes = Pipes(told, ours["stdout"], ours["stderr"], ours["stdin"], ours["tell"])
            bounds = Bounds(limits.command_s, limits.output_bytes, boxes.level(self._level, place, group))
            execution = Execution(sandbox.outer, sandbox.id, pipes, bounds, self._clock, _understood(command), stdin=command.stdin)
            execution.watch(boxes.watch(group, sandbox.pid, limits))
            with self._active.during(str(place.workspace), execution):
                return execution.finish()

    def _open(self, key: Key) -> Sandbox:
        """A new one. Errors: SANDBOX_UNAVAILABLE."""
        place, limits, protected = key
        wanted = Wanted(place, limits, _argv(self._abi), (*_files(), *boxes.etc_files(place)), dict(protected), timed=False)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        outer = self._parts.spawner.line()
        with ExitStack() as after, Ends() as ends:
            group = self._parts.enter(place, limits, after)
            ends.theirs[0] = theirs.detach()
            ends.nothing(1)
            ends.hear("stderr", 2)
            ends.hear("ready", boxes.TELL)
            boxes.ask(ends, wanted)
            id, told = outer.start(boxes.order(self._parts, wanted, group), ends.theirs)
        sandbox = Sandbox(key, Line(ours), outer, id, told, ends.ours["stderr"], 0, self._clock.monotonic_s())
        try:
            self._wait_until_up(sandbox, ends, dict(protected))
        except CohortError:
            sandbox.end()
            raise
        finally:
            os.close(ends.ours["info"])
            os.close(ends.ours["ready"])
        return sandbox

    def _wait_until_up(self, sandbox: Sandbox, ends: Ends, protected: boxes.Identities) -> None:
        pid = boxes.first_process(ends.ours["info"], self._clock)
        if pid is None or not _ready(ends.ours["ready"]):
            raise unavailable(f"a warm sandbox was not set up: {_said(sandbox.stderr)}")
        sandbox.pid = pid
        boxes.check_protected(pid, protected)


def _ready(fd: int) -> bool:
    """Whether the runner says that it is up, before the pipe ends or the time is over."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(boxes.SETUP_WAIT_S * 1000)) and os.read(fd, len(READY_WORD)) == READY_WORD


def _said(stderr: int) -> str:
    try:
        return os.read(stderr, SAID_BYTES_MAX).decode(errors="replace").strip()[-300:]
    except BlockingIOError:
        return "it says nothing"


def _argv(abi: int) -> tuple[str, ...]:
    return (PYTHON, "-I", "-S", "-B", "-c", START, json.dumps(asdict(profile.rules(network=False))), str(abi))


@cache
def _files() -> boxes.Files:
    """The runner's own modules, where its imports find them."""
    here = Path(__file__).parent
    return tuple((f"{HOME}/cohort/kernel/sandbox/{name}", 0o444, (here / name).read_bytes()) for name in MODULES)


def _understood(command: Command) -> Callable[[bytes, bytes], Told]:
    """What the runner told, and the byte that is written just before the command begins."""

    def understand(told: bytes, extra: bytes) -> Told:
        said = lines(told)
        if "error" in said and not extra:
            if said.get("folder"):
                return Told(False, None, 0, None, f"{command.cwd!r} is not a folder that can be entered", field="cwd")
            return Told(False, None, 0, None, str(said["error"]))
        if "status" not in said:
            return Told(bool(extra), None, 0, None, "the sandbox ended before the command began")
        numbers = {name: int(str(said[name])) for name in ("status", "cpu_us", "memory_bytes")}
        return Told(bool(extra), numbers["status"], numbers["cpu_us"], numbers["memory_bytes"], "it ended before it began")

    return understand
