"""The buttons about agents: forms that any browser can send, each with the command that does the same."""

from __future__ import annotations

import shlex
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from cohort.base.errors import CohortError
from cohort.base.ids import AgentSessionId, ApprovalId, GrantRuleId
from cohort.kernel.access import Right
from cohort.kernel.face import KernelFace, Sign
from cohort.kernel.model import Agent, Approval, GrantScope
from cohort.surfaces.dashboard.agent_buttons import AGENT_BUTTONS, WORKSPACE_BUTTONS
from cohort.surfaces.dashboard.buttons import Button
from cohort.surfaces.dashboard.pages_kernel import inbox_shown, verified
from cohort.surfaces.dashboard.rendering import page
from cohort.surfaces.http.bodies_kernel import LIFE_S_MAX, SCOPE_CHARS_MAX, USES_MAX
from cohort.surfaces.http.callers import Caller, Kernel, Reader, check_change
from cohort.surfaces.http.ports import REASON_CHARS_MAX
from cohort.surfaces.http.routes_agents import AgentVerb, agent_verb
from cohort.surfaces.http.routes_workspaces import WorkspaceVerb, workspace_verb

router = APIRouter(include_in_schema=False)

Csrf = Annotated[str, Form(max_length=200)]
Reason = Annotated[str, Form(max_length=REASON_CHARS_MAX)]
Looked = Annotated[int | None, Form(ge=0, le=2**31 - 1)]
Pattern = Annotated[str, Form(max_length=SCOPE_CHARS_MAX)]
Hours = Annotated[float | None, Form(gt=0, le=LIFE_S_MAX / 3600, allow_inf_nan=False)]
Uses = Annotated[int | None, Form(ge=1, le=USES_MAX)]


@router.get("/agents/{agent}/{verb}")
def ask(request: Request, agent: str, verb: AgentVerb, kernel: Kernel, caller: Reader) -> Response:
    return _confirm(request, caller, kernel.agents.find(agent), AGENT_BUTTONS[verb], "agent")


@router.post("/agents/{agent}/{verb}")
def turn(request: Request, agent: str, verb: AgentVerb, kernel: Kernel, caller: Reader, csrf: Csrf = "", reason: Reason = "") -> Response:
    check_change(caller, csrf, Right.REGISTER)
    button = AGENT_BUTTONS[verb]
    found = kernel.agents.find(agent)
    try:
        if button.reason_needed and not reason.strip():
            raise CohortError("FIELD_INVALID", "a reason is needed", field="reason", hint="Say in a few words why.")
        agent_verb(kernel.agents, verb)(found.id, caller.name, reason.strip())
    except CohortError as error:
        if error.http_status not in (403, 409, 422):
            raise
        return _confirm(request, caller, found, button, "agent", error, reason)
    return RedirectResponse(f"/agents/{found.id}?done={verb}", 303)


@router.get("/agents/{agent}/workspace/{verb}")
def ask_workspace(request: Request, agent: str, verb: WorkspaceVerb, kernel: Kernel, caller: Reader) -> Response:
    return _confirm(request, caller, kernel.agents.find(agent), WORKSPACE_BUTTONS[verb], "workspace")


@router.post("/agents/{agent}/workspace/{verb}")
def turn_workspace(
    request: Request, agent: str, verb: WorkspaceVerb, kernel: Kernel, caller: Reader, csrf: Csrf = "", reason: Reason = ""
) -> Response:
    check_change(caller, csrf, Right.REGISTER)
    found = kernel.agents.find(agent)
    try:
        workspace_verb(kernel.workspaces, verb)(str(found.workspace), caller.name, reason.strip())
    except CohortError as error:
        if error.http_status not in (409, 422):
            raise
        return _confirm(request, caller, found, WORKSPACE_BUTTONS[verb], "workspace", error, reason)
    return RedirectResponse(f"/agents/{found.id}?done={verb}", 303)


@router.post("/agents/{agent}/sessions/{session}/revoke")
def end_session(agent: str, session: str, kernel: Kernel, caller: Reader, csrf: Csrf = "") -> Response:
    check_change(caller, csrf, Right.REGISTER)
    kernel.agents.revoke_session(AgentSessionId(session), caller.name, "ended on the dashboard")
    return RedirectResponse(f"/agents/{kernel.agents.find(agent).id}?done=session", 303)


@router.post("/approvals/{approval}/approve")
def approve(
    request: Request,
    approval: str,
    kernel: Kernel,
    caller: Reader,
    csrf: Csrf = "",
    note: Reason = "",
    looked_ms: Looked = None,
    grant: Annotated[GrantScope, Form()] = GrantScope.ONCE,
    resource: Pattern = "",
    words: Pattern = "",
    hours: Hours = None,
    uses: Uses = None,
) -> Response:
    check_change(caller, csrf, Right.APPROVE)
    life_s = hours * 3600 if hours is not None else None
    try:
        prefix = tuple(_split(words)) or None
        sign = Sign(caller.name, grant, note.strip(), looked_ms, resource.strip() or None, prefix, life_s, uses)
        found = kernel.approvals.approve(ApprovalId(approval), sign)
    except CohortError as error:
        return _refused(request, kernel, caller, error)
    return _thanks(found)


@router.post("/approvals/{approval}/deny")
def deny(
    request: Request, approval: str, kernel: Kernel, caller: Reader, csrf: Csrf = "", note: Reason = "", looked_ms: Looked = None
) -> Response:
    check_change(caller, csrf, Right.APPROVE)
    try:
        found = kernel.approvals.deny(ApprovalId(approval), Sign(caller.name, note=note.strip(), looked_ms=looked_ms))
    except CohortError as error:
        return _refused(request, kernel, caller, error)
    return _thanks(found)


@router.post("/approval-rules/{rule}/revoke")
def revoke_rule(rule: str, kernel: Kernel, caller: Reader, csrf: Csrf = "") -> Response:
    check_change(caller, csrf, Right.APPROVE)
    kernel.approvals.revoke_rule(GrantRuleId(rule), caller.name)
    return RedirectResponse("/approvals#rules", 303)


@router.post("/audit/verify")
def verify(request: Request, kernel: Kernel, caller: Reader, csrf: Csrf = "") -> Response:
    check_change(caller, csrf, Right.AUDIT)
    return verified(request, kernel, caller, kernel.audit.verify())


def _split(words: str) -> list[str]:
    try:
        return shlex.split(words)
    except ValueError as error:
        raise CohortError("FIELD_INVALID", f"the first words: {error}", field="words", hint="Close the quotation.") from error


def _thanks(approval: Approval) -> Response:
    return RedirectResponse(f"/approvals?done={approval.id}", 303)


def _refused(request: Request, kernel: KernelFace, caller: Caller, error: CohortError) -> Response:
    """Somebody else was quicker, it is too late, or the wider permission cannot be given: said where the person looks."""
    if error.http_status not in (403, 409, 422):
        raise error
    return page(request, "approvals.html", caller, error.http_status, **inbox_shown(kernel), answered=None, error=error)


def _confirm(
    request: Request, caller: Caller, agent: Agent, button: Button, what: str, error: CohortError | None = None, reason: str = ""
) -> Response:
    sure = f" --confirm {agent.name}" if button.verb == "revoke" else " --yes" if button.verb == "discard" else ""
    command = f'cohort {what} {button.verb} {agent.name} --reason "…"{sure}'
    values = {"agent": agent, "button": button, "what": what, "error": error, "reason": reason, "command": command}
    return page(request, "confirm_agent.html", caller, error.http_status if error else 200, **values)
