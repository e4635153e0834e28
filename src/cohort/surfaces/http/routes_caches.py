"""The caches of services, and forgetting a person."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body
from pydantic import Field
from starlette.responses import Response

from cohort.delivery.cache_state import Person
from cohort.delivery.cache_views import CacheView, Erasure
from cohort.surfaces.http.bodies import Body as Fields
from cohort.surfaces.http.callers import Changer, Face, Reader
from cohort.surfaces.http.encoding import json_response

router = APIRouter()

SUBJECT_CHARS_MAX = 1024


class EraseBody(Fields):
    """One of the two."""

    unit: str | None = Field(default=None, pattern="^[0-9a-f]{32}$", description="The pseudonym: `X-Cohort-Unit` of an answer.")
    subject: str | None = Field(
        default=None, min_length=1, max_length=SUBJECT_CHARS_MAX, description="The name as clients send it. It is recorded nowhere."
    )


@router.get("/services/{name}/cache", responses={200: {"model": CacheView}}, summary="How the caches of a service do")
def cache(name: str, control: Face, _: Reader) -> Response:
    return json_response(control.caches.view(name))


@router.post("/gateway/erase", responses={200: {"model": Erasure}}, summary="Forget a person in everything that keeps answers")
def erase(body: Annotated[EraseBody, Body()], control: Face, caller: Changer) -> Response:
    """Caches and kept responses of every worker. 200 when each has confirmed it; else 503 `CACHE_NOT_ERASED`, whose `details.stores` says which did."""
    return json_response(control.caches.erase(Person(body.unit, body.subject), caller.name))
