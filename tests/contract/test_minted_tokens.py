"""Tokens that people have made by hand, and how many an agent may have made, on each store."""

from __future__ import annotations

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.access import Access, NewKey, Role
from cohort.kernel.identity.issuing import SESSION_LIFE_S
from cohort.kernel.identity.pace import MINUTE_S, TOKENS_PER_MINUTE_MAX
from cohort.kernel.model import AgentState
from cohort.kernel.ports import AUDIENCE
from support_identity import Offices, TurnedClock

REVOKED = "the session was revoked: the key of the person who began it was revoked"


@pytest.fixture
def offices(database, tmp_path) -> Offices:
    return Offices(database, TurnedClock(), tmp_path / "tokens")


@pytest.fixture
def access(offices) -> Access:
    """People's keys, put together with the room as `compose` does it."""
    return Access(offices.database, offices.clock, ended=offices.room.agents.end_minted)


def minted(offices: Offices, key: NewKey, *, again: bool = False):
    return offices.room.agents.mint("smoke-1", None, key.key.name, key=key.key.id, again=again)


def authenticate(offices: Offices, token: str):
    return offices.room.identities.authenticate(token, AUDIENCE)


def test_a_persons_tokens_and_what_was_delegated_from_them_end_with_the_persons_key(offices, access):
    offices.register("smoke-1", "agents.delegate", "files.read")
    leaked, kept = access.create_key("maria", Role.OPERATOR), access.create_key("maria", Role.OPERATOR)
    gone = minted(offices, leaked)
    child = offices.room.tokens.exchange(gone.token, "smoke-1", ["agents.delegate"], AUDIENCE)
    grandchild = offices.room.tokens.exchange(child.token, "smoke-1", [], AUDIENCE)
    others = minted(offices, kept), offices.room.agents.mint("smoke-1", None, "maria")
    access.revoke_key(leaked.key.id, "anna")
    for pair in (gone, child, grandchild):
        with pytest.raises(CohortError) as caught:
            authenticate(offices, pair.token)
        assert (caught.value.code, caught.value.message) == ("SESSION_REVOKED", REVOKED)
    for pair in others:
        assert authenticate(offices, pair.token).agent.state is AgentState.ACTIVE


def test_a_person_with_a_new_key_does_not_come_back_in_the_session_of_the_old_one(offices, access):
    offices.register("smoke-1", "files.read")
    old, new = access.create_key("maria", Role.OPERATOR), access.create_key("maria", Role.OPERATOR)
    first = minted(offices, old, again=True)
    assert minted(offices, old, again=True).session == first.session
    assert minted(offices, new, again=True).session != first.session
    assert offices.room.agents.mint("smoke-1", None, "maria", again=True).session != first.session


@pytest.mark.parametrize("again", [False, True])
def test_a_key_that_was_revoked_a_moment_ago_makes_no_token(offices, access, again):
    """Another process may take it for good a few seconds longer; the transaction that opens the session does not."""
    offices.register("smoke-1", "files.read")
    key = access.create_key("maria", Role.OPERATOR)
    minted(offices, key, again=again)
    access.revoke_key(key.key.id, "anna")
    assert offices.code(minted, offices, key, again=again) == "KEY_INVALID"
    assert offices.audit.events()[-1] == "mint_failed"


def test_whoever_refreshes_on_and_on_is_stopped_and_does_not_fill_the_log(offices):
    pair = offices.room.tokens.sign_in(offices.register().key, None, AUDIENCE)
    for _ in range(TOKENS_PER_MINUTE_MAX - 1):
        pair = offices.room.tokens.refresh(pair.refresh)
    before = len(offices.audit.records)
    for _ in range(3):
        with pytest.raises(CohortError) as caught:
            offices.room.tokens.refresh(pair.refresh)
        assert (caught.value.code, caught.value.details) == ("QUOTA_EXCEEDED", {"wait_s": 60})
    assert offices.audit.events()[before:] == ["token_flood"]
    offices.clock.advance(MINUTE_S)
    assert authenticate(offices, offices.room.tokens.refresh(pair.refresh).token)  # what was refused was not used up


def test_the_floods_of_later_minutes_are_said_again(offices):
    pair = offices.room.tokens.sign_in(offices.register().key, None, AUDIENCE)
    for _ in range(2):
        for _ in range(TOKENS_PER_MINUTE_MAX - 1):
            pair = offices.room.tokens.refresh(pair.refresh)
        if offices.code(offices.room.tokens.refresh, pair.refresh) != "QUOTA_EXCEEDED":
            raise AssertionError("it went on")
        offices.clock.advance(MINUTE_S)
        pair = offices.room.tokens.refresh(pair.refresh)
    assert offices.audit.events().count("token_flood") == 2


