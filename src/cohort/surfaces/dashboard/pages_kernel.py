"""The pages about agents: who there is, what waits for a person, what is recorded, what this machine can contain."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from cohort.base.errors import CohortError
from cohort.base.ids import ApprovalId
from cohort.kernel.access import Right
from cohort.kernel.face import AuditQuery, Entry, KernelFace, Verification, WorkspaceView
from cohort.kernel.model import Agent, Approval, ApprovalState, GrantRule, RecordKind
from cohort.surfaces.dashboard.recent import recent_actions
from cohort.surfaces.dashboard.rendering import page
from cohort.surfaces.http.callers import Auditor, Caller, Kernel, Reader
from cohort.surfaces.http.ports import NUMBER_MAX
from cohort.surfaces.http.routes_audit import TEXT_CHARS_MAX

router = APIRouter(include_in_schema=False)

ENTRIES_SHOWN = 40
ENTRIES_OF_AGENT = 120
CHANGES_SHOWN = 30
SESSIONS_SHOWN = 8
DECIDED_SHOWN = 8
APPROVALS_SHOWN = 100
TIME_CHARS_MAX = 32
Filter = Annotated[str, Query(max_length=TEXT_CHARS_MAX)]
TimeText = Annotated[str, Query(max_length=TIME_CHARS_MAX)]


@router.get("/agents")
def agents(request: Request, kernel: Kernel, caller: Reader) -> Response:
    return page(request, "agents.html", caller, **agents_shown(kernel))


@router.get("/agents/{agent}")
def agent(request: Request, agent: str, kernel: Kernel, caller: Reader, done: Filter = "") -> Response:
    return page(request, "agent.html", caller, done=done, **agent_shown(kernel, caller, agent))


@router.get("/agents/{agent}/diff")
def text_diff(request: Request, agent: str, kernel: Kernel, caller: Reader, path: Annotated[str, Query(max_length=4096)]) -> Response:
    found = kernel.agents.find(agent)
    diff = kernel.workspaces.text_diff(str(found.workspace), path)
    return page(request, "text_diff.html", caller, agent=found, file=path, lines=diff.splitlines())


@router.get("/approvals")
def approvals(request: Request, kernel: Kernel, caller: Reader, done: Filter = "") -> Response:
    return page(request, "approvals.html", caller, **inbox_shown(kernel), answered=answered(kernel, done), error=None)


@router.get("/approvals/{approval}")
def approval(request: Request, approval: str, kernel: Kernel, caller: Reader) -> Response:
    found = kernel.approvals.find(ApprovalId(approval))
    return page(request, "approval.html", caller, approval=found, names=names_of(kernel), error=None)


@router.get("/audit")
def audit(
    request: Request,
    kernel: Kernel,
    caller: Auditor,
    agent: Filter = "",
    kind: Filter = "",
    action: Filter = "",
    text: Filter = "",
    since: TimeText = "",
    until: TimeText = "",
    before: Annotated[int | None, Query(ge=0, le=NUMBER_MAX)] = None,
) -> Response:
    asked = {"agent": agent, "kind": kind, "action": action, "text": text, "since": since, "until": until}
    given = {name: value for name, value in asked.items() if value}
    shown = audit_shown(kernel, asked, before)
    older = urlencode(given | {"before": shown["entries"][-1].index}) if shown["more"] else None
    found = kernel.audit.verify(full=False)
    still = before is None and not given
    return page(
        request, "audit.html", caller, asked=asked, older=older, still=still, found=found, full=False, **shown, **audit_facts(kernel)
    )


@router.get("/audit/{index}")
def entry(request: Request, index: int, kernel: Kernel, caller: Auditor) -> Response:
    found = kernel.audit.entry(index)
    return page(request, "audit_entry.html", caller, entry=found, names=names_of(kernel), size=kernel.audit.size())


@router.get("/audit/{index}/proof")
def proof(index: int, kernel: Kernel, _: Auditor) -> Response:
    headers = {"content-disposition": f'attachment; filename="entry-{index}.tlog-proof"'}
    return Response(kernel.audit.prove(index).text, media_type="text/plain; charset=utf-8", headers=headers)


@router.get("/containment")
def containment(request: Request, kernel: Kernel, caller: Reader) -> Response:
    return page(request, "containment.html", caller, probed=kernel.containment(), counts=kernel.safety())


def agents_shown(kernel: KernelFace) -> dict[str, Any]:
    probed = kernel.containment()
    return {
        "agents": kernel.agents.list(),
        "places": _places(kernel),
        "waiting": Counter(one.action.agent for one in kernel.approvals.list(ApprovalState.PENDING, APPROVALS_SHOWN)),
        "level": probed.level if probed is not None else None,
    }


def agent_shown(kernel: KernelFace, caller: Caller, agent: str) -> dict[str, Any]:
    """Everything on an agent's page. What it did is read from the audit log, for those who may read that."""
    found = kernel.agents.find(agent)
    place, trouble = _place(kernel, found)
    changes = kernel.workspaces.diff(place.id) if place is not None else ()
    entries = kernel.audit.search(AuditQuery(agent=found.id, limit=ENTRIES_OF_AGENT)) if caller.may(Right.AUDIT) else ()
    sessions = sorted(kernel.agents.sessions(found.id), key=lambda one: -one.created_us)
    return {
        "agent": found,
        "place": place,
        "trouble": trouble,
        "changes": changes[:CHANGES_SHOWN],
        "changes_more": max(0, len(changes) - CHANGES_SHOWN),
        "waiting": [one for one in kernel.approvals.list(ApprovalState.PENDING, APPROVALS_SHOWN) if one.action.agent == found.id],
        "recent": recent_actions(entries),
        "sessions": sessions[:SESSIONS_SHOWN],
        "sessions_more": max(0, len(sessions) - SESSIONS_SHOWN),
    }


