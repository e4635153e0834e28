"""Acting as an agent by hand: ask, wait for a person if wanted, and say how it ended."""

from __future__ import annotations

import time
from typing import Any

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.api import Api, part
from cohort.surfaces.cli.session import Session

ASK_S_MAX = 60.0
"""What the server waits within one request."""
ACTION_S = 900.0
"""The longest command and the longest wait, within one request."""


def perform(session: Session, agent: str, operation: str, arguments: dict[str, Any], why: str, wait_s: float) -> dict[str, Any]:
    """The answer to the action, waiting for a person up to `wait_s`.

    Raises:
        CohortError: it was refused; `details["action"]` is the answer.
    """
    api, deadline_s, told = Api(session), time.monotonic() + wait_s, ""
    while True:
        left_s = max(0.0, deadline_s - time.monotonic())
        body = {"operation": operation, "arguments": arguments, "why": why}
        answer: dict[str, Any] = api.post(f"/agents/{part(agent)}/actions", body, answer_s=ACTION_S, repeat=False)
        if answer["outcome"] != "waiting" or left_s <= 0:
            return answer
        if answer["approval_id"] != told:
            told = answer["approval_id"]
            session.say(f"waiting for a person: {told} ({answer['reason']}); to answer: cohort approval approve {told}")
        approval = _awaited(session, api, told, min(left_s, ASK_S_MAX))
        if approval["state"] in ("denied", "expired", "withdrawn"):
            raise denied(approval)


def _awaited(session: Session, api: Api, approval: str, wait_s: float) -> dict[str, Any]:
    """The approval once it is decided or the time is over. Who stops waiting is told that the question does not stop."""
    try:
        found: dict[str, Any] = api.get(f"/approvals/{part(approval)}", {"wait_s": wait_s}, answer_s=ASK_S_MAX + 30)
        return found
    except KeyboardInterrupt:
        session.say(f"\n{approval} still waits for a person; `cohort approval deny {approval}` ends it")
        raise


def denied(approval: dict[str, Any]) -> CohortError:
    who = f" by {', '.join(approval['approvers'])}" if approval["approvers"] else ""
    note = f": {approval['note']}" if approval["note"] else ""
    code = "APPROVAL_EXPIRED" if approval["state"] == "expired" else "APPROVAL_DENIED"
    return CohortError(code, f"{approval['id']} was {approval['state']}{who}{note}", hint="Nothing was executed.", approval=approval["id"])


def waiting_code(session: Session, answer: dict[str, Any]) -> int:
    """What to do about an action that waits; the exit code of waiting."""
    session.say(f"waiting: {answer['reason']}")
    session.say(
        f"hint: `cohort approval show {answer['approval_id']}`; once it is approved, repeat this command, or repeat it with --wait 600."
    )
    return Exit.WAITING


def failed(answer: dict[str, Any]) -> CohortError:
    """The error of an action that was executed and failed."""
    from cohort.base.errors import ERRORS

    code = answer["code"] if answer["code"] in ERRORS else "PROCESS_FAILED"
    return CohortError(code, answer["reason"] or "the action failed", hint=answer["hint"])
