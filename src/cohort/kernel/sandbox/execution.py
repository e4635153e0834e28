"""One command under way: its streams taken up to a limit, its time kept, its end told. Backends prepare it; this waits for it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.kernel.model import Completed, Level, StoppedBy
from cohort.kernel.sandbox.spawner import Line, unavailable

READ_BYTES = 1 << 16
TOLD_BYTES_MAX = 64 << 10
TICK_S = 0.1
"""How often memory is looked at where no cgroup does it, and the longest the clock is not looked at."""
DRAIN_S = 1.0
"""How long output is waited for after everything has ended; only a descriptor that got out could hold it open."""
KILL_WAIT_S = 10.0
OUTPUT_FACTOR_MAX = 64
"""A command that writes this many times its limit is stopped: nobody will read it."""


@dataclass(frozen=True, slots=True)
class Told:
    """How it ended. `started`: the command itself began. `status`: wait status, None when its supervisor was killed."""

    started: bool
    status: int | None
    cpu_us: int
    memory_bytes: int | None
    reason: str = ""
    field: str | None = None


@dataclass(slots=True)
class Pipes:
    """The kernel's ends. `stdin` None: there is nothing to write. `extra`: told by a stage two, to be read to its end."""

    told: int
    stdout: int
    stderr: int
    stdin: int | None = None
    extra: int | None = None

    def close(self) -> None:
        for fd in (self.told, self.stdout, self.stderr, self.stdin, self.extra):
            if fd is not None:
                with contextlib.suppress(OSError):
                    os.close(fd)


@dataclass(frozen=True, slots=True)
class Watch:
    """What to ask while and after it runs. `over`: whether memory is used up; `stopped`: whether the system stopped it for that."""

    over: Callable[[], bool] | None = None
    stopped: Callable[[], bool] = lambda: False
    peak: Callable[[], int | None] = lambda: None


@dataclass(slots=True)
class Captured:
    """The first `limit` bytes of a stream; the rest is counted."""

    limit: int
    data: bytearray = field(default_factory=bytearray)
    total: int = 0

    def add(self, chunk: bytes) -> None:
        self.total += len(chunk)
        room = self.limit - len(self.data)
        if room > 0:
            self.data += chunk[:room]


@dataclass(frozen=True, slots=True)
class Bounds:
    """`time_s`: None for a long-running process. `level`: what its sandbox has shown."""

    time_s: float | None
    output_bytes: int
    level: Level


