"""Rollouts: forecast, start, look, steer, replay."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request
from starlette.responses import Response

from cohort.base.errors import CohortError
from cohort.delivery.face import Act, Rollouts, Start
from cohort.delivery.model import Forecast, Replay, RolloutView
from cohort.surfaces.http.bodies import PlanBody, RolloutPage, StartBody, VerbBody
from cohort.surfaces.http.callers import Changer, Face, Idempotency, Reader, act
from cohort.surfaces.http.encoding import json_response
from cohort.surfaces.http.live import Feed, rollout_stream, stream_response
from cohort.surfaces.http.ports import NUMBER_MAX, PAGE_ROWS_MAX

router = APIRouter()

ServiceFilter = Annotated[str | None, Query(max_length=200)]
Rows = Annotated[int, Query(ge=1, le=PAGE_ROWS_MAX)]
Cursor = Annotated[str | None, Query(max_length=20, description="`next` of the page before.")]


class Verb(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    APPROVE = "approve"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    ABORT = "abort"


def verb_of(rollouts: Rollouts, verb: Verb) -> Callable[[str, Act], RolloutView]:
    return {
        Verb.PAUSE: rollouts.pause,
        Verb.RESUME: rollouts.resume,
        Verb.APPROVE: rollouts.approve,
        Verb.PROMOTE: rollouts.promote,
        Verb.ROLLBACK: rollouts.rollback,
        Verb.ABORT: rollouts.abort,
    }[verb]


@router.post("/rollouts/plan", responses={200: {"model": Forecast}}, summary="What a plan can see with this traffic, before it starts")
def plan(body: Annotated[PlanBody, Body()], control: Face, _: Reader) -> Response:
    """Changes nothing, so a viewer's key is enough."""
    forecast = control.rollouts.forecast(
        body.service, body.plan, speed=body.speed, units_per_s=body.units_per_s, failure_rate=body.failure_rate
    )
    return json_response(forecast)


@router.post("/rollouts", status_code=201, responses={201: {"model": RolloutView}}, summary="Start a rollout")
def start(body: Annotated[StartBody, Body()], control: Face, caller: Changer, key: Idempotency = None) -> Response:
    asked = Start(
        service=body.service,
        to=body.to,
        plan=body.plan,
        act=act(caller, body.reason, None, key),
        speed=body.speed,
        at_pct=body.at_pct,
        strict=body.strict,
    )
    view = control.rollouts.start(asked)
    return json_response(view, 201, {"location": f"/api/v1/rollouts/{view.id}"})


@router.get("/rollouts", responses={200: {"model": RolloutPage}}, summary="Rollouts, newest first")
def rollouts(
    control: Face, _: Reader, service: ServiceFilter = None, active: bool | None = None, limit: Rows = 50, cursor: Cursor = None
) -> Response:
    rows = tuple(control.rollouts.list(service, active, limit + 1, _before_us(cursor)))
    following = str(rows[limit - 1].created_us) if len(rows) > limit else None
    return json_response(RolloutPage(rows[:limit], following))


@router.get("/rollouts/{rollout}", responses={200: {"model": RolloutView}}, summary="Everything about a rollout")
def show(rollout: str, control: Face, _: Reader) -> Response:
    """`rollout` is an id, or a service's name for its newest."""
    return json_response(control.rollouts.show(rollout))


@router.get("/rollouts/{rollout}/replay", responses={200: {"model": Replay}}, summary="Recompute every verdict from the recorded log")
def replay(rollout: str, control: Face, _: Reader) -> Response:
    return json_response(control.rollouts.replay(rollout))


EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Server-sent events"}
}


@router.get("/rollouts/{rollout}/events", responses=EVENTS, summary="The rollout as it goes on (server-sent events)")
async def events(
    rollout: str,
    request: Request,
    control: Face,
    _: Reader,
    last_seq: Annotated[int | None, Query(ge=0, description="Send the entries of the event log after this one first.")] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """`event: rollout` with the whole view whenever it changed, at once for the first time; `event: transition` for every entry of
    the event log after `last_seq` (or Last-Event-ID: ids are the `seq` of the newest entry); `event: end` when the rollout has ended."""
    feed: Feed = request.app.state.feed
    given = number_of(last_event_id or "")
    first = await feed.ask(control.rollouts.show, rollout)
    return stream_response(feed, rollout_stream(feed, control.rollouts, first, last_seq if given is None else given))


@router.post("/rollouts/{rollout}/{verb}", responses={200: {"model": RolloutView}}, summary="Steer a rollout")
def steer(
    rollout: str, verb: Verb, control: Face, caller: Changer, body: Annotated[VerbBody | None, Body()] = None, key: Idempotency = None
) -> Response:
    asked = body or VerbBody()
    return json_response(verb_of(control.rollouts, verb)(rollout, act(caller, asked.reason, asked.revision, key)))


def number_of(text: str) -> int | None:
    """What a client brings back to us as a number: a time or the `seq` of an entry; None when it cannot be one of ours."""
    number = int(text) if text.isdecimal() and len(text) <= len(str(NUMBER_MAX)) else None
    return number if number is not None and number <= NUMBER_MAX else None


def _before_us(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    before_us = number_of(cursor)
    if before_us is None:
        raise CohortError("FIELD_INVALID", f"cursor: {cursor!r} is none of ours", field="cursor", hint="Use `next` of the page before.")
    return before_us
