"""Levels 3 and 4: the profile of spec/kernel.md 5.3, by bubblewrap, which is never started as root.

A cold sandbox is one box per command: namespaces, the mounts, the filter, then stage two (`stage_two.py`), which sets what has to be
set inside and executes the command. A warm one (`warm.py`) takes one command after the other. Nothing of the kernel's own is given to
either but the ends of pipes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from cohort.base.errors import CohortError
from cohort.kernel.model import Command, Completed, Level, Limits, Place, StoppedBy
from cohort.kernel.ports import Running
from cohort.kernel.sandbox import boxes, commands, landlock, profile, stage_two
from cohort.kernel.sandbox.active import Active
from cohort.kernel.sandbox.boxes import Parts, Wanted
from cohort.kernel.sandbox.cgroups import Group
from cohort.kernel.sandbox.ends import Ends
from cohort.kernel.sandbox.execution import Bounds, Execution, Pipes, Told, lines
from cohort.kernel.sandbox.once import Once
from cohort.kernel.sandbox.processes import payload, signal_all
from cohort.kernel.sandbox.runners import Runners
from cohort.kernel.sandbox.running import LongRunning
from cohort.kernel.sandbox.shares import Share
from cohort.kernel.sandbox.spawner import unavailable
from cohort.kernel.sandbox.warm import Warm

STAGE_TWO = "/.cohort/stage-two"


@dataclass(slots=True)
class Begun:
    """A cold sandbox whose command runs, or that failed on the way, which its execution tells. `after`: what to undo at its end."""

    execution: Execution
    stdin: int
    after: ExitStack
    group: Group | None
    pid: int | None = None


class Cold:
    """One sandbox per command. Does not write the journal. Only where there is a stage two."""

    def __init__(self, parts: Parts, level: Level, active: Active) -> None:
        self._parts = parts
        self._level = level
        self._active = active
        self._abi = landlock.abi()

    def run(self, place: Place, limits: Limits, command: Command) -> Completed:
        """Errors: as `ports.Sandbox.run`."""
        begun = self._begin(place, limits, command, limits.command_s)
        with begun.after:
            return begun.execution.finish()

    def start(self, place: Place, limits: Limits, command: Command) -> LongRunning:
        """Errors: as `ports.Sandbox.run`."""
        begun = self._begin(place, limits, command, None)
        share = Share(begun.group, lambda: payload(begun.pid))
        running = LongRunning(begun.execution, begun.stdin, lambda number: signal_all(share.processes, number), begun.after.close, share)
        if command.stdin:
            running.write(command.stdin)
        return running

    def _begin(self, place: Place, limits: Limits, command: Command, time_s: float | None) -> Begun:
        commands.check(command)
        image = stage_two.image(self._plan(limits, command))
        wanted = self._wanted(place, limits, command, image.file, time_s is not None)
        with ExitStack() as after:
            group = self._parts.enter(place, limits, after)
            with Ends() as ends:
                _stdio(ends)
                if not _looked_at(wanted, command):
                    os.write(ends.ours["go"], stage_two.GO_AHEAD)
                boxes.ask(ends, wanted)
                asked = boxes.start(self._parts, wanted, group, ends, program=True)
            bounds = Bounds(time_s, limits.output_bytes, boxes.level(self._level, place, group))
            ours = ends.ours
            pipes = Pipes(asked.told, ours["stdout"], ours["stderr"], None if time_s is None else ours["stdin"], ours["tell"])
            understand = _understanding(image, asked.program, command)
            execution = Execution(asked.line, asked.id, pipes, bounds, self._parts.clock, understand, stdin=command.stdin)
            begun = Begun(execution, ours["stdin"], ExitStack(), group)
            self._active.add(str(place.workspace), execution)
            after.callback(self._active.remove, str(place.workspace), execution)
            self._let_go(begun, ends, wanted, command, group)
            begun.after.push(after.pop_all())
            return begun

    def _let_go(self, begun: Begun, ends: Ends, wanted: Wanted, command: Command, group: Group | None) -> None:
        """Look at the sandbox from outside once it is set up, and only then let it begin, where there is something to look at."""
        try:
            begun.pid = boxes.first_process(ends.ours["info"], self._parts.clock)
            if begun.pid is None:
                return
            begun.execution.watch(boxes.watch(group, begun.pid, wanted.limits))
            if _looked_at(wanted, command) and begun.execution.hear_extra(stage_two.SET_UP, boxes.SETUP_WAIT_S):
                boxes.check_protected(begun.pid, wanted.protected)
                if command.hosts:
                    way_out = boxes.way_out(self._parts, begun.pid, wanted.place, wanted.limits, command)
                    begun.after.callback(way_out.close)
                    begun.execution.meter(lambda: way_out.bytes_used)
                os.write(ends.ours["go"], stage_two.GO_AHEAD)
        except (CohortError, OSError) as error:
            begun.after.close()
            begun.execution.stop(StoppedBy.SANDBOX)
            begun.execution.finish()
            raise error if isinstance(error, CohortError) else unavailable(f"the sandbox cannot be looked at: {error}") from error
        finally:
            os.close(ends.ours["info"])
            os.close(ends.ours["go"])

    def _plan(self, limits: Limits, command: Command) -> stage_two.Plan:
        return stage_two.Plan(
            rules=profile.rules(bool(command.hosts)),
            abi=self._abi,
            rlimits=(profile.nproc(limits),),
            cwd=commands.folder(command),
            paths=commands.candidates(command.argv[0], commands.variables(command)),
            name=command.argv[0],
            variables=commands.environment(command),
        )

    def _wanted(self, place: Place, limits: Limits, command: Command, stage: bytes, timed: bool) -> Wanted:
        return Wanted(
            place=place,
            limits=limits,
            argv=(STAGE_TWO, *command.argv),
            files=((STAGE_TWO, 0o555, stage), *boxes.etc_files(place)),
            protected=boxes.protected_paths(place),
            timed=timed,
        )


def _looked_at(wanted: Wanted, command: Command) -> bool:
    """Whether there is anything to check or to open between set-up and command; if not, permission is given beforehand."""
    return bool(wanted.protected or command.hosts)


def _stdio(ends: Ends) -> None:
    ends.speak("stdin", 0)
    ends.hear("stdout", 1)
    ends.hear("stderr", 2)
    ends.hear("tell", stage_two.TELL)
    ends.speak("go", stage_two.GO)


def _understanding(image: stage_two.Image, before: stage_two.Image | None, command: Command) -> Callable[[bytes, bytes], Told]:
    """What bubblewrap's end and the words of stage two, or of what started bubblewrap, mean together."""
    images = (image,) if before is None else (image, before)

    def understand(told: bytes, extra: bytes) -> Told:
        outer, ended = lines(told), stage_two.ending(extra, *images)
        if "error" in outer:
            return Told(False, None, 0, None, f"bubblewrap was not started: {outer['error']}")
        if ended.failed == "folder":
            return Told(False, None, 0, None, f"{command.cwd!r} is not a folder that can be entered", field="cwd")
        cpu_us = max(ended.cpu_us, int(str(outer.get("cpu_us", 0))))
        memory = ended.memory_bytes or int(str(outer.get("memory_bytes", 0)))
        return Told(ended.started, ended.status, cpu_us, memory, "" if ended.started else stage_two.reason(ended))

    return understand


