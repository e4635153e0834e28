"""Answers about actions: made from what happened, kept for a key, and read back from the audit log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cohort.base import redaction
from cohort.base.canonical import canonical_json, sha256_hex
from cohort.base.errors import CohortError
from cohort.base.ids import ActionId, ApprovalId
from cohort.kernel.actions import records
from cohort.kernel.actions.clearance import Cleared, Executed
from cohort.kernel.actions.keys import Kept
from cohort.kernel.audit.entries import PAYLOAD_BYTES_MAX
from cohort.kernel.face import Entry
from cohort.kernel.model import Action, ActionResult, Answer, Decision, Level, Outcome, Record

HINTS = {"SCOPE_REFUSED": "Ask a person to grant the agent this scope (`cohort agent grant`), then for a new token."}
"""What to do about a refusal, where that is the same whatever was asked and the reason does not say it."""
LOOK_FIRST = "Look at what it did before asking for it again."


def refused(action: Action, digest: str, decision: Decision, index: int) -> ActionResult:
    hint = HINTS.get(decision.code or "", "")
    return ActionResult(action.id, digest, Outcome.REFUSED, code=decision.code, reason=decision.reason, hint=hint, decision_index=index)


def waiting(action: Action, digest: str, decision: Decision, approval: ApprovalId, index: int) -> ActionResult:
    hint = "Ask for the very same action again once a person has approved it."
    return ActionResult(
        action.id,
        digest,
        Outcome.WAITING,
        code="APPROVAL_NEEDED",
        reason=decision.reason,
        hint=hint,
        approval_id=approval,
        decision_index=index,
    )


def ended(cleared: Cleared, digest: str, executed: Executed, outcome: Outcome, duration_us: int) -> ActionResult:
    return ActionResult(
        cleared.action.id,
        digest,
        outcome,
        executed.result,
        executed.code,
        executed.reason,
        executed.hint,
        cleared.grant.approval if cleared.grant is not None else None,
        cleared.position.index,
        None,
        executed.level,
        duration_us,
    )


def unrecorded(result: ActionResult, error: CohortError) -> ActionResult:
    """Executed, and the log does not say how it ended: the result is withheld, since nobody could check it later."""
    reason = f"it was executed, and its outcome could not be recorded: {error.message}"
    return replace(result, outcome=Outcome.UNKNOWN, result={}, code="OUTCOME_UNKNOWN", reason=reason, hint=LOOK_FIRST)


def outcome_record(cleared: Cleared, executed: Executed, outcome: Outcome, duration_us: int, *, keep: bool) -> Record:
    """`keep`: the whole result goes beside the log as an erasable payload, unless it is larger than one may be."""
    open_result = {name: value for name, value in executed.result.items() if name not in executed.secrets}
    data = canonical_json(open_result) if keep or executed.output_digest is None else b""
    usage = {"cpu_us": executed.cpu_us, "egress_bytes": executed.egress_bytes, **executed.usage}
    body = {
        "outcome": outcome.value,
        "code": executed.code,
        "reason": redaction.text(executed.reason[: records.REASON_CHARS_MAX]),
        "operation": cleared.action.operation,
        "result": records.without_payloads(redaction.values(open_result, records.PAYLOADS), records.RESULT_BYTES_MAX),
        "output_digest": executed.output_digest or sha256_hex(data),
        "duration_us": duration_us,
        "level": executed.level.value,
        "usage": usage,
    }
    kept = {"result": data.decode()} if keep and len(data) <= PAYLOAD_BYTES_MAX else {}
    return records.ended(cleared.action, body, kept)


def to_json(result: ActionResult, secrets: frozenset[str]) -> dict[str, Any]:
    """For the key's row: all but what is given once."""
    return {
        "action_id": result.action_id,
        "digest": result.digest,
        "outcome": result.outcome.value,
        "result": {name: value for name, value in result.result.items() if name not in secrets},
        "code": result.code,
        "reason": result.reason,
        "hint": result.hint,
        "approval_id": result.approval_id,
        "decision_index": result.decision_index,
        "outcome_index": result.outcome_index,
        "level": result.level.value,
        "duration_us": result.duration_us,
    }


def from_json(values: Mapping[str, Any]) -> ActionResult:
    typed = {"outcome": Outcome(values["outcome"]), "level": Level(values["level"])}
    return ActionResult(**{**values, **typed})


def kept(former: Kept, digest: str) -> ActionResult:
    """What the same key gave before; that it began, where its end is not known."""
    if former.result is not None:
        return from_json(former.result)
    reason = "the same idempotency key began this action before, and how it ended is not known yet"
    return ActionResult(former.action, digest, Outcome.UNKNOWN, code="OUTCOME_UNKNOWN", reason=reason, hint=LOOK_FIRST)


def from_entries(action: ActionId, entries: Sequence[Entry]) -> ActionResult:
    """How an action ended, from its records.

    Raises:
        CohortError NOT_FOUND: the log has none of it.
    """
    decided = _last(entries, ("intent", "decision"))
    if decided is None:
        raise CohortError("NOT_FOUND", f"the audit log has no action {action[:100]!r}", hint="Take the id from the answer to the action.")
    body = _body(decided)
    if decided.body["kind"] == "decision":
        asks = body["answer"] == Answer.ASK.value
        code = "APPROVAL_NEEDED" if asks else body["code"]
        outcome = Outcome.WAITING if asks else Outcome.REFUSED
        return ActionResult(action, body["digest"] or "", outcome, code=code, reason=body["reason"], decision_index=decided.index)
    last = _last(entries, ("outcome",))
    begun = ActionResult(action, body["digest"], Outcome.UNKNOWN, code="OUTCOME_UNKNOWN", decision_index=decided.index, hint=LOOK_FIRST)
    return begun if last is None else _with_outcome(begun, last)


def _with_outcome(begun: ActionResult, entry: Entry) -> ActionResult:
    body = _body(entry)
    outcome = Outcome(body["outcome"])
    hint = LOOK_FIRST if outcome is Outcome.UNKNOWN else ""
    return replace(
        begun,
        outcome=outcome,
        result=body.get("result", {}),
        code=body.get("code"),
        reason=body.get("reason", ""),
        hint=hint,
        outcome_index=entry.index,
        level=Level(body.get("level", 0)),
        duration_us=body.get("duration_us", 0),
    )


def _last(entries: Sequence[Entry], kinds: tuple[str, ...]) -> Entry | None:
    found = [entry for entry in entries if entry.body.get("kind") in kinds]
    return max(found, key=lambda entry: entry.index, default=None)


def _body(entry: Entry) -> Mapping[str, Any]:
    """The record's own body inside the entry."""
    body: Mapping[str, Any] = entry.body["body"]
    return body
