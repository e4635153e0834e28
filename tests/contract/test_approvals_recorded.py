"""Approvals with the real audit log, on each store: what the log says afterwards, also when everything happens at once."""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.approvals.desk_sql import SqlApprovals
from cohort.kernel.approvals.limits import ApprovalLimits
from cohort.kernel.audit.room import AuditRoom, open_audit
from cohort.kernel.face import AuditQuery
from cohort.kernel.model import ApprovalState, GrantScope
from cohort.storage.database import open_database
from support_approvals import POLICY, action, question, sign, writing

THREADS = 8


@pytest.fixture
def audit(database, tmp_path, clock) -> Iterator[AuditRoom]:
    """In a file of its own, and on Postgres in the same database, over the same pool of connections."""
    beside = database if database.dialect == "postgresql" else open_database(f"sqlite:///{tmp_path / 'audit.db'}")
    beside.migrate()
    room = open_audit(beside, clock, secrets.token_bytes, key_file=tmp_path / "audit.key", origin="test.example/audit")
    yield room
    room.stop()
    beside.close()


@pytest.fixture
def approvals(database, audit, clock) -> SqlApprovals:
    return SqlApprovals(database, audit.log, clock, secrets.token_bytes, ApprovalLimits())


def events(audit: AuditRoom) -> Counter[str]:
    return Counter(entry.body["body"]["event"] for entry in audit.desk.search(AuditQuery(kind="approval", limit=1000)))


def test_every_change_is_in_the_log_and_the_log_verifies(approvals, audit):
    asked = approvals.ask(question(action(), why="it is needed"))
    approvals.approve(asked.id, sign("anna", GrantScope.SESSION, note="fine"))
    first, second = action(), action()
    assert approvals.consume(first, POLICY, None) is not None
    assert approvals.consume(second, POLICY, None) is not None
    approvals.revoke_rule(approvals.rules()[0].id, "berta")
    assert events(audit) == {"asked": 1, "answered": 1, "consumed": 1, "rule_used": 1, "rule_revoked": 1}
    used = {entry.body["body"]["event"] for each in (first, second) for entry in audit.desk.search(AuditQuery(action=each.id))}
    assert used == {"consumed", "rule_used"}
    assert audit.desk.verify().integrity == "verified"


def test_what_an_agent_or_a_person_wrote_is_not_in_the_log_itself(approvals, audit):
    asked = approvals.ask(question(action(), why="marzipan"))
    approvals.approve(asked.id, sign("anna", note="nougat"))
    said = str(audit.desk.search(AuditQuery(limit=100)))
    assert "git push" in said
    assert "marzipan" not in said
    assert "nougat" not in said


def test_a_log_that_takes_no_more_records_refuses_every_change(approvals, audit):
    asked = approvals.ask(question(action()))
    approvals.approve(asked.id, sign())
    audit.log.seal("for this test")
    calls = (
        lambda: approvals.consume(action(), POLICY, None),
        lambda: approvals.ask(question(writing("a"))),
        lambda: approvals.revoke_rule("gr_none", "anna"),
    )
    codes = []
    for call in calls:
        with pytest.raises(CohortError) as caught:
            call()
        codes.append(caught.value.code)
    assert codes == ["AUDIT_BROKEN", "AUDIT_BROKEN", "NOT_FOUND"]
    assert approvals.find(asked.id).state is ApprovalState.APPROVED


def test_many_at_once_leave_one_record_for_each_change_and_none_for_who_came_too_late(approvals, audit):
    """Each thread asks, answers and uses its own questions and one that they share."""
    start, errors, grants = threading.Barrier(THREADS), [], []

    def work(number: int) -> None:
        start.wait(20)
        for turn in range(3):
            for about in (writing(f"{number}/{turn}"), writing(f"shared/{turn}")):
                try:
                    asked = approvals.ask(question(about))
                    approvals.approve(asked.id, sign(f"person {number}"))
                except CohortError as error:
                    if error.code != "APPROVAL_DECIDED":
                        errors.append(error)
                if (grant := approvals.consume(about, POLICY, None)) is not None:
                    grants.append(grant.approval)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(set(grants)) == len(grants) >= THREADS * 3
    found = events(audit)
    assert found["consumed"] == len(grants)
    assert found["asked"] == found["answered"] == len(approvals.list(limit=500))
    assert audit.desk.verify().integrity == "verified"
