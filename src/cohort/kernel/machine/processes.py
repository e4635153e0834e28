"""Long-running commands of agents, in their sandboxes. They outlive the call that started them, and nothing else.

A process ends with its session, with its agent's right to act, and with this control process: the sandboxes die with it. What was running
then is known from the database and said to be lost. Ended ones are kept for a while with their output, and longer without it.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.base.ids import AgentId, AgentSessionId, Entropy, ProcessId, new_id
from cohort.kernel.machine import limiting
from cohort.kernel.machine import process_rows as rows
from cohort.kernel.model import Command, Completed, Holding, Level, Limits, Place, ProcessLimits, ProcessView, StoppedBy
from cohort.kernel.ports import Running, Sandbox
from cohort.storage.database import Database

PER_AGENT_MAX = 32
TOTAL_MAX = 256
KEPT_PER_AGENT = 10
"""Ended processes whose output can still be read."""
KEPT_IN_TOTAL = 100
ROWS_PER_AGENT = 200
LIST_MAX = 100
WAIT_S_MAX = 300.0
OUTPUT_BYTES_MAX = 1 << 20
LOOK_S = 0.1
OVER_LOOK_S = 2.0

Over = Callable[[AgentId, AgentSessionId | None], bool]
Charge = Callable[[AgentId, int], None]
"""Told what an ended process has used: its agent, microseconds of CPU. Egress is charged while it passes."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Started:
    """A process of this control. `view` is as it was started; `cancelled`: somebody wanted it ended before it had begun."""

    view: ProcessView
    session: AgentSessionId | None
    limits: Limits
    running: Running | None = None
    ended: Completed | None = None
    written: bool = False
    cancelled: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class AgentProcesses:
    """The port `Processes`. Safe to use from many threads. `over`: see the package.

    Errors everywhere: PROCESS_UNKNOWN, also for a process of another agent; DATABASE_UNAVAILABLE.
    """

    def __init__(
        self, sandbox: Sandbox, database: Database, clock: Clock, entropy: Entropy, control: str, over: Over | None = None
    ) -> None:
        self._sandbox = sandbox
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._control = control
        self._over = over
        self._lock = threading.Lock()
        self._started: dict[ProcessId, _Started] = {}
        self._closing = threading.Event()
        self._reaper: threading.Thread | None = None
        self._charge: Charge | None = None

    def charge_to(self, charge: Charge) -> None:
        """From now on tell `charge` what each process has used, once it has ended. It may raise CohortError, which is logged."""
        self._charge = charge

    def recover(self) -> int:
        """Say of everything that a former life of this control ran that it is lost; how many that were."""
        with self._database.write() as connection:
            return rows.lose(connection, self._control, self._clock.now_us())

    def start(self, agent: AgentId, place: Place, limits: Limits, command: Command, session: AgentSessionId | None = None) -> ProcessView:
        """Start it and come back at once.

        Raises:
            CohortError QUOTA_EXCEEDED: the agent, or this machine, runs as many as it may.
            And those of `Sandbox.start`: nothing was executed.
        """
        process = ProcessId(new_id("pr", self._entropy))
        started = _Started(ProcessView(process, agent, command.argv, self._clock.now_us(), None, 0, 0), session, limits)
        self._admit(started)
        try:
            with self._database.write() as connection:
                rows.add(connection, started.view, session, self._control)
            running = self._begin(started, place, limits, command)
        except CohortError:
            with self._lock:
                self._started.pop(process, None)
            raise
        self._begun(started, running)
        return self._view(started)

    def find(self, agent: AgentId, process: ProcessId) -> ProcessView:
        started = self._mine(agent, process)
        if started is not None:
            return self._view(started)
        with self._database.read() as connection:
            found = rows.find(connection, agent, process)
        if found is None:
            raise CohortError("PROCESS_UNKNOWN", f"there is no process {process[:60]}", hint="List the agent's processes to see their ids.")
        return found

    def list(self, agent: AgentId) -> Sequence[ProcessView]:
        """The newest 100, the newest first, ended and lost ones included."""
        with self._database.read() as connection:
            known = {view.id: view for view in rows.listed(connection, agent, LIST_MAX)}
        with self._lock:
            here = [each for each in self._started.values() if each.view.agent == agent]
        known |= {each.view.id: self._view(each) for each in here}
        return sorted(known.values(), key=lambda view: (-view.started_us, view.id))[:LIST_MAX]

    def output(self, agent: AgentId, process: ProcessId, stream: str, offset: int, limit: int) -> bytes:
        """What it wrote to `stdout` or `stderr` from `offset`, at most 1 MiB; empty when there is no more yet.

        Raises:
            CohortError PROCESS_UNKNOWN: also when its output is not kept any more, or was lost with a former control.
        """
        if stream not in ("stdout", "stderr") or offset < 0 or limit < 0:
            raise CohortError(
                "ARGUMENT_INVALID", f"{limit} bytes of {stream[:20]!r} from {offset}", hint="Ask for stdout or stderr, from 0 on."
            )
        started = self._mine(agent, process)
        if started is None or started.running is None:
            ended = self.find(agent, process).ended
            why = (
                "was lost with the control process that ran it" if ended and ended.stopped_by is StoppedBy.LOST else "is not kept any more"
            )
            raise CohortError("PROCESS_UNKNOWN", f"the output of {process} {why}", hint="Start it again, and read its output in time.")
        return started.running.output(stream, offset, min(limit, OUTPUT_BYTES_MAX))

    def signal(self, agent: AgentId, process: ProcessId, number: int) -> ProcessView:
        """To its whole process group; nothing happens when it has ended. Errors: ARGUMENT_INVALID."""
        if number not in {int(each) for each in signal.Signals}:
            raise CohortError("ARGUMENT_INVALID", f"there is no signal {number}", field="signal", hint="Use a signal of this system.")
        view, started = self.find(agent, process), self._mine(agent, process)
        if view.ended is None and started is not None and started.running is not None:
            started.running.signal(number)
            return self._view(started)
        return view

    def limit(self, agent: AgentId, process: ProcessId, wanted: ProcessLimits) -> Sequence[Holding]:
        """Hold a process, with all it starts, to less than its agent has; each limit with how well it holds.

        Raises:
            CohortError PROCESS_FAILED: it has ended.
        """
        view, started = self.find(agent, process), self._mine(agent, process)
        if view.ended is not None or started is None or started.running is None:
            raise CohortError("PROCESS_FAILED", f"{process} does not run", hint="Start it again to limit it.")
        return limiting.limit(started.running, wanted, started.limits)

    def wait(self, agent: AgentId, process: ProcessId, wait_s: float) -> ProcessView:
        """As it is once it has ended, or after `wait_s`, at most 300 s."""
        view, started = self.find(agent, process), self._mine(agent, process)
        if view.ended is None and started is not None:
            self._settle(started, min(max(wait_s, 0.0), WAIT_S_MAX))
            return self._view(started)
        return view

    def stop_all(self, agent: AgentId) -> int:
        """End everything the agent runs; how many there were."""
        return self._stop(lambda started: started.view.agent == agent)

    def stop_session(self, session: AgentSessionId) -> int:
        """End everything that was started in this session; how many there were."""
        return self._stop(lambda started: started.session == session)

    def running(self, agent: AgentId) -> int:
        """How many of the agent's processes live, those being started included."""
        with self._lock:
            here = [each for each in self._started.values() if each.view.agent == agent]
        return sum(not self._settle(each, 0) for each in here)

    def close(self) -> None:
        """End everything, write down how it ended, and start nothing any more."""
        self._closing.set()
        try:
            self._stop(lambda _: True)
        finally:
            if self._reaper is not None:
                self._reaper.join()
        self._write_down()

    # --- inside ---

    def _admit(self, started: _Started) -> None:
        """Take a place for it, or refuse."""
        agent, most = started.view.agent, min(started.limits.processes, PER_AGENT_MAX)
        with self._lock:
            here = list(self._started.values())
        for each in here:
            self._settle(each, 0)
        with self._lock:
            live = [each for each in self._started.values() if each.ended is None]
            mine = sum(each.view.agent == agent for each in live)
            if self._closing.is_set():
                raise CohortError("SANDBOX_UNAVAILABLE", "control is ending", retry=Retry.SAFE, hint="Start it again when control is back.")
            if mine >= most or len(live) >= TOTAL_MAX:
                what = f"{mine} processes of this agent run, {most} are the limit" if mine >= most else f"{len(live)} processes run here"
                raise CohortError("QUOTA_EXCEEDED", what, hint="Stop one first.", retry=Retry.SAFE)
            self._started[started.view.id] = started

    def _begin(self, started: _Started, place: Place, limits: Limits, command: Command) -> Running:
        """Under way, with its input, as much of it as it reads."""
        try:
            running = self._sandbox.start(place, limits, replace(command, stdin=b""))
        except CohortError:
            with self._database.write() as connection:
                rows.remove(connection, started.view.id)
            raise
        try:
            if command.stdin:
                running.write(command.stdin)
        except CohortError as error:
            _log.info("process %s: %s", started.view.id, error)  # what a command does not read is its own business
        running.close_input()
        return running

    def _begun(self, started: _Started, running: Running) -> None:
        with self._lock:
            started.running = running
            cancelled = started.cancelled
            if self._reaper is None:
                self._reaper = threading.Thread(target=self._reap, name="agent processes", daemon=True)
                self._reaper.start()
        if cancelled:
            running.stop()

    def _mine(self, agent: AgentId, process: ProcessId) -> _Started | None:
        with self._lock:
            started = self._started.get(process)
        return started if started is not None and started.view.agent == agent else None

    def _view(self, started: _Started) -> ProcessView:
        self._settle(started, 0)
        written = started.running.totals if started.running is not None else (0, 0)
        return replace(started.view, ended=started.ended, stdout_bytes=written[0], stderr_bytes=written[1])

    def _settle(self, started: _Started, wait_s: float) -> bool:
        """Whether it has ended, after waiting for that for `wait_s`."""
        if started.ended is None and started.running is not None:
            try:
                completed = started.running.wait(wait_s)
            except CohortError as error:
                _log.warning("process %s of %s: %s", started.view.id, started.view.agent, error)
                completed = replace(rows.LOST, stopped_by=StoppedBy.SANDBOX, level=Level.NONE)
            with started.lock:
                first = completed is not None and started.ended is None
                if completed is not None and first:
                    started.ended = replace(completed, stdout=b"", stderr=b"")  # what it wrote is read from `running`
            if completed is not None and first:
                self._charged(started.view, completed)
        return started.ended is not None

    def _charged(self, view: ProcessView, completed: Completed) -> None:
        try:
            if self._charge is not None:
                self._charge(view.agent, completed.cpu_us)
        except CohortError as error:
            _log.warning("what process %s of %s has used could not be charged: %s", view.id, view.agent, error)

    def _stop(self, which: Callable[[_Started], bool]) -> int:
        with self._lock:
            chosen = [each for each in self._started.values() if each.ended is None and which(each)]
            for each in chosen:
                each.cancelled = True
        failed: CohortError | None = None
        for each in chosen:
            try:
                if each.running is not None:
                    each.running.stop()
            except CohortError as error:
                failed = failed if self._settle(each, 0) else error  # one that does not end keeps no other alive
        if failed is not None:
            raise failed
        return len(chosen)

    def _reap(self) -> None:
        """Write down what has ended, and end what may not go on."""
        looks = 0
        while not self._closing.wait(LOOK_S):
            looks += 1
            try:
                self._write_down()
                if self._over is not None and looks % max(1, round(OVER_LOOK_S / LOOK_S)) == 0:
                    self._end_over(self._over)
            except CohortError as error:
                _log.warning("agents' processes could not be looked after: %s", error)

    def _end_over(self, over: Over) -> None:
        with self._lock:
            live = {(each.view.agent, each.session) for each in self._started.values() if each.ended is None}
        for agent, session in live:
            if over(agent, session):
                stopped = self._stop(lambda each, whose=(agent, session): (each.view.agent, each.session) == whose)  # type: ignore[misc]
                _log.info("%s processes of %s ended: it, or its session, is over", stopped, agent)

    def _write_down(self) -> None:
        with self._lock:
            here = list(self._started.values())
        ended = [each for each in here if self._settle(each, 0) and not each.written]
        for each in ended:
            with self._database.write() as connection:
                if each.ended is not None:
                    rows.end(connection, each.view.id, each.ended, self._clock.now_us())
                rows.prune(connection, each.view.agent, ROWS_PER_AGENT)
            each.written = True
        if ended:
            self._forget(here)

    def _forget(self, here: Iterable[_Started]) -> None:
        """Let go of the oldest that ended, with their output."""
        done = sorted((each for each in here if each.written), key=lambda each: -each.view.started_us)
        counts: dict[AgentId, int] = {}
        for place, each in enumerate(done):
            counts[each.view.agent] = counts.get(each.view.agent, 0) + 1
            if place >= KEPT_IN_TOTAL or counts[each.view.agent] > KEPT_PER_AGENT:
                with self._lock:
                    self._started.pop(each.view.id, None)
