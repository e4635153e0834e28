"""Errors that say what was attempted, whether to try again, and what to do next.

One table maps every code to an HTTP status (problem documents, RFC 9457) and a CLI exit code. Codes are stable and never reused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Retry(StrEnum):
    """Whether repeating the same call can help."""

    NEVER = "never"  # the call itself must change
    SAFE = "safe"  # nothing happened; repeat when the cause is gone
    CHECK_FIRST = "check_first"  # it may have happened; look before repeating


class Exit:
    """Exit codes of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO = 3  # the answer is no
    WAITING = 4  # waiting for a person
    UNKNOWN = 5  # there is no answer


@dataclass(frozen=True, slots=True)
class Kind:
    http_status: int
    exit_code: int


ERRORS: dict[str, Kind] = {
    # what was sent
    "DOCUMENT_INVALID": Kind(422, Exit.USAGE),
    "FIELD_INVALID": Kind(422, Exit.USAGE),
    "FILE_MISSING": Kind(422, Exit.USAGE),
    "FILE_TOO_LARGE": Kind(413, Exit.USAGE),
    "PROVIDER_UNKNOWN": Kind(422, Exit.USAGE),
    "PLAN_INVALID": Kind(422, Exit.USAGE),
    "PLAN_UNKNOWN": Kind(404, Exit.USAGE),
    "VALUE_NOT_CANONICAL": Kind(422, Exit.USAGE),
    "CONFIG_INVALID": Kind(422, Exit.USAGE),
    "CONFIG_MISSING": Kind(422, Exit.USAGE),
    "CONFIG_EXISTS": Kind(409, Exit.FAILED),
    # who asks
    "NOT_SIGNED_IN": Kind(401, Exit.FAILED),
    "KEY_INVALID": Kind(401, Exit.FAILED),
    "CSRF_REFUSED": Kind(403, Exit.FAILED),
    "ROLE_TOO_LOW": Kind(403, Exit.FAILED),
    "LAST_ADMIN": Kind(409, Exit.FAILED),
    "TOO_MANY_ATTEMPTS": Kind(429, Exit.FAILED),
    # what it is about
    "NOT_ENOUGH_EVIDENCE": Kind(409, Exit.UNKNOWN),
    "SERVICE_UNKNOWN": Kind(404, Exit.FAILED),
    "RELEASE_UNKNOWN": Kind(404, Exit.FAILED),
    "RELEASE_AMBIGUOUS": Kind(409, Exit.USAGE),
    "RELEASE_VERSION_TAKEN": Kind(409, Exit.FAILED),
    "RELEASE_DAMAGED": Kind(500, Exit.FAILED),
    "CACHE_NOT_ERASED": Kind(503, Exit.UNKNOWN),
    "ROLLOUT_UNKNOWN": Kind(404, Exit.FAILED),
    "ROLLOUT_ACTIVE": Kind(409, Exit.FAILED),
    "ROLLOUT_ENDED": Kind(409, Exit.FAILED),
    "ROLLOUT_CHANGED": Kind(409, Exit.FAILED),
    "ROLLOUT_NOT_PAUSED": Kind(409, Exit.FAILED),
    "ROLLOUT_NOT_NEEDED": Kind(409, Exit.FAILED),
    "ROLLOUT_UNROUTED": Kind(409, Exit.FAILED),
    "PLAN_UNDERPOWERED": Kind(409, Exit.NO),
    "IDEMPOTENCY_MISMATCH": Kind(409, Exit.USAGE),
    "NOT_FOUND": Kind(404, Exit.FAILED),
    "METHOD_NOT_ALLOWED": Kind(405, Exit.FAILED),
    "HOST_REFUSED": Kind(421, Exit.FAILED),
    "ORIGIN_REFUSED": Kind(403, Exit.FAILED),
    "BODY_SLOW": Kind(408, Exit.FAILED),
    "TOO_MANY_STREAMS": Kind(503, Exit.FAILED),
    # agents and their actions
    "AGENT_UNKNOWN": Kind(404, Exit.FAILED),
    "AGENT_NAME_TAKEN": Kind(409, Exit.FAILED),
    "AGENT_SUSPENDED": Kind(403, Exit.NO),
    "AGENT_NOT_SUSPENDED": Kind(409, Exit.FAILED),
    "AGENT_REVOKED": Kind(403, Exit.NO),
    "TOKEN_INVALID": Kind(401, Exit.FAILED),
    "TOKEN_EXPIRED": Kind(401, Exit.FAILED),
    "TOKEN_REPLAYED": Kind(401, Exit.FAILED),
    "SESSION_REVOKED": Kind(401, Exit.FAILED),
    "SCOPE_UNKNOWN": Kind(422, Exit.USAGE),
    "SCOPE_REFUSED": Kind(403, Exit.NO),
    "OPERATION_UNKNOWN": Kind(422, Exit.USAGE),
    "OPERATION_UNSUPPORTED": Kind(501, Exit.FAILED),
    "ARGUMENT_INVALID": Kind(422, Exit.USAGE),
    "PATH_INVALID": Kind(422, Exit.USAGE),
    "PATH_ESCAPES": Kind(403, Exit.NO),
    "PATH_PROTECTED": Kind(403, Exit.NO),
    "PATH_MISSING": Kind(404, Exit.FAILED),
    "PATH_EXISTS": Kind(409, Exit.FAILED),
    "PATH_WRONG_KIND": Kind(409, Exit.FAILED),
    "QUOTA_EXCEEDED": Kind(429, Exit.NO),
    "POLICY_INVALID": Kind(422, Exit.USAGE),
    "POLICY_DENIED": Kind(403, Exit.NO),
    "POLICY_UNAVAILABLE": Kind(503, Exit.FAILED),
    "EGRESS_REFUSED": Kind(403, Exit.NO),
    "EGRESS_FAILED": Kind(502, Exit.FAILED),
    "LEVEL_TOO_LOW": Kind(403, Exit.NO),
    "SANDBOX_UNAVAILABLE": Kind(503, Exit.FAILED),
    "PROCESS_UNKNOWN": Kind(404, Exit.FAILED),
    "WORKSPACE_UNKNOWN": Kind(404, Exit.FAILED),
    "WORKSPACE_UNAVAILABLE": Kind(503, Exit.FAILED),
    "WORKSPACE_BUSY": Kind(409, Exit.FAILED),
    "SNAPSHOT_UNKNOWN": Kind(404, Exit.FAILED),
    "APPROVAL_NEEDED": Kind(202, Exit.WAITING),
    "APPROVAL_UNKNOWN": Kind(404, Exit.FAILED),
    "APPROVAL_DENIED": Kind(403, Exit.NO),
    "APPROVAL_DECIDED": Kind(409, Exit.FAILED),
    "APPROVAL_EXPIRED": Kind(409, Exit.NO),
    "APPROVER_REFUSED": Kind(403, Exit.NO),
    "APPROVALS_FULL": Kind(429, Exit.NO),
    "APPROVALS_UNAVAILABLE": Kind(503, Exit.FAILED),
    "AUDIT_UNAVAILABLE": Kind(503, Exit.FAILED),
    "AUDIT_BROKEN": Kind(500, Exit.NO),
    "AUDIT_KEY_REFUSED": Kind(409, Exit.FAILED),
    "ANCHOR_FAILED": Kind(502, Exit.FAILED),
    "RECORD_TOO_LARGE": Kind(413, Exit.FAILED),
    # the machine
    "ALREADY_RUNNING": Kind(409, Exit.FAILED),
    "NOT_RUNNING": Kind(503, Exit.FAILED),
    "PORT_IN_USE": Kind(500, Exit.FAILED),
    "BIND_REFUSED": Kind(500, Exit.FAILED),
    "DISK_FULL": Kind(507, Exit.FAILED),
    "DATABASE_UNAVAILABLE": Kind(503, Exit.FAILED),
    "DATABASE_NEWER": Kind(500, Exit.FAILED),
    "DATABASE_DAMAGED": Kind(500, Exit.FAILED),
    "DATA_PLANE_UNAVAILABLE": Kind(503, Exit.FAILED),
    "SPOOL_DAMAGED": Kind(500, Exit.FAILED),
    "CONTRACT_VERSION": Kind(409, Exit.FAILED),
    "PROCESS_FAILED": Kind(500, Exit.FAILED),
    "OUTCOME_UNKNOWN": Kind(500, Exit.UNKNOWN),
    "INTERNAL": Kind(500, Exit.FAILED),
}


