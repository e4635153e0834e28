"""The kill list of flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Body, Request
from pydantic import Field
from starlette.responses import Response

from cohort.delivery.flags import known_flags
from cohort.delivery.model import FlagKill, Killed
from cohort.surfaces.http.bodies import Body as Fields
from cohort.surfaces.http.bodies import Name, Reason
from cohort.surfaces.http.callers import Changer, Face, Idempotency, Reader
from cohort.surfaces.http.encoding import json_response
from cohort.surfaces.http.repeats import once

router = APIRouter()


class KillBody(Fields):
    flag: Name
    prefix: bool = Field(default=False, description="Every flag that begins so.")
    reason: Reason = ""


@dataclass(frozen=True, slots=True)
class FlagPage:
    """`items`: the kill list. `gateway`: the flags that the gateway itself obeys, and what each turns off."""

    items: tuple[FlagKill, ...]
    gateway: Mapping[str, str]


@router.get("/flags", responses={200: {"model": FlagPage}}, summary="The kill list")
def flags(control: Face, _: Reader) -> Response:
    return json_response(FlagPage(tuple(control.flags.list()), known_flags()))


@router.post("/flags/kill", responses={200: {"model": Killed}}, summary="Turn a flag off everywhere")
def kill(request: Request, body: Annotated[KillBody, Body()], control: Face, caller: Changer, key: Idempotency = None) -> Response:
    """`confirmed` is false when the gateway could not be told yet; control goes on trying."""

    def change() -> Response:
        return json_response(control.flags.kill(body.flag, body.prefix, caller.name, body.reason))

    return once(request, caller, key, body, change)


@router.post("/flags/restore", responses={200: {"model": Killed}}, summary="Take a flag off the kill list")
def restore(request: Request, body: Annotated[KillBody, Body()], control: Face, caller: Changer, key: Idempotency = None) -> Response:
    def change() -> Response:
        return json_response(control.flags.restore(body.flag, body.prefix, caller.name, body.reason))

    return once(request, caller, key, body, change)
