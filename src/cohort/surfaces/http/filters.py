"""Which calls a surface is asked for: the same filters everywhere."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, Query
from starlette.requests import Request

from cohort.delivery.traces import Wanted, places_of
from cohort.surfaces.http.callers import Face

FILTERS = ("service", "key", "model", "route", "result", "cache", "run", "agent", "unit", "trace", "trouble", "degraded")
"""As they stand in an address."""
Filter = Annotated[str, Query(max_length=200)]
ResultFilter = Literal["", "ok", "upstream_error", "unreachable", "timeout", "interrupted", "client_gone", "lost"]


def wanted_calls(
    control: Face,
    service: Filter = "",
    key: Annotated[str, Query(max_length=200, description="A client's key, by its id.")] = "",
    model: Annotated[str, Query(max_length=200, description="Of the upstream.")] = "",
    route: Filter = "",
    result: ResultFilter = "",
    cache: Annotated[str, Query(max_length=200, description="The tier that answered: l1 to l4.")] = "",
    run: Filter = "",
    agent: Filter = "",
    unit: Annotated[str, Query(max_length=200, description="The pseudonym, as `X-Cohort-Unit` of an answer says it.")] = "",
    trace: Annotated[str, Query(max_length=200, description="The id of a trace: 32 hexadecimal digits.")] = "",
    trouble: Annotated[bool, Query(description="Only those that failed.")] = False,
    degraded: Annotated[bool, Query(description="Only those that another route than the first answered.")] = False,
) -> Wanted:
    places = places_of(control.registry, service, model) if model else None
    return Wanted(service, key, route, cache, trouble, result, run, agent, unit, trace.lower(), degraded, places)


Calls = Annotated[Wanted, Depends(wanted_calls)]


def asked(request: Request) -> dict[str, str]:
    """The filters that say something, as they came."""
    given = {name: request.query_params.get(name, "") for name in FILTERS}
    return {name: value for name, value in given.items() if value not in ("", "false")}
