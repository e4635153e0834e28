"""How the caches of a service do, as a page."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from cohort.surfaces.dashboard.rendering import page
from cohort.surfaces.http.callers import Face, Reader

router = APIRouter(include_in_schema=False)

MEASURES = {"hits": "Would be answered", "false_hits": "False hits"}
TONES = {"too few samples": "wait", "steady": "safe", "drifted": "harm"}
PLACES = {"l1": "memory", "l2": "Redis", "l3": "disk", "l4": "by meaning"}


@router.get("/services/{name}/cache")
def cache(request: Request, name: str, control: Face, caller: Reader) -> Response:
    return page(request, "cache.html", caller, view=control.caches.view(name), places=PLACES, measures=MEASURES, tones=TONES)
