"""Whatever is delegated, refreshed, granted and revoked in whatever order: authority only narrows on its way down, and ends with its source."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from cohort.base.errors import CohortError
from cohort.kernel.face import NewAgent, TokenPair
from cohort.kernel.model import Caller, Scope, Taint
from cohort.kernel.ports import AUDIENCE
from cohort.kernel.scopes import SCOPES, all_inside, narrowed, own_scope, parse_scope, permits, shown_scope, stored_scope
from migrated_database import migrated
from support_identity import Offices, TurnedClock

NAMES = ("lead", "helper", "third")
TEXTS = (
    "agents.delegate",
    "agents.delegate:helper",
    "network.http",
    "network.http:https://a.example:443",
    "files.read",
    "files.read:*",
    "files.read:src/**",
    "files.read:src/deep/**",
    "files.write:src/one.txt",
    "memory.read",
)
RESOURCES = ("helper", "lead", "https://a.example:443", "https://b.example:443", "src/one.txt", "src/deep/two.txt", "other.txt", "x")
_numbers = itertools.count()

patterns = st.one_of(st.just("*"), st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map("/".join)).flatmap(
    lambda text: st.sampled_from([text] if text == "*" else [text, f"{text}/**"])
)
scopes = st.builds(Scope, st.sampled_from(SCOPES[:2]), patterns)
many = st.lists(scopes, max_size=4)
resources = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map("/".join)


@given(many, many, st.sampled_from(SCOPES[:2]), resources)
def test_what_two_lists_of_scopes_permit_together_is_what_both_permit(first, second, name, resource):
    both = narrowed(first, second)
    assert permits(both, name, resource) == (permits(first, name, resource) and permits(second, name, resource))
    assert all_inside(both, first) is None
    assert all_inside(both, second) is None


@given(st.sampled_from(TEXTS))
def test_a_scope_is_shown_as_it_was_written_and_stored_without_its_writer(text):
    workspace = "ws_" + "a" * 16
    scope = own_scope(text, workspace)
    assert own_scope(shown_scope(scope, workspace), workspace) == scope
    assert parse_scope(stored_scope(scope)) == scope
    assert shown_scope(scope, workspace) == text


class Delegation(RuleBasedStateMachine):
    """`known`: each session as the model has it: its parent, whether it was revoked, and what its token carried when it was made."""

    sessions: Bundle[str] = Bundle("sessions")

    @initialize(held=st.fixed_dictionaries({name: st.sets(st.sampled_from(TEXTS)) for name in NAMES}))
    def register(self, held: dict[str, set[str]]) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.database = migrated(self.folder / "cohort.db")
        self.offices = Offices(self.database, TurnedClock(), self.folder / "tokens", seed=next(_numbers) * 1000)
        self.pairs: dict[str, TokenPair] = {}
        self.parents: dict[str, str | None] = {}
        self.revoked: set[str] = set()
        self.marks: dict[str, Taint] = {}
        self.keys: dict[str, str] = {}
        for name in NAMES:
            new = NewAgent(name, ("agents.delegate", *sorted(held[name])))
            self.keys[name] = self.offices.room.agents.register(new, "tester").key

    def teardown(self) -> None:
        self.database.close()
        shutil.rmtree(self.folder)

    @rule(target=sessions, name=st.sampled_from(NAMES))
    def sign_in(self, name: str) -> str:
        pair = self.offices.room.tokens.sign_in(self.keys[name], None, AUDIENCE)
        return self._keep(pair, None)

    @rule(target=sessions, session=sessions, agent=st.sampled_from(NAMES), asked=st.lists(st.sampled_from(TEXTS), max_size=3, unique=True))
    def exchange(self, session: str, agent: str, asked: list[str]):
        parent = self._caller(session)
        try:
            pair = self.offices.room.tokens.exchange(self.pairs[session].token, agent, asked, AUDIENCE)
        except CohortError as error:
            if error.code not in ("SCOPE_REFUSED", "SESSION_REVOKED", "TOKEN_EXPIRED"):
                raise
            return multiple()
        assert isinstance(parent, Caller), "a token that is refused was delegated from"
        assert permits(parent.scopes, "agents.delegate", agent)
        assert pair.refresh is None
        assert pair.expires_us <= parent.expires_us
        return self._keep(pair, session)

    @rule(session=sessions)
    def revoke(self, session: str) -> None:
        self.offices.room.agents.revoke_session(session, "tester", "")
        for other in self.pairs:
            if session in self._line(other):
                self.revoked.add(other)

    @rule(name=st.sampled_from(NAMES), text=st.sampled_from(TEXTS))
    def take_away(self, name: str, text: str) -> None:
        agent = self.offices.room.agents.find(name)
        scope = own_scope(text, agent.workspace)
        if scope in agent.scopes:
            self.offices.room.agents.revoke_scopes(name, [text], "tester")

    @rule(session=sessions, untrusted=st.booleans())
    def read_something(self, session: str, untrusted: bool) -> None:
        self.offices.room.identities.mark(session, Taint(untrusted=untrusted, private=not untrusted))

    @rule(seconds=st.integers(1, 200))
    def wait(self, seconds: int) -> None:
        self.offices.clock.advance(seconds)

    @rule()
    def restart(self) -> None:
        self.offices.room = self.offices.opened()

    @invariant()
    def authority_narrows_and_ends_with_its_source(self) -> None:
        for session in getattr(self, "pairs", {}):
            found = self._caller(session)
            if session in self.revoked:
                assert found in ("SESSION_REVOKED", "TOKEN_EXPIRED")
            parent = self.parents[session]
            if parent is None or not isinstance(found, Caller):
                continue
            above = self._caller(parent)
            assert isinstance(above, Caller), "a delegated token outlives the one it came from"
            assert all_inside(found.scopes, above.scopes) is None
            assert found.actors == (above.agent.id, *above.actors)
            for scope, resource in itertools.product(SCOPES[:1], RESOURCES):
                assert not permits(found.scopes, scope, resource) or permits(above.scopes, scope, resource)

    @invariant()
    def who_was_remembered_is_who_a_stranger_finds(self) -> None:
        for session in getattr(self, "pairs", {}):
            remembered = self._caller(session)
            known, self.offices.room = self.offices.room, self.offices.opened()
            assert self._caller(session) == remembered
            self.offices.room = known

    @invariant()
    def marks_stay_and_are_above_too(self) -> None:
        for session in getattr(self, "pairs", {}):
            now, before = self.offices.room.identities.taint(session), self.marks.get(session, Taint())
            assert (now.untrusted, now.private) >= (before.untrusted, now.private and before.private)
            assert now.private or not before.private
            parent = self.parents[session]
            if parent is not None:
                above = self.offices.room.identities.taint(parent)
                assert above.untrusted or not now.untrusted
                assert above.private or not now.private
            self.marks[session] = now

    def _keep(self, pair: TokenPair, parent: str | None) -> str:
        self.pairs[pair.session] = pair
        self.parents[pair.session] = parent
        return pair.session

    def _line(self, session: str) -> list[str]:
        found = [session]
        while (parent := self.parents[found[-1]]) is not None:
            found.append(parent)
        return found

    def _caller(self, session: str) -> Caller | str:
        try:
            return self.offices.room.identities.authenticate(self.pairs[session].token, AUDIENCE)
        except CohortError as error:
            return error.code


Delegation.TestCase.settings = settings(max_examples=25, stateful_step_count=25, suppress_health_check=[HealthCheck.too_slow])
TestDelegation = Delegation.TestCase