def test_signing_in_and_out_on_and_on_is_stopped_too_and_another_agent_is_not(offices):
    first, second = offices.register("smoke-1"), offices.register("smoke-2")
    for _ in range(TOKENS_PER_MINUTE_MAX):
        offices.room.tokens.sign_out(offices.room.tokens.sign_in(first.key, None, AUDIENCE).token)
    assert offices.code(offices.room.tokens.sign_in, first.key, None, AUDIENCE) == "QUOTA_EXCEEDED"
    assert authenticate(offices, offices.room.tokens.sign_in(second.key, None, AUDIENCE).token).agent.name == "smoke-2"


def test_a_suspended_agent_cannot_fill_the_log_with_refusals(offices):
    registered = offices.register()
    offices.room.agents.suspend("smoke-1", "maria", "odd")
    for _ in range(TOKENS_PER_MINUTE_MAX):
        assert offices.code(offices.room.tokens.sign_in, registered.key, None, AUDIENCE) == "AGENT_SUSPENDED"
    before = len(offices.audit.records)
    for _ in range(3):
        assert offices.code(offices.room.tokens.sign_in, registered.key, None, AUDIENCE) == "QUOTA_EXCEEDED"
    assert offices.audit.events()[before:] == ["token_flood"]


def test_less_of_ones_own_is_counted_as_the_gate_does_not_see_it(offices):
    pair = offices.room.tokens.sign_in(offices.register("smoke-1", "agents.delegate").key, None, AUDIENCE)
    offices.register("smoke-2")
    for _ in range(TOKENS_PER_MINUTE_MAX - 1):
        offices.room.tokens.sign_out(offices.room.tokens.exchange(pair.token, "smoke-1", [], AUDIENCE).token)
    assert offices.code(offices.room.tokens.exchange, pair.token, "smoke-1", [], AUDIENCE) == "QUOTA_EXCEEDED"
    assert offices.room.tokens.exchange(pair.token, "smoke-2", [], AUDIENCE).session


def test_a_refresh_token_used_twice_ends_the_session_also_in_a_flood(offices):
    used = offices.room.tokens.sign_in(offices.register().key, None, AUDIENCE)
    pair = used
    for _ in range(TOKENS_PER_MINUTE_MAX - 1):
        pair = offices.room.tokens.refresh(pair.refresh)
    assert offices.code(offices.room.tokens.refresh, used.refresh) == "TOKEN_REPLAYED"
    assert offices.code(authenticate, offices, pair.token) == "SESSION_REVOKED"


@pytest.mark.parametrize("refresh", ["", "ar_nothing", "ar_" + "a" * 43, "a" * 300])
def test_what_is_no_refresh_token_gets_nothing_and_no_record(offices, refresh):
    offices.room.tokens.sign_in(offices.register().key, None, AUDIENCE)
    before = len(offices.audit.records)
    assert offices.code(offices.room.tokens.refresh, refresh) == "TOKEN_INVALID"
    assert len(offices.audit.records) == before


def test_an_unknown_key_is_refused_whoever_it_is_said_to_be_of(offices):
    offices.register("smoke-1")
    for agent in (None, "smoke-1", "nobody"):
        assert offices.code(offices.room.tokens.sign_in, "ak_" + "a" * 43, None, AUDIENCE, agent=agent) == "KEY_INVALID"


def test_a_session_that_has_ended_is_not_refreshed(offices):
    pair = offices.room.tokens.sign_in(offices.register().key, None, AUDIENCE)
    offices.clock.advance(SESSION_LIFE_S)
    with pytest.raises(CohortError) as caught:
        offices.room.tokens.refresh(pair.refresh)
    assert (caught.value.code, caught.value.message) == ("TOKEN_EXPIRED", "the session has expired")
    assert offices.audit.events()[-1] == "sign_in"


@pytest.mark.parametrize("audience", ["", " ", "a b", "https://\u0430.example/mcp", "a\nb", "x" * 201])
def test_a_token_is_for_a_place_that_can_be_written_in_a_header(offices, audience):
    key = offices.register().key
    assert offices.code(offices.room.tokens.sign_in, key, None, audience) == "FIELD_INVALID"
    assert "sign_in" not in offices.audit.events()


@pytest.mark.parametrize(("change", "code"), [("suspend", "AGENT_SUSPENDED"), ("revoke", "AGENT_REVOKED")])
def test_nothing_is_handed_on_to_an_agent_that_may_not_act(offices, change, code):
    pair = offices.room.tokens.sign_in(offices.register("lead", "agents.delegate", "files.read").key, None, AUDIENCE)
    offices.register("second", "files.read")
    getattr(offices.room.agents, change)("second", "maria", "odd")
    before = len(offices.audit.records)
    assert offices.code(offices.room.tokens.exchange, pair.token, "second", [], AUDIENCE) == code
    assert len(offices.audit.records) == before
    assert offices.room.agents.sessions("second") == []
