"""Edges of what is reserved, charged and given back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_spend_rules import PRICE, Place, chat, limited

from cohort.base.clock import ManualClock
from cohort.gateway.contract import Result, RoutingTable, decode_table
from cohort.gateway.contract_price import Price
from cohort.gateway.contract_spend import ClientKey
from cohort.gateway.dialects.face import Detail, Refused, Usage
from cohort.gateway.spend import estimates
from cohort.gateway.spend.accounts import Limit
from cohort.gateway.spend.allowances import LIFE_MARGIN_S
from cohort.gateway.spend.ledger import Ledger
from support_gateway import release, table

ALL = {"scope": "all", "name": "", "usd_micro": 10**9}


def two_routes(first: float, second: float, **more: Any) -> RoutingTable:
    """Dollars per million tokens, in and out alike."""
    body = table(1, [release("well", "http://127.0.0.1:1/v1", route={"price": flat(first)}, **more)])
    routes = body["releases"]["rel_well"]["routes"]
    routes.append({**routes[0], "name": "second", "price": flat(second)})
    return decode_table(json.dumps({**body, "budgets": [ALL]}).encode())


def flat(dollars: float) -> dict[str, float]:
    return {"input_usd_per_mtok": dollars, "output_usd_per_mtok": dollars}


def held(place: Place) -> int:
    return sum(int(str(row["held"])) for row in place.allowances.report())


def test_the_dearest_route_is_reserved_for(clock: ManualClock, tmp_path: Path) -> None:
    amounts = []
    for number, (first, second) in enumerate(((1, 5), (5, 1), (1, 1))):
        place = Place(tmp_path / str(number), clock, two_routes(first, second))
        place.allowances.reserve(place.begin(), chat(max_tokens=100), {})
        amounts.append(held(place))
    assert amounts[0] == amounts[1] == 5 * amounts[2]


def test_what_is_attached_counts_and_of_two_lengths_the_longer() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    assert estimates.prompt_tokens_max(chat(messages=[{"role": "user", "content": [picture]}])) > estimates.ATTACHMENT_TOKENS
    assert estimates.output_tokens_max(chat(max_tokens=10, max_completion_tokens=30), {}) == 30


def test_a_guess_at_a_long_prompt_is_charged_as_one() -> None:
    price = Price(1, 1, long_above_tokens=1000, long=Price(3, 3))
    assert estimates.charged_usd_micro(price, 3500, 0) == 1000
    assert estimates.charged_usd_micro(price, 7000, 10) == 6030


@pytest.mark.parametrize(("events", "written"), [(5, 5), (5000, 100)])
def test_a_stream_that_broke_off_is_charged_its_pieces_up_to_what_it_may_have(
    clock: ManualClock, tmp_path: Path, events: int, written: int
) -> None:
    place = Place(tmp_path, clock, limited(ALL))
    ongoing = place.begin()
    ongoing.stream = True
    place.allowances.reserve(ongoing, chat(max_tokens=100, stream=True), {})
    assert ongoing.reserved is not None
    ongoing.reserved.events = events
    place.recorder.first(ongoing)
    ongoing.usage, ongoing.result = Usage(10, 1, Detail(cached=4)), Result.INTERRUPTED
    place.recorder.end(ongoing)
    assert place.spent() == 10 * 2 + written * 8
    assert ongoing.usage == Usage(10, written, Detail(cached=4))


def test_attempts_that_were_given_up_are_charged_their_prompt(clock: ManualClock, tmp_path: Path) -> None:
    place = Place(tmp_path, clock, two_routes(1, 5))
    ongoing, request = place.begin(), chat(max_tokens=100)
    place.allowances.reserve(ongoing, request, {})
    ongoing.beside = ongoing.target.others
    ongoing.usage, ongoing.result = Usage(10, 10), Result.OK
    place.recorder.end(ongoing)
    assert place.spent() == 20 + round(len(request.body) / estimates.BYTES_PER_TOKEN * 5)
    assert ongoing.estimated


def test_a_reservation_outlives_its_call_and_not_for_long(clock: ManualClock, tmp_path: Path) -> None:
    place = Place(tmp_path, clock, limited(ALL))
    ongoing = place.begin()
    place.allowances.reserve(ongoing, chat(max_tokens=100), {})
    clock.advance(ongoing.target.timeout_s + LIFE_MARGIN_S - 1)
    place.allowances.sweep()
    assert held(place) > 0
    clock.advance(2)
    place.allowances.sweep()
    assert held(place) == 0


@pytest.mark.parametrize(("result", "again"), [(Result.OK, False), (Result.UNREACHABLE, True)])
def test_tokens_whose_use_nobody_said_stay_taken_unless_nobody_answered(
    clock: ManualClock, tmp_path: Path, result: Result, again: bool
) -> None:
    key = ClientKey("k", "shop", "ab" * 32, tokens_per_minute=1200)
    body = {**table(1, [release("well", "http://127.0.0.1:1/v1", route=PRICE)]), "keys": [{"id": "k", "name": "shop", "sha256": "ab" * 32}]}
    body["keys"][0]["tokens_per_minute"] = 1200
    place = Place(tmp_path, clock, decode_table(json.dumps(body).encode()))
    ongoing = place.begin(key)
    place.allowances.reserve(ongoing, chat(max_tokens=1000), {})
    ongoing.result = result
    place.recorder.end(ongoing)
    if again:
        place.allowances.reserve(place.begin(key), chat(max_tokens=1000), {})
        return
    with pytest.raises(Refused) as caught:
        place.allowances.reserve(place.begin(key), chat(max_tokens=1000), {})
    assert caught.value.code == "tokens_per_minute_exceeded"


def test_a_call_that_costs_nothing_holds_its_accounts_all_the_same(clock: ManualClock, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "spend", clock)
    ledger.reserve([Limit("a", 10, "a")], 0, 60.0)
    assert ledger.balance("a") == (0, 1)
