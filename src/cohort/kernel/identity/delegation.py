"""What an agent may hand on to another: never more than it holds itself, nor more than the other may ever hold."""

from __future__ import annotations

from collections.abc import Sequence

from cohort.base.errors import CohortError
from cohort.kernel.identity.identities import ended, suspended
from cohort.kernel.identity.issuing import chosen
from cohort.kernel.model import Agent, AgentState, Caller, Scope
from cohort.kernel.scopes import all_inside, permits

DELEGATIONS_MAX = 4
"""Agents in one chain besides the one who acts."""
DELEGATE = "agents.delegate"


def delegated(caller: Caller, child: Agent, texts: Sequence[str]) -> tuple[Scope, ...]:
    """What `caller` may give `child` of the scopes it names, written from the caller's workspace. Errors: SCOPE_REFUSED, AGENT_SUSPENDED, AGENT_REVOKED."""
    if not permits(caller.scopes, DELEGATE, child.name):
        raise CohortError(
            "SCOPE_REFUSED", f"the token does not permit to delegate to {child.name}", hint=f"Grant {DELEGATE} to the one who asks."
        )
    if len(caller.actors) >= DELEGATIONS_MAX:
        raise CohortError("SCOPE_REFUSED", f"{len(caller.actors)} agents are in this chain already", hint="Delegate from nearer the start.")
    if child.state is AgentState.REVOKED:
        raise ended(child.name)
    if child.state is not AgentState.ACTIVE:
        raise suspended(child.name)
    scopes = chosen(caller.agent, texts, caller.scopes)
    beyond = all_inside(scopes, child.scopes)
    if beyond is not None:
        raise CohortError(
            "SCOPE_REFUSED", f"{beyond} is more than {child.name} may ever hold", hint=f"Ask a person to grant it to {child.name}."
        )
    return scopes
