"""The buttons: each is a form that any browser can send, and shows the command that does the same."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from cohort.base.errors import CohortError
from cohort.delivery.model import RolloutView
from cohort.surfaces.dashboard.buttons import BUTTONS, SERVICE_ROLLBACK, Button, command_for
from cohort.surfaces.dashboard.rendering import page
from cohort.surfaces.http.callers import Caller, Face, Reader, act, check_change, reader
from cohort.surfaces.http.ports import REASON_CHARS_MAX, ControlFace
from cohort.surfaces.http.routes_rollouts import Verb, verb_of

router = APIRouter(include_in_schema=False)

Csrf = Annotated[str, Form(max_length=200)]
Reason = Annotated[str, Form(max_length=REASON_CHARS_MAX)]
Revision = Annotated[int | None, Form(ge=0)]


@router.get("/rollouts/{rollout}/{verb}")
def ask(request: Request, rollout: str, verb: Verb, control: Face, caller: Reader) -> Response:
    return _confirm(request, caller, control.rollouts.show(rollout), BUTTONS[verb])


@router.post("/rollouts/{rollout}/{verb}")
def steer(
    request: Request, rollout: str, verb: Verb, control: Face, csrf: Csrf = "", reason: Reason = "", revision: Revision = None
) -> Response:
    caller = _changer(request, csrf)
    try:
        view = verb_of(control.rollouts, verb)(rollout, act(caller, reason.strip(), revision, None))
    except CohortError as error:
        if error.http_status not in (409, 422):
            raise
        return _confirm(request, caller, control.rollouts.show(rollout), BUTTONS[verb], error, reason)
    return RedirectResponse(f"/rollouts/{view.id}?done={verb}", 303)


@router.get("/services/{name}/rollback")
def ask_service(request: Request, name: str, control: Face, caller: Reader) -> Response:
    return _confirm_service(request, caller, control, name)


@router.post("/services/{name}/rollback")
def roll_back_service(
    request: Request, name: str, control: Face, csrf: Csrf = "", reason: Reason = "", to: Annotated[str, Form(max_length=200)] = ""
) -> Response:
    caller = _changer(request, csrf)
    try:
        if not reason.strip():
            raise CohortError("FIELD_INVALID", "a reason is needed", field="reason", hint="Say in a few words why.")
        result = control.rollouts.rollback_service(name, act(caller, reason.strip(), None, None), to or None)
    except CohortError as error:
        if error.http_status not in (409, 422):
            raise
        return _confirm_service(request, caller, control, name, error, reason)
    return page(request, "rolled_back.html", caller, result=result)


def _confirm(
    request: Request, caller: Caller, view: RolloutView, button: Button, error: CohortError | None = None, reason: str = ""
) -> Response:
    values = {"view": view, "button": button, "error": error, "reason": reason, "command": command_for(button.verb, view.id, button.asks)}
    return page(request, "confirm.html", caller, error.http_status if error else 200, **values)


def _confirm_service(
    request: Request, caller: Caller, control: ControlFace, name: str, error: CohortError | None = None, reason: str = ""
) -> Response:
    values = {"service": control.rollouts.service(name), "button": SERVICE_ROLLBACK, "error": error, "reason": reason}
    return page(request, "confirm_service.html", caller, error.http_status if error else 200, **values)


def _changer(request: Request, csrf: str) -> Caller:
    caller = reader(request)
    check_change(caller, csrf)
    return caller
