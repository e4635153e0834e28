"""The action gate: one function, one order, closed at every step that fails. Nothing else touches the machine for an agent.

The order is that of the specification, 8.1: parse, authenticate, scope, invariants, policy, approval, quota, intent record, execution,
outcome record. `STEPS` names the moments between them, for tests that end the process there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.base.ids import ActionId, AgentSessionId, Entropy, new_id
from cohort.kernel.actions import catalogue, facts, invariants, parsing, records, results, rules
from cohort.kernel.actions.clearance import Cleared, Executed, Executor, clear
from cohort.kernel.actions.facts import Facts
from cohort.kernel.actions.keys import Keys
from cohort.kernel.actions.parsing import Parsed
from cohort.kernel.actions.policy import Policies
from cohort.kernel.actions.quotas import Quotas, Reservation
from cohort.kernel.approvals.plain import describe
from cohort.kernel.face import Entry, Operation, Request
from cohort.kernel.model import Action, ActionResult, Answer, ApprovalState, Caller, Decision, Level, Outcome, RecordKind, Taint
from cohort.kernel.ports import AUDIENCE, Approvals, AuditLog, Grant, Identities, Question, Workspaces

STEPS = ("parsed", "authenticated", "decided", "approved", "reserved", "marked", "claimed", "recorded", "executed", "ended")
SESSIONS_KNOWN_MAX = 10_000

_log = logging.getLogger(__name__)


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
    """

    audience: str = AUDIENCE
    level_min: Level = Level.NAMESPACES
    approval_required: bool = True
    keep_payloads: bool = False


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One request of one caller under way. `shown`: the token, and what it was bound to."""

    request: Request
    parsed: Parsed
    caller: Caller
    action: Action
    digest: str
    shown: tuple[str, str | None]
    started_s: float


@dataclass(frozen=True, slots=True)
class _Passed:
    """Steps 3 to 6 are behind it. `grant`: what let it pass where a person was needed."""

    facts: Facts
    decision: Decision
    grant: Grant | None


class Gate:
    """`face.Actions`. Safe to use from many threads. `at` is told each of `STEPS` as it is reached; tests stop there."""

    def __init__(
        self,
        rooms: Rooms,
        settings: GateSettings,
        executors: Mapping[str, Executor],
        clock: Clock,
        entropy: Entropy,
        at: Callable[[str], None] | None = None,
    ) -> None:
        self._rooms = rooms
        self._settings = settings
        self._executors: dict[str, Executor] = {}
        self._known_taints: dict[AgentSessionId, Taint] = {}
        self._clock = clock
        self._entropy = entropy
        self._at = at or _nowhere
        for operation, executor in executors.items():
            self.register(operation, executor)

    def register(self, operation: str, executor: Executor) -> None:
        """Make `operation` of the table one that can be executed here. Errors: OPERATION_UNKNOWN."""
        self._executors[catalogue.find(operation).name] = executor

    def operations(self) -> Sequence[Operation]:
        return [row.operation(row.name in self._executors) for row in catalogue.ROWS.values()]

    def caller(self, token: str, *, bound_to: str | None = None) -> Caller:
        return self._rooms.identities.authenticate(token, self._settings.audience, bound_to)

    def result(self, action: ActionId) -> ActionResult:
        """As the audit log has it: without payloads."""
        return results.from_entries(action, self._rooms.entries(action))

    def perform(self, token: str, request: Request, *, bound_to: str | None = None) -> ActionResult:
        """Decide, record, execute, record; see `face.Actions`. A refusal, a question and a failure are answers."""
        started_s = self._clock.monotonic_s()
        parsed = self._parse(request)
        self._at("parsed")
        caller = self._rooms.identities.authenticate(token, self._settings.audience, bound_to)
        self._at("authenticated")
        action_id = ActionId(new_id("act", self._entropy))
        try:
            attempt = _attempt(parsed, request, caller, action_id, (token, bound_to), started_s)
        except CohortError as error:
            return self._not_an_action(request, caller, action_id, error)
        try:
            known = self._former(attempt)
        except CohortError as error:
            return self._refuse(attempt, None, _denial(error, attempt, "key"))
        return known if known is not None else self._decide_and_run(attempt)

    # -- 1: what was asked

    def _parse(self, request: Request) -> Parsed | CohortError:
        try:
            return parsing.parse(request)
        except CohortError as error:  # who asks is to be proven before anything is answered
            return error

    def _not_an_action(self, request: Request, caller: Caller, action_id: ActionId, error: CohortError) -> ActionResult:
        name = request.operation if isinstance(request.operation, str) else ""
        action = Action(action_id, name[:100], caller.agent.id, caller.session, "", {})
        position = self._rooms.audit.append(records.unreadable(action, caller, name, error.code, error.message))
        self._rooms.quotas.note_refusal(caller.agent.id)
        return ActionResult(
            action_id, "", Outcome.REFUSED, code=error.code, reason=error.message, hint=error.hint, decision_index=position.index
        )

    def _former(self, attempt: _Attempt) -> ActionResult | None:
        """The result of the same key's former action."""
        key = attempt.request.idempotency_key
        kept = self._rooms.keys.find(attempt.action.session, key, attempt.digest) if key is not None else None
        return results.kept(kept, attempt.digest) if kept is not None else None

    # -- 3 to 6: whether it may

    def _decide_and_run(self, attempt: _Attempt) -> ActionResult:
        passed = self._pass(attempt)
        if isinstance(passed, ActionResult):
            return passed
        self._at("approved")
        try:
            reservation = self._reserve(passed)
        except CohortError as error:
            return self._refuse(attempt, passed.facts, _denial(error, attempt, "quota", passed.decision))
        self._at("reserved")
        return self._run_reserved(attempt, passed, reservation)

    def _pass(self, attempt: _Attempt) -> _Passed | ActionResult:
        """Steps 3 to 6. An approval that arrives while this waits is followed by steps 2 to 5 again, once."""
        looked = self._look(attempt)
        if isinstance(looked, ActionResult):
            return looked
        found, decision = looked
        self._at("decided")
        if attempt.action.operation not in self._executors:  # before a person is asked for what nobody can do
            unsupported = CohortError("OPERATION_UNSUPPORTED", f"nothing here can execute {attempt.action.operation}")
            return self._refuse(attempt, found, _denial(unsupported, attempt, "executor", decision))
        if decision.answer is Answer.ALLOW:
            return _Passed(found, decision, None)
        try:
            grant = self._rooms.approvals.consume(attempt.action, decision.policy_hash, attempt.caller.task)
            if grant is not None:
                return _Passed(found, decision, grant)
            return self._ask(attempt, found, decision)
        except CohortError as error:
            if error.code in NOBODY:
                raise
            return self._refuse(attempt, found, _denial(error, attempt, "approval", decision))

    def _look(self, attempt: _Attempt) -> tuple[Facts, Decision] | ActionResult:
        """Steps 3, 4 and 5: scope, invariants, policy."""
        try:
            found, decision = self._decide(attempt)
        except CohortError as error:
            return self._refuse(attempt, None, _denial(error, attempt, "facts"))
        return self._refuse(attempt, found, decision) if decision.answer is Answer.DENY else (found, decision)

    def _decide(self, attempt: _Attempt) -> tuple[Facts, Decision]:
        rooms, policy = self._rooms, self._rooms.policies.current()
        row = attempt.parsed.row
        taint = self._taint(attempt, asked=facts.leaves(attempt.action, row) or policy.asks_taint)
        found = facts.gather(attempt.action, row, attempt.caller, taint, rooms.level())
        if not found.own:
            rooms.workspaces.owner(facts.workspace_of(attempt.action))
        held = invariants.check(found, self._settings.level_min)
        verdict = policy.judge(found)
        return found, rules.combine(found, held, verdict, policy.hash, approval_required=self._settings.approval_required)

    def _taint(self, attempt: _Attempt, *, asked: bool) -> Taint:
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

    def _ask(self, attempt: _Attempt, found: Facts, decision: Decision) -> _Passed | ActionResult:
        """Step 6 where there is no grant yet: ask, wait as long as the request says, look again and consume."""
        approvals = self._rooms.approvals
        approval = approvals.ask(self._question(attempt, decision))
        waiting = self._record(attempt, found, decision)
        if approval.state is ApprovalState.PENDING and attempt.request.wait_s > 0:
            approval = approvals.wait(approval.id, attempt.request.wait_s)
        if approval.state is ApprovalState.PENDING:
            return results.waiting(attempt.action, attempt.digest, decision, approval.id, waiting)
        if approval.state is not ApprovalState.APPROVED:
            code, reason = _ANSWERS[approval.state]
            said = f"{reason}{f': {approval.note}' if approval.note else ''}"
            denial = _denial(CohortError(code, said, hint="Do something else, or ask again with a reason."), attempt, "approval", decision)
            return replace(self._refuse(attempt, found, denial), approval_id=approval.id)
        return self._again(attempt)

    def _again(self, attempt: _Attempt) -> _Passed | ActionResult:
        """Steps 2 to 5 afresh, and then the grant, which one caller gets."""
        fresh = replace(attempt, caller=self._rooms.identities.again(attempt.caller))
        looked = self._look(fresh)
        if isinstance(looked, ActionResult):
            return looked
        found, decision = looked
        if decision.answer is Answer.ALLOW:
            return _Passed(found, decision, None)
        grant = self._rooms.approvals.consume(fresh.action, decision.policy_hash, fresh.caller.task)
        if grant is not None:
            return _Passed(found, decision, grant)
        used = CohortError("APPROVAL_DECIDED", "the approval was used by the same action asked for elsewhere, or the policy has changed")
        return self._refuse(fresh, found, _denial(used, fresh, "approval", decision))

    def _question(self, attempt: _Attempt, decision: Decision) -> Question:
        agent = attempt.caller.agent
        plain = describe(attempt.action, agent.name, agent.workspace)
        why, task = attempt.request.why, attempt.caller.task
        return Question(attempt.action, decision.policy_hash, decision.risk, plain.text, plain.touches, why, agent.name, task)

    # -- 7 to 10: do it

    def _reserve(self, passed: _Passed) -> Reservation:
        return self._rooms.quotas.reserve(passed.facts)

    def _run_reserved(self, attempt: _Attempt, passed: _Passed, reservation: Reservation) -> ActionResult:
        """Steps 8 to 10. Whatever happens the reservation is settled; without a durable intent nothing runs."""
        cpu_us = egress_bytes = 0
        try:
            earlier = self._claim(attempt, passed)
            if earlier is not None:
                return earlier
            cleared = self._clear(attempt, passed)
            self._at("recorded")
            executed, outcome = self._execute(cleared)
            cpu_us, egress_bytes = executed.cpu_us, executed.egress_bytes
            self._at("executed")
            return self._finish(attempt, cleared, executed, outcome)
        finally:
            self._rooms.quotas.settle(reservation, cpu_us, egress_bytes)

    def _claim(self, attempt: _Attempt, passed: _Passed) -> ActionResult | None:
        """What has to be true before the intent: the session is marked with what it will have read, the key is ours."""
        try:
            self._mark(passed.facts)
            self._at("marked")
            key = attempt.request.idempotency_key
            kept = self._rooms.keys.claim(attempt.action, key, attempt.digest) if key is not None else None
        except CohortError as error:
            return self._refuse(attempt, passed.facts, _denial(error, attempt, "claim", passed.decision))
        self._at("claimed")
        return results.kept(kept, attempt.digest) if kept is not None else None

    def _mark(self, found: Facts) -> None:
        row, has = found.row, found.taint
        new = Taint(row.untrusted and not has.untrusted, row.private and not has.private)
        if found.action.arguments.get("network") and not has.untrusted:
            new = replace(new, untrusted=True)
        if new.untrusted or new.private:
            self._rooms.identities.mark(found.caller.session, new)
            self._know(found.caller.session, Taint(has.untrusted or new.untrusted, has.private or new.private))

    def _clear(self, attempt: _Attempt, passed: _Passed) -> Cleared:
        try:
            return clear(self._rooms.audit, passed.facts, attempt.digest, passed.decision, passed.grant, attempt.shown)
        except CohortError as error:
            self._release(attempt)
            what = f"the intent could not be recorded, so nothing was executed: {error.message}"
            raise CohortError("AUDIT_UNAVAILABLE", what, retry=Retry.SAFE, hint="Look at the audit log's disk, then ask again.") from error

    def _release(self, attempt: _Attempt) -> None:
        try:
            if attempt.request.idempotency_key is not None:
                self._rooms.keys.release(attempt.action, attempt.request.idempotency_key)
        except CohortError as error:
            _log.warning("the key of %s could not be released: %s", attempt.action.id, error)

    def _execute(self, cleared: Cleared) -> tuple[Executed, Outcome]:
        """Step 9, and the supervisor of executors: whatever one raises becomes an outcome, since the intent is already recorded."""
        try:
            executed = self._executors[cleared.action.operation](cleared)
        except CohortError as error:
            unknown = error.code == "OUTCOME_UNKNOWN"
            failed = Executed({}, error.code, error.message, error.hint)
            return failed, Outcome.UNKNOWN if unknown else Outcome.FAILED
        except Exception:
            _log.exception("the executor of %s failed on %s", cleared.action.operation, cleared.action.id)
            return Executed({}, "INTERNAL", "the executor failed in an unforeseen way; what it did is not known"), Outcome.UNKNOWN
        return executed, Outcome.DONE if executed.code is None else Outcome.FAILED

    def _finish(self, attempt: _Attempt, cleared: Cleared, executed: Executed, outcome: Outcome) -> ActionResult:
        """Step 10."""
        duration_us = round((self._clock.monotonic_s() - attempt.started_s) * 1e6)
        result = results.ended(cleared, attempt.digest, executed, outcome, duration_us)
        try:
            record = results.outcome_record(cleared, executed, outcome, duration_us, keep=self._settings.keep_payloads)
            position = self._rooms.audit.append(record)
        except CohortError as error:
            _log.error("%s was executed and its outcome could not be recorded: %s", attempt.action.id, error)
            return results.unrecorded(result, error)
        self._at("ended")
        result = replace(result, outcome_index=position.index)
        self._keep(attempt, result, executed)
        return result

    def _keep(self, attempt: _Attempt, result: ActionResult, executed: Executed) -> None:
        key = attempt.request.idempotency_key
        if key is None:
            return
        try:
            self._rooms.keys.finish(attempt.action, key, results.to_json(result, executed.secrets))
        except CohortError as error:
            _log.warning("the result of %s could not be kept for its key: %s", attempt.action.id, error)

    # -- refusals

    def _refuse(self, attempt: _Attempt, found: Facts | None, decision: Decision) -> ActionResult:
        index = self._record(attempt, found, decision)
        self._rooms.quotas.note_refusal(attempt.caller.agent.id)
        return results.refused(attempt.action, attempt.digest, decision, index)

    def _record(self, attempt: _Attempt, found: Facts | None, decision: Decision) -> int:
        """One DECISION record. Errors: AUDIT_UNAVAILABLE."""
        level = found.level if found is not None and found.row.executes else Level.NONE
        row = attempt.parsed.row
        record = records.decided(RecordKind.DECISION, attempt.action, attempt.digest, row, attempt.caller, decision, level)
        return self._rooms.audit.append(record).index


