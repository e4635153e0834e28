"""Signing in with a key, and out."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from cohort.base.errors import CohortError
from cohort.surfaces.dashboard.rendering import page
from cohort.surfaces.http.callers import COOKIE, Face, Reader, check_change_token, find_caller
from cohort.surfaces.http.routes_tokens import base_of

router = APIRouter(include_in_schema=False)

KEY_CHARS_MAX = 200
Next = Annotated[str, Query(max_length=500)]


@router.get("/login")
def login(request: Request, next: Next = "/") -> Response:
    if find_caller(request) is not None:
        return RedirectResponse(local(next), 303)
    return page(request, "login.html", None, next=local(next), error=None)


@router.post("/login")
def sign_in(
    request: Request, control: Face, key: Annotated[str, Form(max_length=KEY_CHARS_MAX)], next: Annotated[str, Form(max_length=500)] = "/"
) -> Response:
    check_same_origin(request)
    try:
        signed_in = control.access.sign_in(key.strip(), request.client.host if request.client else "")
    except CohortError as error:
        if error.code not in ("KEY_INVALID", "TOO_MANY_ATTEMPTS"):
            raise
        return page(request, "login.html", None, error.http_status, next=local(next), error=error)
    response = RedirectResponse(local(next), 303)
    life_s = max(0, (signed_in.expires_us - control.clock.now_us()) // 1_000_000)
    secure = "https" in (urlsplit(base_of(request)).scheme, urlsplit(request.headers.get("origin", "")).scheme)
    response.set_cookie(COOKIE, signed_in.cookie, max_age=life_s, httponly=True, samesite="lax", secure=secure, path="/")
    return response


@router.post("/logout")
def sign_out(request: Request, control: Face, caller: Reader, csrf: Annotated[str, Form(max_length=KEY_CHARS_MAX)] = "") -> Response:
    check_change_token(caller, csrf)
    control.access.sign_out(request.cookies.get(COOKIE, ""))
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
    return response


def check_same_origin(request: Request) -> None:
    """Signing in has no session to carry a token yet, so the browser has to say that the form was ours. Errors: CSRF_REFUSED.

    The origin's host is compared and not its scheme: behind a proxy that ends TLS the browser says https where this server hears http.
    """
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "same-origin")
    ours = origin is None or (urlsplit(origin).netloc == request.headers.get("host") and origin != "null")
    if not ours or site not in ("same-origin", "none"):
        raise CohortError("CSRF_REFUSED", "the form came from another site", hint="Sign in on this server's own page.")


def local(address: str) -> str:
    """An address of this server, or its first page."""
    fine = address.startswith("/") and not address.startswith(("//", "/\\")) and all(sign.isprintable() for sign in address)
    return address if fine else "/"
