"""The one place where an action becomes allowed to touch the machine: its intent is durable in the audit log.

An executor takes a `Cleared`, and only `clear` can make one: its constructor wants a seal that nothing outside this module has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from cohort.kernel.actions import records
from cohort.kernel.actions.facts import Facts
from cohort.kernel.model import Action, Caller, Decision, Level, Position, RecordKind
from cohort.kernel.ports import AuditLog, Grant

_SEAL = object()


@final
class Cleared:
    """An action whose intent record is durable. `token`, `bound_to`: what the caller showed; for delegation only, never
    shown or recorded."""

    __slots__ = ("action", "bound_to", "caller", "facts", "grant", "position", "token")

    def __init__(self, seal: object, facts: Facts, grant: Grant | None, position: Position, shown: tuple[str, str | None]) -> None:
        if seal is not _SEAL:
            raise PermissionError("only the action gate clears actions, once their intent is recorded")
        self.action: Action = facts.action
        self.caller: Caller = facts.caller
        self.facts = facts
        self.grant = grant
        self.position = position
        self.token, self.bound_to = shown


@dataclass(frozen=True, slots=True)
class Executed:
    """How it went. `code`: an error code when it failed. `secrets`: names in `result` that are given once and kept nowhere.

    `output_digest`: SHA-256 of the raw output, where there is one; else that of the result's canonical JSON is recorded. `usage`: more figures
    for the record, such as why a command was stopped.
    """

    result: Mapping[str, Any]
    code: str | None = None
    reason: str = ""
    hint: str = ""
    cpu_us: int = 0
    egress_bytes: int = 0
    level: Level = Level.NONE
    output_digest: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    secrets: frozenset[str] = frozenset()


Executor = Callable[[Cleared], Executed]
"""Carries out one operation. Raises CohortError when it could not; that is a failure with its code."""


def clear(audit: AuditLog, facts: Facts, digest: str, decision: Decision, grant: Grant | None, shown: tuple[str, str | None]) -> Cleared:
    """Record the intent and hand out the clearance.

    Raises:
        CohortError AUDIT_UNAVAILABLE, OUTCOME_UNKNOWN, RECORD_TOO_LARGE: there is no clearance, and nothing may run.
    """
    level = facts.level if facts.row.executes else Level.NONE
    record = records.decided(RecordKind.INTENT, facts.action, digest, facts.row, facts.caller, decision, level, grant)
    # Commit point. Before this line nothing may run; after it the intent outlives any crash, and the action may.
    position = audit.append(record)
    return Cleared(_SEAL, facts, grant, position, shown)
