"""Approvals: what waits for a person, and the person's answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import anyio
import anyio.to_thread
from fastapi import APIRouter, Body, Query, Request
from starlette.responses import Response

from cohort.base.errors import CohortError
from cohort.base.ids import ApprovalId, GrantRuleId
from cohort.kernel.face import KernelFace
from cohort.kernel.model import Approval, ApprovalState, GrantRule
from cohort.surfaces.http.bodies_kernel import WAIT_S_MAX, Approvals, ApproveBody, DenyBody, Rules, Words
from cohort.surfaces.http.callers import Approver, Idempotency, Kernel, Reader
from cohort.surfaces.http.encoding import json_response
from cohort.surfaces.http.live import Feed, approvals_stream, stream_response
from cohort.surfaces.http.paging import Rows
from cohort.surfaces.http.repeats import once
from cohort.surfaces.http.routes_actions import AgentToken
from cohort.surfaces.http.routes_rollouts import EVENTS

router = APIRouter()

WAITERS_MAX = 64
"""Requests that wait for a person at the same time; the rest wait in line."""
WaitFor = Annotated[
    float, Query(ge=0, le=WAIT_S_MAX, allow_inf_nan=False, description="Answer once it is decided, or after so many seconds.")
]
StateFilter = Annotated[ApprovalState | None, Query()]


class Waiters:
    """The threads in which requests wait for people; made where the event loop runs."""

    def __init__(self) -> None:
        self._limiter: anyio.CapacityLimiter | None = None

    async def run(self, what: Callable[[], Approval]) -> Approval:
        self._limiter = self._limiter or anyio.CapacityLimiter(WAITERS_MAX)
        return await anyio.to_thread.run_sync(what, limiter=self._limiter)


def looked_up(kernel: KernelFace, approval: str, wait_s: float) -> Approval:
    which = ApprovalId(approval)
    return kernel.approvals.wait(which, wait_s) if wait_s > 0 else kernel.approvals.find(which)


@router.get("/approvals", responses={200: {"model": Approvals}}, summary="Approvals, newest first")
def approvals(kernel: Kernel, _: Reader, state: StateFilter = None, limit: Rows = 100) -> Response:
    return json_response(Approvals(tuple(kernel.approvals.list(state, limit))))


@router.get("/approvals/events", responses=EVENTS, summary="What waits for a person, as it changes (server-sent events)")
async def events(request: Request, kernel: Kernel, _: Reader) -> Response:
    """`event: approvals` with the list of what waits, at once and whenever it changed."""
    feed: Feed = request.app.state.feed
    return stream_response(feed, approvals_stream(feed, kernel.approvals))


@router.get("/approvals/{approval}", responses={200: {"model": Approval}}, summary="One approval; with `wait_s`, once it is decided")
async def approval(request: Request, approval: str, kernel: Kernel, _: Reader, wait_s: WaitFor = 0.0) -> Response:
    waiters: Waiters = request.app.state.waiters
    return json_response(await waiters.run(lambda: looked_up(kernel, approval, wait_s)))


@router.post("/approvals/{approval}/approve", responses={200: {"model": Approval}}, summary="Let an action happen")
def approve(
    request: Request,
    approval: str,
    kernel: Kernel,
    caller: Approver,
    body: Annotated[ApproveBody | None, Body()] = None,
    key: Idempotency = None,
) -> Response:
    """Once for this very action, unless `grant` says how much further it reaches. The approver is the key that calls, never a name in the body."""
    sign = (body or ApproveBody()).sign(caller.name)
    return once(request, caller, key, body, lambda: json_response(kernel.approvals.approve(ApprovalId(approval), sign)))


@router.post("/approvals/{approval}/preview", responses={200: {"model": Words}}, summary="What an answer would permit, in plain words")
def preview(approval: str, kernel: Kernel, caller: Approver, body: Annotated[ApproveBody | None, Body()] = None) -> Response:
    """Changes nothing. The body is that of `approve`."""
    return json_response(Words(kernel.approvals.preview(ApprovalId(approval), (body or ApproveBody()).sign(caller.name))))


@router.post("/approvals/{approval}/deny", responses={200: {"model": Approval}}, summary="Refuse an action")
def deny(
    request: Request,
    approval: str,
    kernel: Kernel,
    caller: Approver,
    body: Annotated[DenyBody | None, Body()] = None,
    key: Idempotency = None,
) -> Response:
    sign = (body or DenyBody()).sign(caller.name)
    return once(request, caller, key, body, lambda: json_response(kernel.approvals.deny(ApprovalId(approval), sign)))


@router.post("/approvals/reply", responses={200: {"model": Approval}}, summary="The webhook's signed answer")
async def reply(request: Request, kernel: Kernel) -> Response:
    """Needs no key: the signature over the body says who answers."""
    if kernel.reply is None:
        raise CohortError("KEY_INVALID", "no approval webhook is configured", hint="Set `kernel.approval_webhook` in the configuration.")
    waiters: Waiters = request.app.state.waiters
    body, take = await request.body(), kernel.reply
    return json_response(await waiters.run(lambda: take(dict(request.headers), body)))


@router.post(
    "/approvals/{approval}/withdraw", responses={200: {"model": Approval}}, summary="Take a question back, as the agent that asked"
)
def withdraw(approval: str, kernel: Kernel, token: AgentToken) -> Response:
    return json_response(kernel.approvals.withdraw(ApprovalId(approval), kernel.actions.caller(token)))


@router.get("/approval-rules", responses={200: {"model": Rules}}, summary="Approvals that reach further than one action")
def rules(kernel: Kernel, _: Reader) -> Response:
    return json_response(Rules(tuple(kernel.approvals.rules())))


@router.post("/approval-rules/{rule}/revoke", responses={200: {"model": GrantRule}}, summary="End a rule, from the next action on")
def revoke_rule(request: Request, rule: str, kernel: Kernel, caller: Approver, key: Idempotency = None) -> Response:
    return once(request, caller, key, None, lambda: json_response(kernel.approvals.revoke_rule(GrantRuleId(rule), caller.name)))
