"""Who asks: a key in the Authorization header, or a browser's session."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Header
from starlette.requests import Request

from cohort.base.errors import CohortError
from cohort.delivery.face import Act
from cohort.kernel.access import Right, Role
from cohort.kernel.face import KernelFace
from cohort.surfaces.http.ports import IDEMPOTENCY_KEY_CHARS_MAX, ControlFace, Principal

COOKIE = "cohort_session"


@dataclass(frozen=True, slots=True)
class Caller:
    """`csrf` is set for a browser's session only; `by_key` when the key came with the request."""

    name: str
    role: str
    csrf: str | None = None

    @property
    def may_change(self) -> bool:
        """Whether what serves may be changed."""
        return self.may(Right.OPERATE)

    def may(self, right: Right) -> bool:
        """A role that is not known may nothing."""
        return self.role in set(Role) and Role(self.role).may(right)


def face(request: Request) -> ControlFace:
    return cast(ControlFace, request.app.state.control)


def find_caller(request: Request) -> Caller | None:
    """The caller, or None when neither a key nor a session came.

    Raises:
        CohortError KEY_INVALID: a key came, and it is nobody's.
    """
    header = request.headers.get("authorization")
    if header is not None:
        return _of(_by_key(face(request), header))
    session = face(request).access.session(request.cookies.get(COOKIE, "")) if COOKIE in request.cookies else None
    return _of(session.principal, session.csrf) if session is not None else None


def reader(request: Request) -> Caller:
    """Anyone with a key. Errors: NOT_SIGNED_IN, KEY_INVALID."""
    caller = find_caller(request)
    if caller is None:
        raise CohortError("NOT_SIGNED_IN", "this needs a key", hint="Send `Authorization: Bearer ck_...`, or sign in at /login.")
    return caller


def changer(request: Request, x_csrf_token: Annotated[str | None, Header()] = None) -> Caller:
    """Anyone who may change things; a browser's session has to prove the page was ours. Errors: as `reader`; ROLE_TOO_LOW, CSRF_REFUSED."""
    caller = reader(request)
    check_change(caller, x_csrf_token)
    return caller


def check_change(caller: Caller, csrf: str | None) -> None:
    check_change_token(caller, csrf)
    if not caller.may_change:
        raise CohortError(
            "ROLE_TOO_LOW", f"the key `{caller.name}` may look and not change", hint="Use a key with the role operator or admin."
        )


def having(right: Right) -> Callable[..., Caller]:
    """A dependency: the caller, whose role has `right`. Errors: as `reader`; ROLE_TOO_LOW, and CSRF_REFUSED for a change."""

    def checked(request: Request, x_csrf_token: Annotated[str | None, Header()] = None) -> Caller:
        caller = reader(request)
        if request.method != "GET":
            check_change_token(caller, x_csrf_token)
        check_right(caller, right)
        return caller

    return checked


def check_right(caller: Caller, right: Right) -> None:
    """Errors: ROLE_TOO_LOW."""
    if not caller.may(right):
        able = ", ".join(role.value for role in Role if role.may(right))
        raise CohortError(
            "ROLE_TOO_LOW",
            f"the key `{caller.name}` ({caller.role}) may not {right.value}",
            hint=f"Use a key with one of the roles {able}.",
        )


def kernel(request: Request) -> KernelFace:
    return face(request).kernel


def check_change_token(caller: Caller, csrf: str | None) -> None:
    """Errors: CSRF_REFUSED."""
    if caller.csrf is not None and not hmac.compare_digest(caller.csrf.encode(), (csrf or "").encode()):
        raise CohortError("CSRF_REFUSED", "the request does not carry this session's token", hint="Load the page again and repeat.")


Idempotency = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=IDEMPOTENCY_KEY_CHARS_MAX)]
Face = Annotated[ControlFace, Depends(face)]
Reader = Annotated[Caller, Depends(reader)]
Changer = Annotated[Caller, Depends(changer)]
Kernel = Annotated[KernelFace, Depends(kernel)]
Manager = Annotated[Caller, Depends(having(Right.REGISTER))]
Executor = Annotated[Caller, Depends(having(Right.EXECUTE))]
Approver = Annotated[Caller, Depends(having(Right.APPROVE))]
Auditor = Annotated[Caller, Depends(having(Right.AUDIT))]


def act(caller: Caller, reason: str, revision: int | None, key: str | None) -> Act:
    return Act(actor=caller.name, reason=reason, revision=revision, idempotency_key=key)


def _by_key(control: ControlFace, header: str) -> Principal:
    scheme, _, text = header.partition(" ")
    principal = control.access.check_key(text.strip()) if scheme.lower() == "bearer" else None
    if principal is None:
        raise CohortError(
            "KEY_INVALID",
            "the key in the Authorization header is not valid",
            hint="Send `Authorization: Bearer ck_...` with a key in force.",
        )
    return principal


def _of(principal: Principal, csrf: str | None = None) -> Caller:
    return Caller(principal.name, str(principal.role), csrf)
