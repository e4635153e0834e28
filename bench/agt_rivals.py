"""Microsoft's agent-governance-toolkit (AGT), for comparison, in a Python and a process of its own.

    python -m venv $TMPDIR/cohort-bench-agt && $TMPDIR/cohort-bench-agt/bin/pip install agent-governance-toolkit-core

Measured is what comes nearest to a governed action in it: `StatelessKernel.execute` with one policy, whose action, which is a stub there,
writes or reads a file; before and after it a line of its JSON Lines audit log. That log is flushed to the system and never synced, so a second
row adds the sync that "durable" asks for. There are no tokens, no approvals, no quotas, no openat2, no tree and no signature in it; it is the
lower end of what an action can cost. Its own sandbox without Docker is a plain subprocess with a list of names, measured as that.

This file is the client (`Agt`) and, executed by that other Python, the worker: a line in says what to do, a line out how many microseconds it took.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGE = "agent-governance-toolkit-core"
HOME = Path(tempfile.gettempdir()) / "cohort-bench-agt"
CONTENT = "x" * 1024
RUNS = {"run true": ("/usr/bin/true",), "run python": ("/usr/bin/python3", "-I", "-S", "-c", "0")}


class Agt:
    """The worker. `version`: of the package."""

    def __init__(self, python: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cohort-bench-agt-files-")
        argv = [str(python), "-W", "ignore", __file__, self._folder.name]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.version = self._answer()

    def __call__(self, what: str) -> float:
        """Do `what` (`write` or `read`, then `, synced` or nothing; `run true` or `run python`); the worker's own microseconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        return float(self._answer())

    def close(self) -> None:
        self._process.communicate()
        self._folder.cleanup()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise SystemExit("the AGT worker has ended")
        return line


def found() -> Agt | None:
    """None, with a message, where it is not installed."""
    python = HOME / "bin" / "python"
    if not python.exists() or subprocess.run([python, "-c", "import agent_os.stateless"], capture_output=True, check=False).returncode:
        make = f"python -m venv {HOME} && {HOME}/bin/pip install {PACKAGE}"
        print(f"left out: AGT is not in {HOME}: {make}", file=sys.stderr)
        return None
    return Agt(python)


def work(folder: Path) -> None:
    """The worker: only AGT's Python gets here."""
    from importlib.metadata import version

    from agent_os.audit_logger import GovernanceAuditLogger, JsonlFileBackend
    from agent_os.sandbox_provider import SubprocessSandboxProvider
    from agent_os.stateless import ExecutionContext, StatelessKernel

    class Kernel(StatelessKernel):
        async def _execute_action(self, action, params, _state):
            path = folder / params["path"]
            if action == "save":
                new = path.with_suffix(".new")
                new.write_text(params["content"])
                new.replace(path)
                return {"data": {"size": len(params["content"])}}
            return {"data": {"content": path.read_text()}}

    rules = {"blocked_actions": ["database_write", "send_email"], "blocked_patterns": ["ssn", "credit_card", "password"]}
    kernel = Kernel(policies={"bench": rules})
    lines = JsonlFileBackend(folder / "audit.jsonl")
    audit, sandbox, loop = GovernanceAuditLogger(), SubprocessSandboxProvider({"true", "python3"}), asyncio.new_event_loop()
    audit.add_backend(lines)
    context = ExecutionContext(agent_id="smoke-1", policies=["bench"])

    def record(decision: str, action: str, synced: bool) -> None:
        audit.log_decision("smoke-1", action, decision, reason="x" * 300)
        audit.flush()
        if synced:
            os.fsync(lines._file.fileno())

    def governed(action: str, number: int, synced: bool) -> None:
        record("allow", action, synced)
        result = loop.run_until_complete(kernel.execute(action, {"path": f"f{number % 50}", "content": CONTENT}, context))
        assert result.success, result.error
        record("done", action, synced)

    print(version(PACKAGE), flush=True)
    for number, line in enumerate(sys.stdin):
        what, _, how = line.strip().partition(", ")
        start_ns = time.perf_counter_ns()
        if what in RUNS:
            assert sandbox.run("smoke-1", list(RUNS[what])).success
        else:
            governed({"write": "save", "read": "load"}[what], number if what == "write" else 0, how == "synced")
        print((time.perf_counter_ns() - start_ns) / 1000, flush=True)
    loop.close()


if __name__ == "__main__":
    work(Path(sys.argv[1]))
