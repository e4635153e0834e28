"""How control is: for machines, without a key, and without anything that is nobody's business."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from cohort import __version__
from cohort.base.errors import CohortError
from cohort.surfaces.http.callers import Face
from cohort.surfaces.http.encoding import json_response
from cohort.surfaces.http.ports import ControlFace, Part

router = APIRouter()
READY_WITHOUT = frozenset({"audit log", "outcomes"})
"""Parts whose trouble stops agents, or nothing, and not people: control stays ready, so that somebody can look. The part itself still says that it is not well."""


@dataclass(frozen=True, slots=True)
class Alive:
    alive: bool


@dataclass(frozen=True, slots=True)
class Readiness:
    ready: bool
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """`rollouts_active`, `services`: null when the database does not answer."""

    product: str
    version: str
    api: str
    now_us: int
    started_us: int
    ready: bool
    parts: tuple[Part, ...]
    services: int | None
    rollouts_active: int | None


@router.get("/health", responses={200: {"model": Alive}}, summary="The process answers")
async def health() -> Response:
    return json_response(Alive(True))


@router.get("/ready", responses={200: {"model": Readiness}, 503: {"model": Readiness}}, summary="Every part it needs is well")
def ready(control: Face) -> Response:
    readiness = _readiness(control)
    return json_response(readiness, 200 if readiness.ready else 503)


@router.get("/status", responses={200: {"model": Status}}, summary="Version, time, parts and how much there is")
def status(request: Request, control: Face) -> Response:
    readiness = _readiness(control)
    services, active = _how_many(control)
    view = Status(
        product="cohort",
        version=__version__,
        api="v1",
        now_us=control.clock.now_us(),
        started_us=request.app.state.started_us,
        ready=readiness.ready,
        parts=readiness.parts,
        services=services,
        rollouts_active=active,
    )
    return json_response(view)


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, summary="Prometheus text")
def metrics(request: Request) -> Response:
    return Response(generate_latest(request.app.state.telemetry.registry), headers={"content-type": CONTENT_TYPE_LATEST})


def _readiness(control: ControlFace) -> Readiness:
    parts = tuple(control.parts())
    return Readiness(bool(parts) and all(part.ok or part.name in READY_WITHOUT for part in parts), parts)


def _how_many(control: ControlFace) -> tuple[int | None, int | None]:
    try:
        services = control.rollouts.services()
    except CohortError:
        return None, None
    return len(services), sum(service.rollout is not None for service in services)
