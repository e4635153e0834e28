"""What surfaces ask of the kernel. The verbs of people and agents; every change is recorded in the audit log before it is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cohort.base.ids import ActionId, AgentId, AgentSessionId, ApprovalId, GrantRuleId, KeyId, SnapshotId, WorkspaceId
from cohort.kernel.model import (
    ActionResult,
    Agent,
    Approval,
    ApprovalState,
    Autonomy,
    Caller,
    Change,
    GrantRule,
    GrantScope,
    Holding,
    Level,
    Limits,
    Risk,
    Snapshot,
    Usage,
)


@dataclass(frozen=True, slots=True)
class NewAgent:
    """What a person registers. `scopes` as text (`files.read`, `files.write:src/**`); paths of `files.*` are of the agent's own workspace."""

    name: str
    scopes: tuple[str, ...] = ()
    autonomy: Autonomy = Autonomy.STANDARD
    limits: Limits = field(default_factory=Limits)
    egress: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True)
class Registered:
    """`key`: what the agent signs in with, shown this once; not part of the value's representation."""

    agent: Agent
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenPair:
    """`token`: a JWT (EdDSA) until `expires_us`. `refresh`: usable once; None for a token that a person or a parent minted."""

    token: str = field(repr=False)
    refresh: str | None = field(repr=False)
    session: AgentSessionId
    scopes: tuple[str, ...]
    expires_us: int


@dataclass(frozen=True, slots=True)
class SessionView:
    id: AgentSessionId
    agent: AgentId
    parent: AgentSessionId | None
    scopes: tuple[str, ...]
    task: str | None
    created_us: int
    created_by: str
    expires_us: int
    revoked_us: int | None
    untrusted: bool
    private: bool


class Agents(Protocol):
    """`agent` arguments take an id or a name. Errors everywhere: AGENT_UNKNOWN."""

    def register(self, new: NewAgent, actor: str) -> Registered:
        """Errors: AGENT_NAME_TAKEN, SCOPE_UNKNOWN, FIELD_INVALID."""
        ...

    def list(self) -> Sequence[Agent]: ...
    def find(self, agent: str) -> Agent: ...
    def grant(self, agent: str, scopes: Sequence[str], actor: str) -> Agent: ...
    def revoke_scopes(self, agent: str, scopes: Sequence[str], actor: str) -> Agent: ...
    def suspend(self, agent: str, actor: str, reason: str) -> Agent: ...
    def resume(self, agent: str, actor: str, reason: str) -> Agent: ...

    def trust(self, agent: str, actor: str, reason: str) -> Agent:
        """Say that the data of a suspended agent holds nothing of strangers any more. Errors: AGENT_NOT_SUSPENDED, FIELD_INVALID (no reason)."""
        ...

    def revoke(self, agent: str, actor: str, reason: str) -> Agent:
        """For ever: keys, sessions and every delegation below it, from the next action on."""
        ...

    def new_key(self, agent: str, actor: str) -> Registered: ...
    def sessions(self, agent: str) -> Sequence[SessionView]: ...
    def revoke_session(self, session: AgentSessionId, actor: str, reason: str) -> None:
        """The session and every one delegated from it. Errors: NOT_FOUND."""
        ...

    def mint(
        self,
        agent: str,
        scopes: Sequence[str] | None,
        actor: str,
        *,
        task: str | None = None,
        life_s: float | None = None,
        again: bool = False,
        key: KeyId | None = None,
    ) -> TokenPair:
        """A token for a person who acts as the agent by hand; recorded. `again`: of the session the person has already, if it will do. `key`: the
        person's own; when it is revoked the session ends.

        Errors: SCOPE_REFUSED, KEY_INVALID.
        """
        ...


