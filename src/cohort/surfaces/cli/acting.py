"""Acting as an agent by hand: ask, wait for a person if wanted, and say how it ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.api import Api, part
from cohort.surfaces.cli.session import Session

ASK_S_MAX = 60.0
"""What the server waits within one request."""
ACTION_S = 900.0
"""The longest command and the longest wait, within one request."""


def perform(session: Session, agent: str, operation: str, arguments: dict[str, Any], why: str, wait_s: float) -> dict[str, Any]:
    """The answer to the action, waiting for a person up to `wait_s`. Who stops waiting is told that the question does not stop.

    Raises:
        CohortError: it was refused; `details["action"]` is the answer.
    """
    asking = _Asking(session, Api(session), time.monotonic() + wait_s)
    try:
        return asking.answer(f"/agents/{part(agent)}/actions", {"operation": operation, "arguments": arguments, "why": why})
    except KeyboardInterrupt:
        if asking.told:
            session.say(f"\n{asking.told} still waits for a person; `cohort approval deny {asking.told}` ends it")
        raise


@dataclass(slots=True)
class _Asking:
    """`told`: the question that a person was last told of."""

    session: Session
    api: Api
    deadline_s: float
    told: str = ""

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        while True:
            left_s = max(0.0, self.deadline_s - time.monotonic())
            answer: dict[str, Any] = self.api.post(path, body, answer_s=ACTION_S, repeat=False)
            if answer["outcome"] != "waiting" or left_s <= 0:
                return answer
            self._tell(answer)
            approval = self.api.get(f"/approvals/{part(self.told)}", {"wait_s": min(left_s, ASK_S_MAX)}, answer_s=ASK_S_MAX + 30)
            if approval["state"] in ("denied", "expired", "withdrawn"):
                raise denied(approval)

    def _tell(self, answer: dict[str, Any]) -> None:
        if answer["approval_id"] != self.told:
            self.told = answer["approval_id"]
            self.session.say(f"waiting for a person: {self.told} ({answer['reason']}); to answer: cohort approval approve {self.told}")


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
