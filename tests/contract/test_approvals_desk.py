"""Approvals on each store: asked, answered, used up once, and never usable without a record."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial

import pytest

from cohort.base.errors import CohortError
from cohort.base.ids import AgentId, AgentSessionId
from cohort.kernel.approvals.desk_sql import SqlApprovals
from cohort.kernel.model import Agent, AgentState, ApprovalState, Autonomy, Caller, GrantScope, Limits
from cohort.storage.database import open_database
from cohort.storage.schema import metadata
from support_approvals import AGENT, POLICY, SESSION, WORKSPACE, MemoryAudit, action, desk, question, sign, writing

MINUTE_S = 60
OTHER_POLICY = "2" * 64


@pytest.fixture
def audit() -> MemoryAudit:
    return MemoryAudit()


@pytest.fixture
def approvals(database, clock, audit) -> SqlApprovals:
    return desk(database, clock, audit)


def error_of(call, *arguments):
    with pytest.raises(CohortError) as caught:
        call(*arguments)
    return caught.value


def caller(agent: str = AGENT) -> Caller:
    made = Agent(AgentId(agent), "builder", AgentState.ACTIVE, (), Autonomy.STANDARD, Limits(), (), None, 0, "anna")
    return Caller(made, SESSION, "tk_0", (), 0)


def test_what_nobody_has_approved_is_not_granted(approvals, audit):
    assert approvals.consume(action(), POLICY, None) is None
    asked = approvals.ask(question(action()))
    assert (asked.state, asked.asked_by, asked.approvers) == (ApprovalState.PENDING, "builder", ())
    assert approvals.consume(action(), POLICY, None) is None
    assert audit.events == ["asked"]


def test_an_approval_is_used_up_by_one_action_and_by_no_second(approvals, audit):
    asked = approvals.ask(question(action()))
    approved = approvals.approve(asked.id, sign("anna", note="go on", looked_ms=2300))
    assert (approved.state, approved.approvers, approved.note) == (ApprovalState.APPROVED, ("anna",), "go on")
    first = action()
    grant = approvals.consume(first, POLICY, None)
    assert (grant.approval, grant.rule, grant.approvers) == (asked.id, None, ("anna",))
    assert approvals.consume(action(), POLICY, None) is None
    assert approvals.find(asked.id).state is ApprovalState.CONSUMED
    assert audit.events == ["asked", "answered", "consumed"]
    assert audit.records[1].body["looked_ms"] == 2300
    assert audit.records[2].action == first.id


def test_the_same_question_is_asked_once(approvals, audit):
    first = approvals.ask(question(action()))
    assert approvals.ask(question(action())) == first
    assert approvals.ask(question(action(argv=["git", "push", "--force"]))).id != first.id
    assert audit.events == ["asked", "asked"]


def test_an_answer_is_only_for_the_arguments_the_agent_and_the_session_it_was_given_for(approvals):
    asked = approvals.ask(question(action()))
    approvals.approve(asked.id, sign())
    for other in (
        action(argv=["git", "push", "origin", "main", "--force"]),
        action(agent=AgentId("ag_other")),
        action(session=AgentSessionId("se_other")),
        action(resource="git2"),
        action("process.start"),
        replace(action(), schema_version=2),
    ):
        assert approvals.consume(other, POLICY, None) is None
    assert approvals.consume(action(), POLICY, None) is not None


def test_an_answer_under_another_policy_is_not_used(approvals):
    asked = approvals.ask(question(action()))
    approvals.approve(asked.id, sign())
    assert approvals.consume(action(), OTHER_POLICY, None) is None
    again = approvals.ask(question(action(), policy=OTHER_POLICY))
    assert again.id != asked.id
    assert again.state is ApprovalState.PENDING


def test_a_question_under_a_former_policy_is_withdrawn_when_it_is_asked_anew(approvals, audit):
    first = approvals.ask(question(action()))
    second = approvals.ask(question(action(), policy=OTHER_POLICY))
    assert approvals.find(first.id).state is ApprovalState.WITHDRAWN
    assert second.state is ApprovalState.PENDING
    assert audit.events == ["asked", "withdrawn", "asked"]


def test_no_is_no_and_is_not_asked_again_at_once(approvals, clock):
    asked = approvals.ask(question(action()))
    denied = approvals.deny(asked.id, sign("anna", note="not today"))
    assert (denied.state, denied.approvers) == (ApprovalState.DENIED, ("anna",))
    assert approvals.consume(action(), POLICY, None) is None
    assert approvals.ask(question(action())) == denied
    clock.advance(10 * MINUTE_S)
    assert approvals.ask(question(action())).state is ApprovalState.PENDING


def test_no_answer_in_time_is_a_no(approvals, audit, clock):
    asked = approvals.ask(question(action()))
    clock.advance(15 * MINUTE_S)
    assert approvals.find(asked.id).state is ApprovalState.EXPIRED
    assert approvals.list(ApprovalState.PENDING) == []
    assert [each.id for each in approvals.list(ApprovalState.EXPIRED)] == [asked.id]
    assert error_of(approvals.approve, asked.id, sign()).code == "APPROVAL_EXPIRED"
    assert approvals.ask(question(action())).id != asked.id
    assert audit.events == ["asked", "expired", "asked"]


def test_an_answer_that_is_not_used_in_time_is_lost(approvals, audit, clock):
    asked = approvals.ask(question(action()))
    approvals.approve(asked.id, sign())
    clock.advance(10 * MINUTE_S)
    assert approvals.consume(action(), POLICY, None) is None
    assert approvals.find(asked.id).state is ApprovalState.EXPIRED
    assert approvals.sweep() == 1
    assert approvals.sweep() == 0
    assert audit.events[-1] == "expired"


def test_a_clock_that_is_set_back_revives_nothing(database, clock, audit):
    class Back:
        shift_us = 0

        def now_us(self):
            return clock.now_us() - self.shift_us

        def monotonic_s(self):
            return clock.monotonic_s()

    back = Back()
    approvals = desk(database, back, audit)
    asked = approvals.ask(question(action()))
    clock.advance(16 * MINUTE_S)
    assert approvals.find(asked.id).state is ApprovalState.EXPIRED
    back.shift_us = 10 * MINUTE_S * 1_000_000
    assert approvals.find(asked.id).state is ApprovalState.EXPIRED


@pytest.mark.parametrize(
    "name",
    [
        "builder",
        "Builder ",
        "BUILDER",
        AGENT,
        "ag_another0000000",
        "agent:x",
        "spiffe://cohort.local/agent/x",
        "",
        " ",
        "\u3000",
        "a\nb",
        "x" * 64,
    ],
)
def test_who_asked_or_is_an_agent_or_nobody_cannot_answer(approvals, name):
    asked = approvals.ask(question(action()))
    assert error_of(approvals.approve, asked.id, sign(name)).code == "APPROVER_REFUSED"
    assert error_of(approvals.deny, asked.id, sign(name)).code == "APPROVER_REFUSED"
    assert approvals.find(asked.id) == asked


def test_what_is_decided_stays_decided(approvals):
    asked = approvals.ask(question(action()))
    approvals.deny(asked.id, sign())
    for verb in (approvals.approve, approvals.deny):
        error = error_of(verb, asked.id, sign("berta"))
        assert (error.code, error.details["state"]) == ("APPROVAL_DECIDED", "denied")
    for verb in (approvals.approve, approvals.deny):
        assert error_of(verb, "ap_none", sign()).code == "APPROVAL_UNKNOWN"
    assert error_of(approvals.find, "ap_none").code == "APPROVAL_UNKNOWN"
    assert error_of(approvals.wait, "ap_none", 0).code == "APPROVAL_UNKNOWN"


def test_two_approvers_have_to_be_two_people(database, clock, audit):
    approvals = desk(database, clock, audit, approvers_needed=2)
    asked = approvals.ask(question(action()))
    assert approvals.approve(asked.id, sign("anna")).state is ApprovalState.PENDING
    assert approvals.consume(action(), POLICY, None) is None
    for same in ("anna", "ANNA", "Ａnna"):
        assert error_of(approvals.approve, asked.id, sign(same)).code == "APPROVER_REFUSED"
    assert approvals.approve(asked.id, sign("berta")).state is ApprovalState.APPROVED
    assert approvals.consume(action(), POLICY, None).approvers == ("anna", "berta")


def test_who_acts_by_hand_is_not_one_of_two_approvers(database, clock, audit):
    approvals = desk(database, clock, audit, approvers_needed=2)
    sessions, agents = metadata.tables["agent_sessions"], metadata.tables["agents"]
    agent = {
        "id": AGENT,
        "name": "builder",
        "state": "active",
        "scopes": [],
        "autonomy": "standard",
        "limits": {},
        "egress": [],
        "workspace": None,
    }
    agent |= {"created_us": 0, "created_by": "anna", "changed_us": 0, "description": ""}
    common = {"agent": AGENT, "scopes": [], "actors": [], "created_us": 0, "expires_us": 1, "untrusted": False, "private": False}
    with database.write() as connection:
        connection.execute(agents.insert().values(agent))
        connection.execute(sessions.insert().values(id="se_above", parent=None, created_by="Anna", **common))
        connection.execute(sessions.insert().values(id=SESSION, parent="se_above", created_by=AGENT, **common))
    asked = approvals.ask(question(action()))
    refused = error_of(approvals.approve, asked.id, sign("anna"))
    assert (refused.code, "by hand" in refused.message) == ("APPROVER_REFUSED", True)
    assert approvals.approve(asked.id, sign("bert")).state is ApprovalState.PENDING
    assert approvals.approve(asked.id, sign("cleo")).state is ApprovalState.APPROVED


def test_one_no_outweighs_a_yes(database, clock, audit):
    approvals = desk(database, clock, audit, approvers_needed=2)
    asked = approvals.ask(question(action()))
    approvals.approve(asked.id, sign("anna"))
    assert approvals.deny(asked.id, sign("berta")).state is ApprovalState.DENIED


def test_approvers_who_differ_on_how_far_it_reaches_have_agreed_to_once(database, clock, audit):
    approvals = desk(database, clock, audit, approvers_needed=2)
    asked = approvals.ask(question(action()))
    approvals.approve(asked.id, sign("anna", GrantScope.STANDING))
    approved = approvals.approve(asked.id, sign("berta", GrantScope.SESSION))
    assert (approved.grant, approved.rule) == (GrantScope.ONCE, None)
    assert approvals.rules() == []


def test_the_agent_can_withdraw_its_own_question_and_no_other(approvals):
    asked = approvals.ask(question(action()))
    assert error_of(approvals.withdraw, asked.id, caller("ag_other")).code == "APPROVAL_UNKNOWN"
    assert approvals.withdraw(asked.id, caller()).state is ApprovalState.WITHDRAWN
    assert error_of(approvals.withdraw, asked.id, caller()).code == "APPROVAL_DECIDED"
    assert error_of(approvals.approve, asked.id, sign()).code == "APPROVAL_DECIDED"


def test_a_withdrawn_answer_is_not_usable(approvals):
    asked = approvals.ask(question(action()))
    approvals.approve(asked.id, sign())
    approvals.withdraw(asked.id, caller())
    assert approvals.consume(action(), POLICY, None) is None


# --- wider grants ---


def approved(approvals, about, grant, **more):
    """The rule that a wider approval of `about` leaves, with its own action done."""
    asked = approvals.ask(question(about, task=more.pop("task", None)))
    decided = approvals.approve(asked.id, sign("anna", grant, **more))
    [rule] = [each for each in approvals.rules() if each.id == decided.rule]
    assert approvals.consume(about, POLICY, asked.task).approval == asked.id
    return rule


def test_a_session_grant_covers_the_same_action_again_in_that_session_only(approvals, audit):
    rule = approved(approvals, action(), GrantScope.SESSION)
    grant = approvals.consume(action(), POLICY, None)
    assert (grant.approval, grant.rule.id, grant.approvers) == (None, rule.id, ("anna",))
    assert approvals.consume(action(argv=["git", "push", "--force"]), POLICY, None) is None
    assert approvals.consume(action(session=AgentSessionId("se_other")), POLICY, None) is None
    assert approvals.consume(action(), OTHER_POLICY, None) is not None
    assert audit.events[-1] == "rule_used"


def test_a_standing_grant_ends_with_its_uses(approvals):
    approved(approvals, action(), GrantScope.STANDING, uses=3)
    other = AgentSessionId("se_other")
    assert [bool(approvals.consume(action(session=other), POLICY, None)) for _ in range(3)] == [True, True, False]
    assert approvals.rules()[0].uses_left == 0


def test_a_standing_grant_ends_with_its_life(approvals, clock):
    approved(approvals, action(), GrantScope.STANDING, life_s=60)
    assert approvals.consume(action(), POLICY, None) is not None
    clock.advance(60)
    assert approvals.consume(action(), POLICY, None) is None


def test_a_task_grant_needs_the_task(approvals):
    approved(approvals, action(), GrantScope.TASK, task="release 4")
    assert approvals.consume(action(), POLICY, None) is None
    assert approvals.consume(action(), POLICY, "release 5") is None
    assert approvals.consume(action(session=AgentSessionId("se_other")), POLICY, "release 4") is not None


def test_a_pattern_covers_a_folder_whatever_is_written(approvals):
    rule = approved(approvals, writing("src/a.py"), GrantScope.SESSION, resource=f"{WORKSPACE}/src/**")
    assert "src/**" in rule.plain
    assert approvals.consume(writing("src/deep/b.py", "other"), POLICY, None) is not None
    assert approvals.consume(writing("README.md"), POLICY, None) is None
    appended = replace(writing("src/a.py"), arguments={**writing("src/a.py").arguments, "mode": "append"})
    assert approvals.consume(appended, POLICY, None) is None


def test_a_command_grant_by_first_words_covers_those_words_and_the_same_surroundings(approvals):
    rule = approved(approvals, action(cwd="", network=False), GrantScope.SESSION, argv_prefix=("git", "push"))
    assert "`git push`" in rule.plain
    assert approvals.consume(action(argv=["git", "push", "other"], cwd="", network=False), POLICY, None) is not None
    assert approvals.consume(action(argv=["git", "pull"], cwd="", network=False), POLICY, None) is None
    assert approvals.consume(action(argv=["git", "push", "other"], cwd="", network=True), POLICY, None) is None


@pytest.mark.parametrize(
    ("about", "more", "field"),
    [
        (action(), {"resource": "*"}, "resource"),
        (action(), {"resource": "git/**"}, "resource"),
        (action(), {"argv_prefix": ()}, "argv_prefix"),
        (action(), {"argv_prefix": ("git", "pull")}, "argv_prefix"),
        (action(network=True), {"argv_prefix": ("git",)}, "argv_prefix"),
        (action(argv=["/bin/bash", "-c", "ls"], resource="/bin/bash"), {"argv_prefix": ("/bin/bash",)}, "argv_prefix"),
        (action(argv=["python3.11", "x.py"], resource="python3.11"), {"argv_prefix": ("python3.11",)}, "argv_prefix"),
        (writing("src/a.py"), {"argv_prefix": ("git",)}, "argv_prefix"),
        (writing("src/a.py"), {"resource": "*"}, "resource"),
        (writing("src/a.py"), {"resource": "/**"}, "resource"),
        (writing("src/a.py"), {"resource": "**"}, "resource"),
        (writing("src/a.py"), {"resource": "ws_another0000000000/**"}, "resource"),
        (writing("src/a.py"), {"resource": f"{WORKSPACE}/docs/**"}, "resource"),
        (action(), {"life_s": 0}, "life_s"),
        (action(), {"life_s": float("nan")}, "life_s"),
        (action(), {"life_s": 86_401}, "life_s"),
        (action(), {"uses": 0}, "uses"),
        (action(), {"uses": 1}, "uses"),
    ],
)
def test_a_grant_wider_than_what_was_shown_is_refused(approvals, about, more, field):
    asked = approvals.ask(question(about))
    error = error_of(approvals.approve, asked.id, sign("anna", GrantScope.SESSION, **more))
    assert (error.code, error.field) == ("FIELD_INVALID", field)
    assert approvals.find(asked.id).state is ApprovalState.PENDING


def test_terms_with_a_single_approval_and_a_task_grant_without_a_task_are_refused(approvals):
    asked = approvals.ask(question(writing("src/a.py")))
    wide = sign("anna", GrantScope.ONCE, resource=f"{WORKSPACE}/src/**")
    assert error_of(approvals.approve, asked.id, wide).field == "grant"
    assert error_of(approvals.approve, asked.id, sign("anna", GrantScope.TASK)).field == "grant"


def test_a_rule_is_shown_in_the_words_it_will_carry(approvals):
    asked = approvals.ask(question(action()))
    wide = sign("anna", GrantScope.STANDING, argv_prefix=("git",), uses=5)
    words = approvals.preview(asked.id, wide)
    assert words == (
        "terminal.run: any command that begins with `git`, whatever follows. "
        "Without asking again, in every session, until 2023-12-14 22:13 UTC, 5 times, this one included."
    )
    approvals.approve(asked.id, wide)
    assert approvals.rules()[0].plain == words


def test_a_revoked_rule_covers_nothing_nor_does_its_answer(approvals, audit):
    asked = approvals.ask(question(action()))
    decided = approvals.approve(asked.id, sign("anna", GrantScope.STANDING))
    revoked = approvals.revoke_rule(decided.rule, "berta")
    assert revoked.revoked_us is not None
    assert approvals.consume(action(), POLICY, None) is None
    assert approvals.find(asked.id).state is ApprovalState.WITHDRAWN
    assert approvals.revoke_rule(decided.rule, "berta") == revoked
    assert audit.events == ["asked", "answered", "rule_revoked", "withdrawn"]
    assert error_of(approvals.revoke_rule, "gr_none", "berta").code == "NOT_FOUND"


def test_rules_of_one_agent_are_limited(database, clock, audit):
    approvals = desk(database, clock, audit, rules_per_agent=1)
    approved(approvals, action(), GrantScope.SESSION)
    asked = approvals.ask(question(writing("a")))
    assert error_of(approvals.approve, asked.id, sign("anna", GrantScope.SESSION)).code == "APPROVALS_FULL"
    assert approvals.approve(asked.id, sign("anna")).state is ApprovalState.APPROVED


# --- budgets ---


@pytest.mark.parametrize(
    ("budget", "task"),
    [("pending_per_session", None), ("pending_per_task", "t"), ("pending_in_total", None), ("asked_per_session_hour", None)],
)
def test_people_are_not_asked_more_than_the_budget(database, clock, audit, budget, task):
    approvals = desk(database, clock, audit, **{budget: 2})
    for name in ("a", "b"):
        approvals.ask(question(writing(name), task=task))
    error = error_of(approvals.ask, question(writing("c"), task=task))
    assert (error.code, error.details["limit"]) == ("APPROVALS_FULL", 2)
    assert approvals.ask(question(writing("a"), task=task)).state is ApprovalState.PENDING
    clock.advance(3600)
    assert approvals.ask(question(writing("c"), task=task)).state is ApprovalState.PENDING
    assert audit.events.count("asked") == 3


def test_answers_do_not_refill_the_budget_of_the_hour(database, clock, audit):
    approvals = desk(database, clock, audit, asked_per_session_hour=2)
    for name in ("a", "b"):
        approvals.deny(approvals.ask(question(writing(name))).id, sign())
    assert error_of(approvals.ask, question(writing("c"))).code == "APPROVALS_FULL"


# --- records, stores, other processes ---


def test_what_cannot_be_recorded_does_not_hold(approvals, audit):
    audit.away = True
    assert error_of(approvals.ask, question(action())).code == "AUDIT_UNAVAILABLE"
    assert approvals.list() == []
    audit.away = False
    asked = approvals.ask(question(action()))
    audit.away = True
    assert error_of(approvals.approve, asked.id, sign("anna", GrantScope.SESSION)).code == "AUDIT_UNAVAILABLE"
    assert approvals.find(asked.id) == asked
    assert approvals.rules() == []
    audit.away = False
    approvals.approve(asked.id, sign())
    audit.away = True
    assert error_of(approvals.consume, action(), POLICY, None).code == "AUDIT_UNAVAILABLE"
    audit.away = False
    assert approvals.consume(action(), POLICY, None) is not None


def test_the_agents_words_are_kept_apart_and_made_visible(approvals, audit):
    asked = approvals.ask(question(action(), why="please\n\u202eexe.txt" + "x" * 5000))
    assert asked.why.startswith("please<U+000A><U+202E>exe.txt")
    assert len(asked.why) <= 1000
    assert "please" not in str(audit.records[0].body)
    assert audit.records[0].private["why"] == asked.why
    assert audit.records[0].body["plain"] == asked.plain == "Run `git push origin main` in the workspace of agent `builder`"


def test_the_version_grows_with_every_change_of_any_process(approvals, database, clock, audit):
    seen = [approvals.version()]
    asked = approvals.ask(question(action()))
    seen.append(approvals.version())
    desk(database, clock, audit, "another").approve(asked.id, sign("anna", GrantScope.SESSION))
    seen.append(approvals.version())
    approvals.consume(action(), POLICY, None)
    seen.append(approvals.version())
    approvals.consume(action(), POLICY, None)
    seen.append(approvals.version())
    approvals.revoke_rule(approvals.rules()[0].id, "anna")
    seen.append(approvals.version())
    assert seen == sorted(set(seen))
    approvals.find(asked.id)
    assert approvals.version() == seen[-1]


def test_listeners_hear_of_changes_after_they_are_durable(approvals, database, clock, audit):
    heard = []
    other = desk(database, clock, audit, "another")
    approvals.listen(lambda approval: heard.append((approval.state, other.find(approval.id).state)))
    asked = approvals.ask(question(action()))
    approvals.approve(asked.id, sign())
    approvals.consume(action(), POLICY, None)
    assert heard == [(state, state) for state in (ApprovalState.PENDING, ApprovalState.APPROVED, ApprovalState.CONSUMED)]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_waiting_caller_sees_the_answer(approvals, database, clock, audit, elsewhere):
    asked = approvals.ask(question(action()))
    answering = desk(database, clock, audit, "another") if elsewhere else approvals
    found = []
    waiting = threading.Thread(target=lambda: found.append(approvals.wait(asked.id, 30).state))
    waiting.start()
    answering.approve(asked.id, sign())
    waiting.join(20)
    assert found == [ApprovalState.APPROVED]


def test_waiting_ends_without_an_answer(approvals):
    asked = approvals.ask(question(action()))
    assert approvals.wait(asked.id, 0.05).state is ApprovalState.PENDING
    assert approvals.wait(asked.id, -1).state is ApprovalState.PENDING


def race(calls):
    """Every call at once, from a thread each; the answers, errors as their codes."""
    gate, answers, lock = threading.Barrier(len(calls)), [], threading.Lock()

    def run(call):
        gate.wait(20)
        try:
            answer = call()
        except CohortError as error:
            answer = error.code
        with lock:
            answers.append(answer)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return answers


def test_of_many_actions_at_once_one_uses_the_grant(approvals, database, clock, audit):
    desks = [approvals, desk(database, clock, audit, "another")]
    for _ in range(5):
        asked = approvals.ask(question(action()))
        approvals.approve(asked.id, sign())
        answers = race([lambda where=where: where.consume(action(), POLICY, None) for where in desks * 4])
        assert sum(answer is not None for answer in answers) == 1
    assert audit.events.count("consumed") == 5


def test_of_many_actions_at_once_no_more_use_a_rule_than_it_has_uses(approvals, database, clock, audit):
    desks = [approvals, desk(database, clock, audit, "another")]
    approved(approvals, action(), GrantScope.STANDING, uses=4)
    answers = race([lambda where=where: where.consume(action(), POLICY, None) for where in desks * 4])
    assert sum(answer is not None for answer in answers) == 3
    assert audit.events.count("rule_used") == 3


def test_of_a_yes_and_a_no_at_once_one_wins(approvals, database, clock, audit):
    other = desk(database, clock, audit, "another")
    for number in range(5):
        asked = approvals.ask(question(writing(str(number))))
        yes, no = partial(approvals.approve, asked.id), partial(other.deny, asked.id)
        answers = race([partial(call, sign(name)) for call in (yes, no) for name in ("anna", "berta")])
        assert sorted(answer for answer in answers if isinstance(answer, str)) == ["APPROVAL_DECIDED"] * 3
        [winner] = [answer for answer in answers if not isinstance(answer, str)]
        assert approvals.find(asked.id) == winner
    assert audit.events.count("answered") == 5


def test_the_same_question_at_once_is_one_question(approvals, database, clock, audit):
    desks = [approvals, desk(database, clock, audit, "another")]
    answers = race([lambda where=where: where.ask(question(action())) for where in desks * 3])
    assert len({answer.id for answer in answers}) == 1
    assert audit.events == ["asked"]


def test_a_number_of_approvers_that_cannot_be_is_refused(database, clock, audit):
    assert error_of(lambda: desk(database, clock, audit, approvers_needed=0)).code == "CONFIG_INVALID"
    assert error_of(lambda: desk(database, clock, audit, approvers_needed=3)).code == "CONFIG_INVALID"


def test_a_database_that_is_away_grants_nothing(tmp_path, clock, audit):
    away = open_database(f"sqlite:///{tmp_path}/none/cohort.db", wait_s=0.1)
    approvals = desk(away, clock, audit)
    for call in (lambda: approvals.ask(question(action())), lambda: approvals.consume(action(), POLICY, None), approvals.list):
        assert error_of(call).code == "APPROVALS_UNAVAILABLE"
    assert audit.records == []
