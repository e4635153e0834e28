"""Cold sandboxes by a runner that is used once: slower by the start of an interpreter, for machines without a stage two."""

from __future__ import annotations

from contextlib import ExitStack

from cohort.kernel.model import Command, Completed, Limits, Place
from cohort.kernel.sandbox import boxes
from cohort.kernel.sandbox.active import Active
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.processes import payload
from cohort.kernel.sandbox.runners import Begun, Runners, Sandbox, key_of
from cohort.kernel.sandbox.running import LongRunning
from cohort.kernel.sandbox.shares import Share
from cohort.kernel.sandbox.spawner import unavailable


class Once:
    """One sandbox per command, as `bubblewrap.Cold`."""

    def __init__(self, parts: Parts, runners: Runners, active: Active) -> None:
        self._parts = parts
        self._runners = runners
        self._active = active

    def run(self, place: Place, limits: Limits, command: Command) -> Completed:
        """Errors: as `ports.Sandbox.run`."""
        begun, _, after = self._begin(place, limits, command, limits.command_s)
        with after:
            return begun.execution.finish()

    def start(self, place: Place, limits: Limits, command: Command) -> LongRunning:
        """Errors: as `ports.Sandbox.run`."""
        begun, sandbox, after = self._begin(place, limits, command, None)
        share = Share(begun.group, lambda: payload(sandbox.pid))
        running = LongRunning(begun.execution, begun.stdin, lambda number: sandbox.line.signal(begun.id, number), after.close, share)
        if command.stdin:
            running.write(command.stdin)
        return running

    def _begin(self, place: Place, limits: Limits, command: Command, time_s: float | None) -> tuple[Begun, Sandbox, ExitStack]:
        if not self._runners.possible:
            raise unavailable("there is no /usr/bin/python3 for the sandbox", "Install the system's Python 3.")
        with ExitStack() as after:
            sandbox = self._runners.open(key_of(place, limits), network=bool(command.hosts))
            after.callback(sandbox.end)
            way_out = boxes.way_out(self._parts, sandbox.pid, place, limits, command) if command.hosts else None
            if way_out is not None:
                after.callback(way_out.close)
            begun = self._runners.begin(sandbox, limits, command, time_s, after)
            if way_out is not None:
                begun.execution.meter(lambda: way_out.bytes_used)
            self._active.add(str(place.workspace), begun.execution)
            after.callback(self._active.remove, str(place.workspace), begun.execution)
            return begun, sandbox, after.pop_all()
