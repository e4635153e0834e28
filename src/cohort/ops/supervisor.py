"""Keeps a set of named processes running. Knows nothing of what they are."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cohort.base.errors import CohortError, Retry
from cohort.ops.listening import Listening
from cohort.ops.lock import free
from cohort.ops.logs import cap_log, last_lines, size
from cohort.ops.processes import Adopted, Found, Handle, end, start
from cohort.ops.restarts import QUICK_DEATHS_MAX, QUICK_S, Restart, after_death

LISTEN_FD = "COHORT_LISTEN_FD"
TICK_S = 0.05
"""How often a starting process is asked whether it is ready, and an adopted one whether it lives."""
IDLE_TICK_S = 0.5
LOG_CHECK_S = 30.0
READY_S = 60.0
"""How long the first start may take before it counts as failed."""
START_DEATHS_MAX = 2
"""A process that ends so often in a row before all were ready once fails the start: its causes are mostly for a person to mend."""


class Phase(StrEnum):
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"  # died; will be started again
    FAILED = "failed"  # died quickly too often; tried once a minute
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process to keep running.

    `ready` answers without waiting long (under 1 s) and never raises; `stop_s` is what it gets between SIGTERM and SIGKILL.
    `listening`: a socket that it is handed to accept on, named by COHORT_LISTEN_FD.
    `place`: a file that the process holds a lock on, with its id in it, until its successor may be started although it still ends what it has begun.
    Processes whose `argv` agree but for the last argument's file name are the same process in another configuration.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    ready: Callable[[], bool]
    stop_s: float = 10.0
    listening: Listening | None = None
    place: Path | None = None

    def kin(self, found: Found) -> bool:
        """Whether `found` is this process, in this or another configuration."""
        if len(found.argv) != len(self.argv) or found.argv[1:-1] != self.argv[1:-1]:
            return False
        return Path(found.argv[-1]).parent == Path(self.argv[-1]).parent


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process at one moment. `pid` is None while there is none; `deaths` counts since the supervisor started."""

    name: str
    phase: Phase
    pid: int | None
    deaths: int
    adopted: bool
    log: str


@dataclass(slots=True)
class _Member:
    spec: ProcessSpec
    handle: Handle | None = None
    phase: Phase = Phase.WAITING
    adopted: bool = False
    deaths: int = 0
    quick_deaths: int = 0
    started_s: float = 0.0
    due_s: float = 0.0
    log_from: int = 0  # where in its log this start began
    told: bool = False  # that everything stops
    retiring: list[tuple[Handle, float]] = field(default_factory=list)  # gave up their place; ended at the latest then
    place_free: bool = False  # as it was a step ago

    def state(self) -> ProcessState:
        pid = self.handle.pid if self.handle else None
        return ProcessState(self.spec.name, self.phase, pid, self.deaths, self.adopted, str(self.spec.log))


