"""Every refusal as a problem document (RFC 9457), or as a page where a person is looking."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, cast

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from cohort.base.documents import dotted
from cohort.base.errors import CohortError, Retry

log = logging.getLogger("cohort.http")

FaultPage = Callable[[Request, CohortError], Response]
PLACES = ("body", "query", "path", "header", "cookie")


def problem_response(error: CohortError) -> Response:
    headers = {"retry-after": "1"} if error.retry is Retry.SAFE and error.http_status in (429, 503) else {}
    if error.http_status == 401:
        headers["www-authenticate"] = 'Bearer realm="cohort"'
    return Response(orjson.dumps(error.problem(), default=str), error.http_status, headers, media_type="application/problem+json")


def wants_page(request: Request) -> bool:
    """Whether a person with a browser asked, and not for the API."""
    return not request.url.path.startswith("/api/") and "text/html" in request.headers.get("accept", "")


def install_problems(app: FastAPI) -> None:
    app.add_exception_handler(CohortError, _cohort)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def answer(request: Request, error: CohortError) -> Response:
    """A page where a person asked for one (`fault_page`, set by the dashboard), else a problem document."""
    fault_page: FaultPage | None = getattr(request.app.state, "fault_page", None)
    return fault_page(request, error) if fault_page is not None and wants_page(request) else problem_response(error)


def _cohort(request: Request, error: Exception) -> Response:
    return answer(request, cast(CohortError, error))


def _invalid(request: Request, error: Exception) -> Response:
    return answer(request, invalid_request(cast(RequestValidationError, error).errors()))


def invalid_request(problems: Sequence[Any]) -> CohortError:
    """The first wrong field of a request, named; further ones are counted."""
    first = problems[0]
    path = tuple(part for index, part in enumerate(first["loc"]) if index or part not in PLACES)
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "json_invalid":
        return CohortError("DOCUMENT_INVALID", f"the body is not valid JSON: {first['ctx']['error']}", hint="Send one JSON object.")
    field = dotted(path) or "body"
    what = str(first["msg"])
    hint = f"Leave out `{field}`." if first["type"] == "extra_forbidden" else f"Correct `{field}`."
    return CohortError("FIELD_INVALID", f"{field}: {what[:1].lower()}{what[1:]}{more}", field=field, hint=hint)


def _http(request: Request, error: Exception) -> Response:
    status = cast(HTTPException, error).status_code
    path = request.url.path
    if status == 405:
        code, message = "METHOD_NOT_ALLOWED", f"{request.method} is not possible on {path}"
        hint = "See docs/reference/http-api.md for what is."
    elif status == 404:
        code, message, hint = "NOT_FOUND", f"there is nothing at {path}", "See docs/reference/http-api.md for the addresses."
    else:
        code, message, hint = "FIELD_INVALID", f"the request could not be read: {cast(HTTPException, error).detail}", "Correct the request."
    response = answer(request, CohortError(code, message, hint=hint))
    for name, value in (cast(HTTPException, error).headers or {}).items():
        response.headers[name] = value
    return response


def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    fault = CohortError(
        "INTERNAL", "the request failed for a reason that was not foreseen", retry=Retry.CHECK_FIRST, hint="Look into control's log."
    )
    return answer(request, fault)
