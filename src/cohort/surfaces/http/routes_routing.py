"""How services choose between a strong and a weak model."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body
from pydantic import Field
from starlette.responses import Response

from cohort.delivery.routing_fit import Fit
from cohort.delivery.routing_views import RoutingReplay, RoutingView
from cohort.surfaces.http.bodies import Body as Fields
from cohort.surfaces.http.callers import Face, Reader
from cohort.surfaces.http.encoding import json_response

router = APIRouter()

BOUNDARIES = tuple(step / 20 for step in range(1, 20))


class ReplayBody(Fields):
    boundaries: list[float] = Field(default_factory=lambda: list(BOUNDARIES), max_length=50, description="From 0 to 1.")
    weights: dict[str, float] | None = Field(default=None, max_length=20, description="Other weights of difficulty than the release's.")


@router.get("/services/{name}/routing", responses={200: {"model": RoutingView}}, summary="How a service chooses between two models")
def routing(name: str, control: Face, _: Reader) -> Response:
    return json_response(control.routing.view(name))


@router.post("/services/{name}/routing/replay", responses={200: {"model": RoutingReplay}}, summary="Compare boundaries on what was seen")
def replay(name: str, body: Annotated[ReplayBody, Body()], control: Face, _: Reader) -> Response:
    """Changes nothing."""
    return json_response(control.routing.replay(name, body.boundaries, body.weights))


@router.get("/services/{name}/routing/fit", responses={200: {"model": Fit}}, summary="Weights of difficulty that outcomes suggest")
def fit(name: str, control: Face, _: Reader) -> Response:
    """Changes nothing: write them into the next release."""
    return json_response(control.routing.fit(name))
