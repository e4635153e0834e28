"""The gateway's clients: their keys and budgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from cohort.delivery.accounts import HOUR_US, Balance, Cost
from cohort.delivery.clients import PER_MINUTE_MAX, SERVICES_PER_KEY_MAX, Client, SetBudget, Terms
from cohort.delivery.contents import Content
from cohort.delivery.trace_views import Timeline, timeline_of
from cohort.gateway.contract import Call
from cohort.gateway.contract_spend import Budget, Scope
from cohort.surfaces.http.bodies import Body as Fields
from cohort.surfaces.http.callers import Auditor, Changer, Face, Idempotency, Reader
from cohort.surfaces.http.encoding import json_response
from cohort.surfaces.http.filters import Calls as Filtered
from cohort.surfaces.http.live import Feed, calls_stream, stream_response
from cohort.surfaces.http.ports import NUMBER_MAX, PAGE_ROWS_MAX
from cohort.surfaces.http.repeats import once

router = APIRouter(prefix="/gateway")

USD_MAX = 1e9
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Server-sent events"}
}
Text = Annotated[str, Field(max_length=63)]
Usd = Annotated[float, Field(ge=0, le=USD_MAX, allow_inf_nan=False)]
Hours = Annotated[int, Query(ge=0, le=24 * 366)]
Number = Annotated[int, Path(ge=0, le=NUMBER_MAX)]
PerMinute = Annotated[int, Field(ge=0, le=PER_MINUTE_MAX)]


class ClientKeyBody(Fields):
    name: str = Field(min_length=1, max_length=63, description="Which program or team holds it.")
    services: list[Text] = Field(default_factory=list, max_length=SERVICES_PER_KEY_MAX, description="What it may call; none named: all.")
    tenant: Text = Field(default="", description="Tenants never share a cached answer.")
    team: Text = ""
    agent: Text = Field(default="", description="The agent whose calls these are, for budgets.")
    budget_usd_per_day: Usd | None = Field(default=None, description="Per day, UTC; 0 refuses all; left out: no limit.")
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    expires_us: int | None = Field(default=None, ge=0, le=NUMBER_MAX)

    def terms(self) -> Terms:
        limits = (micro(self.budget_usd_per_day), self.requests_per_minute, self.tokens_per_minute, self.expires_us)
        return Terms(tuple(self.services), self.tenant, self.team, self.agent, *limits)


class BudgetBody(Fields):
    scope: Scope
    name: Text = Field(default="", description="Whose: a team, service, agent or run; `*`: each of them. Empty for `all`.")
    usd: Usd = Field(description="Per day, UTC; of a run: in all. 0 refuses all.")


class BudgetPlaceBody(Fields):
    scope: Scope
    name: Text = ""


@dataclass(frozen=True, slots=True)
class ClientWithText:
    """`text` is the key itself, shown this once."""

    client: Client
    text: str


@dataclass(frozen=True, slots=True)
class Clients:
    items: tuple[Client, ...]


@dataclass(frozen=True, slots=True)
class Budgets:
    items: tuple[SetBudget, ...]


@dataclass(frozen=True, slots=True)
class Costs:
    items: tuple[Cost, ...]


@dataclass(frozen=True, slots=True)
class Calls:
    items: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Traced:
    """`timelines`: what happened to each of `items`, as bars on a line of time."""

    items: tuple[Call, ...]
    timelines: tuple[Timeline, ...]


@dataclass(frozen=True, slots=True)
class Balances:
    """`items` is null while the gateway does not answer."""

    items: tuple[Balance, ...] | None


@router.post("/keys", status_code=201, responses={201: {"model": ClientWithText}}, summary="Make a key for a client of the gateway")
def create(request: Request, body: Annotated[ClientKeyBody, Body()], control: Face, caller: Changer, key: Idempotency = None) -> Response:
    """Gateways are told at once; from the first key on they require one."""

    def change() -> Response:
        made = control.clients.create(body.name, body.terms(), caller.name)
        return json_response(ClientWithText(made.client, made.text), 201)

    return once(request, caller, key, body, change)


@router.get("/keys", responses={200: {"model": Clients}}, summary="Every client's key ever made, oldest first")
def keys(control: Face, _: Reader) -> Response:
    return json_response(Clients(tuple(control.clients.list_keys())))


@router.post("/keys/{name}/revoke", responses={200: {"model": Clients}}, summary="End a client's key, by its id or name")
def revoke(request: Request, name: str, control: Face, caller: Changer, key: Idempotency = None) -> Response:
    """Answers with every key, afterwards."""

    def change() -> Response:
        control.clients.revoke(name, caller.name)
        return json_response(Clients(tuple(control.clients.list_keys())))

    return once(request, caller, key, None, change)


@router.get("/budgets", responses={200: {"model": Budgets}}, summary="The budgets in force")
def budgets(control: Face, _: Reader) -> Response:
    return json_response(Budgets(tuple(control.clients.budgets())))


@router.post("/budgets", responses={200: {"model": Budgets}}, summary="Put a budget in force, or change it")
def set_budget(request: Request, body: Annotated[BudgetBody, Body()], control: Face, caller: Changer, key: Idempotency = None) -> Response:
    def change() -> Response:
        control.clients.set_budget(Budget(body.scope, body.name, micro(body.usd) or 0), caller.name)
        return json_response(Budgets(tuple(control.clients.budgets())))

    return once(request, caller, key, body, change)


@router.post("/budgets/remove", responses={200: {"model": Budgets}}, summary="Take a budget away")
def remove_budget(
    request: Request, body: Annotated[BudgetPlaceBody, Body()], control: Face, caller: Changer, key: Idempotency = None
) -> Response:
    def change() -> Response:
        control.clients.remove_budget(body.scope, body.name, caller.name)
        return json_response(Budgets(tuple(control.clients.budgets())))

    return once(request, caller, key, body, change)


@router.get("/costs", responses={200: {"model": Costs}}, summary="What calls cost, by service, release, route and client's key")
def costs(control: Face, _: Reader, hours: Hours = 24) -> Response:
    """Dearest first, of the last `hours` whole hours and the one under way."""
    return json_response(Costs(tuple(control.accounts.costs(control.clock.now_us() - hours * HOUR_US))))


@router.get("/balances", responses={200: {"model": Balances}}, summary="What the budgets in force have left")
def balances(control: Face, _: Reader) -> Response:
    found = control.accounts.balances()
    return json_response(Balances(None if found is None else tuple(found)))


@router.get("/requests", responses={200: {"model": Calls}}, summary="The newest calls, newest first")
def requests(control: Face, _: Reader, wanted: Filtered, limit: Annotated[int, Query(ge=1, le=PAGE_ROWS_MAX)] = 50) -> Response:
    """Never their content. Of a busy hour not every call is stored: those that something happened to are."""
    return json_response(Calls(tuple(control.accounts.newest(wanted, limit))))


@router.get("/requests/events", responses=EVENTS, summary="Calls as they end (server-sent events)")
async def request_events(
    request: Request, control: Face, _: Reader, wanted: Filtered, newest: Annotated[int, Query(ge=0, le=PAGE_ROWS_MAX)] = 0
) -> Response:
    """`event: call` for each of the `newest` calls, oldest first, and then for every further one; `event: missed` with a count where they came
    faster than they could be told."""
    feed: Feed = request.app.state.feed
    return stream_response(feed, calls_stream(feed, control.accounts, wanted, newest))


@router.get("/requests/{gateway}/{epoch}/{seq}", responses={200: {"model": Traced}}, summary="One call and its shadow copy, step by step")
def request_shown(gateway: str, epoch: Number, seq: Number, control: Face, _: Reader) -> Response:
    calls = control.accounts.call(gateway, epoch, seq)
    return json_response(Traced(tuple(calls), tuple(timeline_of(call) for call in calls)))


@router.get("/requests/{gateway}/{epoch}/{seq}/content", responses={200: {"model": Content}}, summary="What a call asked and was answered")
def request_content(gateway: str, epoch: Number, seq: Number, control: Face, caller: Auditor) -> Response:
    """Of calls that were drawn as samples, redacted. Needs the right to audit; who looked is in the audit log."""
    return json_response(control.accounts.content(gateway, epoch, seq, caller.name))


def micro(usd: float | None) -> int | None:
    """Millionths of a dollar; less than one is one, as only 0 says that nothing may be spent."""
    return None if usd is None else max(round(usd * 1_000_000), int(usd > 0))
