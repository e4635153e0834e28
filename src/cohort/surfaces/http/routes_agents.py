"""Agents: register, look, grant, suspend, revoke; their keys, sessions and tokens."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Body, Request
from starlette.responses import Response

from cohort.base.ids import AgentSessionId
from cohort.kernel.face import Agents as AgentsFace
from cohort.kernel.face import NewAgent, Registered
from cohort.kernel.model import Agent
from cohort.surfaces.http.bodies_kernel import (
    AgentBody,
    Agents,
    AgentView,
    AgentWithKey,
    Holdings,
    MaybeReason,
    ScopesBody,
    Sessions,
    Token,
    TokenBody,
    agent_view,
    reason_of,
)
from cohort.surfaces.http.callers import Executor, Idempotency, Kernel, Reader, Registrar
from cohort.surfaces.http.encoding import json_response
from cohort.surfaces.http.paging import Cursor, Rows, paged
from cohort.surfaces.http.repeats import once

router = APIRouter()


class AgentVerb(StrEnum):
    SUSPEND = "suspend"
    RESUME = "resume"
    REVOKE = "revoke"
    TRUST = "trust"


def agent_verb(agents: AgentsFace, verb: AgentVerb) -> Callable[[str, str, str], Agent]:
    return {
        AgentVerb.SUSPEND: agents.suspend,
        AgentVerb.RESUME: agents.resume,
        AgentVerb.REVOKE: agents.revoke,
        AgentVerb.TRUST: agents.trust,
    }[verb]


@router.post("/agents", status_code=201, responses={201: {"model": AgentWithKey}}, summary="Register an agent")
def register(request: Request, body: Annotated[AgentBody, Body()], kernel: Kernel, caller: Registrar, key: Idempotency = None) -> Response:
    """`key` in the answer is what the agent signs in with; it is shown this once."""

    def change() -> Response:
        new = NewAgent(body.name, tuple(body.scopes), body.autonomy, body.limits.limits(), tuple(body.egress), body.description)
        made = kernel.agents.register(new, caller.name)
        return json_response(_with_key(made), 201, {"location": f"/api/v1/agents/{made.agent.id}"})

    return once(request, caller, key, body, change)


@router.get("/agents", responses={200: {"model": Agents}}, summary="Agents, by name")
def agents(kernel: Kernel, _: Reader, limit: Rows = 50, cursor: Cursor = None) -> Response:
    rows, following = paged(kernel.agents.list(), limit, cursor)
    return json_response(Agents(tuple(map(agent_view, rows)), following))


@router.get("/agents/{agent}", responses={200: {"model": AgentView}}, summary="One agent, by id or name")
def agent(agent: str, kernel: Kernel, _: Reader) -> Response:
    return json_response(agent_view(kernel.agents.find(agent)))


@router.post("/agents/{agent}/scopes/grant", responses={200: {"model": AgentView}}, summary="Give an agent scopes")
def grant(
    request: Request, agent: str, body: Annotated[ScopesBody, Body()], kernel: Kernel, caller: Registrar, key: Idempotency = None
) -> Response:
    """Tokens that are out already keep what they were minted with."""
    return once(request, caller, key, body, lambda: json_response(agent_view(kernel.agents.grant(agent, body.scopes, caller.name))))


@router.post("/agents/{agent}/scopes/revoke", responses={200: {"model": AgentView}}, summary="Take scopes from an agent")
def revoke_scopes(
    request: Request, agent: str, body: Annotated[ScopesBody, Body()], kernel: Kernel, caller: Registrar, key: Idempotency = None
) -> Response:
    return once(request, caller, key, body, lambda: json_response(agent_view(kernel.agents.revoke_scopes(agent, body.scopes, caller.name))))


@router.post("/agents/{agent}/keys", status_code=201, responses={201: {"model": AgentWithKey}}, summary="A new key for an agent")
def new_key(request: Request, agent: str, kernel: Kernel, caller: Registrar, key: Idempotency = None) -> Response:
    return once(request, caller, key, None, lambda: json_response(_with_key(kernel.agents.new_key(agent, caller.name)), 201))


@router.get("/agents/{agent}/limits", responses={200: {"model": Holdings}}, summary="Which limits of an agent hold here")
def limits(agent: str, kernel: Kernel, _: Reader) -> Response:
    kernel.agents.find(agent)
    return json_response(Holdings(tuple(kernel.limits(agent))))


@router.get("/agents/{agent}/sessions", responses={200: {"model": Sessions}}, summary="The sessions of an agent")
def sessions(agent: str, kernel: Kernel, _: Reader) -> Response:
    return json_response(Sessions(tuple(kernel.agents.sessions(agent))))


@router.post(
    "/agents/{agent}/sessions/{session}/revoke", responses={200: {"model": Sessions}}, summary="End a session and those delegated from it"
)
def revoke_session(
    request: Request,
    agent: str,
    session: str,
    kernel: Kernel,
    caller: Registrar,
    body: MaybeReason = None,
    key: Idempotency = None,
) -> Response:
    """Answers with the agent's sessions afterwards."""

    def change() -> Response:
        kernel.agents.revoke_session(AgentSessionId(session), caller.name, reason_of(body))
        return json_response(Sessions(tuple(kernel.agents.sessions(agent))))

    return once(request, caller, key, body, change)


@router.post("/agents/{agent}/tokens", status_code=201, responses={201: {"model": Token}}, summary="A token to act as an agent by hand")
def mint(
    request: Request,
    agent: str,
    kernel: Kernel,
    caller: Executor,
    body: Annotated[TokenBody | None, Body()] = None,
    key: Idempotency = None,
) -> Response:
    """Recorded with the name of the key that asked."""

    def change() -> Response:
        asked = body or TokenBody()
        pair = kernel.agents.mint(agent, asked.scopes, caller.name, task=asked.task, life_s=asked.life_s, key=caller.key)
        return json_response(Token(pair.token, pair.session, pair.scopes, pair.expires_us), 201)

    return once(request, caller, key, body, change)


@router.post("/agents/{agent}/{verb}", responses={200: {"model": AgentView}}, summary="Suspend, resume, or revoke for ever")
def turn(
    request: Request,
    agent: str,
    verb: AgentVerb,
    kernel: Kernel,
    caller: Registrar,
    body: MaybeReason = None,
    key: Idempotency = None,
) -> Response:
    """From the next action on. `revoke` ends keys, sessions and delegations, and cannot be undone."""
    return once(
        request, caller, key, body, lambda: json_response(agent_view(agent_verb(kernel.agents, verb)(agent, caller.name, reason_of(body))))
    )


def _with_key(made: Registered) -> AgentWithKey:
    return AgentWithKey(agent_view(made.agent), made.key)
