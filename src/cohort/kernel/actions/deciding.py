"""Steps 3 to 6 of the gate: whether an action may be done. Scope, hard rules and policy are looked at; where a person is needed, asked."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from cohort.base.errors import CohortError
from cohort.base.ids import AgentId, AgentSessionId
from cohort.kernel.actions import facts, invariants, results, rules
from cohort.kernel.actions.attempt import NOBODY, Attempt, GateSettings, Passed, Rooms, denial, record, refuse
from cohort.kernel.actions.facts import Facts
from cohort.kernel.approvals.plain import describe
from cohort.kernel.model import ActionResult, Answer, Approval, ApprovalState, Decision, Level, Taint
from cohort.kernel.ports import Question

SESSIONS_KNOWN_MAX = 10_000
WAITING_AT_ONCE_MAX = 8
"""Calls of one agent that are held until a person answers; further ones are told at once that they have to wait."""

_ANSWERS = {
    ApprovalState.DENIED: ("APPROVAL_DENIED", "a person refused it"),
    ApprovalState.EXPIRED: ("APPROVAL_EXPIRED", "nobody answered in time"),
    ApprovalState.WITHDRAWN: ("APPROVAL_DENIED", "the question was withdrawn"),
    ApprovalState.CONSUMED: ("APPROVAL_DECIDED", "the approval was used already"),
}


class Deciding:
    """Safe to use from many threads. `available`: whether anything here can execute an operation; `decided`: told when a decision is there."""

    def __init__(self, rooms: Rooms, settings: GateSettings, available: Callable[[str], bool], decided: Callable[[], None]) -> None:
        self._rooms = rooms
        self._settings = settings
        self._available = available
        self._decided = decided
        self._known_taints: dict[AgentSessionId, Taint] = {}
        self._lock = threading.Lock()
        self._waiting: Counter[AgentId] = Counter()

    def passed(self, attempt: Attempt) -> Passed | ActionResult:
        """Steps 3 to 6. An approval that arrives while this waits is followed by steps 2 to 5 again, once."""
        looked = self._look(attempt)
        if isinstance(looked, ActionResult):
            return looked
        found, decision = looked
        self._decided()
        if not self._available(attempt.action.operation):  # before a person is asked for what nobody can do
            unsupported = CohortError("OPERATION_UNSUPPORTED", f"nothing here can execute {attempt.action.operation}")
            return refuse(self._rooms, attempt, found, denial(unsupported, attempt, "executor", decision))
        if decision.answer is Answer.ALLOW:
            return Passed(found, decision, None)
        try:
            grant = self._rooms.approvals.consume(attempt.action, decision.policy_hash, attempt.caller.task)
            if grant is not None:
                return Passed(found, decision, grant)
            return self._ask(attempt, found, decision)
        except CohortError as error:
            if error.code in NOBODY:
                raise
            return refuse(self._rooms, attempt, found, denial(error, attempt, "approval", decision))

    def _look(self, attempt: Attempt) -> tuple[Facts, Decision] | ActionResult:
        """Steps 3, 4 and 5: scope, invariants, policy."""
        try:
            found, decision = self._decide(attempt)
        except CohortError as error:
            return refuse(self._rooms, attempt, None, denial(error, attempt, "facts"))
        return refuse(self._rooms, attempt, found, decision) if decision.answer is Answer.DENY else (found, decision)

    def _decide(self, attempt: Attempt) -> tuple[Facts, Decision]:
        rooms, policy = self._rooms, self._rooms.policies.current()
        row = attempt.parsed.row
        taint = self._taint(attempt, asked=facts.leaves(attempt.action, row) or row.writes_data or policy.asks_taint)
        if row.executes and attempt.caller.agent.untrusted_us is not None:
            taint = Taint(untrusted=True, private=True)  # it may read its workspace and do what that says, all in one
        found = facts.gather(attempt.action, row, attempt.caller, taint, self._level(attempt))
        if not found.own:
            rooms.workspaces.owner(facts.workspace_of(attempt.action))
        held = invariants.check(found, self._settings.level_min, self._settings.egress_private)
        verdict = policy.judge(found)
        return found, rules.combine(found, held, verdict, policy.hash, approval_required=self._settings.approval_required)

    def _level(self, attempt: Attempt) -> Level:
        """What would contain a command here and now: as the probe has shown, and no more than the agent's workspace allows."""
        shown, workspace = self._rooms.level(), attempt.caller.agent.workspace
        if not attempt.parsed.row.executes or workspace is None or self._rooms.workspaces.place(workspace).hard_quota:
            return shown
        return min(shown, Level.NAMESPACES)

    def _taint(self, attempt: Attempt, *, asked: bool) -> Taint:
        """What the session has read. Where nothing of the decision turns on it, what this process last knew: a mark is never taken away."""
        known = self._known_taints.get(attempt.caller.session)
        if known is not None and not asked:
            return known
        return self._know(attempt.caller.session, self._rooms.identities.taint(attempt.caller.session))

    def _know(self, session: AgentSessionId, taint: Taint) -> Taint:
        if len(self._known_taints) >= SESSIONS_KNOWN_MAX:
            self._known_taints.clear()
        self._known_taints[session] = taint
        return taint

    def _ask(self, attempt: Attempt, found: Facts, decision: Decision) -> Passed | ActionResult:
        """Step 6 where there is no grant yet: ask, wait as long as the request says, look again and consume."""
        approvals = self._rooms.approvals
        approval = approvals.ask(self._question(attempt, decision))
        waiting = record(self._rooms, attempt, found, decision)
        self._rooms.quotas.note_refusal(attempt.caller.agent.id)
        if approval.state is ApprovalState.PENDING and attempt.request.wait_s > 0:
            approval = self._waited(approval, attempt)
        if approval.state is ApprovalState.PENDING:
            return results.waiting(attempt.action, attempt.digest, decision, approval.id, waiting)
        if approval.state is not ApprovalState.APPROVED:
            code, reason = _ANSWERS[approval.state]
            said = f"{reason}{f': {approval.note}' if approval.note else ''}"
            answer = CohortError(code, said, hint="Do something else, or ask again with a reason.")
            refused = refuse(self._rooms, attempt, found, denial(answer, attempt, "approval", decision))
            return replace(refused, approval_id=approval.id)
        return self._again(attempt)

    def _waited(self, approval: Approval, attempt: Attempt) -> Approval:
        """The approval once it is decided or the time is over; as it is, where the agent already has `WAITING_AT_ONCE_MAX` callers waiting."""
        agent = attempt.caller.agent.id
        with self._lock:
            if self._waiting[agent] >= WAITING_AT_ONCE_MAX:
                return approval
            self._waiting[agent] += 1
        try:
            return self._rooms.approvals.wait(approval.id, attempt.request.wait_s)
        finally:
            with self._lock:
                self._waiting[agent] -= 1
                if not self._waiting[agent]:
                    del self._waiting[agent]

    def _again(self, attempt: Attempt) -> Passed | ActionResult:
        """Steps 2 to 5 afresh, and then the grant, which one caller gets."""
        fresh = replace(attempt, caller=self._rooms.identities.again(attempt.caller))
        looked = self._look(fresh)
        if isinstance(looked, ActionResult):
            return looked
        found, decision = looked
        if decision.answer is Answer.ALLOW:
            return Passed(found, decision, None)
        grant = self._rooms.approvals.consume(fresh.action, decision.policy_hash, fresh.caller.task)
        if grant is not None:
            return Passed(found, decision, grant)
        used = CohortError("APPROVAL_DECIDED", "the approval was used by the same action asked for elsewhere, or the policy has changed")
        return refuse(self._rooms, fresh, found, denial(used, fresh, "approval", decision))

    def _question(self, attempt: Attempt, decision: Decision) -> Question:
        agent = attempt.caller.agent
        plain = describe(attempt.action, agent.name, agent.workspace)
        why, task = attempt.request.why, attempt.caller.task
        return Question(attempt.action, decision.policy_hash, decision.risk, plain.text, plain.touches, why, agent.name, task)

    def mark(self, found: Facts) -> None:
        """Before the intent: mark the session with what it will have read once the action has run, and the data it may write to with
        what the session has read. Errors: those of `Identities`."""
        row, session = found.row, found.caller.session
        has = self._known_taints.get(session) or self._rooms.identities.taint(session)
        heard = row.untrusted or bool(found.action.arguments.get("network")) or (row.reads_data and self._holds_untrusted(found))
        after = Taint(has.untrusted or heard, has.private or row.private)
        if after != has:
            self._rooms.identities.mark(session, after)
            self._know(session, after)
        if after.untrusted and row.writes_data:
            self._rooms.identities.mark_data(self._whose(found))

    def mark_after(self, found: Facts) -> None:
        """After it ran and before it is answered: what was written meanwhile by another session may be in the answer. Errors: as `mark`."""
        session = found.caller.session
        has = self._known_taints.get(session, Taint())
        if found.row.reads_data and not has.untrusted and self._rooms.identities.data_untrusted(self._whose(found)):
            after = replace(has, untrusted=True)
            self._rooms.identities.mark(session, after)
            self._know(session, after)

    def _holds_untrusted(self, found: Facts) -> bool:
        """Whether the data that the action reads may hold what strangers wrote."""
        if found.own:
            return found.caller.agent.untrusted_us is not None
        return self._rooms.identities.data_untrusted(self._whose(found))

    def _whose(self, found: Facts) -> AgentId:
        """Whose data the action reads or writes: of files elsewhere, their workspace's owner's."""
        return found.caller.agent.id if found.own else self._rooms.workspaces.owner(facts.workspace_of(found.action))
