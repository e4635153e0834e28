"""`process.*`: long-running commands of the agent itself. Every call names the agent, so another's process is unknown to it."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from cohort.base.ids import ProcessId
from cohort.base.redaction import words
from cohort.kernel.actions.clearance import Cleared, Executed, Executor
from cohort.kernel.actions.display import decoded
from cohort.kernel.actions.executors.commands import HostsOf, command_of, own_place
from cohort.kernel.model import Priority, ProcessLimits, ProcessView
from cohort.kernel.ports import Processes, Workspaces

SIGNALS = {name: int(getattr(signal, f"SIG{name}", 0)) for name in ("TERM", "INT", "HUP", "KILL", "STOP", "CONT", "USR1", "USR2")}
LISTED_MAX = 200


class ProcessExecutors:
    """Errors: PROCESS_UNKNOWN, and those of `Processes.start`."""

    def __init__(self, workspaces: Workspaces, processes: Processes, hosts_of: HostsOf) -> None:
        self._workspaces = workspaces
        self._processes = processes
        self._hosts_of = hosts_of

    def executors(self) -> Mapping[str, Executor]:
        return {
            "process.start": self.start,
            "process.list": self.list,
            "process.output": self.output,
            "process.signal": self.signal,
            "process.limit": self.limit,
        }

    def start(self, cleared: Cleared) -> Executed:
        agent = cleared.caller.agent
        command = command_of(cleared, tuple(cleared.action.arguments["argv"]), b"", self._hosts_of)
        view = self._processes.start(agent.id, own_place(self._workspaces, cleared), agent.limits, command, cleared.caller.session)
        return Executed(_shown(view), level=cleared.facts.level)

    def list(self, cleared: Cleared) -> Executed:
        views = self._processes.list(cleared.caller.agent.id)
        return Executed({"processes": [_shown(view) for view in views[:LISTED_MAX]], "truncated": len(views) > LISTED_MAX})

    def output(self, cleared: Cleared) -> Executed:
        arguments, agent = cleared.action.arguments, cleared.caller.agent.id
        process = ProcessId(arguments["process"])
        if arguments["wait_s"]:
            self._processes.wait(agent, process, float(arguments["wait_s"]))
        data = self._processes.output(agent, process, arguments["stream"], arguments["offset"], arguments["limit"])
        view = self._processes.find(agent, process)
        text, _ = decoded(data, arguments["limit"])
        shown = {"stdout": text, "next_offset": arguments["offset"] + len(data), "process": _shown(view)}
        return Executed(shown, output_digest=sha256(data).hexdigest())

    def signal(self, cleared: Cleared) -> Executed:
        arguments = cleared.action.arguments
        view = self._processes.signal(cleared.caller.agent.id, ProcessId(arguments["process"]), SIGNALS[arguments["signal"]])
        return Executed(_shown(view))

    def limit(self, cleared: Cleared) -> Executed:
        arguments, agent = cleared.action.arguments, cleared.caller.agent.id
        process = ProcessId(arguments["process"])
        priority = Priority(arguments["priority"]) if "priority" in arguments else None
        wanted = ProcessLimits(arguments.get("cpu_cores"), arguments.get("memory_bytes"), priority)
        held = self._processes.limit(agent, process, wanted)
        return Executed({"process": process, "limits": [asdict(each) for each in held]})


def _shown(view: ProcessView) -> dict[str, Any]:
    ended = view.ended
    return {
        "id": view.id,
        "argv": words(view.argv),
        "started_us": view.started_us,
        "running": ended is None,
        "exit_code": ended.exit_code if ended else None,
        "signal": ended.signal if ended else None,
        "stopped_by": ended.stopped_by.value if ended and ended.stopped_by else None,
        "stdout_bytes": view.stdout_bytes,
        "stderr_bytes": view.stderr_bytes,
    }
