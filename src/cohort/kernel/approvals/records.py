"""What the audit log keeps of approvals: one record for each change, written before the change holds."""

from __future__ import annotations

from typing import Any

from cohort.base.ids import ActionId
from cohort.kernel.approvals.plain import without_credentials
from cohort.kernel.approvals.rows import Vote
from cohort.kernel.model import Action, Approval, GrantRule, Record, RecordKind


def asked(approval: Approval) -> Record:
    """With the words that approvers read, but for credentials in them."""
    approval = without_credentials(approval)
    more = {
        "plain": approval.plain,
        "touches": list(approval.touches),
        "asked_by": approval.asked_by,
        "task": approval.task,
        "approvers_needed": approval.approvers_needed,
        "expires_us": approval.expires_us,
    }
    return _record("asked", approval, more, {"why": approval.why})


def answered(approval: Approval, vote: Vote, note: str, rule: GrantRule | None) -> Record:
    """One person's answer; `approval` as it is after it, which may still be pending when more people have to answer."""
    more: dict[str, Any] = {"approver": vote.approver, "answer": vote.answer.value, "looked_ms": vote.looked_ms}
    if approval.grant is not None:
        more |= {"grant": approval.grant.value, "usable_until_us": approval.expires_us}
    if rule is not None:
        more["rule"] = _rule(rule)
    return _record("answered", approval, more, {"note": note})


def ended(approval: Approval, why: str, by: str) -> Record:
    """Expired or withdrawn."""
    return _record(approval.state.value, approval, {"reason": why, "by": by}, {})


def consumed(approval: Approval, action: ActionId) -> Record:
    record = _record("consumed", approval, {"approvers": list(approval.approvers)}, {})
    return Record(record.kind, record.body, record.agent, record.session, action)


def rule_used(rule: GrantRule, action: Action) -> Record:
    body = {"event": "rule_used", "rule": _rule(rule), "digest": action.digest, "operation": action.operation, "resource": action.resource}
    return Record(RecordKind.APPROVAL, body, action.agent, action.session, action.id)


def rule_revoked(rule: GrantRule, actor: str) -> Record:
    return Record(RecordKind.APPROVAL, {"event": "rule_revoked", "rule": _rule(rule), "by": actor}, rule.agent, rule.session)


def _record(event: str, approval: Approval, more: dict[str, Any], private: dict[str, str]) -> Record:
    action = approval.action
    body = {
        "event": event,
        "approval": approval.id,
        "state": approval.state.value,
        "digest": approval.digest,
        "operation": action.operation,
        "resource": action.resource,
        "policy_hash": approval.policy_hash,
        "risk": approval.risk,
    }
    said = {name: text for name, text in private.items() if text}
    return Record(RecordKind.APPROVAL, body | more, action.agent, action.session, action.id, said)


def _rule(rule: GrantRule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "grant": rule.grant.value,
        "operation": rule.operation,
        "resource": rule.resource,
        "argv_prefix": list(rule.argv_prefix),
        "fixed": rule.fixed,
        "session": rule.session,
        "task": rule.task,
        "uses_left": rule.uses_left,
        "expires_us": rule.expires_us,
        "created_by": rule.created_by,
        "plain": rule.plain,
    }
