"""Sandboxes with a runner inside (`runner.py`): opened by bubblewrap, then given commands over a socket.

Warm sandboxes are these, kept (`warm.py`). Where there is no stage two, cold ones are these too, used once (`once.py`).
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from cohort.base.errors import CohortError
from cohort.kernel.model import Command, Level, Limits, Place
from cohort.kernel.sandbox import boxes, commands, landlock, profile, stage_two
from cohort.kernel.sandbox.boxes import Parts, Wanted
from cohort.kernel.sandbox.cgroups import Group
from cohort.kernel.sandbox.ends import Ends
from cohort.kernel.sandbox.execution import KILL_WAIT_S, Bounds, Execution, Pipes, Told, lines
from cohort.kernel.sandbox.spawner import Line, Order, unavailable

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


def key_of(place: Place, limits: Limits) -> Key:
    """What a sandbox for this has to have been made for. Errors: SANDBOX_UNAVAILABLE, as `boxes.protected_paths`."""
    return place, replace(limits, command_s=0.0, output_bytes=0), tuple(boxes.protected_paths(place).items())


@dataclass(frozen=True, slots=True)
class Begun:
    """A command under way. `id`: the runner's number for it; `stdin`: ours to close when the execution does not."""

    execution: Execution
    id: int
    stdin: int
    group: Group | None


class Runners:
    """Opens sandboxes and begins commands in them. `program`: whether commands bring their own stage two, or the runner forks."""

    def __init__(self, parts: Parts, level: Level, program: bool = stage_two.HERE) -> None:
        self._parts = parts
        self._level = level
        self._program = program
        self._abi = landlock.abi()

    @property
    def possible(self) -> bool:
        """Whether there is a Python inside for the runner."""
        return os.path.exists(PYTHON)

    def open(self, key: Key, network: bool = False) -> Sandbox:
        """A new sandbox, marked busy. Errors: SANDBOX_UNAVAILABLE."""
        place, limits, protected = key
        wanted = Wanted(place, limits, _argv(self._abi, network), (*_files(), *boxes.etc_files(place)), dict(protected), timed=False)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ExitStack() as after, Ends() as ends:
            group = self._parts.enter(place, limits, after)
            ends.theirs[0] = theirs.detach()
            ends.nothing(1)
            ends.hear("stderr", 2)
            ends.hear("ready", boxes.TELL)
            boxes.ask(ends, wanted)
            asked = boxes.start(self._parts, wanted, group, ends, program=self._program)
        used_s = self._parts.clock.monotonic_s()
        sandbox = Sandbox(key, Line(ours), asked.line, asked.id, asked.told, ends.ours["stderr"], 0, used_s)
        try:
            self._wait_until_up(sandbox, ends, dict(protected))
        except CohortError:
            sandbox.end()
            raise
        finally:
            os.close(ends.ours["info"])
            os.close(ends.ours["ready"])
        return sandbox

    def begin(self, sandbox: Sandbox, limits: Limits, command: Command, time_s: float | None, after: ExitStack) -> Begun:
        """Begin `command` in a sandbox that is not busy with another one. `time_s` None: it runs on, and its input stays open."""
        place = sandbox.key[0]
        group = self._parts.enter(place, limits, after)
        timed = time_s is not None
        image = stage_two.image(self._plan(limits, command, timed)) if self._program else None
        with Ends() as ends:
            ends.speak("stdin", 0)
            for name, number in (("stdout", 1), ("stderr", 2), ("tell", boxes.TELL)):
                ends.hear(name, number)
            lent = image is not None and ends.lend_program(image.file) is not None
            order = Order(argv=command.argv) if lent else self._forked(limits, command, timed)
            id, told = sandbox.line.start(order, ends.theirs)
        ours = ends.ours
        pipes = Pipes(told, ours["stdout"], ours["stderr"], ours["stdin"] if timed else None, ours["tell"])
        bounds = Bounds(time_s, limits.output_bytes, boxes.level(self._level, place, group))
        understand = _understanding(command, image)
        execution = Execution(sandbox.outer, sandbox.id, pipes, bounds, self._parts.clock, understand, stdin=command.stdin)
        execution.watch(boxes.watch(group, sandbox.pid, limits))
        return Begun(execution, id, ours["stdin"], group)

    def _plan(self, limits: Limits, command: Command, timed: bool) -> stage_two.Plan:
        """What the command's own stage two does; the runner only starts it."""
        return stage_two.Plan(
            rules=profile.rules(bool(command.hosts)),
            abi=self._abi,
            rlimits=_rlimits(limits, timed),
            cwd=commands.folder(command),
            paths=commands.candidates(command.argv[0], commands.variables(command)),
            name=command.argv[0],
            variables=commands.environment(command),
            alone=False,
        )

    def _forked(self, limits: Limits, command: Command, timed: bool) -> Order:
        """The same, done by a fork of the runner."""
        return Order(
            argv=command.argv,
            env=commands.variables(command),
            cwd=commands.folder(command),
            rlimits=_rlimits(limits, timed),
            forgive=True,
            tell=(boxes.TELL,),
        )

    def _wait_until_up(self, sandbox: Sandbox, ends: Ends, protected: boxes.Identities) -> None:
        pid = boxes.first_process(ends.ours["info"], self._parts.clock)
        if pid is None or not _ready(ends.ours["ready"]):
            raise unavailable(f"a sandbox with a runner was not set up: {_said(sandbox.stderr)}")
        sandbox.pid = pid
        boxes.check_protected(pid, protected)


def _rlimits(limits: Limits, timed: bool) -> tuple[tuple[int, int], ...]:
    """Beside those that the sandbox was opened with: what counts from the command on."""
    return (profile.nproc(limits), profile.cpu_limit(limits)) if timed else (profile.nproc(limits),)


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


def _argv(abi: int, network: bool) -> tuple[str, ...]:
    return (PYTHON, "-I", "-S", "-B", "-c", START, json.dumps(asdict(profile.rules(network))), str(abi))


@cache
def _files() -> boxes.Files:
    """The runner's own modules, where its imports find them."""
    here = Path(__file__).parent
    return tuple((f"{HOME}/cohort/kernel/sandbox/{name}", 0o444, (here / name).read_bytes()) for name in MODULES)


def _understanding(command: Command, image: stage_two.Image | None) -> Callable[[bytes, bytes], Told]:
    """What the runner told, and what stage two, or the fork in its place, wrote just before the command began."""

    def understand(told: bytes, extra: bytes) -> Told:
        said = lines(told)
        started, failed, reason = extra.startswith(stage_two.STARTED), None, "the sandbox ended before the command began"
        if not started and image is not None and extra:
            ended = stage_two.ending(extra, image)
            failed, reason = ended.failed, stage_two.reason(ended)
        if not started and (failed == "folder" or said.get("folder")):
            return Told(False, None, 0, None, f"{command.cwd!r} is not a folder that can be entered", field="cwd")
        if "status" not in said or not started:
            return Told(started, None, 0, None, str(said.get("error", reason)))
        return Told(True, int(str(said["status"])), int(str(said["cpu_us"])), int(str(said["memory_bytes"])))

    return understand