class CohortError(Exception):
    """Something asked for could not be done.

    `message` says what was attempted, with which values; `hint` is one imperative sentence; `field` names the
    place in the input, where there is one (`routes.main.provider`, `stages[2].traffic_pct`).
    """

    def __init__(
        self, code: str, message: str, *, retry: Retry = Retry.NEVER, hint: str = "", field: str | None = None, **details: Any
    ) -> None:
        if code not in ERRORS:
            raise KeyError(f"error code {code} is not in the table")
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry = retry
        self.hint = hint
        self.field = field
        self.details = details

    @property
    def http_status(self) -> int:
        return ERRORS[self.code].http_status

    @property
    def exit_code(self) -> int:
        return ERRORS[self.code].exit_code

    def problem(self) -> dict[str, Any]:
        """The RFC 9457 problem document, plain JSON values."""
        body: dict[str, Any] = {
            "type": f"urn:cohort:error:{self.code.lower()}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.http_status,
            "detail": self.message,
            "code": self.code,
            "retry": self.retry.value,
        }
        if self.hint:
            body["hint"] = self.hint
        if self.field is not None:
            body["field"] = self.field
        if self.details:
            body["details"] = self.details
        return body

    @classmethod
    def from_problem(cls, body: dict[str, Any]) -> CohortError:
        """The error a problem document stands for; an unknown code becomes INTERNAL."""
        code = body.get("code", "INTERNAL")
        known = code if code in ERRORS else "INTERNAL"
        return cls(
            known,
            str(body.get("detail", "the server gave no detail")),
            retry=Retry(body.get("retry", "never")),
            hint=str(body.get("hint", "")),
            field=body.get("field"),
            **body.get("details", {}),
        )

    def __str__(self) -> str:
        return self.message
