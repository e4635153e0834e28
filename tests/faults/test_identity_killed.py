"""Killed between a record and its change: the log says more than was done, never less, and everything can be done again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from cohort.kernel.model import AgentState, Record
from cohort.kernel.ports import AUDIENCE
from support_identity import Offices, TurnedClock


@pytest.fixture
def offices(sqlite_database, tmp_path) -> Offices:
    return Offices(sqlite_database, TurnedClock(), tmp_path / "tokens")


def killed_after(offices: Offices, event: str, act: Callable[[Offices], object]) -> list[str]:
    """Run `act` in a process that dies right after it has recorded `event`; the events it recorded."""
    into, out = os.pipe()
    child = os.fork()
    if child == 0:
        said = offices.audit.append

        def dying(record: Record):
            place = said(record)
            os.write(out, f"{record.body['event']}\n".encode())
            if record.body["event"] == event:
                os.kill(os.getpid(), signal.SIGKILL)
            return place

        offices.audit.append = dying
        try:
            act(offices)
        finally:
            os._exit(7)
    os.close(out)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with open(into) as file:
        return file.read().split()


@pytest.fixture
def closed(offices):
    """The database without an open connection, as a fork must find it."""
    offices.database.close()
    return offices


def test_a_registration_that_was_cut_short_leaves_nobody_who_can_act(closed):
    assert killed_after(closed, "register", lambda o: o.register("smoke-1", "files.read")) == ["register"]
    assert list(closed.room.agents.list()) == []
    assert closed.register("smoke-1", "files.read").agent.state is AgentState.ACTIVE


def test_a_registration_killed_while_its_workspace_is_made_is_finished_by_another(closed):
    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def act(offices):
        offices.rooms.create = die
        offices.register("smoke-1", "files.read")

    killed_after(closed, "never", act)
    assert [agent.state for agent in closed.room.agents.list()] == [AgentState.SUSPENDED]
    assert closed.code(closed.register, "smoke-1") == "AGENT_NAME_TAKEN"
    closed.clock.advance(61)
    assert closed.register("smoke-1", "files.read").agent.state is AgentState.ACTIVE
    states = {agent.name: agent.state for agent in closed.room.agents.list()}
    assert states.pop("smoke-1") is AgentState.ACTIVE
    assert list(states.values()) == [AgentState.REVOKED]


def test_a_sign_in_that_was_cut_short_opened_nothing(closed):
    registered = closed.register("smoke-1")
    closed.database.close()
    killed_after(closed, "sign_in", lambda o: o.room.tokens.sign_in(registered.key, None, AUDIENCE))
    assert list(closed.room.agents.sessions("smoke-1")) == []
    assert closed.room.tokens.sign_in(registered.key, None, AUDIENCE).refresh


def test_a_refresh_that_was_cut_short_before_its_commit_can_be_repeated(closed):
    registered = closed.register("smoke-1")
    pair = closed.room.tokens.sign_in(registered.key, None, AUDIENCE)
    closed.database.close()
    killed_after(closed, "refresh", lambda o: o.room.tokens.refresh(pair.refresh))
    assert closed.room.tokens.refresh(pair.refresh).session == pair.session


def test_a_revocation_that_was_cut_short_is_recorded_and_can_be_repeated(closed):
    registered = closed.register("smoke-1")
    pair = closed.room.tokens.sign_in(registered.key, None, AUDIENCE)
    closed.database.close()
    assert killed_after(closed, "revoke", lambda o: o.room.agents.revoke("smoke-1", "tester", "stolen")) == ["revoke"]
    assert closed.room.identities.authenticate(pair.token, AUDIENCE)
    closed.room.agents.revoke("smoke-1", "tester", "stolen")
    assert closed.code(closed.room.identities.authenticate, pair.token, AUDIENCE) == "SESSION_REVOKED"


def test_a_rotation_that_was_cut_short_changed_no_key(closed):
    before = closed.room.tokens.jwks()
    killed_after(closed, "token_key", lambda o: o.room.tokens.rotate("tester"))
    assert closed.opened().tokens.jwks() == before
