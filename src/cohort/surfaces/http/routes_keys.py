"""The keys of people and programs: make, list, revoke."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request
from pydantic import Field
from starlette.responses import Response

from cohort.base.ids import KeyId
from cohort.kernel.access import Key, Right, Role
from cohort.surfaces.http.bodies import Body as Fields
from cohort.surfaces.http.callers import Caller, Face, Idempotency, KeyKeeper, having
from cohort.surfaces.http.encoding import json_response
from cohort.surfaces.http.repeats import once

router = APIRouter()

KEY_NAME_CHARS_MAX = 63
KeyReader = Annotated[Caller, Depends(having(Right.KEYS))]


class KeyBody(Fields):
    name: str = Field(min_length=1, max_length=KEY_NAME_CHARS_MAX, description="Whose it is; the actor in every log.")
    role: Role


@dataclass(frozen=True, slots=True)
class KeyWithText:
    """`text` is the key itself, shown this once."""

    key: Key
    text: str


@dataclass(frozen=True, slots=True)
class Keys:
    items: tuple[Key, ...]


@router.post("/keys", status_code=201, responses={201: {"model": KeyWithText}}, summary="Make a key")
def create(request: Request, body: Annotated[KeyBody, Body()], control: Face, caller: KeyKeeper, key: Idempotency = None) -> Response:
    def change() -> Response:
        made = control.access.create_key(body.name, body.role, caller.name)
        return json_response(KeyWithText(made.key, made.text), 201)

    return once(request, caller, key, body, change)


@router.get("/keys", responses={200: {"model": Keys}}, summary="Every key ever made, oldest first")
def keys(control: Face, _: KeyReader) -> Response:
    return json_response(Keys(tuple(control.access.list_keys())))


@router.post("/keys/{key_id}/revoke", responses={200: {"model": Keys}}, summary="End a key and its sessions")
def revoke(request: Request, key_id: str, control: Face, caller: KeyKeeper, key: Idempotency = None) -> Response:
    """Answers with every key, afterwards."""

    def change() -> Response:
        control.access.revoke_key(KeyId(key_id), caller.name)
        return json_response(Keys(tuple(control.access.list_keys())))

    return once(request, caller, key, None, change)
