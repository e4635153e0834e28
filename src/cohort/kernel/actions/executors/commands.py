"""`terminal.run` and `python.run`: one command in the sandbox of the agent's own workspace, waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any

from cohort.base.errors import CohortError
from cohort.kernel.actions.clearance import Cleared, Executed, Executor
from cohort.kernel.actions.display import decoded
from cohort.kernel.model import Command, Completed, Place, StoppedBy
from cohort.kernel.ports import Sandbox, Workspaces

SHOWN_BYTES_MAX = 1 << 20
CODE_WORD_BYTES_MAX = 100_000
"""Of a program given as a word of the command line; a longer one is read from standard input."""
PYTHON = "python3"

HostsOf = Callable[[Iterable[str]], tuple[str, ...]]
"""`host:port` of origins, for the egress proxy."""


class Commands:
    """Runs commands. Errors: WORKSPACE_UNKNOWN, WORKSPACE_UNAVAILABLE, SANDBOX_UNAVAILABLE; nothing was executed then."""

    def __init__(self, workspaces: Workspaces, sandbox: Sandbox, hosts_of: HostsOf) -> None:
        self._workspaces = workspaces
        self._sandbox = sandbox
        self._hosts_of = hosts_of

    def executors(self) -> Mapping[str, Executor]:
        return {"terminal.run": self.terminal, "python.run": self.python}

    def terminal(self, cleared: Cleared) -> Executed:
        argv = tuple(cleared.action.arguments["argv"])
        return self._run(cleared, argv, cleared.action.arguments["stdin"].encode())

    def python(self, cleared: Cleared) -> Executed:
        code, stdin = cleared.action.arguments["code"], cleared.action.arguments["stdin"]
        if not stdin:
            return self._run(cleared, (PYTHON, "-"), code.encode())
        if len(code.encode()) > CODE_WORD_BYTES_MAX:
            hint = f"Write the program to a file and run that, or keep it below {CODE_WORD_BYTES_MAX} bytes."
            raise CohortError("ARGUMENT_INVALID", "a program as long as this cannot have an input", field="arguments.stdin", hint=hint)
        return self._run(cleared, (PYTHON, "-c", code), stdin.encode())

    def _run(self, cleared: Cleared, argv: tuple[str, ...], stdin: bytes) -> Executed:
        place = own_place(self._workspaces, cleared)
        completed = self._sandbox.run(place, cleared.caller.agent.limits, command_of(cleared, argv, stdin, self._hosts_of))
        return executed(completed)


def own_place(workspaces: Workspaces, cleared: Cleared) -> Place:
    """Where the agent's commands run. Errors: WORKSPACE_UNKNOWN, WORKSPACE_UNAVAILABLE."""
    workspace = cleared.caller.agent.workspace
    if workspace is None:
        raise CohortError("WORKSPACE_UNKNOWN", f"{cleared.caller.agent.name} has no workspace", hint="Have one made for it.")
    return workspaces.place(workspace)


def command_of(cleared: Cleared, argv: tuple[str, ...], stdin: bytes, hosts_of: HostsOf) -> Command:
    """The command as the sandbox takes it, labelled with the action."""
    arguments = cleared.action.arguments
    hosts = hosts_of(cleared.caller.agent.egress) if arguments["network"] else ()
    return Command(argv, arguments["cwd"], arguments["env"], stdin, hosts, cleared.action.id)


def executed(completed: Completed) -> Executed:
    """A command that ended by itself is done, whatever it answered; one that was stopped has failed."""
    digest = sha256(completed.stdout + completed.stderr).hexdigest()
    usage = {
        "ran_us": completed.duration_us,
        "memory_bytes": completed.memory_bytes,
        "stopped_by": completed.stopped_by.value if completed.stopped_by else None,
    }
    code, reason = ("PROCESS_FAILED", _WHY[completed.stopped_by]) if completed.stopped_by is not None else (None, "")
    hint = "Ask for less at once, or have the agent's limits raised." if code else ""
    shown = ended(completed)
    return Executed(
        shown,
        code,
        reason,
        hint,
        cpu_us=completed.cpu_us,
        egress_bytes=completed.egress_bytes,
        level=completed.level,
        output_digest=digest,
        usage=usage,
    )


def ended(completed: Completed) -> dict[str, Any]:
    """How a command ended, as plain values; output neutral and cut."""
    stdout, stdout_cut = decoded(completed.stdout, SHOWN_BYTES_MAX)
    stderr, stderr_cut = decoded(completed.stderr, SHOWN_BYTES_MAX)
    wrote = completed.stdout_bytes + completed.stderr_bytes
    return {
        "exit_code": completed.exit_code,
        "signal": completed.signal,
        "stdout": stdout,
        "stderr": stderr,
        "stdout_bytes": completed.stdout_bytes,
        "stderr_bytes": completed.stderr_bytes,
        "truncated": stdout_cut or stderr_cut or wrote > len(completed.stdout) + len(completed.stderr),
        "stopped_by": completed.stopped_by.value if completed.stopped_by is not None else None,
        "cpu_us": completed.cpu_us,
        "memory_bytes": completed.memory_bytes,
    }


_WHY = {
    StoppedBy.TIME: "it was stopped at its time limit",
    StoppedBy.MEMORY: "it was stopped at its memory limit",
    StoppedBy.OUTPUT: "it was stopped at its output limit",
    StoppedBy.SIGNAL: "somebody stopped it",
    StoppedBy.SANDBOX: "its sandbox ended",
}
