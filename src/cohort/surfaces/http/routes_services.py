"""Services, releases and plans."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query
from starlette.responses import Response

from cohort.delivery.face import Bundle, Created
from cohort.delivery.model import Release, RollbackResult, ServiceView
from cohort.surfaces.http.bodies import Plans, ReleaseBody, Releases, RollbackBody, Services
from cohort.surfaces.http.callers import Changer, Face, Idempotency, Reader, act
from cohort.surfaces.http.encoding import json_response

router = APIRouter()

ServiceFilter = Annotated[str | None, Query(max_length=200)]


@router.get("/services", responses={200: {"model": Services}}, summary="Every service and what serves where")
def services(control: Face, _: Reader) -> Response:
    return json_response(Services(tuple(control.rollouts.services())))


@router.get("/services/{name}", responses={200: {"model": ServiceView}}, summary="One service")
def service(name: str, control: Face, _: Reader) -> Response:
    return json_response(control.rollouts.service(name))


@router.post(
    "/services/{name}/rollback", responses={200: {"model": RollbackResult}}, summary="Go back to the previous stable release, verified"
)
def rollback(name: str, body: Annotated[RollbackBody, Body()], control: Face, caller: Changer, key: Idempotency = None) -> Response:
    return json_response(control.rollouts.rollback_service(name, act(caller, body.reason, None, key), body.to))


@router.post("/releases", status_code=201, responses={201: {"model": Created}, 200: {"model": Created}}, summary="Store a release")
def create(body: Annotated[ReleaseBody, Body()], control: Face, caller: Changer) -> Response:
    """201 when it is new; 200 when the very same release was there already (a release is content-addressed, so repeating is safe)."""
    created = control.registry.create(Bundle(body.source, body.manifest, body.files), caller.name)
    return json_response(created, 201 if created.created else 200, {"location": f"/api/v1/releases/{created.release.digest}"})


@router.get("/releases", responses={200: {"model": Releases}}, summary="Releases, newest first")
def releases(control: Face, _: Reader, service: ServiceFilter = None) -> Response:
    return json_response(Releases(tuple(control.registry.list(service))))


@router.get("/releases/{ref}", responses={200: {"model": Release}}, summary="One release, by digest, or by version or tag within a service")
def release(ref: str, control: Face, _: Reader, service: ServiceFilter = None) -> Response:
    return json_response(control.registry.find(ref, service))


@router.get("/plans", responses={200: {"model": Plans}}, summary="The plans that have a name")
def plans(control: Face, _: Reader) -> Response:
    return json_response(Plans(tuple(control.rollouts.plans())))
