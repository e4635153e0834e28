"""Questions and answers in the database, on either store. The port that the gate asks, and the face where people answer.

Every change is one transaction: the conditional UPDATE that makes it, then its audit record, then the commit, which is the commit point.
A change whose record could not be written is rolled back, so an answer that is not in the log cannot be used; and of callers that race only
the winner writes a record. A crash between record and commit leaves a record without effect: the question stays as it was and is asked again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.base.ids import ApprovalId, Entropy, GrantRuleId, new_id
from cohort.kernel.approvals import answers, grants, limits, records, rows, rules
from cohort.kernel.approvals.limits import ApprovalLimits
from cohort.kernel.approvals.plain import shown
from cohort.kernel.approvals.waiting import Waiting
from cohort.kernel.face import Sign
from cohort.kernel.model import Action, Approval, ApprovalState, Caller, GrantRule, Record
from cohort.kernel.ports import AuditLog, Grant, Listener, Question
from cohort.storage.database import Database

S = ApprovalState
_STORE_AWAY = {"DATABASE_UNAVAILABLE", "DATABASE_DAMAGED", "DATABASE_NEWER", "DISK_FULL"}


@dataclass(slots=True)
class _Change:
    """A transaction under way. `told`: what listeners hear about once it is committed."""

    connection: Connection
    told: list[Approval] = field(default_factory=list)
    changed: bool = False


class SqlApprovals:
    """Approvals and their rules. Safe to use from many threads and processes.

    Raises, from every method:
        CohortError APPROVALS_UNAVAILABLE: the database does not answer; nothing was granted.
        CohortError AUDIT_UNAVAILABLE: the change could not be recorded; it was not made.
        CohortError OUTCOME_UNKNOWN: look before repeating.
    """

    def __init__(self, database: Database, audit: AuditLog, clock: Clock, entropy: Entropy, settings: ApprovalLimits) -> None:
        if not 1 <= settings.approvers_needed <= limits.APPROVERS_MAX:
            what = f"{settings.approvers_needed} approvers for one action"
            raise CohortError("CONFIG_INVALID", what, field="kernel.approvers_needed", hint=f"Use 1 to {limits.APPROVERS_MAX}.")
        self._database = database
        self._audit = audit
        self._clock = clock
        self._entropy = entropy
        self._limits = settings
        self._waiting = Waiting()
        self._slots = threading.BoundedSemaphore(limits.CHANGES_AT_ONCE)
        self._writers = ThreadPoolExecutor(limits.CHANGES_AT_ONCE, "approval records")
        self._latest_us = 0

    # --- what the gate asks ---

    def ask(self, question: Question) -> Approval:
        """The approval of this digest: the one that is pending, or approved and unused, or denied a moment ago; else a new question.

        Raises:
            CohortError APPROVALS_FULL: people are asked enough already.
        """
        now_us, digest = self._now_us(), question.action.digest
        with self._change() as change:
            self._database.lock(change.connection, "approvals ask")
            known = self._known(change, digest, question.policy_hash, now_us)
            if known is not None:
                return known
            asked = rows.asked(change.connection, question.action, question.task, now_us)
            rules.check_budget(asked, self._limits)
            approval = answers.asked(ApprovalId(new_id("ap", self._entropy)), question, self._limits, now_us)
            rows.add(change.connection, approval)
            self._append(records.asked(approval))
            change.told.append(approval)
            return approval

    def consume(self, action: Action, policy_hash: str, task: str | None) -> Grant | None:
        """Use up the grant of this very digest under this policy, or one use of a rule that matches; None when there is none.

        Exactly one caller gets a single grant. Once it was taken it is gone, even if the process dies before the action runs.
        """
        now_us = self._now_us()
        with self._reading() as connection:  # most actions that ask have no grant yet: no write for those
            found = self._granted(connection, action.digest, policy_hash, now_us)
            usable = any(grants.matches(rule, action, task, now_us) for rule in self._rules_for(connection, action, now_us))
        if found is None and not usable:
            return None
        with self._change() as change:
            single = self._consume_single(change, action, policy_hash, now_us)
            return single if single is not None else self._consume_rule(change, action, task, now_us)

    def wait(self, approval: ApprovalId, wait_s: float) -> Approval:
        """The approval once it is decided, or as it is after `wait_s`, at most 300 s. Errors: APPROVAL_UNKNOWN."""
        return self._waiting.until_decided(approval, wait_s, lambda: self.find(approval))

    # --- where people answer ---

    def find(self, approval: ApprovalId) -> Approval:
        """As of now: what is past its time is expired. Errors: APPROVAL_UNKNOWN."""
        with self._reading() as connection:
            found = rows.find(connection, approval)
        return rules.as_of(_known(found, approval), self._now_us())

    def list(self, state: ApprovalState | None = None, limit: int = 100) -> Sequence[Approval]:
        """The newest first, at most 500."""
        now_us = self._now_us()
        with self._reading() as connection:
            found = rows.listed(connection, state, now_us, max(1, min(limit, limits.LIST_MAX)))
        return [rules.as_of(each, now_us) for each in found]

    def preview(self, approval: ApprovalId, sign: Sign) -> str:
        """What `sign` would permit, in the words that the rule will carry. Errors: APPROVAL_UNKNOWN, FIELD_INVALID."""
        found = self.find(approval)
        return grants.in_words(found, grants.terms_of(found, sign, self._limits), self._now_us())

    def approve(self, approval: ApprovalId, sign: Sign) -> Approval:
        """A yes. Errors: those of the face, FIELD_INVALID (wider than what was shown), APPROVALS_FULL (too many rules)."""
        return self._answer(approval, sign, S.APPROVED)

    def deny(self, approval: ApprovalId, sign: Sign) -> Approval:
        """A no; one is enough, whatever others said."""
        return self._answer(approval, sign, S.DENIED)

    def withdraw(self, approval: ApprovalId, caller: Caller) -> Approval:
        """The agent does not need it any more; also an answer that it has not used. Another agent's is APPROVAL_UNKNOWN."""
        now_us = self._now_us()
        with self._change() as change:
            found = rows.find(change.connection, approval, hold=True)
            mine = found if found is not None and found.action.agent == caller.agent.id else None
            current = rules.as_of(_known(mine, approval), now_us)
            if current.state is not S.APPROVED:
                rules.check_open(current)
            return self._end(change, current, S.WITHDRAWN, "withdrawn by the agent", caller.agent.name, now_us)

    def rules(self) -> Sequence[GrantRule]:
        """The newest 500, with those that were revoked or have ended."""
        with self._reading() as connection:
            return rows.all_rules(connection, limits.LIST_MAX)

    def revoke_rule(self, rule: GrantRuleId, actor: str) -> GrantRule:
        """From now on it covers nothing, nor does the answer it came from. Again: changes nothing. Errors: NOT_FOUND."""
        now_us = self._now_us()
        with self._change() as change:
            found = rows.find_rule(change.connection, rule, hold=True)
            if found is None:
                raise CohortError("NOT_FOUND", f"there is no rule {rule}", hint="List the rules to see their ids.")
            if not rows.revoke_rule(change.connection, rule, now_us):
                return found
            revoked = replace(found, revoked_us=now_us)
            self._append(records.rule_revoked(revoked, actor))
            change.changed = True
            origin = rows.of_rule(change.connection, rule)
            if origin is not None and rules.as_of(origin, now_us).state is S.APPROVED:
                self._end(change, origin, S.WITHDRAWN, f"rule {rule} was revoked", actor, now_us)
            return revoked

    def version(self) -> int:
        """Grows with every change, whichever process made it."""
        with self._reading() as connection:
            return rows.version(connection)

    def listen(self, listener: Listener) -> None:
        """Tell `listener` about every change made by this process, after it is durable."""
        self._waiting.listen(listener)

    def sweep(self) -> int:
        """Write down what has expired, at most 100; says how many. Expiry itself does not wait for this."""
        now_us = self._now_us()
        with self._reading() as connection:
            due = rows.past_their_time(connection, now_us, limits.SWEPT_AT_ONCE)
        return sum(self._expire(each, now_us) for each in due)

    # --- inside ---

    def _known(self, change: _Change, digest: str, policy_hash: str, now_us: int) -> Approval | None:
        """The former question that still is the answer. One that is not, and is written down as pending, is ended."""
        pending = rows.newest(change.connection, digest, (S.PENDING,))
        if pending is not None:
            current = rules.as_of(pending, now_us)
            if current.state is S.PENDING and current.policy_hash == policy_hash:
                return current
            state, why = (S.EXPIRED, "no answer in time") if current.state is S.EXPIRED else (S.WITHDRAWN, "the policy has changed")
            self._end(change, pending, state, why, "kernel", now_us)
            return None
        return self._granted(change.connection, digest, policy_hash, now_us) or self._refused(change.connection, digest, now_us)

    def _granted(self, connection: Connection, digest: str, policy_hash: str, now_us: int) -> Approval | None:
        found = rows.newest(connection, digest, (S.APPROVED,))
        usable = found is not None and found.policy_hash == policy_hash and rules.as_of(found, now_us).state is S.APPROVED
        return found if usable else None

    def _refused(self, connection: Connection, digest: str, now_us: int) -> Approval | None:
        found = rows.newest(connection, digest, (S.DENIED,))
        fresh = found is not None and found.decided_us is not None and found.decided_us + self._limits.refused_us > now_us
        return found if fresh else None

    def _rules_for(self, connection: Connection, action: Action, now_us: int) -> Sequence[GrantRule]:
        return rows.rules_in_force(connection, action.agent, now_us, action.operation)

    def _consume_single(self, change: _Change, action: Action, policy_hash: str, now_us: int) -> Grant | None:
        found = self._granted(change.connection, action.digest, policy_hash, now_us)
        if found is None:
            return None
        used = replace(found, state=S.CONSUMED)
        if not rows.move(change.connection, used, S.APPROVED, action.id):
            return None  # somebody else was faster
        self._append(records.consumed(used, action.id))
        change.told.append(used)
        return Grant(used.id, None, used.approvers)

    def _consume_rule(self, change: _Change, action: Action, task: str | None, now_us: int) -> Grant | None:
        for rule in self._rules_for(change.connection, action, now_us):
            if grants.matches(rule, action, task, now_us) and rows.use_rule(change.connection, rule, now_us):
                left = None if rule.uses_left is None else rule.uses_left - 1
                used = replace(rule, uses_left=left)
                self._append(records.rule_used(used, action))
                change.changed = True
                origin = rows.of_rule(change.connection, rule.id)
                return Grant(None, used, origin.approvers if origin else (rule.created_by,))
        return None

    def _answer(self, approval: ApprovalId, sign: Sign, answer: ApprovalState) -> Approval:
        now_us, note = self._now_us(), shown(sign.note, limits.NOTE_CHARS_MAX)
        with self._change() as change:
            current = rules.as_of(_known(rows.find(change.connection, approval, hold=True), approval), now_us)
            rules.check_open(current)
            rules.check_approver(sign.approver, current, current.approvers)
            if answer is S.APPROVED and current.approvers_needed > 1:
                rules.check_not_by_hand(sign.approver, rows.opened_by(change.connection, current.action.session))
            vote = answers.vote_of(current, sign, answer, self._limits, now_us)
            rows.add_vote(change.connection, approval, vote)
            after, rule = self._after(change, current, now_us)
            after = replace(after, note=note)
            if not rows.move(change.connection, after, S.PENDING):
                raise CohortError("APPROVAL_DECIDED", f"{approval} was decided a moment ago", hint="Look at it.")
            if rule is not None:
                rows.add_rule(change.connection, rule)
            self._append(records.answered(after, vote, note, rule))
            change.told.append(after)
            return after

    def _after(self, change: _Change, approval: Approval, now_us: int) -> tuple[Approval, GrantRule | None]:
        """The approval after the votes that are cast by now, and the rule that it leaves, for which there has to be room."""
        cast = rows.votes_of(change.connection, [approval.id]).get(approval.id, ())
        after, rule = answers.counted(approval, cast, GrantRuleId(new_id("gr", self._entropy)), self._limits, now_us)
        if rule is not None:
            self._check_room(change.connection, rule, now_us)
        return after, rule

    def _check_room(self, connection: Connection, rule: GrantRule, now_us: int) -> None:
        used = len(rows.rules_in_force(connection, rule.agent, now_us))
        if used >= self._limits.rules_per_agent:
            what = f"agent {rule.agent} has {used} rules, {self._limits.rules_per_agent} are the limit"
            raise CohortError("APPROVALS_FULL", what, hint="Revoke rules that nobody needs, or approve once.")

    def _end(self, change: _Change, approval: Approval, state: ApprovalState, why: str, by: str, now_us: int) -> Approval:
        """Expired or withdrawn."""
        was = approval.state
        ended = replace(approval, state=state, decided_us=approval.decided_us if was is S.APPROVED else now_us)
        if not rows.move(change.connection, ended, was):
            raise CohortError("APPROVAL_DECIDED", f"{approval.id} was decided a moment ago", hint="Look at it.")
        self._append(records.ended(ended, why, by))
        change.told.append(ended)
        return ended

    def _expire(self, approval: Approval, now_us: int) -> bool:
        why = "no answer in time" if approval.state is S.PENDING else "approved, and not used in time"
        with self._change() as change:
            current = rows.find(change.connection, approval.id, hold=True)
            if current is None or current.state is not approval.state:
                return False
            self._end(change, current, S.EXPIRED, why, "kernel", now_us)
            return True

    def _append(self, record: Record) -> None:
        """From a thread of its own: this one has a transaction open, and the log may have to open another in the same database."""
        self._writers.submit(self._audit.append, record).result()

    def _now_us(self) -> int:
        """The clock, never earlier than it was: one that is set back does not revive what has expired."""
        self._latest_us = max(self._latest_us, self._clock.now_us())
        return self._latest_us

    @contextmanager
    def _change(self) -> Iterator[_Change]:
        with self._slots, _in_our_words(), self._database.write() as connection:
            change = _Change(connection)
            yield change
            if change.told or change.changed:
                rows.grow_version(self._database, connection)
        for approval in change.told:
            self._waiting.tell(approval)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _in_our_words(), self._database.read() as connection:
            yield connection


@contextmanager
def _in_our_words() -> Iterator[None]:
    """A store that is away grants nothing."""
    try:
        yield
    except CohortError as error:
        if error.code not in _STORE_AWAY:
            raise
        what = f"approvals cannot be read or written: {error.message}"
        raise CohortError("APPROVALS_UNAVAILABLE", what, retry=Retry.SAFE, hint=error.hint) from error


def _known(found: Approval | None, approval: ApprovalId) -> Approval:
    if found is None:
        raise CohortError("APPROVAL_UNKNOWN", f"there is no approval {approval[:60]!r}", hint="List the approvals to see their ids.")
    return found
