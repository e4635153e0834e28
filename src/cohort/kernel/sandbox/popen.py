"""Commands by the standard library's own means, for systems where the spawner is not at home: what macOS and Windows have in common.

Everything here is portable and tested; what a system adds to it, `Launch.kill` above all, is in `seatbelt.py` and `windows.py`.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.kernel.model import Completed, Level, StoppedBy
from cohort.kernel.sandbox.execution import DRAIN_S, KILL_WAIT_S, OUTPUT_FACTOR_MAX, READ_BYTES, Captured
from cohort.kernel.sandbox.spawner import unavailable


@dataclass(frozen=True, slots=True)
class Launch:
    """What to execute. `kill`: ends the process and all it started; `send`: a signal to all of it; `began`: what to do with it at once."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    kill: Callable[[subprocess.Popen[bytes]], None]
    send: Callable[[subprocess.Popen[bytes], int], None]
    began: Callable[[subprocess.Popen[bytes]], None] = lambda _: None
    ended: Callable[[], None] = lambda: None
    flags: int = 0


class Process:
    """`ports.Running`. Output is kept up to `output_bytes` of each stream; the rest is counted and dropped."""

    def __init__(self, launch: Launch, output_bytes: int, level: Level, clock: Clock) -> None:
        self._launch, self._level, self._clock = launch, level, clock
        self._began_s = clock.monotonic_s()
        self.stdout, self.stderr = Captured(output_bytes), Captured(output_bytes)
        self._stopped_by: StoppedBy | None = None
        self._ended_s: float | None = None
        self._finish = threading.Lock()
        self._completed: Completed | None = None
        self._process = _launched(launch)
        self._readers = [
            threading.Thread(target=self._read, args=pair, name="sandbox-output", daemon=True)
            for pair in ((self._process.stdout, self.stdout), (self._process.stderr, self.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def write(self, data: bytes) -> None:
        """Errors: PROCESS_FAILED: it takes no more input."""
        stdin = self._process.stdin
        try:
            if stdin is None or stdin.closed:
                raise BrokenPipeError
            stdin.write(data)
            stdin.flush()
        except OSError as error:
            raise CohortError("PROCESS_FAILED", "it takes no more input", hint="Start it again to give it more input.") from error

    def close_input(self) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.closed:
            try:
                stdin.close()
            except OSError:
                return  # it had closed its end before

    def output(self, stream: str, offset: int, limit: int) -> bytes:
        taken = self.stderr if stream == "stderr" else self.stdout
        return bytes(taken.data[offset : offset + limit])

    @property
    def totals(self) -> tuple[int, int]:
        return self.stdout.total, self.stderr.total

    def signal(self, number: int) -> None:
        if self._completed is None:
            self._launch.send(self._process, number)

    def processes(self) -> Sequence[int]:
        """The command itself: those below it are in its job or group, which these systems do not list here."""
        return [] if self._completed is not None else [self._process.pid]

    def confine(self, cpu_cores: float | None, memory_bytes: int | None) -> frozenset[str]:
        """Nothing here divides what a workspace has."""
        del cpu_cores, memory_bytes
        return frozenset()

    def wait(self, wait_s: float | None) -> Completed | None:
        try:
            self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return None
        return self._end()

    def stop(self) -> Completed:
        return self.stop_for(StoppedBy.SIGNAL)

    def stop_for(self, why: StoppedBy) -> Completed:
        """Kill it with all it started. Errors: PROCESS_FAILED: it does not end."""
        if self._stopped_by is None and self._process.poll() is None:
            self._stopped_by = why
        self._launch.kill(self._process)
        done = self.wait(KILL_WAIT_S)
        if done is None:
            raise CohortError("PROCESS_FAILED", "a process does not end though it was killed", hint="Look at it with the system's tools.")
        return done

    def _read(self, stream: IO[bytes], into: Captured) -> None:
        while chunk := os.read(stream.fileno(), READ_BYTES):
            into.add(chunk)
            if into.total > into.limit * OUTPUT_FACTOR_MAX and self._stopped_by is None:
                self._stopped_by = StoppedBy.OUTPUT
                self._launch.kill(self._process)

    def _end(self) -> Completed:
        with self._finish:
            if self._completed is None:
                self._launch.kill(self._process)  # what it left behind
                for reader in self._readers:
                    reader.join(DRAIN_S)
                self._launch.ended()
                self._completed = self._told(self._process.returncode)
            return self._completed

    def _told(self, code: int) -> Completed:
        killed = self._stopped_by is not None
        return Completed(
            exit_code=code if code >= 0 and not killed else None,
            signal=-code if code < 0 else (9 if killed else None),
            stdout=bytes(self.stdout.data),
            stderr=bytes(self.stderr.data),
            stdout_bytes=self.stdout.total,
            stderr_bytes=self.stderr.total,
            duration_us=int((self._clock.monotonic_s() - self._began_s) * 1e6),
            cpu_us=0,
            memory_bytes=None,
            stopped_by=self._stopped_by,
            level=self._level,
        )


class Kept:
    """What runs now, by workspace. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, set[Process]] = {}

    def add(self, workspace: str, process: Process) -> Process:
        with self._lock:
            here = self._running.setdefault(workspace, set())
            here -= {one for one in here if one.wait(0) is not None}
            here.add(process)
        return process

    def end(self, workspace: str) -> None:
        """Errors: PROCESS_FAILED: something does not end."""
        with self._lock:
            running = self._running.pop(workspace, set())
        for process in running:
            process.stop()


def run(process: Process, stdin: bytes, time_s: float) -> Completed:
    """Give it its input and wait for its end, in time or by force."""
    feeder = threading.Thread(target=_feed, args=(process, stdin), name="sandbox-input", daemon=True)
    feeder.start()
    done = process.wait(time_s)
    return done if done is not None else process.stop_for(StoppedBy.TIME)


def _feed(process: Process, stdin: bytes) -> None:
    try:
        if stdin:
            process.write(stdin)
    except CohortError:
        return  # it did not want all of it
    finally:
        process.close_input()


def _launched(launch: Launch) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            launch.argv,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=dict(launch.env),
            cwd=launch.cwd,
            start_new_session=os.name == "posix",
            creationflags=launch.flags,
            bufsize=0,
        )
    except OSError as error:
        raise unavailable(f"{launch.argv[0]} cannot be started: {error}") from error
    try:
        launch.began(process)
    except OSError as error:
        process.kill()
        process.wait()
        raise unavailable(f"a command cannot be confined: {error}") from error
    return process
