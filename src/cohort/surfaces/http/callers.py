"""Who asks: a key in the Authorization header, or a browser's session."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Header
from starlette.requests import Request

from cohort.base.errors import CohortError
from cohort.base.ids import KeyId
from cohort.delivery.face import Act
from cohort.kernel.access import Right, Role
from cohort.kernel.face import KernelFace
from cohort.surfaces.http.ports import IDEMPOTENCY_KEY_CHARS_MAX, ControlFace, Principal

COOKIE = "cohort_session"


@dataclass(frozen=True, slots=True)
class Caller:
    """`csrf` is set for a browser's session only. `key`: the key that came, or that the browser signed in with."""

    name: str
    role: str
    csrf: str | None = None
    key: KeyId | None = None

    def may(self, right: Right) -> bool:
        """A role that is not known may nothing."""
        return self.role in set(Role) and Role(self.role).may(right)

    @property
    def may_change(self) -> bool:
        """Whether releases and rollouts are this caller's to change."""
        return self.may(Right.OPERATE)


def face(request: Request) -> ControlFace:
    return cast(ControlFace, request.app.state.control)


def kernel(request: Request) -> KernelFace:
    return face(request).kernel


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


def having(right: Right) -> Callable[[Caller], Caller]:
    """Anyone who has `right`, for what only reads. Errors: as `reader`; ROLE_TOO_LOW."""

    def dependency(caller: Annotated[Caller, Depends(reader)]) -> Caller:
        check_right(caller, right)
        return caller

    return dependency


def changing(right: Right) -> Callable[..., Caller]:
    """Anyone who has `right`, for changes; a browser's session has to prove the page was ours. Errors: as `having`; CSRF_REFUSED."""

    def dependency(caller: Annotated[Caller, Depends(reader)], x_csrf_token: Annotated[str | None, Header()] = None) -> Caller:
        check_change(caller, x_csrf_token, right)
        return caller

    return dependency


def check_change(caller: Caller, csrf: str | None, right: Right = Right.OPERATE) -> None:
    """Errors: CSRF_REFUSED, ROLE_TOO_LOW."""
    check_change_token(caller, csrf)
    check_right(caller, right)


def check_right(caller: Caller, right: Right) -> None:
    """Errors: ROLE_TOO_LOW."""
    if not caller.may(right):
        roles = [role.value for role in Role if role.may(right)]
        raise CohortError(
            "ROLE_TOO_LOW",
            f"the key `{caller.name}` ({caller.role}) has no right to {right.value}",
            hint=f"Use a key with the role {', '.join(roles[:-1])} or {roles[-1]}."
            if len(roles) > 1
            else f"Use a key with the role {roles[0]}.",
        )


def check_change_token(caller: Caller, csrf: str | None) -> None:
    """Errors: CSRF_REFUSED."""
    if caller.csrf is not None and not hmac.compare_digest(caller.csrf.encode(), (csrf or "").encode()):
        raise CohortError("CSRF_REFUSED", "the request does not carry this session's token", hint="Load the page again and repeat.")


Idempotency = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=IDEMPOTENCY_KEY_CHARS_MAX)]
Face = Annotated[ControlFace, Depends(face)]
Kernel = Annotated[KernelFace, Depends(kernel)]
Reader = Annotated[Caller, Depends(having(Right.VIEW))]
Auditor = Annotated[Caller, Depends(having(Right.AUDIT))]
Changer = Annotated[Caller, Depends(changing(Right.OPERATE))]
Registrar = Annotated[Caller, Depends(changing(Right.REGISTER))]
Executor = Annotated[Caller, Depends(changing(Right.EXECUTE))]
Approver = Annotated[Caller, Depends(changing(Right.APPROVE))]
AuditWriter = Annotated[Caller, Depends(changing(Right.AUDIT))]
KeyKeeper = Annotated[Caller, Depends(changing(Right.KEYS))]


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
    return Caller(principal.name, str(principal.role), csrf, principal.key_id)