class Execution:
    """From the moment the spawner was asked. `understand`: makes `Told` of what was told on `told` and on `extra`."""

    def __init__(
        self,
        line: Line,
        id: int,
        pipes: Pipes,
        bounds: Bounds,
        clock: Clock,
        understand: Callable[[bytes, bytes], Told],
        stdin: bytes = b"",
    ) -> None:
        self._line, self._id, self._pipes, self._bounds, self._clock = line, id, pipes, bounds, clock
        self._understand = understand
        self._watch = Watch()
        self._egress_bytes: Callable[[], int] = lambda: 0
        self.over = threading.Event()
        """Set once nothing of it is left and its pipes are closed."""
        self._input = memoryview(stdin)
        self.stdout, self.stderr = Captured(bounds.output_bytes), Captured(bounds.output_bytes)
        self._told, self._extra = Captured(TOLD_BYTES_MAX), Captured(TOLD_BYTES_MAX)
        self._stopped_by: StoppedBy | None = None
        self._look_s = TICK_S
        self._began_s = clock.monotonic_s()

    def watch(self, watch: Watch) -> None:
        """What to ask about memory, from now on."""
        self._watch = watch

    def meter(self, egress_bytes: Callable[[], int]) -> None:
        """What to ask at its end about its way out."""
        self._egress_bytes = egress_bytes

    def stop(self, why: StoppedBy) -> None:
        """Kill it with all it started; the first reason counts."""
        if self._stopped_by is None:
            self._stopped_by = why
        self._line.signal(self._id, signal.SIGKILL)

    def hear_extra(self, word: bytes, wait_s: float) -> bool:
        """Whether `word` comes first on the extra pipe; False when something else does, or the pipe ends.

        Raises:
            CohortError SANDBOX_UNAVAILABLE: nothing came in time.
        """
        poll = select.poll()
        if self._pipes.extra is None:
            return False
        poll.register(self._pipes.extra, select.POLLIN)
        until_s = self._clock.monotonic_s() + wait_s
        while len(self._extra.data) < len(word):
            left_s = until_s - self._clock.monotonic_s()
            if left_s <= 0 or not poll.poll(left_s * 1000):
                raise unavailable(f"a sandbox was not set up within {wait_s:g} s")
            chunk = os.read(self._pipes.extra, READ_BYTES)
            if not chunk:
                return False
            self._extra.add(chunk)
        return self._extra.data.startswith(word)

    def hear_pid(self, wait_s: float) -> int | None:
        """The number of the process that was started; None when it was not. Errors: SANDBOX_UNAVAILABLE: nothing came in time."""
        poll = select.poll()
        poll.register(self._pipes.told, select.POLLIN)
        until_s = self._clock.monotonic_s() + wait_s
        while b"\n" not in self._told.data:
            left_s = until_s - self._clock.monotonic_s()
            if left_s <= 0 or not poll.poll(left_s * 1000):
                raise unavailable(f"the spawner started nothing within {wait_s:g} s")
            chunk = os.read(self._pipes.told, READ_BYTES)
            if not chunk:
                return None
            self._told.add(chunk)
        found = lines(bytes(self._told.data[: self._told.data.rindex(b"\n")])).get("pid")
        return None if found is None else int(str(found))

    def finish(self) -> Completed:
        """Wait for its end, in time or by force.

        Raises:
            CohortError SANDBOX_UNAVAILABLE: nothing was executed.
        """
        try:
            self._pump()
        finally:
            self._pipes.close()
            self.over.set()
        return self._completed()

    def _pump(self) -> None:
        poll = select.poll()
        sinks = {self._pipes.told: self._told, self._pipes.stdout: self.stdout, self._pipes.stderr: self.stderr}
        if self._pipes.extra is not None:
            sinks[self._pipes.extra] = self._extra
        for fd in sinks:
            poll.register(fd, select.POLLIN)
        self._open_input(poll)
        gone_s: float | None = None
        while sinks:
            for fd, _ in poll.poll(self._wait_ms()):
                self._ready(fd, sinks, poll)
            if gone_s is None and self._pipes.told not in sinks:
                gone_s = self._clock.monotonic_s()
            if gone_s is not None and self._clock.monotonic_s() - gone_s > DRAIN_S:
                return
            self._judge(gone_s is not None)

    def _open_input(self, poll: select.poll) -> None:
        if self._pipes.stdin is None:
            return
        if not self._input:
            self._close_input()
            return
        poll.register(self._pipes.stdin, select.POLLOUT)

    def _ready(self, fd: int, sinks: dict[int, Captured], poll: select.poll) -> None:
        if fd == self._pipes.stdin:
            if not self._feed():
                poll.unregister(fd)
                self._close_input()
            return
        try:
            chunk = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        if chunk:
            sinks[fd].add(chunk)
        else:
            poll.unregister(fd)
            del sinks[fd]

    def _feed(self) -> bool:
        """Write some of the input; False when there is no more to write, or nobody to read it."""
        if self._pipes.stdin is None:
            return False
        try:
            written = os.write(self._pipes.stdin, self._input[:READ_BYTES])
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.ECONNRESET):
                return False
            raise
        self._input = self._input[written:]
        return bool(self._input)

    def _close_input(self) -> None:
        if self._pipes.stdin is not None:
            os.close(self._pipes.stdin)
            self._pipes.stdin = None

    def _wait_ms(self) -> int:
        left = TICK_S if self._watch.over is not None else 1.0
        if self._bounds.time_s is not None and self._stopped_by is None:
            left = min(left, max(0.0, self._began_s + self._bounds.time_s - self._clock.monotonic_s()))
        return int(left * 1000) + 1

    def _judge(self, gone: bool) -> None:
        """Whether it has to be stopped; again and again until it is, because a signal may come before there is a child to get it."""
        if gone:
            return
        if self._stopped_by is not None:
            self._line.signal(self._id, signal.SIGKILL)
            return
        spent_s = self._clock.monotonic_s() - self._began_s
        if self._bounds.time_s is not None and spent_s >= self._bounds.time_s:
            self.stop(StoppedBy.TIME)
        elif max(self.stdout.total, self.stderr.total) > self._bounds.output_bytes * OUTPUT_FACTOR_MAX:
            self.stop(StoppedBy.OUTPUT)
        elif self._watch.over is not None and spent_s >= self._look_s:
            self._look_s = spent_s + TICK_S
            if self._watch.over():
                self.stop(StoppedBy.MEMORY)

    def _completed(self) -> Completed:
        told = self._understand(bytes(self._told.data), bytes(self._extra.data))
        if not told.started and self._stopped_by is None:
            raise self._not_started(told)
        exit_code, number = _how(told.status, self._stopped_by)
        stopped_by = self._stopped_by
        if stopped_by is None and exit_code != 0 and self._watch.stopped():
            stopped_by = StoppedBy.MEMORY
        if stopped_by is None and told.status is None:
            stopped_by = StoppedBy.SANDBOX
        peak = self._watch.peak()
        return Completed(
            exit_code=exit_code,
            signal=number,
            stdout=bytes(self.stdout.data),
            stderr=bytes(self.stderr.data),
            stdout_bytes=self.stdout.total,
            stderr_bytes=self.stderr.total,
            duration_us=int((self._clock.monotonic_s() - self._began_s) * 1e6),
            cpu_us=told.cpu_us,
            memory_bytes=told.memory_bytes if peak is None else peak,
            stopped_by=stopped_by,
            level=self._bounds.level,
            egress_bytes=self._egress_bytes(),
        )

    def _not_started(self, told: Told) -> CohortError:
        if told.field is not None:
            return CohortError("PATH_MISSING", told.reason, field=told.field, hint="Name a folder that is in the workspace.")
        said = bytes(self.stderr.data[:500]).decode(errors="replace").strip()
        return unavailable("; ".join(part for part in (told.reason, said) if part))


def _how(status: int | None, stopped_by: StoppedBy | None) -> tuple[int | None, int | None]:
    if status is None:
        return None, int(signal.SIGKILL)
    if os.WIFSIGNALED(status):
        return None, os.WTERMSIG(status)
    if stopped_by is not None:
        return None, int(signal.SIGKILL)
    return os.WEXITSTATUS(status), None


def lines(told: bytes) -> dict[str, object]:
    """What the forker told, all lines together."""
    found: dict[str, object] = {}
    for line in told.splitlines():
        found |= json.loads(line)
    return found
