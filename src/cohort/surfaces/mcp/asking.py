"""While an action waits for a person: the client is told where they answer. Nothing that a client sends is an answer.

The client belongs to the agent, so a yes that comes through it proves nothing. It may show the question and where to answer it, and may say
that nobody will; the answer itself comes from a person who is signed in, by the dashboard, the command line or the webhook.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from cohort.kernel.face import ApprovalDesk
from cohort.kernel.model import ActionResult, Approval, ApprovalState, Outcome

WAIT_S = 300.0
"""How long a call waits for a person before it answers that it still does."""
POLL_S = 0.5
PROGRESS_EVERY = 10
"""Looks between two notes of progress."""
NAME = "approval"
REFUSALS = {
    ApprovalState.DENIED: ("APPROVAL_DENIED", "a person said no"),
    ApprovalState.EXPIRED: ("APPROVAL_EXPIRED", "nobody answered in time"),
    ApprovalState.WITHDRAWN: ("APPROVAL_DENIED", "the question was withdrawn"),
}

Context = ServerRequestContext[Any, Any]
InThread = Callable[[Callable[[], Approval]], Awaitable[Approval]]


class Asking:
    def __init__(self, approvals: ApprovalDesk, wait_s: float = WAIT_S, poll_s: float = POLL_S) -> None:
        self._approvals = approvals
        self._wait_s = wait_s
        self._poll_s = poll_s

    async def decided(self, context: Context, answer: ActionResult, where: str, in_thread: InThread) -> ActionResult | None:
        """Once a person has decided: `answer` as it stands then, without a code when they approved. None: nobody has, or nobody will."""
        found: ActionResult | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._tell, context, answer, where, group.cancel_scope)
            with anyio.move_on_after(self._wait_s):
                found = await self._watch(context, answer, where, in_thread)
            group.cancel_scope.cancel()
        return found

    async def _watch(self, context: Context, answer: ActionResult, where: str, in_thread: InThread) -> ActionResult:
        looks = 0
        while True:
            if answer.approval_id is None:
                return answer
            approval = await in_thread(partial(self._approvals.find, answer.approval_id))
            if approval.state is not ApprovalState.PENDING:
                return _told(answer, approval)
            if looks % PROGRESS_EVERY == 0:
                await context.session.report_progress(looks * self._poll_s, self._wait_s, f"waiting for a person's approval at {where}")
            looks += 1
            await anyio.sleep(self._poll_s)

    async def _tell(self, context: Context, answer: ActionResult, where: str, scope: anyio.CancelScope) -> None:
        """Show the question by the client, where it can be asked; a person who declines there ends the waiting, and nothing else."""
        able = _able(context)
        if able is None or not context.session.can_send_request:
            return
        message = _message(answer, where)
        try:
            if able == "url":
                reply = await context.session.elicit_url(message, where, str(answer.approval_id), context.request_id)
            else:
                reply = await context.session.elicit_form(message, {"type": "object", "properties": {}}, context.request_id)
        except MCPError:
            return  # it cannot show it after all; the person may come by another way
        if reply.action == "decline":
            scope.cancel()


def question(context: Context, params: types.CallToolRequestParams, answer: ActionResult, where: str) -> types.InputRequiredResult | None:
    """For clients of 2026-07-28, which are asked by an answer: the question, unless it was asked before or cannot be shown."""
    able = _able(context)
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS or able is None or asked_before(params):
        return None
    shown: types.ElicitRequestURLParams | types.ElicitRequestFormParams
    if able == "url":
        shown = types.ElicitRequestURLParams(message=_message(answer, where), url=where)
    else:
        shown = types.ElicitRequestFormParams(message=_message(answer, where), requested_schema={"type": "object", "properties": {}})
    return types.InputRequiredResult(input_requests={NAME: types.ElicitRequest(params=shown)})


def asked_before(params: types.CallToolRequestParams) -> bool:
    return params.input_responses is not None and NAME in params.input_responses


def declined(params: types.CallToolRequestParams) -> bool:
    reply = (params.input_responses or {}).get(NAME)
    return isinstance(reply, types.ElicitResult) and reply.action == "decline"


def _able(context: Context) -> str | None:
    """`url` or `form`: how the client can show a question. A client that names neither way means the form."""
    capabilities = context.session.client_capabilities
    asked = capabilities.elicitation if capabilities is not None else None
    if asked is None:
        return None
    return "url" if asked.url is not None else "form"


def _message(answer: ActionResult, where: str) -> str:
    return (
        f"An agent asks for approval: {answer.reason}. Answer at {where} or with `cohort approval show {answer.approval_id}`. "
        "Accepting here approves nothing; it only goes on waiting."
    )


def _told(answer: ActionResult, approval: Approval) -> ActionResult:
    refused = REFUSALS.get(approval.state)
    if refused is None:
        return replace(answer, code=None)
    code, reason = refused
    said = f"{reason}: {approval.note}" if approval.note else reason
    return replace(answer, outcome=Outcome.REFUSED, code=code, reason=said, hint="Do something else, or ask again with a better reason.")
