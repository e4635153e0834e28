"""The pages of the dashboard: what they show, and nothing about what to do."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request
from starlette.responses import RedirectResponse, Response

from cohort.base.errors import CohortError
from cohort.delivery.model import RolloutView
from cohort.surfaces.dashboard import (
    actions,
    actions_kernel,
    pages_caches,
    pages_gateway,
    pages_kernel,
    pages_routing,
    signin,
    streams,
    streams_kernel,
)
from cohort.surfaces.dashboard.faults import fault_page
from cohort.surfaces.dashboard.rendering import page, static_files
from cohort.surfaces.http.callers import Face, Reader
from cohort.surfaces.http.ports import NUMBER_MAX

router = APIRouter(include_in_schema=False)

ROWS = 25
RELEASE_ROWS = 20
Cursor = Annotated[int | None, Query(ge=0, le=NUMBER_MAX)]


def install_dashboard(app: FastAPI) -> None:
    """Adds the pages to `app`."""
    app.state.fault_page = fault_page
    for part in (
        router,
        signin.router,
        actions.router,
        streams.router,
        pages_kernel.router,
        pages_gateway.router,
        actions_kernel.router,
        streams_kernel.router,
        pages_routing.router,
        pages_caches.router,
    ):
        app.include_router(part)


@router.get("/")
def services(request: Request, control: Face, caller: Reader) -> Response:
    return page(request, "services.html", caller, services=control.rollouts.services())


@router.get("/services/{name}")
def service(request: Request, name: str, control: Face, caller: Reader, done: str | None = None) -> Response:
    view = control.rollouts.service(name)
    history = control.rollouts.list(name, limit=ROWS)
    releases = control.registry.list(name)
    more, routed = max(0, len(releases) - RELEASE_ROWS), control.routing.chooses(name)
    return page(
        request,
        "service.html",
        caller,
        done=done,
        service=view,
        history=history,
        releases=releases[:RELEASE_ROWS],
        more=more,
        routed=routed,
        kept=control.caches.keeps(name),
    )


@router.get("/rollouts")
def rollouts(request: Request, control: Face, caller: Reader, before: Cursor = None) -> Response:
    rows = control.rollouts.list(limit=ROWS + 1, before_us=before)
    following = rows[ROWS - 1].created_us if len(rows) > ROWS else None
    return page(request, "rollouts.html", caller, rows=rows[:ROWS], following=following)


@router.get("/rollouts/{rollout}")
def rollout(request: Request, rollout: str, control: Face, caller: Reader, done: str | None = None) -> Response:
    view = control.rollouts.show(rollout)
    return rollout_page(request, caller, view, done=done)


def rollout_page(request: Request, caller: Reader, view: RolloutView, done: str | None = None) -> Response:
    return page(request, "rollout.html", caller, view=view, now_us=view.now_us, done=done, error=None)


@router.get("/releases/{digest}")
def release(request: Request, digest: str, control: Face, caller: Reader, service: str | None = None) -> Response:
    return page(request, "release.html", caller, release=control.registry.find(digest, service))


@router.get("/plans")
def plans(request: Request, control: Face, caller: Reader) -> Response:
    return page(request, "plans.html", caller, plans=control.rollouts.plans())


@router.get("/favicon.ico")
def icon() -> Response:
    return RedirectResponse("/static/mark.svg", 308)


@router.get("/static/{name}")
def static(request: Request, name: str) -> Response:
    found = static_files().get(name)
    if found is None:
        raise CohortError("NOT_FOUND", f"there is no file {name!r}", hint="Load the page again.")
    kept = "public, max-age=31536000, immutable" if request.query_params.get("v") == found.version else "no-cache"
    return Response(found.body, media_type=found.media_type, headers={"cache-control": kept})