class Tokens(Protocol):
    """The token endpoint (OAuth 2: client credentials, refresh, RFC 8693 exchange)."""

    def sign_in(
        self,
        key: str,
        scopes: Sequence[str] | None,
        audience: str,
        *,
        task: str | None = None,
        source: str = "",
        bound_to: str | None = None,
        agent: str | None = None,
    ) -> TokenPair:
        """`agent`: whose key it has to be. Errors: KEY_INVALID, SCOPE_REFUSED, AGENT_SUSPENDED, TOO_MANY_ATTEMPTS."""
        ...

    def refresh(self, refresh: str, *, bound_to: str | None = None) -> TokenPair:
        """A new pair for a refresh secret, which is then used up. A replayed one revokes the whole family. Errors: TOKEN_INVALID, TOKEN_REPLAYED."""
        ...

    def exchange(self, token: str, agent: str, scopes: Sequence[str], audience: str, *, bound_to: str | None = None) -> TokenPair:
        """Delegation: a token for `agent` with scopes inside those of `token`. Errors: SCOPE_REFUSED and those of `authenticate`."""
        ...

    def sign_out(self, token: str) -> None:
        """End the session of a token or refresh token, and every one delegated from it; nothing happens for one that is not in force."""
        ...

    def rotate(self, actor: str) -> str:
        """Sign with a new key from now on; its id. Tokens of the key before stay good, those of an older one do not."""
        ...

    def check(self, token: str, audience: str, *, bound_to: str | None = None) -> Caller:
        """Who asks, for a place that has an audience of its own. Errors: as `Actions.perform`."""
        ...

    def jwks(self) -> Mapping[str, Any]:
        """The public keys in force, RFC 7517."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """An action as asked for, before anything was checked. `why`: the agent's own words, shown to approvers as such."""

    operation: str
    arguments: Mapping[str, Any]
    why: str = ""
    wait_s: float = 0.0
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the action table. `arguments`: JSON Schema. The two hints are MCP's. `available`: something here can execute it."""

    name: str
    scope: str
    summary: str
    risk: Risk
    risk_number: float
    asks: str  # never | elsewhere | policy | new | critical | always
    arguments: Mapping[str, Any]
    read_only: bool
    destructive: bool
    available: bool


class Actions(Protocol):
    """The action gate: the only road to the machine."""

    def perform(self, token: str, request: Request, *, bound_to: str | None = None) -> ActionResult:
        """Decide, record, execute, record. Refusals, waiting and failures are answers.

        Raises:
            CohortError TOKEN_INVALID, TOKEN_EXPIRED, SESSION_REVOKED, AGENT_SUSPENDED: nobody is asking.
            CohortError AUDIT_UNAVAILABLE: it could not be recorded; nothing was executed.
        """
        ...

    def caller(self, token: str, *, bound_to: str | None = None) -> Caller: ...
    def operations(self) -> Sequence[Operation]: ...
    def result(self, action: ActionId) -> ActionResult:
        """How a former action ended, from the audit log. Errors: NOT_FOUND."""
        ...

    def own_result(self, token: str, action: ActionId, *, bound_to: str | None = None) -> ActionResult:
        """The same, for the agent whose action it was. Errors: those of a token; NOT_FOUND, also for another's."""
        ...


@dataclass(frozen=True, slots=True)
class Sign:
    """How a person answered. `looked_ms`: how long the question was on their screen, None if unknown."""

    approver: str
    grant: GrantScope = GrantScope.ONCE
    note: str = ""
    looked_ms: int | None = None
    resource: str | None = None  # of a wider grant: a Scope's pattern; None: this very resource
    argv_prefix: tuple[str, ...] | None = None  # of a wider grant: commands that begin with these words; None: this very command
    life_s: float | None = None
    uses: int | None = None


class ApprovalDesk(Protocol):
    """People's side of approvals. Errors everywhere: APPROVAL_UNKNOWN, APPROVAL_DECIDED, APPROVAL_EXPIRED, APPROVER_REFUSED."""

    def list(self, state: ApprovalState | None = None, limit: int = 100) -> Sequence[Approval]: ...
    def find(self, approval: ApprovalId) -> Approval: ...
    def preview(self, approval: ApprovalId, sign: Sign) -> str:
        """What `sign` would permit, in plain words; show it before a wider grant is signed. Errors: FIELD_INVALID."""
        ...

    def approve(self, approval: ApprovalId, sign: Sign) -> Approval: ...
    def deny(self, approval: ApprovalId, sign: Sign) -> Approval: ...
    def withdraw(self, approval: ApprovalId, caller: Caller) -> Approval: ...
    def wait(self, approval: ApprovalId, wait_s: float) -> Approval: ...
    def rules(self) -> Sequence[GrantRule]: ...
    def revoke_rule(self, rule: GrantRuleId, actor: str) -> GrantRule: ...
    def version(self) -> int:
        """Grows with every change, for live pages."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log as read. `body` is the canonical JSON's value; `leaf` its RFC 6962 hash."""

    index: int
    leaf: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """What to look for; everything given must hold. `text`: in the entry's JSON. Newest first, from below `before`."""

    agent: str | None = None
    kind: str | None = None
    action: str | None = None
    text: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    before: int | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Verification:
    """Three answers apart. `integrity`: `verified`, `broken` or `no data`. `first_bad`: index of the first wrong record, and `why`.

    `complete`: no allowed action without an outcome; `open_intents` are those without. `anchored_size`: how many records another place vouches for.
    """

    integrity: str
    size: int
    root: str | None
    first_bad: int | None
    why: str
    complete: bool
    open_intents: tuple[str, ...]
    anchored_size: int
    anchors: tuple[str, ...]
    duration_us: int


@dataclass(frozen=True, slots=True)
class Proof:
    """`text`: a C2SP tlog-proof: the entry's place, its inclusion proof and the signed checkpoint. `entry`: the canonical bytes."""

    index: int
    entry: bytes
    text: str


