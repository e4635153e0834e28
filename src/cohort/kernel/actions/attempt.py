"""One request on its way through the gate: what is known of it, the rooms it passes, and how it is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cohort.base.errors import CohortError
from cohort.base.ids import ActionId
from cohort.kernel.actions import records, results
from cohort.kernel.actions.facts import Facts
from cohort.kernel.actions.keys import Keys
from cohort.kernel.actions.parsing import Parsed
from cohort.kernel.actions.policy import Policies
from cohort.kernel.actions.quotas import Quotas
from cohort.kernel.face import Entry, Request
from cohort.kernel.model import Action, ActionResult, Answer, Caller, Decision, Level, RecordKind
from cohort.kernel.ports import AUDIENCE, Approvals, AuditLog, Grant, Identities, Workspaces

NOBODY = frozenset(
    {"TOKEN_INVALID", "TOKEN_EXPIRED", "SESSION_REVOKED", "AGENT_SUSPENDED", "AGENT_REVOKED", "AUDIT_UNAVAILABLE", "AUDIT_BROKEN"}
)
"""Errors that are not an answer about an action: nobody is asking, or nothing can be recorded."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """The rooms behind the gate. `entries`: an action's records in the audit log, oldest first. `level`: what contains commands at this moment."""

    audit: AuditLog
    entries: Callable[[ActionId], Sequence[Entry]]
    identities: Identities
    approvals: Approvals
    workspaces: Workspaces
    policies: Policies
    quotas: Quotas
    keys: Keys
    level: Callable[[], Level]


@dataclass(frozen=True, slots=True)
class GateSettings:
    """`audience`: what tokens have to be made for. `level_min`: commands are refused below it. `approval_required`: whether the table and the
    autonomy ask at all. `keep_payloads`: results beside the log, erasable; without it the log has their digests only.
    `egress_private`: places, `host:port`, that may be reached though they are not on the public internet.
    """

    audience: str = AUDIENCE
    level_min: Level = Level.NAMESPACES
    approval_required: bool = True
    keep_payloads: bool = False
    egress_private: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request of one caller under way. `shown`: the token, and what it was bound to."""

    request: Request
    parsed: Parsed
    caller: Caller
    action: Action
    digest: str
    shown: tuple[str, str | None]
    started_s: float


@dataclass(frozen=True, slots=True)
class Passed:
    """Steps 3 to 6 are behind it. `grant`: what let it pass where a person was needed."""

    facts: Facts
    decision: Decision
    grant: Grant | None


def attempt_of(
    parsed: Parsed | CohortError, request: Request, caller: Caller, action_id: ActionId, shown: tuple[str, str | None], started_s: float
) -> Attempt:
    """Errors: those of parsing; VALUE_NOT_CANONICAL."""
    if isinstance(parsed, CohortError):
        raise parsed
    action = parsed.bind(action_id, caller)
    return Attempt(request, parsed, caller, action, action.digest, shown, started_s)


def denial(error: CohortError, attempt: Attempt, rule: str, before: Decision | None = None) -> Decision:
    """A refusal by something other than the rules: what it was, with the policy and risk of the decision before it."""
    policy_hash, risk = (before.policy_hash, before.risk) if before is not None else ("", attempt.parsed.row.risk)
    return Decision(Answer.DENY, error.code, f"{error.message}{f' {error.hint}' if error.hint else ''}", (rule,), policy_hash, risk)


def refuse(rooms: Rooms, attempt: Attempt, found: Facts | None, decision: Decision) -> ActionResult:
    index = record(rooms, attempt, found, decision)
    rooms.quotas.note_refusal(attempt.caller.agent.id)
    return results.refused(attempt.action, attempt.digest, decision, index)


def record(rooms: Rooms, attempt: Attempt, found: Facts | None, decision: Decision) -> int:
    """One DECISION record. Errors: AUDIT_UNAVAILABLE."""
    level = found.level if found is not None and found.row.executes else Level.NONE
    row = attempt.parsed.row
    made = records.decided(RecordKind.DECISION, attempt.action, attempt.digest, row, attempt.caller, decision, level)
    return rooms.audit.append(made).index
