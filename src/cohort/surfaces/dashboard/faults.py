"""A refusal as a page: what was attempted and what to do next."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cohort.base.errors import CohortError
from cohort.surfaces.dashboard.rendering import page
from cohort.surfaces.http.callers import Caller, find_caller


def fault_page(request: Request, error: CohortError) -> Response:
    """The page of an error; whoever is not signed in is sent to sign in, and back here afterwards."""
    if error.code == "NOT_SIGNED_IN":
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        here = f"?next={quote(asked, safe='')}" if request.method == "GET" and asked != "/" else ""
        return RedirectResponse(f"/login{here}", 303)
    return page(request, "fault.html", _caller_or_none(request), error.http_status, error=error)


def _caller_or_none(request: Request) -> Caller | None:
    """The error page has to come even when the store of sessions is what failed."""
    try:
        return find_caller(request)
    except CohortError:
        return None
