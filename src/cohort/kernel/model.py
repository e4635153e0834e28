"""The kernel's words as values. Every room of the kernel speaks them; none of them does anything.

Resources are text with one canonical form per operation:

| Operation | Resource |
| --- | --- |
| `files.*` | `WORKSPACE/path`, the path relative to the workspace's root, `/` between parts, no `.` or `..`; the root itself is `WORKSPACE/` |
| `terminal.run`, `process.start` | the program as given in `argv[0]` |
| `python.run` | `python` |
| `process.*` on a running one | its id, `pr_...` |
| `system.read` | `cpu`, `memory`, `disk`, `network` or `processes` |
| `http.request`, `network.webhook` | the origin, `https://host:port` with the port always written, the host in lower case |
| everything else | what the operation's own rule says |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

from cohort.base.canonical import canonical_json, sha256_hex
from cohort.base.ids import (
    ActionId,
    AgentId,
    AgentSessionId,
    ApprovalId,
    GrantRuleId,
    ProcessId,
    SnapshotId,
    TokenId,
    WorkspaceId,
)

SCHEMA_VERSION = 1
"""Of the arguments of operations; part of every action's digest."""


class Risk(StrEnum):
    LOW = "low"  # number <= .3
    MEDIUM = "medium"  # <= .6
    HIGH = "high"  # <= .8
    CRITICAL = "critical"

    @classmethod
    def of(cls, number: float) -> Risk:
        """The word for a risk from 0 to 1."""
        for word, most in ((cls.LOW, 0.3), (cls.MEDIUM, 0.6), (cls.HIGH, 0.8)):
            if number <= most:
                return word
        return cls.CRITICAL


class Level(IntEnum):
    """How well an execution is contained; spec: backends and isolation levels. Each claims what a probe has shown, never more."""

    NONE = 0  # refused unless the policy names it
    LIMITS = 1  # rlimits or a job object: protects from accidents, not from intent
    FILES = 2  # Landlock, seccomp and rlimits; Seatbelt; a restricted token
    NAMESPACES = 3  # bubblewrap without cgroup or hard disk quota: memory and disk are soft
    FULL = 4  # bubblewrap, cgroup and a hard disk quota
    MACHINE = 5  # a kernel of its own


@dataclass(frozen=True, slots=True)
class Scope:
    """Permission to attempt `operation` scopes such as `files.read`, on what `resource` matches.

    `resource`: `*` for everything, an exact resource, or a prefix that ends in `/**`. As text: `files.read`, `files.read:ws_x/src/**`.
    """

    name: str
    resource: str = "*"

    def __str__(self) -> str:
        return self.name if self.resource == "*" else f"{self.name}:{self.resource}"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing an agent asks the kernel to do, canonical. `arguments`: plain JSON values, defaults filled in.

    `digest` is what an approval binds to: SHA-256 over RFC 8785 JSON of everything but the id.
    """

    id: ActionId
    operation: str
    agent: AgentId
    session: AgentSessionId
    resource: str
    arguments: Mapping[str, Any]
    schema_version: int = SCHEMA_VERSION

    @property
    def digest(self) -> str:
        body = {
            "operation": self.operation,
            "agent": self.agent,
            "session": self.session,
            "resource": self.resource,
            "arguments": dict(self.arguments),
            "schema_version": self.schema_version,
        }
        return sha256_hex(canonical_json(body))


class Answer(StrEnum):
    """What was decided about an action."""

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"  # a person has to approve


@dataclass(frozen=True, slots=True)
class Decision:
    """`code`: an error code of `base/errors.py` when the answer is not ALLOW. `rules`: ids of what decided, invariants and policies."""

    answer: Answer
    code: str | None
    reason: str
    rules: tuple[str, ...]
    policy_hash: str
    risk: float


class Outcome(StrEnum):
    """How an action ended, or that it has not."""

    DONE = "done"  # executed; the command itself may have failed, see `result`
    FAILED = "failed"  # executed in part or not; `code` says why
    REFUSED = "refused"  # not executed
    WAITING = "waiting"  # a person has to approve; nothing was executed
    UNKNOWN = "unknown"  # it may have been executed


@dataclass(frozen=True, slots=True)
class ActionResult:
    """The answer to one action. `result`: plain JSON values, by operation. `decision_index`, `outcome_index`: places in the audit log."""

    action_id: ActionId
    digest: str
    outcome: Outcome
    result: Mapping[str, Any] = field(default_factory=dict)
    code: str | None = None
    reason: str = ""
    hint: str = ""
    approval_id: ApprovalId | None = None
    decision_index: int | None = None
    outcome_index: int | None = None
    level: Level = Level.NONE
    duration_us: int = 0


class AgentState(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"  # nothing it asks is done; can be resumed
    REVOKED = "revoked"  # for ever


class Autonomy(StrEnum):
    """Up to which risk an agent acts without asking, where the operation's own row does not ask anyway."""

    CONSERVATIVE = "conservative"
    STANDARD = "standard"
    AGGRESSIVE = "aggressive"

    @property
    def risk_max(self) -> float:
        return {Autonomy.CONSERVATIVE: 0.2, Autonomy.STANDARD: 0.5, Autonomy.AGGRESSIVE: 0.8}[self]


