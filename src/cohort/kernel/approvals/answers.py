"""A question as it is put, a person's answer to it, and what the answers so far come to. Values in, values out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cohort.base.ids import ApprovalId, GrantRuleId
from cohort.kernel.approvals import grants, rules
from cohort.kernel.approvals.limits import LOOKED_MS_MAX, NAME_CHARS_MAX, WHY_CHARS_MAX, ApprovalLimits
from cohort.kernel.approvals.plain import TEXT_CHARS_MAX, TOUCHES_MAX, shown
from cohort.kernel.approvals.rows import Vote
from cohort.kernel.face import Sign
from cohort.kernel.model import Approval, ApprovalState, GrantRule
from cohort.kernel.ports import Question


def asked(approval: ApprovalId, question: Question, limits: ApprovalLimits, now_us: int) -> Approval:
    """The question as people see it. Every text is made visible once more, whoever wrote it."""
    return Approval(
        id=approval,
        state=ApprovalState.PENDING,
        action=question.action,
        digest=question.action.digest,
        policy_hash=question.policy_hash,
        risk=question.risk,
        plain=shown(question.plain, TEXT_CHARS_MAX),
        touches=tuple(shown(each, TEXT_CHARS_MAX) for each in question.touches[:TOUCHES_MAX]),
        why=shown(question.why, WHY_CHARS_MAX),
        asked_by=shown(question.asked_by, NAME_CHARS_MAX),
        task=question.task,
        created_us=now_us,
        expires_us=now_us + limits.pending_us,
        approvers_needed=limits.approvers_needed,
    )


def vote_of(approval: Approval, sign: Sign, answer: ApprovalState, limits: ApprovalLimits, now_us: int) -> Vote:
    """What one person says. Errors: FIELD_INVALID, when a yes reaches further than what was shown."""
    looked_ms = None if sign.looked_ms is None else max(0, min(sign.looked_ms, LOOKED_MS_MAX))
    terms = grants.terms_of(approval, sign, limits) if answer is ApprovalState.APPROVED else None
    return Vote(sign.approver, answer, now_us, looked_ms, terms)


def counted(
    approval: Approval, cast: Sequence[Vote], rule: GrantRuleId, limits: ApprovalLimits, now_us: int
) -> tuple[Approval, GrantRule | None]:
    """The approval after the votes `cast`, and the rule `rule` where they reach further than one action."""
    state = rules.tally(approval.approvers_needed, [vote.answer for vote in cast])
    voted = replace(approval, state=state, approvers=tuple(vote.approver for vote in cast))
    if state is ApprovalState.PENDING:
        return voted, None
    decided = replace(voted, decided_us=now_us)
    if state is not ApprovalState.APPROVED:
        return decided, None
    terms = grants.agreed([vote.terms for vote in cast if vote.terms is not None])
    made = grants.rule_of(rule, approval, terms, cast[-1].approver, now_us)
    usable_us = now_us + limits.unused_us
    return replace(decided, expires_us=usable_us, grant=terms.grant, rule=made.id if made else None), made
