"""Whatever is asked, answered, used, revoked and let pass in whatever order: nothing runs that nobody approved, and nothing twice."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.base.ids import AgentSessionId
from cohort.kernel.approvals.rules import NEXT, tally
from cohort.kernel.model import ApprovalState, GrantScope
from migrated_database import migrated
from support_approvals import POLICY, MemoryAudit, action, desk, question, sign

PATHS = st.sampled_from(["a", "a", "b"])
SESSIONS = st.sampled_from(["se_1", "se_1", "se_1", "se_2"])
POLICIES = st.sampled_from([POLICY, POLICY, POLICY, "2" * 64])
PEOPLE = st.sampled_from(["anna", "berta", "anna", "berta", "builder"])
RARELY = st.sampled_from([False, False, False, False, True])
GRANTS = st.sampled_from([GrantScope.ONCE, GrantScope.SESSION, GrantScope.STANDING])
S = ApprovalState
WEIGHTS = {"use": 8, "answer": 6, "ask": 3, "pass_time": 1, "sweep": 1, "revoke": 1}
KINDS = st.sampled_from([kind for kind, weight in WEIGHTS.items() for _ in range(weight)])


class Desks(RuleBasedStateMachine):
    """Two desks on one database, held against what people said."""

    count: ClassVar[Counter[str]] = Counter()

    @initialize(needed=st.integers(1, 2))
    def open(self, needed):
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # thousands of commits, none of which has to outlive this test
        self.folder = tempfile.TemporaryDirectory(dir=memory)
        self.database = migrated(Path(self.folder.name) / "cohort.db")
        self.clock, self.audit, self.needed = ManualClock(), MemoryAudit(), needed
        self.desks = [
            desk(self.database, self.clock, self.audit, seed, approvers_needed=needed, unused_us=60_000_000) for seed in ("x", "y")
        ]
        self.asked, self.yes, self.no, self.used, self.rule_uses, self.over, self.refusals = {}, {}, set(), {}, {}, set(), set()

    def teardown(self):
        if hasattr(self, "folder"):
            self.database.close()
            self.folder.cleanup()

    def attempt(self, path, session):
        return action(
            "files.write", f"ws_1/{path}", session=AgentSessionId(session), path=path, content="", encoding="utf-8", mode="replace"
        )

    @rule(data=st.data(), kind=KINDS)
    def step(self, data, kind):
        """One rule with weights of its own: hypothesis would leave out whole kinds, and most runs would reach no use at all."""
        getattr(self, kind if self.asked else "ask")(data.draw)

    def ask(self, draw):
        attempt = self.attempt(draw(PATHS), draw(SESSIONS))
        answer = draw(st.sampled_from(self.desks)).ask(question(attempt, policy=draw(POLICIES)))
        self.asked[answer.id] = answer

    def answer(self, draw):
        approval, person, grant, no, away = draw(self.some()).id, draw(PEOPLE), draw(GRANTS), draw(RARELY), draw(RARELY)
        before = self.desks[0].find(approval).state
        uses = draw(st.sampled_from([None, 2])) if grant is not GrantScope.ONCE else None
        self.audit.away = away
        try:
            verb = self.desks[1].deny if no else self.desks[0].approve
            verb(approval, sign(person, grant, uses=uses))
        except CohortError as error:
            self.refusals.add(error.code)
        else:
            assert (before, away) == (S.PENDING, False)
            assert person != "builder"
            self.no.add(approval) if no else self.yes.setdefault(approval, set()).add(person)
        finally:
            self.audit.away = False

    def use(self, draw):
        known = draw(self.some())
        path = draw(PATHS) if draw(RARELY) else known.action.arguments["path"]
        session = draw(SESSIONS) if draw(RARELY) else known.action.session
        policy = draw(POLICIES) if draw(RARELY) else known.policy_hash
        attempt = self.attempt(path, session)
        grant = draw(st.sampled_from(self.desks)).consume(attempt, policy, None)
        if grant is not None:
            self.count["single" if grant.approval else "rule"] += 1
            source = self.check_single(grant, attempt, policy) if grant.approval else self.check_rule(grant, attempt)
            assert source.id not in self.no
            assert len(self.yes[source.id]) >= self.needed

    def check_single(self, grant, attempt, policy):
        source = self.asked[grant.approval]
        assert (source.digest, source.policy_hash) == (attempt.digest, policy)
        assert grant.approval not in self.used, "a single approval was used twice"
        self.used[grant.approval] = attempt.id
        return source

    def check_rule(self, grant, attempt):
        [source] = [each for each in self.desks[0].list(limit=500) if each.rule == grant.rule.id]
        assert grant.rule.id not in self.over
        assert (source.action.operation, source.action.resource) == (attempt.operation, attempt.resource)
        assert grant.rule.grant is GrantScope.STANDING or source.action.session == attempt.session
        self.rule_uses[grant.rule.id] = self.rule_uses.get(grant.rule.id, 0) + 1
        return source

    def revoke(self, draw):
        rules = [each.id for each in self.desks[0].rules()]
        if rules:
            chosen = draw(st.sampled_from(rules))
            self.desks[1].revoke_rule(chosen, "anna")
            self.over.add(chosen)

    def pass_time(self, draw):
        self.clock.advance(draw(st.sampled_from([1, 20, 60, 900])))

    def sweep(self, draw):
        self.desks[0].sweep()

    def some(self):
        """One of the questions, the newest first."""
        return st.sampled_from(list(self.asked.values())[::-1])

    @invariant()
    def states_only_move_forward_and_every_change_is_recorded(self):
        if not hasattr(self, "seen"):
            self.seen = {}
        if not hasattr(self, "desks"):
            return
        for approval in self.desks[0].list(limit=500):
            was = self.seen.get(approval.id, S.PENDING)
            path = {was} | NEXT[was] | {later for next_state in NEXT[was] for later in NEXT[next_state]}
            assert approval.state in path
            self.seen[approval.id] = approval.state
        assert self.refusals <= {"APPROVAL_DECIDED", "APPROVAL_EXPIRED", "APPROVER_REFUSED", "AUDIT_UNAVAILABLE"}
        events = self.audit.events
        assert events.count("consumed") == len(self.used)
        assert events.count("rule_used") == sum(self.rule_uses.values())
        limited = {each.id for each in self.desks[0].rules() if each.uses_left is not None}
        assert all(count <= 1 for rule_id, count in self.rule_uses.items() if rule_id in limited)


def test_nothing_runs_unapproved_or_twice_in_any_order():
    machine = Desks.TestCase
    machine.settings = settings(max_examples=35, stateful_step_count=30, deadline=None, phases=[Phase.generate])
    machine("runTest").runTest()
    assert min(Desks.count["single"], Desks.count["rule"]) > 5, Desks.count  # else the machine would have shown nothing


@given(st.integers(1, 5), st.lists(st.sampled_from([S.APPROVED, S.DENIED])))
def test_votes_make_a_yes_only_of_enough_and_of_no_no(needed, answers):
    state = tally(needed, answers)
    assert (state is S.APPROVED) == (S.DENIED not in answers and len(answers) >= needed)
    assert (state is S.DENIED) == (S.DENIED in answers)


@pytest.mark.parametrize("state", list(S))
def test_no_state_leads_back_to_a_question(state):
    assert S.PENDING not in NEXT[state]
    assert (S.CONSUMED in NEXT[state]) == (state is S.APPROVED)
