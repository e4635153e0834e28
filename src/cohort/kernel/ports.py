"""What the kernel's rooms ask of each other. The action gate knows the rooms by these; `compose` connects the real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cohort.base.ids import AgentId, AgentSessionId, ApprovalId, ProcessId, WorkspaceId
from cohort.kernel.model import (
    Action,
    Approval,
    Caller,
    Command,
    Completed,
    GrantRule,
    Holding,
    Level,
    Limits,
    Place,
    Position,
    ProcessLimits,
    ProcessView,
    Record,
    Taint,
    Usage,
)


class AuditLog(Protocol):
    """The tamper-evident log. Safe to use from many threads."""

    def append(self, record: Record) -> Position:
        """Write one record durably and return its place; calls at the same time share one commit.

        Raises:
            CohortError AUDIT_UNAVAILABLE: nothing was written; the caller must not act.
            CohortError AUDIT_BROKEN: as AUDIT_UNAVAILABLE, and for good: the log is not the one that was signed, and read-only.
            CohortError OUTCOME_UNKNOWN: it may be in the log.
            CohortError RECORD_TOO_LARGE: nothing was written.
        """
        ...


AUDIENCE = "cohort"
"""The audience of every token of this installation; a token asked for one place (`resource`, RFC 8707) carries that place's address too."""


class Identities(Protocol):
    """Who asks. Never answers from memory what a revocation in the database would change."""

    def authenticate(self, token: str, audience: str, bound_to: str | None = None) -> Caller:
        """The caller behind a token: signature, algorithm, audience, expiry, session and agent not revoked, binding.

        Raises:
            CohortError TOKEN_INVALID, TOKEN_EXPIRED, SESSION_REVOKED, AGENT_SUSPENDED.
        """
        ...

    def again(self, caller: Caller) -> Caller:
        """The same caller, asked afresh: for the second look after a person has approved. Errors as `authenticate`."""
        ...

    def taint(self, session: AgentSessionId) -> Taint: ...

    def mark(self, session: AgentSessionId, taint: Taint) -> None:
        """Add to what the session has read, durably; a mark is never taken away."""
        ...

    def data_untrusted(self, agent: AgentId) -> bool:
        """Whether the agent's data may hold what strangers wrote, as the database has it now."""
        ...

    def mark_data(self, agent: AgentId) -> None:
        """Say that it may, durably, until a person says otherwise."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked. `plain`, `touches` and `risk` are the kernel's words, `why` is the agent's own, shown as such."""

    action: Action
    policy_hash: str
    risk: float
    plain: str
    touches: tuple[str, ...]
    why: str
    asked_by: str
    task: str | None


@dataclass(frozen=True, slots=True)
class Grant:
    """A consumed permission: a single approval, or one use of a wider rule."""

    approval: ApprovalId | None
    rule: GrantRule | None
    approvers: tuple[str, ...]


class Approvals(Protocol):
    """People's answers, durable. A grant is for one digest and is consumed once."""

    def ask(self, question: Question) -> Approval:
        """The pending approval of this digest, new or as it was asked before. Errors: APPROVALS_FULL (the prompt budget is used up)."""
        ...

    def consume(self, action: Action, policy_hash: str, task: str | None) -> Grant | None:
        """Use up the grant of this very digest, or one use of a rule that matches; None when there is none.

        One caller only wins a single grant, whatever else happens at the same time or after a crash.
        """
        ...

    def wait(self, approval: ApprovalId, wait_s: float) -> Approval:
        """The approval once it is decided, or as it is after `wait_s`."""
        ...

    def find(self, approval: ApprovalId) -> Approval:
        """Errors: APPROVAL_UNKNOWN."""
        ...


class Running(Protocol):
    """A command under way in a sandbox. Kept by the machine room; ends with the control process at the latest."""

    def write(self, data: bytes) -> None: ...
    def close_input(self) -> None: ...
    def output(self, stream: str, offset: int, limit: int) -> bytes:
        """What it wrote to `stdout` or `stderr` from `offset`; at most `limit` bytes; empty when there is no more yet."""
        ...

    @property
    def totals(self) -> tuple[int, int]:
        """Bytes written so far to stdout and stderr, dropped ones included."""
        ...

    def signal(self, number: int) -> None:
        """To the whole process group."""
        ...

    def processes(self) -> Sequence[int]:
        """Those of the command that live now, as the control process numbers them; empty where the system does not list them."""
        ...

    def confine(self, cpu_cores: float | None, memory_bytes: int | None) -> frozenset[str]:
        """Give the command less than its workspace has: which of `cpu` and `memory` the system holds from now on. None: as it is."""
        ...

    def wait(self, wait_s: float | None) -> Completed | None:
        """How it ended; None when it goes on after `wait_s`."""
        ...

    def stop(self) -> Completed:
        """Kill everything it started; nothing of it survives."""
        ...


class Sandbox(Protocol):
    """One way of containing commands. `level` is what its probe has shown on this machine."""

    @property
    def name(self) -> str: ...
    @property
    def level(self) -> Level: ...

    def run(self, place: Place, limits: Limits, command: Command) -> Completed:
        """Execute and wait, within `limits.command_s`.

        Raises:
            CohortError SANDBOX_UNAVAILABLE: nothing was executed.
        """
        ...

    def start(self, place: Place, limits: Limits, command: Command) -> Running:
        """Execute and come back at once. Errors: as `run`."""
        ...

    def close(self, place: Place) -> None:
        """End everything that runs in this workspace, warm sandboxes included."""
        ...


class Workspaces(Protocol):
    """Where agents' files are. Every path goes through openat2, or the safe walk where there is none."""

    def place(self, workspace: WorkspaceId) -> Place:
        """Mounted, its quota verified. Errors: WORKSPACE_UNKNOWN, WORKSPACE_UNAVAILABLE (the mount is not the one expected)."""
        ...

    def usage(self, workspace: WorkspaceId) -> Usage: ...

    def owner(self, workspace: WorkspaceId) -> AgentId: ...


class Processes(Protocol):
    """Long-running commands of agents. Gone with the control process, said to be lost after it."""

    def start(self, agent: AgentId, place: Place, limits: Limits, command: Command, session: AgentSessionId | None = None) -> ProcessView:
        """Errors: QUOTA_EXCEEDED, and those of `Sandbox.start`. It ends with `session` at the latest, where one is given."""
        ...

    def find(self, agent: AgentId, process: ProcessId) -> ProcessView:
        """Errors: PROCESS_UNKNOWN (also when it is another agent's)."""
        ...

    def list(self, agent: AgentId) -> Sequence[ProcessView]: ...
    def output(self, agent: AgentId, process: ProcessId, stream: str, offset: int, limit: int) -> bytes: ...
    def signal(self, agent: AgentId, process: ProcessId, number: int) -> ProcessView: ...
    def wait(self, agent: AgentId, process: ProcessId, wait_s: float) -> ProcessView: ...
    def limit(self, agent: AgentId, process: ProcessId, wanted: ProcessLimits) -> Sequence[Holding]:
        """Hold it to less; what each limit is then, and how well it holds. Errors: PROCESS_UNKNOWN, PROCESS_FAILED (it has ended)."""
        ...

    def stop_all(self, agent: AgentId) -> int:
        """End everything the agent runs; how many there were."""
        ...


Listener = Callable[[Approval], None]
"""Told about every change of an approval, after it is durable; must not block and must not raise."""