class Supervisor:
    """Starts `specs` side by side, starts again what dies, and stops them in the order given.

    `say` gets one line per event, for people; `changed` every new set of states. One thread, no queue: everything happens in `step`.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        say: Callable[[str], None],
        changed: Callable[[tuple[ProcessState, ...]], object] = lambda _: None,
    ) -> None:
        self._members = [_Member(spec) for spec in specs]
        self._say = say
        self._changed = changed
        self._shown: tuple[ProcessState, ...] = ()
        self._log_check_s = 0.0
        self._was_ready = False

    def adopt(self, name: str, found: Found) -> None:
        """Take over a process that already runs, instead of starting one."""
        member = next(member for member in self._members if member.spec.name == name)
        member.handle, member.adopted, member.phase, member.started_s = Adopted(found), True, Phase.STARTING, time.monotonic()
        self._say(f"{name}: took over the running process {found.pid}")

    def states(self) -> tuple[ProcessState, ...]:
        return tuple(member.state() for member in self._members)

    @property
    def ready(self) -> bool:
        return all(member.phase is Phase.READY for member in self._members)

    def step(self) -> None:
        """Notice deaths and readiness, start what is due. Does not wait."""
        now_s = time.monotonic()
        for member in self._members:
            self._step(member, now_s)
        if now_s - self._log_check_s >= LOG_CHECK_S:
            self._log_check_s = now_s
            for member in self._members:
                cap_log(member.spec.log)
        self._show()

    def wait_ready(self, wakeup: Callable[[float], bool], within_s: float = READY_S) -> bool:
        """Step until all are ready. False when `wakeup` said stop.

        Raises:
            CohortError PROCESS_FAILED: one kept ending, or was not ready in time; its last log lines are in the details. The others still run.
        """
        deadline_s = time.monotonic() + within_s
        while not self.ready:
            self.step()
            late = time.monotonic() >= deadline_s
            for member in self._members:
                dead = member.quick_deaths >= START_DEATHS_MAX
                if dead or (late and member.phase is not Phase.READY):
                    raise self._failure(member, None if dead else within_s)
            if not self.ready and wakeup(TICK_S):
                return False
        self._was_ready = True
        return True

    def run(self, wakeup: Callable[[float], bool]) -> None:
        """Step until `wakeup` says stop. A process given up is reported once; the others keep serving."""
        while not wakeup(IDLE_TICK_S if self.ready else TICK_S):
            self.step()

    def stop(self) -> None:
        """End every process, in order, each within its `stop_s`; those that share a socket at once."""
        for member in self._members:
            if member.spec.listening is not None:
                self._tell_all(member.spec.listening)
            if member.handle and member.handle.poll() is None and not end(member.handle, member.spec.stop_s):
                self._say(f"{member.spec.name}: did not stop within {member.spec.stop_s:g} s and was killed")
            for handle, _ in member.retiring:
                end(handle, member.spec.stop_s)
            member.handle, member.phase, member.retiring = None, Phase.STOPPED, []
        self._show()

    def _tell_all(self, listening: Listening) -> None:
        for member in self._members:
            if member.spec.listening is listening and member.handle is not None and not member.told:
                member.told = True
                member.handle.send(signal.SIGTERM)

    def _step(self, member: _Member, now_s: float) -> None:
        if member.handle is not None:
            status = member.handle.poll()
            if status is not None:
                self._ended(member, status, now_s)
            elif member.phase is Phase.STARTING and member.spec.ready():
                member.phase = Phase.READY
                self._say(f"{member.spec.name}: ready, process {member.handle.pid}, {now_s - member.started_s:.2f} s")
            elif member.phase is Phase.READY and self._leaves(member):
                self._retire(member, member.handle, now_s)
            elif member.quick_deaths and now_s - member.started_s >= QUICK_S:
                member.quick_deaths = 0
        member.retiring = [(handle, end_s) for handle, end_s in member.retiring if self._still_ends(handle, end_s, now_s)]
        if member.handle is None and now_s >= member.due_s:
            self._start(member, now_s)

    def _leaves(self, member: _Member) -> bool:
        """Whether it gave up its place, twice in a row: of a process that has just died the lock is gone a moment before it is."""
        before, member.place_free = member.place_free, member.spec.place is not None and free(member.spec.place)
        return before and member.place_free

    def _retire(self, member: _Member, handle: Handle, now_s: float) -> None:
        self._say(f"{member.spec.name}: process {handle.pid} ends what it has begun; starting its successor")
        member.retiring.append((handle, now_s + member.spec.stop_s))
        member.handle, member.phase, member.due_s, member.place_free = None, Phase.WAITING, now_s, False
        member.deaths += 1

    def _still_ends(self, handle: Handle, end_s: float, now_s: float) -> bool:
        if handle.poll() is not None:
            return False
        if now_s > end_s:
            handle.send(signal.SIGKILL)
        return True

    def _start(self, member: _Member, now_s: float) -> None:
        member.phase, member.adopted, member.started_s = Phase.STARTING, False, now_s
        try:
            cap_log(member.spec.log)
            member.log_from = size(member.spec.log)
            member.handle = _started(member.spec)
        except OSError as error:
            self._died(member, f"could not be started: {error}", now_s)

    def _ended(self, member: _Member, status: int, now_s: float) -> None:
        how = f"was ended by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
        worked = member.phase is Phase.READY and not member.adopted
        self._died(
            member, "ended" if member.adopted else how, now_s, asked=worked and status == 0, killed=worked and status == -signal.SIGKILL
        )

    def _died(self, member: _Member, how: str, now_s: float, *, asked: bool = False, killed: bool = False) -> None:
        """`asked`: somebody told a working process to stop, so that it is started afresh; that is no sign of anything wrong with it."""
        lived_s = now_s - member.started_s
        restart = Restart(0.0, 0, given_up=False) if asked else after_death(lived_s, member.quick_deaths, killed=killed)
        member.handle, member.due_s = None, now_s + restart.delay_s
        member.deaths += 1
        member.quick_deaths = restart.quick_deaths
        member.phase = Phase.FAILED if restart.given_up else Phase.WAITING
        self._say(f"{member.spec.name}: {how}; starting again in {restart.delay_s:g} s")
        if self._was_ready and restart.quick_deaths == QUICK_DEATHS_MAX:
            tail = "\n".join(f"  {line}" for line in last_lines(member.spec.log, since_byte=member.log_from))
            what = f"died quickly {restart.quick_deaths} times in a row; trying once every {restart.delay_s:g} s from now on"
            self._say(f"{member.spec.name}: {what}. The end of {member.spec.log}:\n{tail}")

    def _failure(self, member: _Member, within_s: float | None) -> CohortError:
        name, tail = member.spec.name, last_lines(member.spec.log, since_byte=member.log_from)
        what = f"was not ready within {within_s:g} s" if within_s else f"ended {member.quick_deaths} times in a row while starting"
        return CohortError(
            "PROCESS_FAILED",
            f"{name} {what}. The end of {member.spec.log}:\n" + "\n".join(f"  {line}" for line in tail),
            retry=Retry.SAFE,
            hint=f"Read {member.spec.log}, mend the cause and run `cohort up` again.",
            process=name,
            log=str(member.spec.log),
            last_lines=tail,
        )

    def _show(self) -> None:
        states = self.states()
        if states != self._shown:
            self._shown = states
            self._changed(states)


def _started(spec: ProcessSpec) -> Handle:
    """Raises OSError when it cannot be started, or its address cannot be had."""
    if spec.listening is None:
        return start(spec.argv, spec.log)
    fd = spec.listening.fileno()
    return start(spec.argv, spec.log, {**os.environ, LISTEN_FD: str(fd)}, (fd,))


class Wakeup:
    """Waits for a signal or a time-out. Signals that mean stop are remembered; SIGCHLD only wakes.

    Must be entered in the main thread; restores the former handlers when left.
    """

    STOPS: Iterable[signal.Signals] = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self.stopped: signal.Signals | None = None
        self._former: list[tuple[signal.Signals, object]] = []

    def __enter__(self) -> Wakeup:
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else _pipe()
        self._former_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in self.STOPS:
            self._former.append((number, signal.signal(number, self._stop)))
        self._former.append((signal.SIGCHLD, signal.signal(signal.SIGCHLD, lambda *_: None)))
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former:
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._former_fd)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def __call__(self, timeout_s: float) -> bool:
        """Wait; True when told to stop."""
        if self.stopped is None and select.select([self._read_fd], [], [], timeout_s)[0]:
            os.read(self._read_fd, 4096)
        return self.stopped is not None

    def _stop(self, number: int, _: object) -> None:
        self.stopped = signal.Signals(number)


def _pipe() -> tuple[int, int]:
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    os.set_blocking(write_fd, False)
    return read_fd, write_fd


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
