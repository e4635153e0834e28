"""Live pages about agents. The inbox is a list with keys: a question that somebody reads, or writes an answer to, is left alone."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from cohort.kernel.face import KernelFace
from cohort.surfaces.dashboard.pages_kernel import agent_shown, agents_shown, audit_shown, inbox_shown
from cohort.surfaces.dashboard.rendering import render
from cohort.surfaces.dashboard.streams import stream
from cohort.surfaces.http.callers import Auditor, Caller, Face, Kernel, Reader
from cohort.surfaces.http.ports import ControlFace

router = APIRouter(include_in_schema=False)

INBOX_FRAGMENTS = ("inbox_head", "inbox", "decided")
AGENT_FRAGMENTS = ("agent_head", "agent_work")
NO_FILTER = dict.fromkeys(("agent", "kind", "action", "text", "since", "until"), "")


@router.get("/live/agents")
async def live_agents(request: Request, control: Face, kernel: Kernel, caller: Reader) -> Response:
    return stream(request, control, caller, lambda: (agents_fragments(control, kernel, caller), False))


@router.get("/live/agents/{agent}")
async def live_agent(request: Request, agent: str, control: Face, kernel: Kernel, caller: Reader) -> Response:
    return stream(request, control, caller, lambda: (agent_fragments(control, kernel, caller, agent), False))


@router.get("/live/approvals")
async def live_approvals(request: Request, control: Face, kernel: Kernel, caller: Reader) -> Response:
    return stream(request, control, caller, lambda: (inbox_fragments(control, kernel, caller), False))


@router.get("/live/audit")
async def live_audit(request: Request, control: Face, kernel: Kernel, caller: Auditor) -> Response:
    return stream(request, control, caller, lambda: (audit_fragments(control, kernel, caller), False))


def agents_fragments(control: ControlFace, kernel: KernelFace, caller: Caller) -> dict[str, str]:
    shown = {"now_us": control.clock.now_us(), "visitor": caller, **agents_shown(kernel)}
    return {"agents": render("fragments/agents.html", **shown)}


def agent_fragments(control: ControlFace, kernel: KernelFace, caller: Caller, agent: str) -> dict[str, str]:
    shown = {"now_us": control.clock.now_us(), "visitor": caller, **agent_shown(kernel, caller, agent)}
    return {name: render(f"fragments/{name}.html", **shown) for name in AGENT_FRAGMENTS}


def inbox_fragments(control: ControlFace, kernel: KernelFace, caller: Caller) -> dict[str, str]:
    shown = {"now_us": control.clock.now_us(), "visitor": caller, **inbox_shown(kernel)}
    return {name: render(f"fragments/{name}.html", **shown) for name in INBOX_FRAGMENTS}


def audit_fragments(control: ControlFace, kernel: KernelFace, caller: Caller) -> dict[str, str]:
    shown = {"now_us": control.clock.now_us(), "visitor": caller, **audit_shown(kernel, NO_FILTER, None)}
    return {"entries": render("fragments/entries.html", **shown)}
