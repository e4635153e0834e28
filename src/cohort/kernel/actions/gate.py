"""The action gate: one function, one order, closed at every step that fails. Nothing else touches the machine for an agent.

The order is that of the specification, 8.1: parse, authenticate, scope, invariants, policy, approval, quota, intent record, execution,
outcome record. `STEPS` names the moments between them, for tests that end the process there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.base.ids import ActionId, Entropy, new_id
from cohort.kernel.actions import catalogue, parsing, records, results
from cohort.kernel.actions.attempt import Attempt, GateSettings, Passed, Rooms, attempt_of, denial, refuse
from cohort.kernel.actions.clearance import Cleared, Executed, Executor, clear
from cohort.kernel.actions.deciding import Deciding
from cohort.kernel.actions.parsing import Parsed
from cohort.kernel.actions.policy import Policy
from cohort.kernel.actions.quotas import Reservation
from cohort.kernel.actions.unrecorded import Unrecorded
from cohort.kernel.face import Operation, Request
from cohort.kernel.model import Action, ActionResult, Caller, Outcome, Position

STEPS = ("parsed", "authenticated", "decided", "approved", "reserved", "marked", "claimed", "recorded", "executed", "ended")
__all__ = ["STEPS", "Gate", "GateSettings", "Rooms"]

_log = logging.getLogger(__name__)


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
        self._clock = clock
        self._entropy = entropy
        self._at = at or _nowhere
        self.unrecorded = Unrecorded(rooms.audit, rooms.entries, clock)
        self._deciding = Deciding(rooms, settings, self._executors.__contains__, lambda: self._at("decided"))
        for operation, executor in executors.items():
            self.register(operation, executor)

    def register(self, operation: str, executor: Executor) -> None:
        """Make `operation` of the table one that can be executed here. Errors: OPERATION_UNKNOWN."""
        self._executors[catalogue.find(operation).name] = executor

    def note_policy(self, actor: str) -> str:
        """Say in the log which policy is in force, broken or not; its hash. For the start. Errors: AUDIT_UNAVAILABLE."""
        policy = self._rooms.policies.current()
        self._log_policy(policy, actor)
        return policy.hash

    def policy_in_words(self) -> str:
        """What is in force, for people: why every action is refused, or how many rules of their own there are."""
        policy = self._rooms.policies.current()
        if policy.text is None:
            return f"every action is refused: {policy.broken}"
        count = sum(statement.own for statement in policy.text.statements)
        return f"{count} rule{'' if count == 1 else 's'} of your own, {policy.hash[:12]}"

    def reload_policy(self, actor: str) -> str:
        """Read the policy file again; the hash of what is in force then. It is in the log before it is in force.

        Raises:
            CohortError POLICY_INVALID, AUDIT_UNAVAILABLE: what was in force stays in force.
        """
        return self._rooms.policies.reload(lambda policy: self._log_policy(policy, actor)).hash

    def _log_policy(self, policy: Policy, actor: str) -> None:
        own = [statement.id for statement in policy.text.statements if statement.own] if policy.text is not None else []
        self._rooms.audit.append(records.policy(policy.hash, own, policy.broken, actor))

    def operations(self) -> Sequence[Operation]:
        return [row.operation(row.name in self._executors) for row in catalogue.ROWS.values()]

    def caller(self, token: str, *, bound_to: str | None = None) -> Caller:
        return self._rooms.identities.authenticate(token, self._settings.audience, bound_to)

    def result(self, action: ActionId) -> ActionResult:
        """As the audit log has it: without payloads."""
        return results.from_entries(action, self._rooms.entries(action))

    def own_result(self, token: str, action: ActionId, *, bound_to: str | None = None) -> ActionResult:
        """The same, for the agent whose action it was; that of another does not exist for it. Errors: those of a token; NOT_FOUND."""
        caller = self._rooms.identities.authenticate(token, self._settings.audience, bound_to)
        entries = self._rooms.entries(action)
        agents = {entry.body.get("agent") for entry in entries} - {None}
        return results.from_entries(action, entries if agents == {caller.agent.id} else [])

    def close(self) -> None:
        """Offer the log what it could not take before, once more. Nothing is to be asked afterwards."""
        self.unrecorded.stop()

    def perform(self, token: str, request: Request, *, bound_to: str | None = None) -> ActionResult:
        """Decide, record, execute, record; see `face.Actions`. A refusal, a question and a failure are answers."""
        started_s = self._clock.monotonic_s()
        parsed = self._parse(request)
        self._at("parsed")
        caller = self._rooms.identities.authenticate(token, self._settings.audience, bound_to)
        self._check_flood(caller)
        self._at("authenticated")
        action_id = ActionId(new_id("act", self._entropy))
        try:
            attempt = attempt_of(parsed, request, caller, action_id, (token, bound_to), started_s)
        except CohortError as error:
            return self._not_an_action(request, caller, action_id, error)
        try:
            known = self._former(attempt)
        except CohortError as error:
            return refuse(self._rooms, attempt, None, denial(error, attempt, "key"))
        return known if known is not None else self._decide_and_run(attempt)

    # -- 1: what was asked

    def _parse(self, request: Request) -> Parsed | CohortError:
        try:
            return parsing.parse(request)
        except CohortError as error:  # who asks is to be proven before anything is answered
            return error

    def _check_flood(self, caller: Caller) -> None:
        """One record for a flood, and none for what is refused in it. Errors: QUOTA_EXCEEDED, AUDIT_UNAVAILABLE."""
        flood = self._rooms.quotas.flood(caller.agent.id, caller.agent.limits)
        if flood is None:
            return
        if flood.first:
            self._rooms.audit.append(records.flood(caller, flood.most))
        what = f"{flood.most} attempts within a minute: nothing more is looked at"
        raise CohortError("QUOTA_EXCEEDED", what, retry=Retry.SAFE, hint="Wait a minute, then ask for less.")

    def _not_an_action(self, request: Request, caller: Caller, action_id: ActionId, error: CohortError) -> ActionResult:
        name = request.operation if isinstance(request.operation, str) else ""
        action = Action(action_id, name[:100], caller.agent.id, caller.session, "", {})
        position = self._rooms.audit.append(records.unreadable(action, caller, name, error.code, error.message))
        self._rooms.quotas.note_refusal(caller.agent.id)
        return ActionResult(
            action_id, "", Outcome.REFUSED, code=error.code, reason=error.message, hint=error.hint, decision_index=position.index
        )

    def _former(self, attempt: Attempt) -> ActionResult | None:
        """The result of the same key's former action."""
        key = attempt.request.idempotency_key
        kept = self._rooms.keys.find(attempt.action.session, key, attempt.digest) if key is not None else None
        return results.kept(kept, attempt.digest) if kept is not None else None

    # -- 3 to 6: whether it may

    def _decide_and_run(self, attempt: Attempt) -> ActionResult:
        passed = self._deciding.passed(attempt)
        if isinstance(passed, ActionResult):
            return passed
        self._at("approved")
        try:
            reservation = self._reserve(passed)
        except CohortError as error:
            return refuse(self._rooms, attempt, passed.facts, denial(error, attempt, "quota", passed.decision))
        self._at("reserved")
        return self._run_reserved(attempt, passed, reservation)

    # -- 7 to 10: do it

    def _reserve(self, passed: Passed) -> Reservation:
        return self._rooms.quotas.reserve(passed.facts)

    def _run_reserved(self, attempt: Attempt, passed: Passed, reservation: Reservation) -> ActionResult:
        """Steps 8 to 10. Whatever happens the reservation is settled; without a durable intent nothing runs."""
        cpu_us = egress_bytes = 0
        try:
            earlier = self._claim(attempt, passed)
            if earlier is not None:
                return earlier
            cleared = self._clear(attempt, passed)
            self._at("recorded")
            executed, outcome = self._marked(passed, *self._execute(cleared))
            cpu_us, egress_bytes = executed.cpu_us, executed.egress_bytes
            self._at("executed")
            return self._finish(attempt, cleared, executed, outcome)
        finally:
            self._rooms.quotas.settle(reservation, cpu_us, egress_bytes)

    def _claim(self, attempt: Attempt, passed: Passed) -> ActionResult | None:
        """What has to be true before the intent: the session is marked with what it will have read, the key is ours."""
        try:
            self._deciding.mark(passed.facts)
            self._at("marked")
            key = attempt.request.idempotency_key
            kept = self._rooms.keys.claim(attempt.action, key, attempt.digest) if key is not None else None
        except CohortError as error:
            return refuse(self._rooms, attempt, passed.facts, denial(error, attempt, "claim", passed.decision))
        self._at("claimed")
        return results.kept(kept, attempt.digest) if kept is not None else None

    def _clear(self, attempt: Attempt, passed: Passed) -> Cleared:
        try:
            return clear(self._rooms.audit, passed.facts, attempt.digest, passed.decision, passed.grant, attempt.shown)
        except CohortError as error:
            self._release(attempt)
            what = f"the intent could not be recorded, so nothing was executed: {error.message}"
            raise CohortError("AUDIT_UNAVAILABLE", what, retry=Retry.SAFE, hint="Look at the audit log's disk, then ask again.") from error

    def _release(self, attempt: Attempt) -> None:
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

    def _marked(self, passed: Passed, executed: Executed, outcome: Outcome) -> tuple[Executed, Outcome]:
        """The answer, once the session is marked with what it holds; without the mark it is withheld."""
        try:
            self._deciding.mark_after(passed.facts)
        except CohortError as error:
            what = f"it ran, and what its answer holds could not be marked: {error.message}"
            return replace(executed, result={}, code=error.code, reason=what, hint=results.LOOK_FIRST), Outcome.UNKNOWN
        return executed, outcome

    def _finish(self, attempt: Attempt, cleared: Cleared, executed: Executed, outcome: Outcome) -> ActionResult:
        """Step 10."""
        duration_us = round((self._clock.monotonic_s() - attempt.started_s) * 1e6)
        result = results.ended(cleared, attempt.digest, executed, outcome, duration_us)
        record = results.outcome_record(cleared, executed, outcome, duration_us, keep=self._settings.keep_payloads)
        try:
            position = self._rooms.audit.append(record)
        except CohortError as error:
            waits = error.retry is not Retry.NEVER and self.unrecorded.add(
                attempt.action.id, record, lambda position: self._recorded(attempt, result, executed, position)
            )
            later = "it is offered again" if waits else "it is not offered again"
            _log.error("%s was executed and its outcome could not be recorded, %s: %s", attempt.action.id, later, error)
            return results.unrecorded(result, error)
        self._at("ended")
        return self._recorded(attempt, result, executed, position)

    def _recorded(self, attempt: Attempt, result: ActionResult, executed: Executed, position: Position) -> ActionResult:
        result = replace(result, outcome_index=position.index)
        self._keep(attempt, result, executed)
        return result

    def _keep(self, attempt: Attempt, result: ActionResult, executed: Executed) -> None:
        key = attempt.request.idempotency_key
        if key is None:
            return
        try:
            self._rooms.keys.finish(attempt.action, key, results.to_json(result, executed.secrets))
        except CohortError as error:
            _log.warning("the result of %s could not be kept for its key: %s", attempt.action.id, error)


def _nowhere(_step: str) -> None:
    """Nobody is watching the steps."""