NOBODY = frozenset(
    {"TOKEN_INVALID", "TOKEN_EXPIRED", "SESSION_REVOKED", "AGENT_SUSPENDED", "AGENT_REVOKED", "AUDIT_UNAVAILABLE", "AUDIT_BROKEN"}
)
"""Errors that are not an answer about an action: nobody is asking, or nothing can be recorded."""

_ANSWERS = {
    ApprovalState.DENIED: ("APPROVAL_DENIED", "a person refused it"),
    ApprovalState.EXPIRED: ("APPROVAL_EXPIRED", "nobody answered in time"),
    ApprovalState.WITHDRAWN: ("APPROVAL_DENIED", "the question was withdrawn"),
    ApprovalState.CONSUMED: ("APPROVAL_DECIDED", "the approval was used already"),
}


def _attempt(
    parsed: Parsed | CohortError, request: Request, caller: Caller, action_id: ActionId, shown: tuple[str, str | None], started_s: float
) -> _Attempt:
    """Errors: those of parsing; VALUE_NOT_CANONICAL."""
    if isinstance(parsed, CohortError):
        raise parsed
    action = parsed.bind(action_id, caller)
    return _Attempt(request, parsed, caller, action, action.digest, shown, started_s)


def _denial(error: CohortError, attempt: _Attempt, rule: str, before: Decision | None = None) -> Decision:
    """A refusal by something other than the rules: what it was, with the policy and risk of the decision before it."""
    policy_hash, risk = (before.policy_hash, before.risk) if before is not None else ("", attempt.parsed.row.risk)
    return Decision(Answer.DENY, error.code, f"{error.message}{f' {error.hint}' if error.hint else ''}", (rule,), policy_hash, risk)


def _nowhere(_step: str) -> None:
    """Nobody is watching the steps."""