def inbox_shown(kernel: KernelFace) -> dict[str, Any]:
    """What waits, oldest first; what was answered lately; the rules in force."""
    every = kernel.approvals.list(None, APPROVALS_SHOWN)
    pending = kernel.approvals.list(ApprovalState.PENDING, APPROVALS_SHOWN)
    return {
        "pending": list(reversed(pending)),
        "decided": [one for one in every if one.state is not ApprovalState.PENDING][:DECIDED_SHOWN],
        "rules": [rule for rule in kernel.approvals.rules() if rule.revoked_us is None],
        "names": names_of(kernel),
    }


def answered(kernel: KernelFace, approval: str) -> tuple[Approval, GrantRule | None] | None:
    """The question that was just answered, and the rule that the answer left."""
    if not approval:
        return None
    try:
        found = kernel.approvals.find(ApprovalId(approval))
    except CohortError:
        return None
    return found, next((rule for rule in kernel.approvals.rules() if rule.id == found.rule), None)


def audit_shown(kernel: KernelFace, asked: dict[str, str], before: int | None) -> dict[str, Any]:
    query = AuditQuery(
        asked["agent"] or None,
        asked["kind"] or None,
        asked["action"] or None,
        asked["text"] or None,
        _time_us(asked["since"], "since"),
        _time_us(asked["until"], "until"),
        before,
        ENTRIES_SHOWN + 1,
    )
    found: list[Entry] = list(kernel.audit.search(query))
    return {"entries": found[:ENTRIES_SHOWN], "more": len(found) > ENTRIES_SHOWN, "names": names_of(kernel)}


def audit_facts(kernel: KernelFace) -> dict[str, Any]:
    return {
        "kinds": [kind.value for kind in RecordKind],
        "agents": kernel.agents.list(),
        "signers": [key for key in kernel.audit.signing_keys() if key.active],
    }


def names_of(kernel: KernelFace) -> dict[str, str]:
    return {agent.id: agent.name for agent in kernel.agents.list()}


def verified(request: Request, kernel: KernelFace, caller: Caller, found: Verification) -> Response:
    """The explorer with a full verification in it."""
    asked = dict.fromkeys(("agent", "kind", "action", "text", "since", "until"), "")
    shown = audit_shown(kernel, asked, None)
    older = urlencode({"before": shown["entries"][-1].index}) if shown["more"] else None
    return page(
        request, "audit.html", caller, asked=asked, older=older, still=False, found=found, full=True, **shown, **audit_facts(kernel)
    )


def _places(kernel: KernelFace) -> dict[str, WorkspaceView]:
    """By agent. A workspace that cannot be looked at must not hide the agents."""
    try:
        return {place.agent: place for place in kernel.workspaces.list()}
    except CohortError:
        return {}


def _place(kernel: KernelFace, agent: Agent) -> tuple[WorkspaceView | None, str]:
    if agent.workspace is None:
        return None, "It has no workspace."
    try:
        return kernel.workspaces.show(agent.workspace), ""
    except CohortError as error:
        return None, error.message


def _time_us(text: str, name: str) -> int | None:
    """`2026-11-01T12:00` as the browser's field gives it, UTC. Errors: FIELD_INVALID."""
    if not text:
        return None
    try:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)
    except ValueError as error:
        raise CohortError("FIELD_INVALID", f"{name}: {text!r} is no time", field=name, hint="Write it like 2026-11-01T12:00.") from error
