"""Agents, sessions and tokens, on each store."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, update

from cohort.base.errors import CohortError
from cohort.kernel.face import NewAgent
from cohort.kernel.identity.identities import SqlIdentities
from cohort.kernel.identity.sessions import SESSIONS_MAX
from cohort.kernel.identity.time import Steady
from cohort.kernel.model import AgentState, Autonomy, Caller, Limits, Taint
from cohort.kernel.ports import AUDIENCE
from cohort.storage.database import open_database
from cohort.storage.schema import metadata
from support_identity import Offices, TurnedClock

MCP = "http://127.0.0.1:8710/mcp"


@pytest.fixture
def turned() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def offices(database, turned, tmp_path) -> Offices:
    return Offices(database, turned, tmp_path / "tokens")


def caller(offices, pair, audience=AUDIENCE, bound_to=None):
    return offices.room.identities.authenticate(pair.token, audience, bound_to)


def signed_in(offices, name="smoke-1", *scopes):
    registered = offices.register(name, *scopes)
    return registered, offices.room.tokens.sign_in(registered.key, None, AUDIENCE, source="here")


def test_a_registered_agent_signs_in_and_is_known_by_its_token(offices):
    registered, pair = signed_in(offices, "smoke-1", "files.read", "files.write:src/**", "network.http")
    found = caller(offices, pair)
    assert found.agent == registered.agent == offices.room.agents.find("smoke-1") == offices.room.agents.find(registered.agent.id)
    workspace = registered.agent.workspace
    assert [str(scope) for scope in found.scopes] == [f"files.read:{workspace}/**", f"files.write:{workspace}/src/**", "network.http"]
    assert pair.scopes == ("files.read", "files.write:src/**", "network.http")
    assert (found.session, found.actors, found.task) == (pair.session, (), None)
    assert pair.expires_us == found.expires_us == (offices.clock.now_us() // 1_000_000 + 900) * 1_000_000


def test_no_secret_is_stored_recorded_or_shown(offices):
    registered, pair = signed_in(offices)
    everything = repr((_everything(offices), offices.audit.records, registered, pair))
    for secret in (registered.key, pair.token, pair.refresh):
        assert secret not in everything


def test_every_change_is_recorded_before_it_is_made(offices):
    steps = []
    offices.audit.before = lambda record: steps.append((record.body["event"], _state(offices)))
    offices.register("smoke-1", "files.read")
    offices.room.agents.grant("smoke-1", ["files.write"], "tester")
    offices.room.agents.suspend("smoke-1", "tester", "looks odd")
    offices.room.agents.resume("smoke-1", "tester", "it was not")
    offices.room.agents.revoke("smoke-1", "tester", "done")
    assert steps == [
        ("register", None),
        ("grant", ("active", 1)),
        ("suspend", ("active", 2)),
        ("resume", ("suspended", 2)),
        ("revoke", ("active", 2)),
    ]


def _state(offices):
    with offices.database.read() as connection:
        row = connection.execute(select(metadata.tables["agents"])).one_or_none()
    return (row.state, len(row.scopes)) if row is not None else None


CHANGES = [
    lambda o: o.room.agents.register(NewAgent("second"), "tester"),
    lambda o: o.room.agents.grant("smoke-1", ["files.delete"], "tester"),
    lambda o: o.room.agents.revoke_scopes("smoke-1", ["files.read"], "tester"),
    lambda o: o.room.agents.suspend("smoke-1", "tester", ""),
    lambda o: o.room.agents.revoke("smoke-1", "tester", ""),
    lambda o: o.room.agents.new_key("smoke-1", "tester"),
    lambda o: o.room.agents.mint("smoke-1", None, "tester"),
    lambda o: o.room.tokens.sign_in(o.key, None, AUDIENCE, source="here"),
    lambda o: o.room.tokens.refresh(o.pair.refresh),
    lambda o: o.room.tokens.exchange(o.pair.token, "smoke-1", ["files.read"], AUDIENCE),
    lambda o: o.room.agents.revoke_session(o.pair.session, "tester", ""),
    lambda o: o.room.tokens.sign_out(o.pair.token),
    lambda o: o.room.tokens.rotate("tester"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_without_the_audit_log_nothing_changes(offices, change):
    registered, offices.pair = signed_in(offices, "smoke-1", "files.read", "agents.delegate")
    offices.key = registered.key
    before = _everything(offices)
    offices.audit.down = True
    assert offices.code(change, offices) == "AUDIT_UNAVAILABLE"
    assert _everything(offices) == before


def _everything(offices):
    with offices.database.read() as connection:
        rows = [
            connection.execute(select(metadata.tables[name])).all()
            for name in ("agents", "agent_keys", "agent_sessions", "refresh_tokens", "workspaces")
        ]
    return rows, offices.room.tokens.jwks()


def test_a_name_is_taken_once_even_by_two_at_the_same_time(offices):
    def register(_):
        try:
            return offices.register("smoke-1")
        except CohortError as error:
            return error.code

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(register, range(4)))
    assert sorted(answer for answer in answers if isinstance(answer, str)) == ["AGENT_NAME_TAKEN"] * 3
    assert [agent.name for agent in offices.room.agents.list()] == ["smoke-1"]
    assert offices.room.agents.find("smoke-1").state is AgentState.ACTIVE


def test_a_registration_whose_workspace_failed_is_repeated(offices):
    offices.rooms.down = True
    assert offices.code(offices.register, "smoke-1", "files.read") == "WORKSPACE_UNAVAILABLE"
    assert offices.audit.events()[-2:] == ["register", "register_failed"]
    assert offices.code(offices.room.agents.mint, "smoke-1", None, "tester") == "AGENT_SUSPENDED"
    assert offices.code(offices.room.agents.resume, "smoke-1", "tester", "") == "WORKSPACE_UNKNOWN"
    offices.rooms.down = False
    assert offices.register("smoke-1", "files.read").agent.state is AgentState.ACTIVE


@pytest.mark.parametrize("name", ["", "A", "1a", "a_b", "a-", "a--b", "a" * 64, "a b", "ag_aaaaaaaaaaaaaaaa", "é", "a\x00"])
def test_a_wrong_name_is_refused(offices, name):
    assert offices.code(offices.register, name) == "FIELD_INVALID"
    assert offices.audit.events() == ["token_key"]


@pytest.mark.parametrize(
    "scope", ["root", "files.read:../x", "files.read:/etc/**", "files.read:a//b", "files.read:a/*/b", "files.read:.", ""]
)
def test_a_wrong_scope_is_refused(offices, scope):
    assert offices.code(offices.register, "smoke-1", scope) in ("FIELD_INVALID", "SCOPE_UNKNOWN")


@pytest.mark.parametrize("limits", [Limits(files=0), Limits(cpu_cores=-1), Limits(command_s=float("nan")), Limits(disk_bytes=1 << 60)])
def test_a_wrong_limit_is_refused_by_its_name(offices, limits):
    with pytest.raises(CohortError) as caught:
        offices.room.agents.register(NewAgent("smoke-1", limits=limits), "tester")
    assert caught.value.field.startswith("limits.")


def test_origins_are_kept_in_one_form(offices):
    agent = offices.room.agents.register(NewAgent("a", egress=("https://Example.com", "http://x.example:8080/")), "tester").agent
    assert agent.egress == ("https://example.com:443", "http://x.example:8080")
    for wrong in ("example.com", "https://u:p@example.com", "https://example.com/path", "ftp://x", "https://x:0", "https://[", "https://"):
        assert offices.code(offices.room.agents.register, NewAgent("b", egress=(wrong,)), "tester") == "FIELD_INVALID"


def test_suspension_and_resumption_hold_from_the_next_action_on(offices):
    registered, pair = signed_in(offices)
    offices.room.agents.suspend("smoke-1", "tester", "odd")
    assert offices.code(caller, offices, pair) == "AGENT_SUSPENDED"
    assert offices.code(offices.room.identities.again, _before(offices, pair)) == "AGENT_SUSPENDED"
    assert offices.code(offices.room.tokens.sign_in, registered.key, None, AUDIENCE) == "AGENT_SUSPENDED"
    assert offices.code(offices.room.tokens.refresh, pair.refresh) == "AGENT_SUSPENDED"
    offices.room.agents.resume("smoke-1", "tester", "fine")
    assert caller(offices, pair).agent.name == "smoke-1"


def _before(offices, pair):
    """The caller of `pair` as the gate remembers it from before."""
    claims = offices.room.identities._jwts.read(pair.token)
    agent = offices.room.agents.find(claims.agent)
    return Caller(agent, claims.session, claims.token, claims.scopes, claims.expires_us)


def test_what_another_process_commits_holds_from_the_next_action_on(offices, url):
    registered, pair = signed_in(offices)
    assert caller(offices, pair) == caller(offices, pair)
    elsewhere = open_database(url)
    with elsewhere.write() as connection:
        connection.execute(update(metadata.tables["agents"]).values(autonomy="conservative"))
    assert caller(offices, pair).agent.autonomy is Autonomy.CONSERVATIVE
    with elsewhere.write() as connection:
        connection.execute(update(metadata.tables["agent_sessions"]).values(revoked_us=1, revoked_why="stolen"))
    assert offices.code(caller, offices, pair) == "SESSION_REVOKED"
    elsewhere.close()
    assert registered.agent.autonomy is Autonomy.STANDARD


def test_what_another_process_marks_is_known_from_the_next_question_on(offices, url):
    registered, pair = signed_in(offices)
    identities, agent = offices.room.identities, registered.agent.id
    assert (identities.taint(pair.session), identities.data_untrusted(agent)) == (Taint(), False)
    elsewhere = open_database(url)
    for untrusted_us in (7, None):
        with elsewhere.write() as connection:
            connection.execute(update(metadata.tables["agents"]).values(untrusted_us=untrusted_us))
            connection.execute(update(metadata.tables["agent_sessions"]).values(untrusted=untrusted_us is not None))
        marked = untrusted_us is not None
        assert (identities.taint(pair.session), identities.data_untrusted(agent)) == (Taint(untrusted=marked), marked)
    elsewhere.close()


def test_data_that_is_marked_is_not_marked_again(offices):
    registered, _ = signed_in(offices)
    offices.room.identities.mark_data(registered.agent.id)
    assert offices.room.identities.data_untrusted(registered.agent.id)
    generation, since_us = offices.database.generation(), offices.room.agents.find("smoke-1").untrusted_us
    offices.clock.advance(1)
    offices.room.identities.mark_data(registered.agent.id)
    assert (offices.database.generation(), offices.room.agents.find("smoke-1").untrusted_us) == (generation, since_us)
    assert since_us is not None
    assert offices.code(offices.room.identities.mark_data, "ag_nobody") == "NOT_FOUND"


def test_a_session_that_ends_before_its_token_is_not_believed_from_memory(offices):
    _, pair = signed_in(offices)
    ends_us = offices.clock.now_us() + 10_000_000
    with offices.database.write() as connection:
        connection.execute(update(metadata.tables["agent_sessions"]).values(expires_us=ends_us))
    offices.clock.advance(9)
    assert caller(offices, pair).session == pair.session
    offices.clock.advance(1)
    assert offices.code(caller, offices, pair) == "TOKEN_EXPIRED"


def test_callers_are_remembered_up_to_a_number(offices):
    pairs = [signed_in(offices, f"smoke-{number}")[1] for number in range(4)]
    forgetful = SqlIdentities(offices.database, offices.room.identities._jwts, Steady(offices.clock), known_max=2)
    assert [forgetful.authenticate(pair.token, AUDIENCE).session for pair in pairs * 2] == [pair.session for pair in pairs * 2]
    assert len(forgetful._seen) == (2 if offices.database.dialect == "sqlite" else 0)


def test_what_still_runs_for_an_agent_is_ended_when_it_is_stopped(offices):
    agent = offices.register("smoke-1").agent.id
    offices.room.agents.suspend("smoke-1", "tester", "odd")
    assert offices.stopped == [agent]
    offices.room.agents.resume("smoke-1", "tester", "fine")
    assert offices.stopped == [agent]
    offices.room.agents.revoke("smoke-1", "tester", "stolen")
    assert offices.stopped == [agent, agent]


@pytest.mark.parametrize("by", ["token", "refresh"])
def test_who_signs_out_ends_the_session_and_what_it_delegated(offices, by):
    _, pair = signed_in(offices, "lead", "agents.delegate")
    child = delegated(offices, pair, "lead", "agents.delegate")
    offices.room.tokens.sign_out(getattr(pair, by))
    assert [offices.code(caller, offices, one) for one in (pair, child)] == ["SESSION_REVOKED"] * 2
    recorded = len(offices.audit.records)
    for nothing in (getattr(pair, by), "x.y.z", "ar_nothing", ""):
        offices.room.tokens.sign_out(nothing)
    assert len(offices.audit.records) == recorded


def test_revocation_is_for_ever_and_survives_a_restart(offices):
    registered, pair = signed_in(offices)
    offices.room.agents.revoke("smoke-1", "tester", "stolen")
    offices.room = offices.opened()
    assert offices.code(caller, offices, pair) == "SESSION_REVOKED"
    assert offices.code(offices.room.tokens.sign_in, registered.key, None, AUDIENCE) == "KEY_INVALID"
    assert offices.code(offices.room.tokens.refresh, pair.refresh) == "SESSION_REVOKED"
    for change in (offices.room.agents.resume, offices.room.agents.suspend):
        assert offices.code(change, "smoke-1", "tester", "") == "AGENT_REVOKED"
    assert offices.code(offices.room.agents.new_key, "smoke-1", "tester") == "AGENT_REVOKED"
    assert offices.code(offices.register, "smoke-1") == "AGENT_NAME_TAKEN"


def test_scopes_taken_away_are_gone_from_tokens_in_force(offices):
    _, pair = signed_in(offices, "smoke-1", "files.read", "network.http")
    offices.room.agents.revoke_scopes("smoke-1", ["files.read"], "tester")
    assert [scope.name for scope in caller(offices, pair).scopes] == ["network.http"]
    offices.room.agents.grant("smoke-1", ["files.delete"], "tester")
    assert [scope.name for scope in caller(offices, pair).scopes] == ["network.http"]
    assert offices.code(offices.room.agents.revoke_scopes, "smoke-1", ["files.delete:src/**"], "tester") == "FIELD_INVALID"


def test_a_new_key_ends_the_one_before(offices):
    registered, pair = signed_in(offices)
    fresh = offices.room.agents.new_key("smoke-1", "tester")
    assert offices.code(offices.room.tokens.sign_in, registered.key, None, AUDIENCE) == "KEY_INVALID"
    assert offices.room.tokens.sign_in(fresh.key, None, AUDIENCE).scopes == ()
    assert caller(offices, pair).agent == fresh.agent


def test_wrong_keys_are_refused_for_a_while_by_source(offices):
    registered = offices.register()
    for _ in range(10):
        assert offices.code(offices.room.tokens.sign_in, "ak_wrong", None, AUDIENCE, source="there") == "KEY_INVALID"
    assert offices.code(offices.room.tokens.sign_in, registered.key, None, AUDIENCE, source="there") == "TOO_MANY_ATTEMPTS"
    assert offices.room.tokens.sign_in(registered.key, None, AUDIENCE, source="here").refresh
    offices.clock.advance(61)
    assert offices.room.tokens.sign_in(registered.key, None, AUDIENCE, source="there").refresh


def test_a_refresh_is_used_once_and_its_replay_ends_the_session(offices):
    _, first = signed_in(offices, "smoke-1", "files.read")
    second = offices.room.tokens.refresh(first.refresh)
    assert caller(offices, second).session == first.session
    assert second.scopes == first.scopes
    third = offices.room.tokens.refresh(second.refresh)
    assert offices.code(offices.room.tokens.refresh, first.refresh) == "TOKEN_REPLAYED"
    for pair in (first, second, third):
        assert offices.code(caller, offices, pair) == "SESSION_REVOKED"
        assert offices.code(offices.room.tokens.refresh, pair.refresh) == "SESSION_REVOKED"
    assert offices.audit.events()[-1] == "refresh_replayed"


def test_of_refreshes_at_the_same_time_one_wins_and_the_session_ends(offices):
    _, pair = signed_in(offices)
    barrier = threading.Barrier(4)

    def refresh(_):
        barrier.wait()
        try:
            return offices.room.tokens.refresh(pair.refresh)
        except CohortError as error:
            return error.code

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(refresh, range(4)))
    won = [answer for answer in answers if not isinstance(answer, str)]
    assert len(won) == 1
    assert {answer for answer in answers if isinstance(answer, str)} <= {"TOKEN_REPLAYED", "SESSION_REVOKED"}
    assert "TOKEN_REPLAYED" in answers
    assert offices.code(caller, offices, won[0]) == "SESSION_REVOKED"


def test_a_session_ends_with_its_life(offices):
    _, pair = signed_in(offices)
    offices.clock.advance(899)
    assert caller(offices, pair)
    offices.clock.advance(1)
    assert offices.code(caller, offices, pair) == "TOKEN_EXPIRED"
    again = offices.room.tokens.refresh(pair.refresh)
    offices.clock.advance(24 * 3600)
    assert offices.code(offices.room.tokens.refresh, again.refresh) == "TOKEN_EXPIRED"


def test_a_token_is_for_its_audience_and_connection(offices):
    registered = offices.register()
    pair = offices.room.tokens.sign_in(registered.key, None, MCP, bound_to="tls:abc")
    assert caller(offices, pair, MCP, "tls:abc").agent == registered.agent
    assert caller(offices, pair, AUDIENCE, "tls:abc").agent == registered.agent
    for audience, bound_to in (("http://elsewhere/mcp", "tls:abc"), (MCP, None), (MCP, "tls:abd"), (MCP, "")):
        assert offices.code(caller, offices, pair, audience, bound_to) == "TOKEN_INVALID"
    assert offices.code(offices.room.tokens.refresh, pair.refresh) == "TOKEN_INVALID"
    assert caller(offices, offices.room.tokens.refresh(pair.refresh, bound_to="tls:abc"), MCP, "tls:abc")
    plain = offices.room.tokens.sign_in(registered.key, None, AUDIENCE)
    assert offices.code(caller, offices, plain, MCP) == "TOKEN_INVALID"


def test_a_person_who_acts_by_hand_again_comes_back_in_the_same_session(offices):
    """After a restart too: what was approved, and what was begun under an idempotency key, belongs to a session."""
    offices.register("smoke-1", "files.read", "files.write")
    mint = offices.room.agents.mint
    first = mint("smoke-1", None, "maria", again=True)
    assert mint("smoke-1", None, "maria", again=True).session == first.session
    others = [
        mint("smoke-1", None, "maria"),
        mint("smoke-1", None, "otto", again=True),
        mint("smoke-1", ["files.read"], "maria", again=True),
    ]
    assert first.session not in [pair.session for pair in others]
    assert caller(offices, mint("smoke-1", None, "maria", again=True)).agent.name == "smoke-1"
    offices.clock.advance((first.expires_us - offices.clock.now_us()) / 1e6 - 60)
    assert mint("smoke-1", None, "maria", again=True).session not in [first.session, *(pair.session for pair in others)]


def test_a_minted_token_is_short_recorded_and_without_refresh(offices):
    offices.register("smoke-1", "files.read", "files.write")
    pair = offices.room.agents.mint("smoke-1", ["files.read:docs/**"], "maria", task="look", life_s=60)
    assert (pair.refresh, pair.scopes) == (None, ("files.read:docs/**",))
    assert (offices.audit.records[-1].body["actor"], offices.audit.records[-1].body["event"]) == ("maria", "mint")
    assert caller(offices, pair).task == "look"
    offices.clock.advance(60)
    assert offices.code(caller, offices, pair) == "TOKEN_EXPIRED"
    for life in (0, 3601, float("nan")):
        assert offices.code(offices.room.agents.mint, "smoke-1", None, "maria", life_s=life) == "FIELD_INVALID"
    assert offices.code(offices.room.agents.mint, "smoke-1", ["files.delete"], "maria") == "SCOPE_REFUSED"
    assert offices.code(offices.room.agents.mint, "nobody", None, "maria") == "AGENT_UNKNOWN"


def delegated(offices, pair, agent, *scopes):
    return offices.room.tokens.exchange(pair.token, agent, scopes, AUDIENCE)


def test_a_delegated_token_carries_less_and_the_chain(offices):
    lead, pair = signed_in(offices, "lead", "agents.delegate", "network.http", "files.read")
    helper = offices.register("helper", "network.http:https://example.com:443").agent
    child = delegated(offices, pair, "helper", "network.http:https://example.com:443")
    found = caller(offices, child)
    assert (found.agent, found.actors, found.expires_us) == (helper, (lead.agent.id,), pair.expires_us)
    assert [str(scope) for scope in found.scopes] == ["network.http:https://example.com:443"]
    assert child.refresh is None
    session = offices.room.agents.sessions("helper")[0]
    assert (session.parent, session.created_by) == (pair.session, lead.agent.id)


def test_what_a_delegation_may_not_carry_is_refused(offices):
    _, pair = signed_in(offices, "lead", "agents.delegate:helper", "network.http")
    offices.register("helper", "network.http", "files.read:*")
    offices.register("other", "network.http")
    _, powerless = signed_in(offices, "powerless", "network.http")
    for holder, agent, scope, code in (
        (pair, "helper", "files.read", "SCOPE_REFUSED"),
        (pair, "helper", "agents.delegate", "SCOPE_REFUSED"),
        (pair, "other", "network.http", "SCOPE_REFUSED"),
        (pair, "nobody", "network.http", "AGENT_UNKNOWN"),
        (powerless, "helper", "network.http", "SCOPE_REFUSED"),
    ):
        assert offices.code(delegated, offices, holder, agent, scope) == code


def test_a_chain_has_a_longest_length(offices):
    _, pair = signed_in(offices, "lead", "agents.delegate")
    for _ in range(4):
        pair = delegated(offices, pair, "lead", "agents.delegate")
    assert len(caller(offices, pair).actors) == 4
    assert offices.code(delegated, offices, pair, "lead", "agents.delegate") == "SCOPE_REFUSED"


def test_revoking_a_session_ends_everything_delegated_from_it(offices):
    _, pair = signed_in(offices, "lead", "agents.delegate")
    offices.register("helper", "agents.delegate")
    child = delegated(offices, pair, "helper", "agents.delegate")
    grandchild = delegated(offices, child, "lead", "agents.delegate")
    sibling = delegated(offices, pair, "helper", "agents.delegate")
    offices.room.agents.revoke_session(child.session, "tester", "enough")
    offices.room = offices.opened()
    assert [offices.code(caller, offices, one) for one in (child, grandchild)] == ["SESSION_REVOKED"] * 2
    assert caller(offices, sibling).agent.name == "helper"
    assert caller(offices, pair).agent.name == "lead"
    assert offices.code(offices.room.agents.revoke_session, "se_none", "tester", "") == "NOT_FOUND"


@pytest.mark.parametrize(("change", "code"), [("suspend", "AGENT_SUSPENDED"), ("revoke", "SESSION_REVOKED")])
def test_who_acts_for_an_agent_stops_with_it(offices, change, code):
    _, pair = signed_in(offices, "lead", "agents.delegate")
    offices.register("helper", "agents.delegate")
    child = delegated(offices, pair, "helper", "agents.delegate")
    getattr(offices.room.agents, change)("lead", "tester", "odd")
    assert offices.code(caller, offices, child) == code
    assert offices.code(delegated, offices, child, "helper", "agents.delegate") == code


def test_scopes_taken_from_an_agent_are_gone_from_what_it_delegated(offices):
    _, pair = signed_in(offices, "lead", "agents.delegate", "network.http")
    offices.register("helper", "network.http")
    child = delegated(offices, pair, "helper", "network.http")
    offices.room.agents.revoke_scopes("lead", ["network.http"], "tester")
    assert caller(offices, child).scopes == ()


def test_taint_is_kept_inherited_and_goes_up(offices):
    _, pair = signed_in(offices, "lead", "agents.delegate")
    offices.register("helper", "agents.delegate")
    identities = offices.room.identities
    identities.mark(pair.session, Taint(untrusted=True))
    child = delegated(offices, pair, "helper", "agents.delegate")
    assert identities.taint(child.session) == Taint(untrusted=True)
    identities.mark(child.session, Taint(private=True))
    identities.mark(child.session, Taint())
    offices.room = offices.opened()
    assert offices.room.identities.taint(child.session) == Taint(True, True)
    assert offices.room.identities.taint(pair.session) == Taint(True, True)
    assert offices.code(identities.taint, "se_none") == "NOT_FOUND"


def test_again_sees_what_changed_since(offices):
    _, pair = signed_in(offices, "smoke-1", "files.read", "network.http")
    found = caller(offices, pair)
    assert offices.room.identities.again(found) == found
    offices.room.agents.revoke_scopes("smoke-1", ["files.read"], "tester")
    assert [scope.name for scope in offices.room.identities.again(found).scopes] == ["network.http"]
    offices.room.agents.revoke_session(pair.session, "tester", "")
    assert offices.code(offices.room.identities.again, found) == "SESSION_REVOKED"


def test_a_clock_set_back_revives_nothing_and_refuses_the_future(offices):
    registered, old = signed_in(offices)
    offices.clock.advance(900)
    offices.clock.set_back(600)
    assert offices.code(caller, offices, old) == "TOKEN_EXPIRED"
    fresh = offices.room.tokens.sign_in(registered.key, None, AUDIENCE)
    assert caller(offices, fresh)
    offices.room = offices.opened()  # a new process has only the clock that was set back
    assert offices.code(caller, offices, fresh) == "TOKEN_INVALID"


def test_the_sessions_of_an_agent_have_a_limit(offices):
    registered, pair = signed_in(offices)
    table = metadata.tables["agent_sessions"]
    with offices.database.write() as connection:
        row = dict(connection.execute(select(table)).one()._mapping)
        connection.execute(table.insert(), [row | {"id": f"se_{number}"} for number in range(SESSIONS_MAX - 1)])
    before = offices.audit.events()
    assert offices.code(offices.room.tokens.sign_in, registered.key, None, AUDIENCE) == "QUOTA_EXCEEDED"
    assert offices.audit.events() == before  # who signs in on and on does not fill the log
    offices.room.tokens.sign_out(pair.token)
    assert offices.room.tokens.sign_in(registered.key, None, AUDIENCE)
    offices.clock.advance(9 * 24 * 3600)
    offices.room.tokens.sign_in(registered.key, None, AUDIENCE)
    assert len(offices.room.agents.sessions("smoke-1")) == 1
