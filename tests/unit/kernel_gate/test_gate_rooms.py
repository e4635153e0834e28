"""The gate with every room real: delegation, the machine's figures, tokens that are no more."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.kernel.actions.delegating import GatedTokens
from cohort.kernel.actions.executors.machine import delegate, system_read
from cohort.kernel.actions.gate import Gate, GateSettings
from cohort.kernel.actions.policy import Policies
from cohort.kernel.face import Request
from cohort.kernel.machine.monitor import Monitor
from cohort.kernel.model import Outcome
from cohort.kernel.ports import AUDIENCE
from support_gate_rooms import Kernel


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel(tmp_path)
    made.gate.register("agent.delegate", delegate(made.identity.tokens))
    made.gate.register("system.read", system_read(Monitor(SystemClock(), disks=(tmp_path,))))
    yield made
    made.close()


def test_a_delegated_token_does_less_and_is_in_no_log(kernel: Kernel) -> None:
    token = kernel.agent("smoke-1")
    kernel.agent("smoke-2")
    own = kernel.identity.agents.find("smoke-1").workspace
    kernel.identity.agents.grant("smoke-2", [f"files.read:{own}/**"], "anna")
    kernel.ask(token, "files.write", path="a", content="shared")
    given = kernel.ask(token, "agent.delegate", key="k", agent="smoke-2", scopes=[f"files.read:{own}/**"])
    assert given.outcome is Outcome.DONE, given
    child = str(given.result["token"])
    asked = kernel.ask(child, "files.read", path="a", workspace=own)
    assert asked.outcome is Outcome.WAITING  # it is the workspace of another, so a person says
    assert kernel.ask(child, "files.write", path="a", content="x", workspace=own).code == "SCOPE_REFUSED"
    assert kernel.ask(child, "agent.delegate", agent="smoke-1", scopes=["files.read"]).code == "SCOPE_REFUSED"
    assert "token" not in kernel.ask(token, "agent.delegate", key="k", agent="smoke-2", scopes=[f"files.read:{own}/**"]).result
    assert child not in repr([entry.body for entry in kernel.log()])


def test_an_exchange_is_an_action_that_the_policy_can_forbid(tmp_path: Path) -> None:
    rule = tmp_path / "policy.cedar"
    rule.write_text('forbid (principal, action == Action::"agent.delegate", resource);\n')
    kernel = Kernel(tmp_path)
    kernel.gate.register("agent.delegate", delegate(kernel.identity.tokens))
    token = kernel.agent("smoke-1")
    kernel.agent("smoke-2")
    tokens = GatedTokens(kernel.identity.tokens, kernel.gate)
    child = tokens.exchange(token, "smoke-2", ["system.read"], AUDIENCE)
    assert (child.scopes, child.refresh) == (("system.read",), None)
    assert kernel.gate.caller(child.token).agent.name == "smoke-2"
    assert [entry.body["kind"] for entry in kernel.log()][-3:] == ["intent", "token", "outcome"]
    kernel.rooms = replace(kernel.rooms, policies=Policies(rule, {}))
    forbidding = Gate(kernel.rooms, GateSettings(), {"agent.delegate": delegate(kernel.identity.tokens)}, kernel.clock, secrets.token_bytes)
    with pytest.raises(CohortError) as raised:
        GatedTokens(kernel.identity.tokens, forbidding).exchange(token, "smoke-2", ["system.read"], AUDIENCE)
    assert raised.value.code == "POLICY_DENIED"
    assert GatedTokens(kernel.identity.tokens, forbidding).exchange(token, "smoke-1", ["system.read"], AUDIENCE).scopes == ("system.read",)
    kernel.close()


def test_files_are_delegated_from_the_workspace_of_the_one_who_delegates(kernel: Kernel) -> None:
    token = kernel.agent("smoke-1")
    kernel.agent("smoke-2")
    own = kernel.identity.agents.find("smoke-1").workspace
    kernel.identity.agents.grant("smoke-2", [f"files.read:{own}/**"], "anna")
    given = kernel.ask(token, "agent.delegate", agent="smoke-2", scopes=["files.read:src/**"])
    assert given.outcome is Outcome.DONE, given


def test_what_is_wider_than_the_token_is_not_given(kernel: Kernel) -> None:
    token = kernel.agent("smoke-1")
    kernel.agent("smoke-2")
    refused = kernel.ask(token, "agent.delegate", agent="smoke-2", scopes=["files.read:*"])
    assert (refused.outcome, refused.code) == (Outcome.REFUSED, "SCOPE_REFUSED")


@pytest.mark.parametrize("what", ["cpu", "memory", "disk", "network", "processes"])
def test_the_machine_can_be_looked_at(kernel: Kernel, what: str) -> None:
    done = kernel.ask(kernel.agent(), "system.read", what=what)
    assert (done.outcome, bool(done.result)) == (Outcome.DONE, True), done
    assert kernel.audit.desk.verify().complete


def test_revoking_holds_from_the_next_action_on(kernel: Kernel) -> None:
    token = kernel.agent()
    assert kernel.ask(token, "files.list").outcome is Outcome.DONE
    kernel.identity.agents.revoke("smoke-1", "anna", "it misbehaved")
    with pytest.raises(CohortError) as raised:
        kernel.ask(token, "files.list")
    assert raised.value.code in ("SESSION_REVOKED", "AGENT_REVOKED", "AGENT_SUSPENDED")


@pytest.mark.parametrize(
    "spoil",
    [lambda token: token[:-4] + "AAAA", lambda token: "", lambda token: "e30." + token.partition(".")[2], lambda token: "x" * 100_000],
)
def test_a_token_that_is_not_ours_does_nothing(kernel: Kernel, spoil: object) -> None:
    token = kernel.agent()
    before = kernel.audit.desk.size()
    with pytest.raises(CohortError) as raised:
        kernel.gate.perform(spoil(token), Request("files.list", {}))  # type: ignore[operator]
    assert (raised.value.code, kernel.audit.desk.size()) == ("TOKEN_INVALID", before)


def test_a_session_keeps_what_it_has_read(kernel: Kernel) -> None:
    token = kernel.agent()
    caller = kernel.gate.caller(token)
    kernel.ask(token, "files.list")
    taint = kernel.identity.identities.taint(caller.session)
    assert (taint.private, taint.untrusted) == (True, False)
