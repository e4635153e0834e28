"""The action gate: by an agent with its token, or by a person who acts as an agent by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import anyio
import anyio.to_thread
import orjson
from fastapi import APIRouter, Body, Depends, Request
from starlette.responses import Response

from cohort.base.errors import ERRORS, CohortError, Retry
from cohort.base.ids import ActionId
from cohort.kernel.access import Right
from cohort.kernel.face import Request as Asked
from cohort.kernel.model import ActionResult, Outcome
from cohort.surfaces.http.bodies_kernel import ActionBody, Operations, PolicyInForce
from cohort.surfaces.http.callers import Executor, Idempotency, Kernel, KeyKeeper, Reader, check_right, reader
from cohort.surfaces.http.encoding import json_response, to_json
from cohort.surfaces.http.hands import Hands
from cohort.surfaces.http.repeats import once

router = APIRouter()

ACTIONS_AT_ONCE_MAX = 32
"""Threads in which actions run and wait for people; the rest wait in line, apart from every other request."""
TOKEN_CHARS_MAX = 8192
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": ActionResult, "description": "Executed: `done`, or `failed` with the reason."},
    202: {"model": ActionResult, "description": "A person has to approve; `Location` is the approval. Nothing was executed."},
}


class Lanes:
    """The threads of actions; made where the event loop runs."""

    def __init__(self) -> None:
        self._limiter: anyio.CapacityLimiter | None = None

    async def run(self, what: Callable[[], ActionResult]) -> ActionResult:
        self._limiter = self._limiter or anyio.CapacityLimiter(ACTIONS_AT_ONCE_MAX)
        return await anyio.to_thread.run_sync(what, limiter=self._limiter)


def agent_token(request: Request) -> str:
    """The token in the Authorization header; people's keys are not tokens. Errors: TOKEN_INVALID."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    token = text.strip()
    if scheme.lower() != "bearer" or not 0 < len(token) <= TOKEN_CHARS_MAX or token.startswith("ck_"):
        raise CohortError("TOKEN_INVALID", "this needs an agent's token", hint="Send `Authorization: Bearer` and a token of the agent.")
    return token


AgentToken = Annotated[str, Depends(agent_token)]


@router.post("/actions", responses=ANSWERS, summary="Do something, as an agent")
async def act(
    request: Request, body: Annotated[ActionBody, Body()], kernel: Kernel, token: AgentToken, key: Idempotency = None
) -> Response:
    """A refusal is a problem document whose `details.action` is the whole answer. With an idempotency key, asking again executes once."""
    lanes: Lanes = request.app.state.lanes
    return answered(await lanes.run(lambda: kernel.actions.perform(token, asked(body, key))))


@router.post("/agents/{agent}/actions", responses=ANSWERS, summary="Do something as an agent, by hand")
async def act_by_hand(
    request: Request, agent: str, body: Annotated[ActionBody, Body()], kernel: Kernel, caller: Executor, key: Idempotency = None
) -> Response:
    """Decided, contained and recorded as if the agent had asked; the token is minted for the person who calls, and recorded with their name."""
    lanes: Lanes = request.app.state.lanes
    hands: Hands = request.app.state.hands
    return answered(await lanes.run(lambda: hands.perform(kernel, agent, caller, asked(body, key))))


@router.get("/operations", responses={200: {"model": Operations}}, summary="Every operation: its scope, risk and arguments")
def operations(kernel: Kernel, _: Reader) -> Response:
    return json_response(Operations(tuple(kernel.actions.operations())))


@router.post("/policy/reload", responses={200: {"model": PolicyInForce}}, summary="Read the policy file again and put it in force")
def reload_policy(request: Request, kernel: Kernel, caller: KeyKeeper, key: Idempotency = None) -> Response:
    """Recorded with who asked. A file with an error is `POLICY_INVALID`, with its line; what was in force stays in force."""
    again = kernel.reload_policy
    if again is None:
        raise CohortError("POLICY_UNAVAILABLE", "no policies are kept here", hint="Start control with its kernel.")
    return once(request, caller, key, None, lambda: json_response(PolicyInForce(again(caller.name))))


def token_or_reader(request: Request) -> str | None:
    """An agent's token; None for a person who may look. Errors: as `agent_token` and `Reader`."""
    text = request.headers.get("authorization", "").partition(" ")[2].strip()
    if text and not text.startswith("ck_"):
        return agent_token(request)
    check_right(reader(request), Right.VIEW)
    return None


@router.get("/actions/{action}", responses={200: {"model": ActionResult}}, summary="How a former action ended, from the audit log")
def action(action: str, kernel: Kernel, token: Annotated[str | None, Depends(token_or_reader)]) -> Response:
    """For people, and for an agent with its token: its own actions only; another's does not exist for it."""
    found, actions = ActionId(action), kernel.actions
    return json_response(actions.result(found) if token is None else actions.own_result(token, found))


def asked(body: ActionBody, key: str | None) -> Asked:
    return Asked(body.operation, body.arguments, body.why, body.wait_s, key)


def answered(result: ActionResult) -> Response:
    """200 executed, 202 waiting. Errors: the code of a refusal; OUTCOME_UNKNOWN."""
    if result.outcome is Outcome.WAITING:
        where = {"location": f"/api/v1/approvals/{result.approval_id}"} if result.approval_id else {}
        return json_response(result, 202, where)
    if result.outcome in (Outcome.REFUSED, Outcome.UNKNOWN):
        raise refusal(result)
    return json_response(result)


def refusal(result: ActionResult) -> CohortError:
    unknown = result.outcome is Outcome.UNKNOWN
    code = "OUTCOME_UNKNOWN" if unknown else result.code if result.code in ERRORS else "POLICY_DENIED"
    said = result.reason or "the action was refused"
    retry = Retry.CHECK_FIRST if unknown else Retry.NEVER
    return CohortError(str(code), said, retry=retry, hint=result.hint, action=orjson.loads(to_json(result)))
