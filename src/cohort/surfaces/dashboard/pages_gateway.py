"""The pages about calls: what happens now, one call step by step, what calls cost, who holds which key and budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from cohort.delivery.accounts import HOUR_US, SHADOW_KEY, Balance, Cost
from cohort.delivery.clients import Client
from cohort.delivery.trace_views import timeline_of
from cohort.delivery.traces import Wanted
from cohort.gateway.contract import Call, Result
from cohort.surfaces.dashboard.rendering import page, render
from cohort.surfaces.dashboard.streams import stream
from cohort.surfaces.http.callers import Auditor, Caller, Face, Reader
from cohort.surfaces.http.filters import FILTERS, Calls, Filter, asked
from cohort.surfaces.http.ports import NUMBER_MAX, ControlFace

router = APIRouter(include_in_schema=False)

CALLS_SHOWN = 60
COSTS_SHOWN = 20
SPANS_HOURS = {"hour": 1, "day": 24, "week": 168, "month": 720}
Number = Annotated[int, Path(ge=0, le=NUMBER_MAX)]


@dataclass(frozen=True, slots=True)
class Sum:
    """Calls and cost of one service, model or key. `part`: of all cost shown, 0 to 1."""

    name: str
    calls: int
    failed: int
    unpriced: int
    tokens: int
    usd: float
    part: float


@router.get("/requests")
def requests(request: Request, control: Face, caller: Reader, wanted: Calls) -> Response:
    given = asked(request)
    shown = {
        **calls_shown(control, wanted),
        "wanted": dict.fromkeys(FILTERS, "") | given,
        "live": urlencode(given),
        "choices": choices(control),
    }
    return page(request, "requests.html", caller, **shown)


@router.get("/requests/{gateway}/{epoch}/{seq}")
def one_request(request: Request, gateway: str, epoch: Number, seq: Number, control: Face, caller: Reader) -> Response:
    calls = control.accounts.call(gateway, epoch, seq)
    releases = {release.digest: release for release in control.registry.list(calls[0].service)}
    timelines = [timeline_of(call) for call in calls]
    shown: dict[str, Any] = {"versions": {digest: release.version for digest, release in releases.items()}, "names": key_names(control)}
    models = {
        (str(digest), name): route.get("model", "")
        for digest, release in releases.items()
        for name, route in release.manifest["routes"].items()
    }
    return page(request, "request.html", caller, traced=list(zip(calls, timelines, strict=True)), models=models, steps=steps, **shown)


@router.get("/requests/{gateway}/{epoch}/{seq}/content")
def one_content(request: Request, gateway: str, epoch: Number, seq: Number, control: Face, caller: Auditor) -> Response:
    content = control.accounts.content(gateway, epoch, seq, caller.name)
    return page(request, "request_content.html", caller, call=control.accounts.call(gateway, epoch, seq)[0], content=content)


@router.get("/live/requests")
async def live_requests(request: Request, control: Face, caller: Reader, wanted: Calls) -> Response:
    return stream(request, control, caller, lambda: (requests_fragments(control, caller, wanted), False))


@router.get("/spending")
def spending(request: Request, control: Face, caller: Reader, span: Filter = "day") -> Response:
    chosen = span if span in SPANS_HOURS else "day"
    now_us = control.clock.now_us()
    found = control.accounts.costs(now_us - SPANS_HOURS[chosen] * HOUR_US)
    names, models = key_names(control), models_of(control, found)
    tables = (
        ("Service", summed(found, lambda cost: cost.service)),
        ("Model", summed(found, lambda cost: models.get((cost.release, cost.route), cost.route))),
        ("Key", summed(found, lambda cost: names.get(cost.client_key, cost.client_key or "no key"))),
    )
    total, unpriced = sum(cost.cost_usd_micro for cost in found) / 1e6, sum(cost.unpriced for cost in found)
    left = control.accounts.balances()
    balances = {(entry.scope, entry.name): entry for entry in left or ()}
    shown: dict[str, Any] = {
        "keys": control.clients.list_keys(),
        "budgets": control.clients.budgets(),
        "balances": balances,
        "reached": left is not None,
        "released": budgets_of_releases(control, left or ()),
    }
    return page(request, "spending.html", caller, span=chosen, spans=SPANS_HOURS, tables=tables, total=total, unpriced=unpriced, **shown)


def budgets_of_releases(control: ControlFace, balances: Sequence[Balance]) -> list[tuple[str, Balance]]:
    """What releases may spend a day, each with the release's service and version."""
    found = [entry for entry in balances if entry.scope == "release"]
    names = {str(release.digest): f"{release.service} {release.version}" for release in control.registry.list()} if found else {}
    return sorted((names.get(entry.name, entry.name[:16]), entry) for entry in found)


def requests_fragments(control: ControlFace, caller: Caller, wanted: Wanted) -> dict[str, str]:
    shown = {**calls_shown(control, wanted), "now_us": control.clock.now_us(), "visitor": caller}
    return {"calls": render("fragments/calls.html", **shown)}