@dataclass(frozen=True, slots=True)
class Limits:
    """What an agent may use. Bytes and files are of its workspace; the rest of one command unless said otherwise."""

    disk_bytes: int = 100 * 1000 * 1000
    files: int = 1000
    memory_bytes: int = 512 << 20
    processes: int = 64
    cpu_cores: float = 1.0
    command_s: float = 120.0
    output_bytes: int = 1 << 20
    calls_per_minute: int = 600
    cpu_s_per_day: float = 3600.0
    egress_bytes_per_day: int = 100 << 20


class Held(StrEnum):
    """How well a limit holds against a command that tries to break it."""

    ENFORCED = "enforced"  # the system refuses or stops what goes beyond
    SOFT = "soft"  # noticed and stopped after the fact, or counted by what asks politely
    NOT_ENFORCED = "not enforced"


@dataclass(frozen=True, slots=True)
class Holding:
    """`limit`: the name of a field of `Limits`, or `priority`. `value`: as text, with its unit. `by`: the mechanism. `gap`: what it does not do."""

    limit: str
    value: str
    held: Held
    by: str
    gap: str = ""


class Priority(StrEnum):
    """Whose turn it is when there are not enough cores."""

    NORMAL = "normal"
    LOW = "low"
    IDLE = "idle"  # only what nobody else wants


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What one long-running command is to be held to, inside its agent's limits. None: as it is."""

    cpu_cores: float | None = None
    memory_bytes: int | None = None
    priority: Priority | None = None


@dataclass(frozen=True, slots=True)
class Agent:
    """A named principal. `scopes`: the most any token of it may carry. `egress`: origins it may reach without asking."""

    id: AgentId
    name: str
    state: AgentState
    scopes: tuple[Scope, ...]
    autonomy: Autonomy
    limits: Limits
    egress: tuple[str, ...]
    workspace: WorkspaceId | None
    created_us: int
    created_by: str
    description: str = ""
    untrusted_us: int | None = None
    """Since when its data (workspace, memory) may hold what strangers wrote; None: it does not, as far as is known."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, proven: the contents of a token whose signature, audience, expiry and session were checked.

    `actors`: the chain of delegation, nearest first; empty when the agent acts for itself.
    """

    agent: Agent
    session: AgentSessionId
    token: TokenId
    scopes: tuple[Scope, ...]
    expires_us: int
    task: str | None = None
    actors: tuple[AgentId, ...] = ()


@dataclass(frozen=True, slots=True)
class Taint:
    """What a session has read so far; both together make egress an approval, in every later action of the session."""

    untrusted: bool = False
    private: bool = False

    @property
    def egress_asks(self) -> bool:
        return self.untrusted and self.private