@dataclass(frozen=True, slots=True)
class AuditKey:
    """A key of the log. It signs the checkpoints whose size lies from `since` to `until`; no `until` while it is active. `line`: both as text."""

    id: str
    vkey: str
    active: bool
    since: int
    until: int | None
    line: str


class Audit(Protocol):
    def search(self, query: AuditQuery) -> Sequence[Entry]: ...
    def entry(self, index: int) -> Entry:
        """Errors: NOT_FOUND."""
        ...

    def size(self) -> int: ...
    def checkpoint(self) -> str:
        """The newest signed note."""
        ...

    def verify(self, *, full: bool = True, progress: Callable[[int, int], None] | None = None) -> Verification: ...
    def verifying(self) -> tuple[int, int] | None:
        """How many records the full verification that runs now has done, and of how many; None when none runs."""
        ...

    def prove(self, index: int) -> Proof: ...
    def export(self, folder: str) -> Mapping[str, Any]:
        """Tiles, entries, checkpoint, public key and the verifier, into an empty folder; says what was written."""
        ...

    def anchor(self) -> Sequence[Mapping[str, Any]]:
        """Send the newest checkpoint to every configured anchor now; one result each."""
        ...

    def note(self, text: str, actor: str) -> int:
        """A person's remark in the log; its index."""
        ...

    def signing_keys(self) -> Sequence[AuditKey]:
        """Every key the log has had, the newest first; none when the key file is missing."""
        ...

    def rotate_key(self, actor: str) -> AuditKey:
        """A new key beside the one in use; both sign from now on. Errors: AUDIT_KEY_REFUSED."""
        ...

    def retire_key(self, key: str | None, actor: str) -> AuditKey:
        """End one of two active keys, by its id, or the older one. Errors: AUDIT_KEY_REFUSED, NOT_FOUND."""
        ...


@dataclass(frozen=True, slots=True)
class WorkspaceView:
    id: WorkspaceId
    agent: AgentId
    root: str
    backend: str
    usage: Usage
    changes: int | None
    committed_us: int | None
    created_us: int


class WorkspaceDesk(Protocol):
    """People's side of workspaces. `workspace` takes its id or the agent's name. Errors everywhere: WORKSPACE_UNKNOWN."""

    def list(self) -> Sequence[WorkspaceView]: ...
    def show(self, workspace: str) -> WorkspaceView: ...
    def diff(self, workspace: str) -> Sequence[Change]: ...
    def text_diff(self, workspace: str, path: str) -> str:
        """A unified diff of one text file against the last commit."""
        ...

    def commit(self, workspace: str, actor: str, reason: str) -> Snapshot: ...
    def discard(self, workspace: str, actor: str, reason: str) -> Snapshot: ...
    def snapshot(self, workspace: str, actor: str, reason: str) -> Snapshot: ...
    def snapshots(self, workspace: str) -> Sequence[Snapshot]: ...
    def restore(self, workspace: str, snapshot: SnapshotId, actor: str, reason: str) -> Snapshot: ...
    def remove(self, workspace: str, actor: str, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """One attack of the start-up probe. `stopped`: None when it could not be tried here."""

    name: str
    stopped: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Containment:
    """What this machine can hold, as probed by attack. `fixes`: for each level missed, the exact command. `landlock`: its ABI, 0 without."""

    backend: str
    level: Level
    probed_us: int
    rows: tuple[ProbeRow, ...]
    soft: tuple[str, ...]
    fixes: tuple[str, ...]
    kernel: str = ""
    landlock: int = 0


@dataclass(frozen=True, slots=True)
class SafetyCounts:
    """From the reconciler, spec/metrics.md. None: not compared yet, which is never healthy."""

    executions: int
    bypasses: int | None
    containment_violations: int | None
    unauthorised: int | None
    compared_us: int | None
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KernelFace:
    """Everything surfaces call."""

    agents: Agents
    tokens: Tokens
    actions: Actions
    approvals: ApprovalDesk
    audit: Audit
    workspaces: WorkspaceDesk
    containment: Callable[[], Containment | None]
    safety: Callable[[], SafetyCounts]
    reply: Callable[[Mapping[str, str], bytes], Approval] | None = None
    """Takes a signed answer of the approval webhook: its headers and its bytes. None: no webhook is configured."""
    limits: Callable[[str], Sequence[Holding]] = lambda _: ()
    """Which limits of an agent (id or name) hold on this machine, and by what. Errors: AGENT_UNKNOWN."""
    reload_policy: Callable[[str], str] | None = None
    """Reads the policy file again, for the person named; the hash of what is in force then. Errors: POLICY_INVALID, AUDIT_UNAVAILABLE."""
