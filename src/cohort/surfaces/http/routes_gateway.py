"""The gateway's clients: their keys and budgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Body, Request
from pydantic import Field
from starlette.responses import Response

from cohort.delivery.clients import PER_MINUTE_MAX, SERVICES_PER_KEY_MAX, Client, SetBudget, Terms
from cohort.gateway.contract_spend import Budget, Scope
from cohort.surfaces.http.bodies import Body as Fields
from cohort.surfaces.http.callers import Changer, Face, Idempotency, Reader
from cohort.surfaces.http.encoding import json_response
from cohort.surfaces.http.ports import NUMBER_MAX
from cohort.surfaces.http.repeats import once

router = APIRouter(prefix="/gateway")

USD_MAX = 1e9
Text = Annotated[str, Field(max_length=63)]
Usd = Annotated[float, Field(ge=0, le=USD_MAX, allow_inf_nan=False)]
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


def micro(usd: float | None) -> int | None:
    """Millionths of a dollar."""
    return None if usd is None else round(usd * 1_000_000)