class RecordKind(StrEnum):
    """Of entries in the audit log."""

    INTENT = "intent"  # an allowed action, durable before it runs
    DECISION = "decision"  # an action that was refused or has to wait
    APPROVAL = "approval"
    OUTCOME = "outcome"
    QUOTA = "quota"
    KEY = "key"
    LEVEL = "level"
    AGENT = "agent"
    TOKEN = "token"  # noqa: S105
    WORKSPACE = "workspace"
    POLICY = "policy"
    CHECKPOINT = "checkpoint"  # a checkpoint that another place has received
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Record:
    """One entry to be: canonical JSON of it is the leaf of the audit log, with the time added by the log.

    `private`: payloads that may have to be erased one day, by name; only a salted commitment of each enters the log.
    `subject`: whom the private payloads are about, if known.
    """

    kind: RecordKind
    body: Mapping[str, Any]
    agent: AgentId | None = None
    session: AgentSessionId | None = None
    action: ActionId | None = None
    private: Mapping[str, str] = field(default_factory=dict)
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record stands in the log: durable, and in the tree. `leaf`: its RFC 6962 leaf hash, hexadecimal."""

    index: int
    leaf: str
    at_us: int


class ApprovalState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    CONSUMED = "consumed"
    WITHDRAWN = "withdrawn"


class GrantScope(StrEnum):
    """How far an approval reaches. All but ONCE leave a rule that is listed and can be revoked."""

    ONCE = "once"
    TASK = "task"
    SESSION = "session"
    STANDING = "standing"


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's answer, or the question. `plain`: the action in plain words; `touches`: what it will touch. Both are written by the kernel."""

    id: ApprovalId
    state: ApprovalState
    action: Action
    digest: str
    policy_hash: str
    risk: float
    plain: str
    touches: tuple[str, ...]
    why: str
    asked_by: str
    task: str | None
    created_us: int
    expires_us: int
    approvers_needed: int = 1
    approvers: tuple[str, ...] = ()
    decided_us: int | None = None
    grant: GrantScope | None = None
    rule: GrantRuleId | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class GrantRule:
    """An approval wider than one action. Matches `operation` on `resource` (a Scope's pattern) of `agent`, within session or task if given.

    `argv_prefix`: the first words of the commands it covers; empty: not bound by words. `fixed`: digest of the arguments that have to
    stay as they were shown to the approver.
    """

    id: GrantRuleId
    grant: GrantScope
    agent: AgentId
    operation: str
    resource: str
    argv_prefix: tuple[str, ...]
    session: AgentSessionId | None
    task: str | None
    uses_left: int | None
    expires_us: int
    created_by: str
    created_us: int
    plain: str
    revoked_us: int | None = None
    fixed: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """What to execute in a sandbox. `cwd`: relative to the workspace. `env`: added to the sandbox's own few variables.

    `hosts`: `host:port` the egress proxy lets through; empty means no network at all. `label`: whose order it is, the id of the
    action where the gate ordered it; never shown to the command, kept in the journal of executions.
    """

    argv: tuple[str, ...]
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    hosts: tuple[str, ...] = ()
    label: str = ""


class StoppedBy(StrEnum):
    """Why a command did not end by itself."""

    TIME = "time"
    MEMORY = "memory"
    OUTPUT = "output"
    SIGNAL = "signal"  # somebody asked
    SANDBOX = "sandbox"  # it, or its supervisor, was killed from inside or could not be set up
    LOST = "lost"  # the control process that ran it ended first; how far it came is not known


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended. `exit_code`: None when a signal ended it. Output is cut at the limit; the counts are of everything it wrote.

    `egress_bytes`: what passed through its way out, up and down.
    """

    exit_code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    stdout_bytes: int
    stderr_bytes: int
    duration_us: int
    cpu_us: int
    memory_bytes: int | None
    stopped_by: StoppedBy | None
    level: Level
    egress_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """A workspace as the sandbox needs it: the directory on the host, who owns what is in it, and whether its quota is hard."""

    workspace: WorkspaceId
    root: str
    uid: int
    gid: int
    hard_quota: bool
    read_only: tuple[str, ...] = ()
    """Paths under the root that stay read-only, such as `.git/hooks`. Whoever mounts them read-only also mounts the directories on the way
    onto themselves; otherwise a command renames `.git` and makes its own."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Disk truth of one workspace."""

    bytes_used: int
    files_used: int
    bytes_max: int
    files_max: int
    hard: bool


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between a workspace and its last commit. `kind`: added, changed, removed."""

    path: str
    kind: str
    bytes_before: int | None
    bytes_after: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    id: SnapshotId
    workspace: WorkspaceId
    digest: str
    files: int
    bytes: int
    created_us: int
    reason: str


@dataclass(frozen=True, slots=True)
class ProcessView:
    """A long-running command of an agent."""

    id: ProcessId
    agent: AgentId
    argv: tuple[str, ...]
    started_us: int
    ended: Completed | None
    stdout_bytes: int
    stderr_bytes: int
