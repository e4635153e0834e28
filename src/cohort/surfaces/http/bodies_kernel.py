"""The bodies of requests about agents, and what answers look like where they are not the kernel's own values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Body as FromBody
from pydantic import Field

from cohort.kernel.face import AuditKey, Entry, Operation, SessionView, Sign, WorkspaceView
from cohort.kernel.model import Agent, AgentState, Approval, Autonomy, Change, GrantRule, GrantScope, Holding, Limits, Snapshot
from cohort.kernel.scopes import shown_scope
from cohort.surfaces.http.bodies import Body, Name, Reason
from cohort.surfaces.http.ports import REASON_CHARS_MAX

SCOPES_MAX = 100
SCOPE_CHARS_MAX = 1100
EGRESS_MAX = 100
ARGUMENTS_MAX = 64
WAIT_S_MAX = 60.0
"""The longest one request waits for a person; then it answers that it still waits."""
NUMBER_MAX = 2**53
LIFE_S_MAX = 366 * 86_400.0
USES_MAX = 1_000_000
WORDS_MAX = 16

ScopeText = Annotated[str, Field(min_length=1, max_length=SCOPE_CHARS_MAX)]
Scopes = Annotated[list[ScopeText], Field(max_length=SCOPES_MAX, description="`files.read`, or with a pattern `files.write:src/**`.")]
Why = Annotated[str, Field(max_length=REASON_CHARS_MAX, description="Why, in the agent's own words; shown to approvers as such.")]
Wait = Annotated[float, Field(ge=0, le=WAIT_S_MAX, allow_inf_nan=False, description="Seconds to wait for a person's approval.")]
Word = Annotated[str, Field(min_length=1, max_length=SCOPE_CHARS_MAX)]
Count = Annotated[int, Field(ge=0, le=NUMBER_MAX)]
Amount = Annotated[float, Field(gt=0, le=NUMBER_MAX, allow_inf_nan=False)]


class LimitsBody(Body):
    """What is left out keeps its default."""

    disk_bytes: Count | None = None
    files: Count | None = None
    memory_bytes: Count | None = None
    processes: Count | None = None
    cpu_cores: Amount | None = None
    command_s: Amount | None = None
    output_bytes: Count | None = None
    calls_per_minute: Count | None = None
    cpu_s_per_day: Amount | None = None
    egress_bytes_per_day: Count | None = None

    def limits(self) -> Limits:
        return Limits(**self.model_dump(exclude_none=True))


class AgentBody(Body):
    name: Name
    scopes: Scopes = Field(default_factory=list)
    autonomy: Autonomy = Autonomy.STANDARD
    limits: LimitsBody = Field(default_factory=LimitsBody)
    egress: list[Name] = Field(default_factory=list, max_length=EGRESS_MAX, description="Origins it may reach without asking.")
    description: Reason = ""


class ScopesBody(Body):
    scopes: Scopes = Field(min_length=1)


class ReasonBody(Body):
    reason: Reason = ""


MaybeReason = Annotated[ReasonBody | None, FromBody()]
"""For changes that are complete without a body."""


def reason_of(body: ReasonBody | None) -> str:
    return body.reason if body is not None else ""


class TokenBody(Body):
    scopes: Scopes | None = Field(default=None, description="Left out: every scope the agent has.")
    task: Name | None = None
    life_s: float | None = Field(default=None, gt=0, le=3600, allow_inf_nan=False)


class ActionBody(Body):
    operation: Name
    arguments: dict[str, Any] = Field(default_factory=dict, max_length=ARGUMENTS_MAX)
    why: Why = ""
    wait_s: Wait = 0.0


class ApproveBody(Body):
    grant: GrantScope = GrantScope.ONCE
    note: Reason = ""
    looked_ms: int | None = Field(default=None, ge=0, le=2**31 - 1, description="How long the question was on the screen.")
    resource: ScopeText | None = Field(default=None, description="Of a wider grant: a pattern; left out: this very resource.")
    argv_prefix: list[Word] | None = Field(
        default=None, min_length=1, max_length=WORDS_MAX, description="Of a wider grant: commands that begin with these words."
    )
    life_s: float | None = Field(default=None, gt=0, le=LIFE_S_MAX, allow_inf_nan=False)
    uses: int | None = Field(default=None, ge=1, le=USES_MAX)

    def sign(self, approver: str) -> Sign:
        said = self.model_dump(exclude={"argv_prefix"})
        return Sign(approver, argv_prefix=tuple(self.argv_prefix) if self.argv_prefix is not None else None, **said)


class DenyBody(Body):
    note: Reason = ""
    looked_ms: int | None = Field(default=None, ge=0, le=2**31 - 1)

    def sign(self, approver: str) -> Sign:
        return Sign(approver, note=self.note, looked_ms=self.looked_ms)


class RestoreBody(Body):
    snapshot: Name
    reason: Reason = ""


class VerifyBody(Body):
    full: bool = Field(default=True, description="Recompute everything; false: from the last check on.")


class NoteBody(Body):
    text: str = Field(min_length=1, max_length=REASON_CHARS_MAX)


@dataclass(frozen=True, slots=True)
class AgentView:
    """An agent, its scopes as text. `risk_max`: up to which risk it acts without asking."""

    id: str
    name: str
    state: AgentState
    scopes: tuple[str, ...]
    autonomy: Autonomy
    risk_max: float
    limits: Limits
    egress: tuple[str, ...]
    workspace: str | None
    created_us: int
    created_by: str
    description: str
    untrusted_us: int | None
    """Since when its data may hold what strangers wrote; None: it does not, as far as is known."""


@dataclass(frozen=True, slots=True)
class AgentWithKey:
    """`key` is shown this once."""

    agent: AgentView
    key: str


@dataclass(frozen=True, slots=True)
class Token:
    """`token` proves who asks until `expires_us`. Not to be kept in files or logs."""

    token: str
    session: str
    scopes: tuple[str, ...]
    expires_us: int


@dataclass(frozen=True, slots=True)
class Agents:
    items: tuple[AgentView, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Words:
    """What an answer would permit, in the sentence that its rule would carry."""

    words: str


@dataclass(frozen=True, slots=True)
class Holdings:
    """Each limit of an agent: whether it is enforced, soft or not enforced on this machine, by what, and what that leaves open."""

    items: tuple[Holding, ...]


@dataclass(frozen=True, slots=True)
class Sessions:
    items: tuple[SessionView, ...]


@dataclass(frozen=True, slots=True)
class Operations:
    items: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class Approvals:
    items: tuple[Approval, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    items: tuple[GrantRule, ...]


@dataclass(frozen=True, slots=True)
class Entries:
    """`next` is the cursor of the older ones, or null. `size`: how many there are in all."""

    items: tuple[Entry, ...]
    next: str | None
    size: int


@dataclass(frozen=True, slots=True)
class ProofView:
    """`entry`: the canonical JSON, whose bytes are the leaf. `text`: a C2SP tlog-proof with the signed checkpoint."""

    index: int
    leaf: str
    entry: str
    text: str


@dataclass(frozen=True, slots=True)
class Anchored:
    items: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Verifying:
    """How far a full verification is: `done` of `size` records."""

    running: bool
    done: int
    size: int


@dataclass(frozen=True, slots=True)
class AuditKeys:
    items: tuple[AuditKey, ...]


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    hash: str


@dataclass(frozen=True, slots=True)
class Noted:
    index: int


@dataclass(frozen=True, slots=True)
class Workspaces:
    items: tuple[WorkspaceView, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Changes:
    items: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class TextDiff:
    path: str
    diff: str


@dataclass(frozen=True, slots=True)
class Snapshots:
    items: tuple[Snapshot, ...]


def agent_view(agent: Agent) -> AgentView:
    return AgentView(
        id=agent.id,
        name=agent.name,
        state=agent.state,
        scopes=tuple(shown_scope(scope, agent.workspace) for scope in agent.scopes),
        autonomy=agent.autonomy,
        risk_max=agent.autonomy.risk_max,
        limits=agent.limits,
        egress=agent.egress,
        workspace=agent.workspace,
        created_us=agent.created_us,
        created_by=agent.created_by,
        description=agent.description,
        untrusted_us=agent.untrusted_us,
    )
