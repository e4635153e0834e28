"""Keys and sessions, on each store."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import select

from cohort.base.errors import CohortError, Retry
from cohort.kernel import access as module
from cohort.kernel import attempts
from cohort.kernel.access import Access, Right, Role, fingerprint, new_key_text
from cohort.storage.schema import keys, sessions

HOUR_S = 3600


@pytest.fixture
def access(database, clock) -> Access:
    return Access(database, clock)


def error_of(call, *arguments):
    with pytest.raises(CohortError) as caught:
        call(*arguments)
    return caught.value


def everything_stored(database) -> str:
    with database.read() as connection:
        return repr([connection.execute(select(table)).all() for table in (keys, sessions)])


def test_a_new_key_opens_and_another_does_not(access):
    new = access.create_key("laptop", Role.OPERATOR)
    assert re.fullmatch(r"ck_[A-Za-z0-9_-]{43}", new.text)
    principal = access.check_key(new.text)
    assert (principal.key_id, principal.name, principal.role) == (new.key.id, "laptop", Role.OPERATOR)
    for wrong in ("", "ck_", new.text[:-1], new.text + "x", new.text.upper(), new_key_text(), "x" * 10_000, "\ud800"):
        assert access.check_key(wrong) is None


def test_no_secret_is_stored_or_shown(access, database):
    new = access.create_key("laptop", Role.ADMIN)
    session = access.sign_in(new.text)
    stored = everything_stored(database)
    assert new.text not in stored
    assert session.cookie not in stored
    assert new.text not in repr(new)
    assert session.cookie not in repr(session)
    assert session.csrf not in repr(session)


def test_a_key_made_elsewhere_is_taken_in_once(access):
    text = new_key_text()
    first = access.import_key("first", Role.ADMIN, fingerprint(text))
    assert access.import_key("again", Role.VIEWER, fingerprint(text)) == first
    assert access.check_key(text).name == "first"
    assert access.check_key(text).role is Role.ADMIN
    assert [key.id for key in access.list_keys()] == [first]


@pytest.mark.parametrize("sha256", ["", "ck_" + "x" * 43, "A" * 64, "0" * 63])
def test_only_a_fingerprint_can_be_taken_in(access, sha256):
    error = error_of(access.import_key, "first", Role.ADMIN, sha256)
    assert (error.code, error.field) == ("FIELD_INVALID", "sha256")
    assert sha256 == "" or sha256 not in error.message


@pytest.mark.parametrize("name", ["", "x" * 64, "a\nb"])
def test_a_key_needs_a_name_that_can_be_shown(access, name):
    assert error_of(access.create_key, name, Role.VIEWER).field == "name"


def test_a_revoked_key_is_nobodys_at_once_and_stays_so(access, clock):
    new = access.create_key("laptop", Role.MANAGER)
    session = access.sign_in(new.text)
    assert access.check_key(new.text) is not None
    clock.advance(1)
    access.revoke_key(new.key.id)
    assert access.check_key(new.text) is None
    assert access.session(session.cookie) is None
    assert error_of(access.sign_in, new.text).code == "KEY_INVALID"
    access.import_key("laptop", Role.ADMIN, fingerprint(new.text))
    assert access.check_key(new.text) is None
    assert access.list_keys()[0].revoked_us == clock.now_us()
    clock.advance(1)
    access.revoke_key(new.key.id)
    assert access.list_keys()[0].revoked_us == clock.now_us() - 1_000_000
    assert error_of(access.revoke_key, "key_none").code == "NOT_FOUND"


def test_a_key_revoked_by_another_process_ends_within_seconds(access, database, clock):
    new = access.create_key("laptop", Role.MANAGER)
    assert access.check_key(new.text) is not None
    Access(database, clock).revoke_key(new.key.id)
    clock.advance(module.VERDICT_LIFE_S)
    assert access.check_key(new.text) is None


def test_a_busy_client_does_not_cost_a_query_per_call(access, database, clock):
    new = access.create_key("laptop", Role.ADMIN)
    access.check_key(new.text)
    with database.write() as connection:
        connection.execute(keys.update().values(name="renamed"))
    assert access.check_key(new.text).name == "laptop"
    clock.advance(module.VERDICT_LIFE_S)
    assert access.check_key(new.text).name == "renamed"


def test_signing_in_gives_a_session_and_signing_out_ends_it(access):
    new = access.create_key("laptop", Role.OPERATOR)
    session = access.sign_in(f" {new.text}\n", "127.0.0.1")
    found = access.session(session.cookie)
    assert found == session
    assert found.principal.role is Role.OPERATOR
    access.sign_out(session.cookie)
    assert access.session(session.cookie) is None
    access.sign_out(session.cookie)


@pytest.mark.parametrize("cookie", ["", "x", "x" * 10_000, "\ud800", "' OR 1=1"])
def test_an_unknown_cookie_is_no_session(access, cookie):
    assert access.session(cookie) is None


def test_an_idle_session_ends(access, clock):
    session = access.sign_in(access.create_key("laptop", Role.ADMIN).text)
    clock.advance(12 * HOUR_S - 1)
    assert access.session(session.cookie) is not None
    clock.advance(12 * HOUR_S)
    assert access.session(session.cookie) is None


def test_a_session_in_use_lasts_a_week_and_not_longer(access, clock):
    session = access.sign_in(access.create_key("laptop", Role.ADMIN).text)
    hours = 0
    while access.session(session.cookie) is not None:
        clock.advance(HOUR_S)
        hours += 1
    assert hours == 7 * 24


def test_a_page_a_second_does_not_write_a_second(access, database, clock):
    session = access.sign_in(access.create_key("laptop", Role.ADMIN).text)

    def ends():
        with database.read() as connection:
            return connection.execute(select(sessions.c.expires_us)).scalar_one()

    before = ends()
    for _ in range(59):
        clock.advance(1)
        access.session(session.cookie)
    assert ends() == before
    clock.advance(1)
    assert access.session(session.cookie).expires_us == ends() == before + 60_000_000


def test_sessions_of_one_key_are_limited_and_expired_ones_go(access, database, clock):
    new = access.create_key("laptop", Role.ADMIN)
    opened = []
    for _ in range(module.SESSIONS_PER_KEY_MAX + 2):
        clock.advance(1)
        opened.append(access.sign_in(new.text))
    assert access.session(opened[1].cookie) is None
    assert access.session(opened[2].cookie) is not None
    clock.advance(13 * HOUR_S)
    access.sign_in(new.text)
    with database.read() as connection:
        assert len(connection.execute(select(sessions)).all()) == 1


def test_a_source_that_keeps_guessing_is_refused_for_a_while_and_others_are_not(access, clock):
    new = access.create_key("laptop", Role.ADMIN)
    for _ in range(attempts.FAILURES_MAX):
        assert error_of(access.sign_in, "ck_guess", "10.0.0.1").code == "KEY_INVALID"
    error = error_of(access.sign_in, new.text, "10.0.0.1")
    assert (error.code, error.retry, error.details["wait_s"]) == ("TOO_MANY_ATTEMPTS", Retry.SAFE, 60)
    assert access.sign_in(new.text, "10.0.0.2") is not None
    clock.advance(attempts.LOCK_S)
    assert access.sign_in(new.text, "10.0.0.1") is not None
    assert error_of(access.sign_in, "ck_guess", "10.0.0.1").code == "KEY_INVALID"


def test_a_wrong_key_is_never_repeated_in_an_error(access):
    error = error_of(access.sign_in, "ck_mistyped")
    assert "ck_mistyped" not in str(error.problem())


RIGHTS_BY_ROLE = {
    Role.VIEWER: {"view"},
    Role.AUDITOR: {"view", "audit"},
    Role.APPROVER: {"view", "approve"},
    Role.OPERATOR: {"view", "operate", "register", "execute"},
    Role.MANAGER: {"view", "operate", "register", "execute", "approve", "audit"},
    Role.ADMIN: {"view", "operate", "register", "execute", "approve", "audit", "keys"},
}


@pytest.mark.parametrize("role", list(Role))
def test_a_role_has_exactly_the_rights_of_the_table(role):
    assert {right.value for right in Right if role.may(right)} == RIGHTS_BY_ROLE[role]
    assert {right.value for right in role.rights} == RIGHTS_BY_ROLE[role]


def test_who_acts_does_not_approve_and_who_audits_changes_nothing():
    assert not Role.OPERATOR.may(Right.APPROVE)
    assert not Role.APPROVER.may(Right.EXECUTE)
    assert Role.AUDITOR.rights == {Right.VIEW, Right.AUDIT}


def test_who_makes_and_revokes_a_key_is_recorded_before_it_is_done(database, clock):
    told = []
    access = Access(database, clock, record=told.append)
    new = access.create_key("nora", Role.APPROVER, "anna")
    access.revoke_key(new.key.id, "bert")
    said = {"key": new.key.id, "name": "nora", "role": "approver"}
    assert told == [{"event": "person_key", "actor": "anna", **said}, {"event": "person_key_revoked", "actor": "bert", **said}]
    assert new.text not in repr(told)


def test_what_cannot_be_recorded_is_not_done_to_a_key(database, clock):
    key = Access(database, clock).create_key("nora", Role.APPROVER)

    def failing(_body):
        raise CohortError("AUDIT_UNAVAILABLE", "the disk is full")

    access = Access(database, clock, record=failing)
    assert error_of(access.create_key, "mia", Role.ADMIN).code == "AUDIT_UNAVAILABLE"
    assert error_of(access.revoke_key, key.key.id).code == "AUDIT_UNAVAILABLE"
    assert [each.name for each in access.list_keys() if each.revoked_us is None] == ["nora"]
    assert access.check_key(key.text) is not None


def test_taking_in_a_key_is_recorded_the_first_time_and_only_then(database, clock):
    told = []
    access = Access(database, clock, record=told.append)
    key = access.import_key("admin", Role.ADMIN, "0" * 64)
    access.import_key("admin", Role.ADMIN, "0" * 64)
    assert told == [{"event": "person_key_imported", "key": key, "name": "admin", "role": "admin", "actor": "control"}]


def test_a_key_whose_coming_cannot_be_recorded_is_not_taken_in(database, clock):
    def failing(_body):
        raise CohortError("AUDIT_UNAVAILABLE", "the disk is full")

    access = Access(database, clock, record=failing)
    assert error_of(access.import_key, "admin", Role.ADMIN, "0" * 64).code == "AUDIT_UNAVAILABLE"
    assert access.list_keys() == []


def test_the_last_administrator_cannot_be_revoked(database, clock):
    told = []
    access = Access(database, clock, record=told.append)
    first, second = access.create_key("anna", Role.ADMIN), access.create_key("bert", Role.ADMIN)
    access.create_key("mia", Role.MANAGER)
    access.revoke_key(first.key.id, "bert")
    told.clear()
    error = error_of(access.revoke_key, second.key.id, "bert")
    assert (error.code, error.hint) == ("LAST_ADMIN", "Make another one first: `cohort key create NAME --role admin`.")
    assert told == []
    assert access.check_key(second.text) is not None
    access.revoke_key(first.key.id, "bert")  # one that has ended already is none to be kept


def test_of_two_administrators_who_revoke_each_other_one_stays(database, clock):
    """The second looks again inside its transaction: here the first commits between its look and its change."""
    plain = Access(database, clock)
    first, second = plain.create_key("anna", Role.ADMIN), plain.create_key("bert", Role.ADMIN)
    late = Access(database, clock, record=lambda _body: plain.revoke_key(first.key.id, "bert"))
    assert error_of(late.revoke_key, second.key.id, "anna").code == "LAST_ADMIN"
    assert [key.name for key in plain.list_keys() if key.revoked_us is None] == ["bert"]


def test_what_a_key_made_elsewhere_ends_in_the_transaction_that_revokes_it(database, clock):
    told = []

    def ended(connection, key_id):
        gone = connection.execute(select(keys.c.revoked_us).where(keys.c.id == key_id)).scalar_one()
        told.append((key_id, gone))
        if len(told) == 1:
            raise CohortError("DISK_FULL", "no room")

    access = Access(database, clock, ended=ended)
    new = access.create_key("nora", Role.APPROVER)
    assert error_of(access.revoke_key, new.key.id).code == "DISK_FULL"
    assert access.list_keys()[0].revoked_us is None
    access.revoke_key(new.key.id)
    assert told == [(new.key.id, clock.now_us())] * 2
