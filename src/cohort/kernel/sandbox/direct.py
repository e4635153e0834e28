"""Executing on the host itself, without namespaces: what levels 1 and 2 have in common. What is not enforced is said by each of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from cohort.base.errors import CohortError
from cohort.kernel.model import Command, Completed, Level, Limits, Place, StoppedBy
from cohort.kernel.ports import Running
from cohort.kernel.sandbox import commands, profile
from cohort.kernel.sandbox.active import Active
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.cgroups import Group
from cohort.kernel.sandbox.ends import Ends
from cohort.kernel.sandbox.execution import Bounds, Execution, Pipes, Told, Watch, lines
from cohort.kernel.sandbox.memory import Watchdog
from cohort.kernel.sandbox.processes import descendants, signal_all
from cohort.kernel.sandbox.running import LongRunning
from cohort.kernel.sandbox.shares import Share
from cohort.kernel.sandbox.spawner import Order, unavailable

TELL, RULES = 3, 4
SPAWN_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Dress:
    """What a command wears. `ruleset`: makes a Landlock descriptor; `seccomp`: a filter in base64; `nanny`: whether a parent watches it."""

    argv: tuple[str, ...]
    ruleset: Callable[[], int] | None = None
    seccomp: str | None = None
    nanny: bool = True


class Direct:
    """`ports.Sandbox` for the levels without namespaces. `dress`: what makes one of them different from another."""

    def __init__(self, parts: Parts, name: str, level: Level, dress: Callable[[Place, Limits, Command], Dress]) -> None:
        self._parts = parts
        self._name = name
        self._level = level
        self._dress = dress
        self._active = Active()

    @property
    def name(self) -> str:
        return self._name

    @property
    def level(self) -> Level:
        return self._level

    def run(self, place: Place, limits: Limits, command: Command) -> Completed:
        begun, after = self._begin(place, limits, command, limits.command_s)
        with after:
            return begun.execution.finish()

    def start(self, place: Place, limits: Limits, command: Command) -> Running:
        begun, after = self._begin(place, limits, command, None)
        running = LongRunning(begun.execution, begun.stdin, begun.send, after.close, Share(begun.group, begun.listed))
        if command.stdin:
            running.write(command.stdin)
        return running

    def close(self, place: Place) -> None:
        """Errors: PROCESS_FAILED: something does not end though it was killed."""
        self._active.end(str(place.workspace))
        if self._parts.cgroups is not None:
            self._parts.cgroups.remove(str(place.workspace))

    def _begin(self, place: Place, limits: Limits, command: Command, time_s: float | None) -> tuple[_Begun, ExitStack]:
        commands.check(command)
        _no_hosts(command, self._name)
        self._parts.journal(self._name, place, command)
        workspace = str(place.workspace)
        with ExitStack() as after:
            group = self._parts.enter(place, limits, after)
            dress = self._dress(place, limits, command)
            with Ends() as ends:
                _stdio(ends, dress)
                line = self._parts.spawner.line()
                joins = () if group is None else group.joins
                id, told = line.start(_order(place, limits, command, dress, joins, time_s is not None), ends.theirs)
            ours = ends.ours
            pipes = Pipes(told, ours["stdout"], ours["stderr"], None if time_s is None else ours["stdin"], ours["tell"])
            bounds = Bounds(time_s, limits.output_bytes, self._level)
            execution = Execution(line, id, pipes, bounds, self._parts.clock, _understanding(command), stdin=command.stdin)
            self._active.add(workspace, execution)
            after.callback(self._active.remove, workspace, execution)
            pid = _pid(execution)
            if group is None and pid is not None:
                dog = Watchdog(pid, limits.memory_bytes, {})
                execution.watch(Watch(over=dog.over, peak=dog.peak))
            elif group is not None:
                before = group.out_of_memory()
                execution.watch(
                    Watch(stopped=lambda: group.out_of_memory() > before, peak=group.peak if group.users == 1 else lambda: None)
                )
            return _Begun(execution, ours["stdin"], pid if dress.nanny else None, pid, group), after.pop_all()


@dataclass(frozen=True, slots=True)
class _Begun:
    """`nanny`: the parent of the command; None when the command is `pid` itself."""

    execution: Execution
    stdin: int
    nanny: int | None
    pid: int | None
    group: Group | None

    def listed(self) -> list[int]:
        """The command's processes."""
        if self.nanny is not None:
            return descendants(self.nanny)
        return [] if self.pid is None else [self.pid, *descendants(self.pid)]

    def send(self, number: int) -> None:
        """A signal to all of the command."""
        if self.nanny is not None:
            signal_all(self.listed, number)
        elif self.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)


def _pid(execution: Execution) -> int | None:
    """Errors: SANDBOX_UNAVAILABLE: the spawner says nothing."""
    try:
        return execution.hear_pid(SPAWN_WAIT_S)
    except CohortError:
        execution.stop(StoppedBy.SANDBOX)
        execution.finish()
        raise


def _no_hosts(command: Command, name: str) -> None:
    if command.hosts:
        raise unavailable(f"{name} cannot hold a command to {', '.join(command.hosts)}", "Install bubblewrap, or use `http.request`.")


def _stdio(ends: Ends, dress: Dress) -> None:
    ends.speak("stdin", 0)
    for name, number in (("stdout", 1), ("stderr", 2), ("tell", TELL)):
        ends.hear(name, number)
    if dress.ruleset is not None:
        ends.theirs[RULES] = dress.ruleset()


def _order(place: Place, limits: Limits, command: Command, dress: Dress, joins: tuple[str, ...], timed: bool) -> Order:
    processes = limits.processes + (0 if os.geteuid() == 0 else _own_processes())
    return Order(
        argv=dress.argv,
        env=variables(place, command),
        cwd=commands.folder(command, place.root),
        owner=profile.owner(place),
        rlimits=(*profile.rlimits(limits, timed), (profile.NPROC, processes)),
        cgroups=joins,
        landlock=RULES if dress.ruleset is not None else None,
        seccomp=dress.seccomp,
        nanny=dress.nanny,
        forgive=True,
        tell=(TELL,),
    )


def variables(place: Place, command: Command) -> dict[str, str]:
    """As in a sandbox, but that the workspace is where it is on the host, and temporary files go there as well."""
    return dict(commands.VARIABLES) | {"HOME": place.root, "TMPDIR": place.root} | dict(command.env)


def _own_processes() -> int:
    """How many threads this user has: RLIMIT_NPROC counts them along, where there is no private uid and no user namespace."""
    uid, found = os.getuid(), 0
    with suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == uid:
                    found += os.stat(f"/proc/{name}/task").st_nlink - 2
    return found


def _understanding(command: Command) -> Callable[[bytes, bytes], Told]:
    def understand(told: bytes, extra: bytes) -> Told:
        said = lines(told)
        if said.get("folder"):
            return Told(False, None, 0, None, f"{command.cwd!r} is not a folder that can be entered", field="cwd")
        status = int(str(said["status"])) if "status" in said else None
        killed = status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and not extra
        return Told(
            started=bool(extra) and "error" not in said,
            status=None if killed else status,
            cpu_us=int(str(said.get("cpu_us", 0))),
            memory_bytes=int(str(said.get("memory_bytes", 0))) or None,
            reason=str(said.get("error", "the command did not begin")),
        )

    return understand