class Bubblewrap:
    """`ports.Sandbox`. Levels 3 and 4. Commands without hosts run in the workspace's warm sandbox unless it is busy; all others cold.

    `program`: whether commands bring a stage two of machine code, or a runner forks for them.
    """

    def __init__(self, parts: Parts, level: Level = Level.NAMESPACES, warm: bool = True, program: bool = stage_two.HERE) -> None:
        self._parts = parts
        self._level = level
        self._active = Active()
        runners = Runners(parts, level, program)
        self._warm = Warm(runners, parts.clock, self._active)
        self._use_warm = warm
        self._cold = Cold(parts, level, self._active) if program else Once(parts, runners, self._active)

    @property
    def name(self) -> str:
        return "bubblewrap"

    @property
    def level(self) -> Level:
        return self._level

    def run(self, place: Place, limits: Limits, command: Command) -> Completed:
        commands.check(command)
        self._parts.journal(self.name, place, command)
        if self._use_warm and not command.hosts:
            done = self._warm.run(place, limits, command)
            if done is not None:
                return done
        return self._cold.run(place, limits, command)

    def start(self, place: Place, limits: Limits, command: Command) -> Running:
        commands.check(command)
        self._parts.journal(self.name, place, command)
        return self._cold.start(place, limits, command)

    def close(self, place: Place) -> None:
        """Errors: PROCESS_FAILED: something does not end though it was killed."""
        self._active.end(str(place.workspace))
        self._warm.close(str(place.workspace))
        if self._parts.cgroups is not None:
            self._parts.cgroups.remove(str(place.workspace))
