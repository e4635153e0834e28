"""From scope, invariants, policy, autonomy and settings to one decision. Pure. Deny wins over ask, ask over allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cohort.kernel.actions.catalogue import Asks
from cohort.kernel.actions.facts import Facts
from cohort.kernel.actions.invariants import Finding
from cohort.kernel.model import Answer, Decision, Risk
from cohort.kernel.scopes import permits


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policy said. `waives`: a permit of the user's own matched, so that neither the table nor the autonomy asks.

    `code`: POLICY_DENIED, POLICY_UNAVAILABLE or None.
    """

    answer: Answer
    rules: tuple[str, ...]
    reason: str = ""
    waives: bool = False
    code: str | None = None


def scope_finding(facts: Facts) -> Finding | None:
    """A finding when the token's scopes do not cover every resource of the action."""
    for resource in facts.resources:
        if not permits(facts.caller.scopes, facts.row.scope, resource):
            reason = f"the token has no scope {facts.row.scope} for {resource[:200]!r}"
            return Finding("scope", Answer.DENY, "SCOPE_REFUSED", reason)
    return None


def combine(facts: Facts, invariants: Sequence[Finding], verdict: Verdict, policy_hash: str, *, approval_required: bool) -> Decision:
    """The decision. `approval_required`: whether the table and the autonomy ask at all; what must ask asks anyway."""
    scope = scope_finding(facts)
    denied = [found for found in (*([scope] if scope else []), *invariants) if found.answer is Answer.DENY]
    if verdict.answer is Answer.DENY:
        rules = verdict.rules or ("policy",)
        denied += [Finding(rule, Answer.DENY, verdict.code or "POLICY_DENIED", verdict.reason) for rule in rules]
    if denied:
        return _decision(Answer.DENY, denied, facts, policy_hash)
    asking = [found for found in invariants if found.answer is Answer.ASK]
    asking += must_ask(facts, verdict)
    if approval_required and not verdict.waives:
        asking += may_ask(facts)
    if asking:
        return _decision(Answer.ASK, asking, facts, policy_hash)
    return Decision(Answer.ALLOW, None, "allowed", ("scope", *verdict.rules), policy_hash, facts.risk)


def must_ask(facts: Facts, verdict: Verdict) -> Iterator[Finding]:
    """What asks whatever the settings and the autonomy say: three classes of acts, and the policy."""
    for name in sorted(facts.row.classes):
        yield _ask(f"class.{name.value}", f"{facts.row.name} is {name.value.replace('_', ' ')}, which always needs a person")
    if verdict.answer is Answer.ASK:
        for rule in verdict.rules or ("policy",):
            yield _ask(rule, verdict.reason)


def may_ask(facts: Facts) -> Iterator[Finding]:
    """What asks unless a permit of the policy, or the settings, say that it need not: the action table and the autonomy."""
    if _row_asks(facts):
        yield _ask(f"table.{facts.row.asks.value}", _why_row_asks(facts))
    risk_max = facts.caller.agent.autonomy.risk_max
    if facts.risk > risk_max:
        word = Risk.of(facts.risk).value
        what = f"its risk of {facts.risk:.2f} ({word}) is above the {risk_max:.2f} that {facts.caller.agent.autonomy.value} autonomy allows"
        yield _ask("autonomy", what)


def _row_asks(facts: Facts) -> bool:
    match facts.row.asks:
        case Asks.NEVER | Asks.POLICY:
            return False
        case Asks.ALWAYS:
            return True
        case Asks.ELSEWHERE:
            return not facts.own
        case Asks.NEW:
            return not facts.listed
        case Asks.CRITICAL:
            return Risk.of(facts.risk) is Risk.CRITICAL


def _why_row_asks(facts: Facts) -> str:
    return {
        Asks.ELSEWHERE: "it is outside the agent's own workspace",
        Asks.NEW: f"{facts.action.resource[:200]} is not on the agent's list of origins",
        Asks.CRITICAL: "its risk is critical",
    }.get(facts.row.asks, f"{facts.row.name} needs a person each time")


def _ask(rule: str, reason: str) -> Finding:
    return Finding(rule, Answer.ASK, "APPROVAL_NEEDED", reason)


def _decision(answer: Answer, findings: Sequence[Finding], facts: Facts, policy_hash: str) -> Decision:
    first = findings[0]
    rules = tuple(dict.fromkeys(found.rule for found in findings))
    return Decision(answer, first.code, first.reason, rules, policy_hash, facts.risk)
