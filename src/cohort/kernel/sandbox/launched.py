"""What the backends have in common that start each command as a plain process and cannot hold it to hosts: those of macOS and Windows."""

from __future__ import annotations

from abc import ABC, abstractmethod

from cohort.base.clock import Clock
from cohort.kernel.model import Command, Completed, Level, Limits, Place
from cohort.kernel.ports import Running
from cohort.kernel.sandbox import commands, popen
from cohort.kernel.sandbox.spawner import OnSpawn, Spawn, unavailable


class Launched(ABC):
    """`ports.Sandbox`, but for how a command is launched."""

    name: str

    def __init__(self, clock: Clock, on_spawn: OnSpawn, level: Level) -> None:
        self._clock, self._on_spawn, self._level = clock, on_spawn, level
        self._running = popen.Kept()

    @property
    def level(self) -> Level:
        return self._level

    def run(self, place: Place, limits: Limits, command: Command) -> Completed:
        return popen.run(self._begin(place, limits, command), command.stdin, limits.command_s)

    def start(self, place: Place, limits: Limits, command: Command) -> Running:
        process = self._begin(place, limits, command)
        if command.stdin:
            process.write(command.stdin)
        return process

    def close(self, place: Place) -> None:
        self._running.end(str(place.workspace))

    @abstractmethod
    def _launch(self, place: Place, limits: Limits, command: Command) -> popen.Launch:
        """How the checked `command` is begun."""

    def _begin(self, place: Place, limits: Limits, command: Command) -> popen.Process:
        commands.check(command)
        if command.hosts:
            raise unavailable(f"{self.name} cannot hold a command to hosts", "Use `http.request`.")
        self._on_spawn(Spawn(str(place.workspace), command.argv, command.label, self._clock.now_us(), self.name))
        process = popen.Process(self._launch(place, limits, command), limits.output_bytes, self._level, self._clock)
        return self._running.add(str(place.workspace), process)