def calls_shown(control: ControlFace, wanted: Wanted) -> dict[str, Any]:
    return {"calls": control.accounts.newest(wanted, CALLS_SHOWN), "names": key_names(control)}


def choices(control: ControlFace) -> dict[str, list[tuple[str, str]]]:
    """What each filter that is chosen from a list can be: value and words."""
    releases = control.registry.list()
    models = {str(route["model"]) for release in releases for route in release.manifest["routes"].values() if "model" in route}
    keys = [(id, name) for id, name in key_names(control).items() if id != SHADOW_KEY]
    return {
        "service": [(view.name, view.name) for view in control.rollouts.services()],
        "key": keys,
        "model": [(model, model) for model in sorted(models)],
        "result": [(result.value, result.value.replace("_", " ")) for result in Result],
        "cache": [(tier, tier.upper()) for tier in ("l1", "l2", "l3", "l4")],
    }


def key_names(control: ControlFace) -> dict[str, str]:
    """What each client's key is called, by id; keys of one name are told apart by how their ids end."""
    clients = control.clients.list_keys()
    count = Counter(client.name for client in clients)
    return {client.id: client.name if count[client.name] == 1 else _told_apart(client) for client in clients} | {
        SHADOW_KEY: "shadow copies"
    }


def _told_apart(client: Client) -> str:
    return f"{client.name} ({client.id[-4:]}{', revoked' if client.revoked_us is not None else ''})"


def models_of(control: ControlFace, costs: Sequence[Cost]) -> dict[tuple[str, str], str]:
    """The model behind each release's route."""
    found = {}
    for service in sorted({cost.service for cost in costs}):
        for release in control.registry.list(service):
            for name, route in release.manifest["routes"].items():
                found[(str(release.digest), name)] = str(route.get("model", name))
    return found


def summed(costs: Sequence[Cost], of: Callable[[Cost], str]) -> list[Sum]:
    """Costs by what `of` says, dearest first."""
    groups: dict[str, list[Cost]] = {}
    for cost in costs:
        groups.setdefault(of(cost), []).append(cost)
    whole = sum(cost.cost_usd_micro for cost in costs)
    sums = [_sum(name, group, whole) for name, group in groups.items()]
    return sorted(sums, key=lambda entry: (-entry.usd, -entry.calls, entry.name))[:COSTS_SHOWN]


def _sum(name: str, group: Sequence[Cost], whole: int) -> Sum:
    micro = sum(cost.cost_usd_micro for cost in group)
    return Sum(
        name,
        sum(cost.calls for cost in group),
        sum(cost.failed for cost in group),
        sum(cost.unpriced for cost in group),
        sum(cost.tokens_in + cost.tokens_out for cost in group),
        micro / 1e6,
        micro / whole if whole else 0.0,
    )


def steps(call: Call, names: Mapping[str, str]) -> list[tuple[str, str]]:
    """What is known of a call besides its times: what it is, and what came of it. `names`: of keys, by id."""
    return [
        ("Key", (call.key and "admitted by its key") or "none needed"),
        ("Assigned", f"{call.arm.value}, {call.share * 100:g} % on the candidate" if call.rollout_id else "the stable release"),
        ("Cache", _cache_words(call)),
        *([("Choice of the model", _choice_words(call))] if call.bucket else []),
        *([("Budget", _budget_words(call, names))] if call.held_usd_micro is not None else []),
        ("Cost", _cost_words(call)),
        ("Route", _route_words(call)),
        ("Answer", f"{call.result.value.replace('_', ' ')}, status {call.status or 'none sent'}" + (f", {call.code}" if call.code else "")),
    ]


def _cache_words(call: Call) -> str:
    if call.answered_from_cache:
        saved = f", ${call.saved_usd_micro / 1e6:.6f} saved" if call.saved_usd_micro else ""
        return f"answered from {call.cache}{saved}"
    return "had no answer" if call.looked == "miss" or call.cache else "took no part"


def _choice_words(call: Call) -> str:
    model = "the strong one" if call.strong else "the weak one"
    if call.difficulty is None or call.boundary is None:
        return f"{model}, as the release says"
    return f"{model}: difficulty {call.difficulty:.3f}, boundary {call.boundary:.3f}, bucket {call.bucket}"


def _route_words(call: Call) -> str:
    asked = f"{call.attempts} attempt{'' if call.attempts == 1 else 's'}"
    return f"{call.route or 'none'}, {asked}" + ("; not the release's first route: degraded" if call.degraded else "")


def _budget_words(call: Call, names: Mapping[str, str]) -> str:
    places = [budget.partition(":") for budget in call.budgets]
    whose = ", ".join(f"{scope} {names.get(name, name) if scope == 'key' else name}".strip() for scope, _, name in places)
    held = f"${(call.held_usd_micro or 0) / 1e6:.6f} held on {whose}"
    return held + (f"; ${call.cost_usd_micro / 1e6:.6f} settled" if call.cost_usd_micro is not None else "")


def _cost_words(call: Call) -> str:
    if call.cost_usd_micro is None:
        return "cost not known"
    return f"${call.cost_usd_micro / 1e6:.6f}" + (", estimated" if call.estimated else "")
