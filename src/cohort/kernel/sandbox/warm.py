"""Warm sandboxes: one per workspace, in which one command after the other is executed within a millisecond or two.

What commands of a workspace share in one: /tmp and /dev/shm, which live until the sandbox ends, and the namespaces. What they do not
share: time. The runner takes one command at a time, and before it tells of its end it kills every other process of the pid namespace,
so nothing a command leaves behind meets the next one. A command that finds the sandbox busy gets a cold one of its own.

There is no network in a warm sandbox. It ends after `IDLE_S`, when the workspace is closed, when a command had to be stopped, when its
limits or protected paths change, and when it is the least recently used of more than `WARM_MAX`.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack

from cohort.base.clock import Clock
from cohort.kernel.model import Command, Completed, Limits, Place
from cohort.kernel.sandbox.active import Active
from cohort.kernel.sandbox.runners import Key, Runners, Sandbox, key_of

IDLE_S = 300.0
WARM_MAX = 16


class Warm:
    """The warm sandboxes of all workspaces. Safe to use from many threads."""

    def __init__(self, runners: Runners, clock: Clock, active: Active, sandboxes_max: int = WARM_MAX) -> None:
        self._runners = runners
        self._clock = clock
        self._active = active
        self._most = sandboxes_max
        self._lock = threading.Lock()
        self._up: dict[str, Sandbox] = {}
        self._starting: set[str] = set()
        self._sweeper: threading.Timer | None = None

    def run(self, place: Place, limits: Limits, command: Command) -> Completed | None:
        """Execute in the workspace's warm sandbox, made if there is none; None when it is busy or none can be had now.

        Errors: as `ports.Sandbox.run`.
        """
        if not self._runners.possible:
            return None
        sandbox = self._take(key_of(place, limits))
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
            sandbox = self._runners.open(key)
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
            execution = self._runners.begin(sandbox, limits, command, limits.command_s, after).execution
            with self._active.during(str(place.workspace), execution):
                return execution.finish()
