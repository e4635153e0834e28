"""How a service chooses between a strong and a weak model, as a page."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from cohort.surfaces.dashboard.rendering import page
from cohort.surfaces.http.callers import Face, Reader

router = APIRouter(include_in_schema=False)

STEPS = tuple(step / 20 for step in range(1, 20))
"""Boundaries that the page compares."""


@router.get("/services/{name}/routing")
def routing(request: Request, name: str, control: Face, caller: Reader) -> Response:
    view = control.routing.view(name)
    chosen = sorted({*STEPS, round(view.state.boundary if view.state else view.policy.boundary, 3)})
    return page(request, "routing.html", caller, view=view, replay=control.routing.replay(name, chosen), marked=chosen)
