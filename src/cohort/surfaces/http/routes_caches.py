"""The caches of services, and forgetting a person."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Body
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from cohort.delivery.cache_state import Person
from cohort.delivery.cache_views import CacheView, Erasure
from cohort.surfaces.http.bodies import Body as Fields
from cohort.surfaces.http.callers import Changer, Face, Reader
from cohort.surfaces.http.encoding import json_response

router = APIRouter()

SUBJECT_CHARS_MAX = 1024
_PSEUDONYM = re.compile("^[0-9a-f]{32}$")


def _pseudonym(text: str) -> str:
    if not _PSEUDONYM.fullmatch(text):
        words = "must be the 32 hexadecimal digits that `X-Cohort-Unit` of an answer says, found {found}"
        raise PydanticCustomError("unit", words, {"found": repr(text[:40])})
    return text


Unit = Annotated[str, AfterValidator(_pseudonym), Field(json_schema_extra={"pattern": _PSEUDONYM.pattern})]


class EraseBody(Fields):
    """One of the two."""

    unit: Unit | None = Field(default=None, description="The pseudonym: `X-Cohort-Unit` of an answer.")
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
