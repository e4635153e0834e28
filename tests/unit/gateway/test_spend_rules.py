"""Which budgets a call counts in, what it may cost, and days when the clock is set."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from cohort.base.clock import ManualClock
from cohort.gateway.compiled import compile_table
from cohort.gateway.contract import Result, RoutingTable, decode_table
from cohort.gateway.contract_price import Price
from cohort.gateway.contract_spend import ClientKey
from cohort.gateway.dialects.face import Chat, Refused, Usage
from cohort.gateway.dialects.openai_same import parse_chat
from cohort.gateway.dialects.operations import CHAT, operations
from cohort.gateway.log import Log
from cohort.gateway.metrics import Metrics
from cohort.gateway.records import Ongoing, Recorder
from cohort.gateway.spend import estimates
from cohort.gateway.spend.allowances import Allowances
from cohort.gateway.spend.callers import compile_keys
from cohort.gateway.spend.ledger import Ledger
from cohort.gateway.spend.pricing import bound_usd_micro
from cohort.gateway.spend.rules import DAY_US, TERMS_REMEMBERED, Terms, compile_rules, limits_of, terms_of
from support_gateway import release, table

PRICE = {"price": {"input_usd_per_mtok": 2.0, "output_usd_per_mtok": 8.0}}


class Rows:
    """A spool that keeps what it is given."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def append(self, payload: bytes) -> bool:
        self.kept.append(json.loads(payload))
        return True


class SetClock(ManualClock):
    """A machine whose wall clock people set; the other one goes on."""

    def set_back(self, seconds: float) -> None:
        self._now_us -= int(seconds * 1e6)


def chat(**fields: Any) -> Chat:
    body = {"model": "well", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return parse_chat(CHAT, json.dumps(body).encode())


def limited(*budgets: dict[str, Any], **terms: Any) -> RoutingTable:
    body = {**table(1, [release("well", "http://127.0.0.1:1/v1", route=PRICE, **terms)]), "budgets": budgets}
    return decode_table(json.dumps(body).encode())


class Place:
    """One worker's allowances over a real ledger."""

    def __init__(self, directory: Path, clock: ManualClock, made: RoutingTable) -> None:
        self.rows = Rows()
        rows: Any = self.rows
        self.snapshot = compile_table(made)
        self.recorder = Recorder("gw", clock.now_us(), rows, Metrics(), clock, 2)
        log = Log("gw", clock, io.StringIO())
        self.allowances = Allowances(lambda: self.snapshot.rules, lambda: Ledger(directory / "spend", clock), clock, log)

    def begin(self, key: ClientKey | None = None) -> Ongoing:
        ongoing = self.recorder.assign(self.snapshot.services["well"], "u" * 32, False)
        ongoing.caller = next(iter(compile_keys([key]).values())) if key is not None else None
        return ongoing

    def spent(self) -> int:
        return sum(int(str(row["spent"])) for row in self.allowances.report())


def test_nothing_limited_is_nothing_to_do() -> None:
    assert compile_rules(limited()) is None


def test_a_call_counts_in_every_budget_that_is_its_own(clock: ManualClock, tmp_path: Path) -> None:
    budgets = [
        {"scope": "all", "name": "", "usd_micro": 1},
        {"scope": "team", "name": "web", "usd_micro": 2},
        {"scope": "team", "name": "*", "usd_micro": 3},
        {"scope": "service", "name": "other", "usd_micro": 4},
        {"scope": "agent", "name": "*", "usd_micro": 5},
        {"scope": "run", "name": "r1", "usd_micro": 6},
    ]
    place = Place(tmp_path, clock, limited(*budgets, budget_usd_micro_per_day=7))
    key = ClientKey("k", "shop", "ab" * 32, team="web", agent="ag_1", budget_usd_micro_per_day=8)
    rules = place.snapshot.rules
    assert rules is not None
    found = limits_of(rules, place.begin(key), {b"x-cohort-run": b"r1", b"x-cohort-agent": b"other"}, clock.now_us())
    assert sorted(limit.most for limit in found) == [1, 2, 5, 6, 7, 8]
    assert any("ag_1" in limit.name for limit in found)
    other = limits_of(rules, place.begin(ClientKey("k2", "x", "cd" * 32, team="ops")), {}, clock.now_us())
    assert sorted(limit.most for limit in other) == [1, 3, 7]


def test_the_bound_is_of_prompt_and_answers(clock: ManualClock) -> None:
    assert estimates.output_tokens_max(chat(max_tokens=10, n=3), {}) == 30
    assert estimates.output_tokens_max(chat(), {"max_output_tokens": 7}) == 7
    assert estimates.output_tokens_max(chat(max_completion_tokens=True), {}) == estimates.OUTPUT_TOKENS_MAX
    assert bound_usd_micro(Price(2.0, 8.0), 3, 1) == 14
    assert bound_usd_micro(Price(0.1, 0.0), 1, 0) == 1
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    assert estimates.prompt_tokens_max(chat(messages=[{"role": "user", "content": [picture]}])) < 3000


@pytest.mark.parametrize(
    ("result", "said", "written"),
    [
        (Result.CLIENT_GONE, 1, 500),
        (Result.INTERRUPTED, 1, 500),
        (Result.TIMEOUT, 700, 700),
        (Result.OK, 1, 1),  # the upstream said it at the end
    ],
)
def test_a_client_that_leaves_a_stream_pays_what_was_streamed(
    clock: ManualClock, tmp_path: Path, result: Result, said: int, written: int
) -> None:
    place = Place(tmp_path, clock, limited({"scope": "all", "name": "", "usd_micro": 10**9}))
    ongoing = place.begin()
    ongoing.stream = True
    place.allowances.reserve(ongoing, chat(max_tokens=1000, stream=True), {})
    assert ongoing.reserved is not None
    ongoing.reserved.events = 500
    place.recorder.first(ongoing)
    ongoing.usage, ongoing.result = Usage(10, said), result
    place.recorder.end(ongoing)
    assert place.spent() == 10 * 2 + written * 8
    assert place.rows.kept[-1]["tokens_out"] == written
    assert place.rows.kept[-1].get("estimated", False) is (said != written)


def test_routes_that_are_asked_side_by_side_are_all_reserved_for(clock: ManualClock, tmp_path: Path) -> None:
    held = []
    for number, reliability in enumerate(({}, {"hedge_after_s": 1.0})):
        body = {**table(1, [release("well", "http://127.0.0.1:1/v1", route=PRICE, reliability=reliability)])}
        first = body["releases"]["rel_well"]["routes"][0]
        body["releases"]["rel_well"]["routes"].append({**first, "name": "second"})
        made = decode_table(json.dumps({**body, "budgets": [{"scope": "all", "name": "", "usd_micro": 10**9}]}).encode())
        place = Place(tmp_path / str(number), clock, made)
        place.allowances.reserve(place.begin(), chat(max_tokens=100), {})
        held.append(int(str(place.allowances.report()[0]["held"])))
    assert held[1] == 2 * held[0]


def test_of_routes_the_dearest_is_reserved_for_wherever_it_stands(clock: ManualClock, tmp_path: Path) -> None:
    held = []
    dear = {"price": {"input_usd_per_mtok": 4.0, "output_usd_per_mtok": 80.0}}
    for number, prices in enumerate(([PRICE, dear], [dear, PRICE], [PRICE, PRICE, dear, dear], [PRICE])):
        body = table(1, [release("well", "http://127.0.0.1:1/v1")])
        route = body["releases"]["rel_well"]["routes"][0]
        body["releases"]["rel_well"]["routes"] = [{**route, **price, "name": f"r{at}"} for at, price in enumerate(prices)]
        made = decode_table(json.dumps({**body, "budgets": [{"scope": "all", "name": "", "usd_micro": 10**9}]}).encode())
        place = Place(tmp_path / str(number), clock, made)
        place.allowances.reserve(place.begin(), chat(max_tokens=100), {})
        held.append(int(str(place.allowances.report()[0]["held"])))
        place.allowances.close()
    assert held[0] == held[1] == held[2] > held[3]


def test_terms_are_made_once_for_a_caller_a_release_and_a_day_and_never_kept_beyond_a_number(clock: ManualClock, tmp_path: Path) -> None:
    budgets = [{"scope": "run", "name": "*", "usd_micro": 5}, {"scope": "all", "name": "", "usd_micro": 6}]
    place = Place(tmp_path, clock, limited(*budgets))
    rules, ongoing = place.snapshot.rules, place.begin()
    assert rules is not None

    def terms(run: bytes, days: int = 0, of: Ongoing = ongoing) -> Terms:
        return terms_of(rules, of, {b"x-cohort-run": run, b"x-cohort-agent": b"any"}, clock.now_us() + days * DAY_US)

    first = terms(b"r1")
    assert terms(b"r1") is first
    assert [limit.name.split("\0")[:2] for limit in first.limits] == [["run", "r1"], ["all", ""]]
    others = [terms(b"r2"), terms(b"r1", days=1), terms(b"r1", of=place.begin(ClientKey("k", "shop", "ab" * 32, agent="a")))]
    assert all(other is not first for other in others)
    assert others[1].limits[1].name != first.limits[1].name, "each day's budget is its own"
    with pytest.raises(Refused):
        terms(b"-no label-")
    for number in range(TERMS_REMEMBERED):
        terms(b"run-%d" % number)
        assert len(rules.terms) <= TERMS_REMEMBERED
    assert terms(b"r1") == first


def test_calls_wait_to_be_settled_only_until_their_records_are_written(clock: ManualClock, tmp_path: Path) -> None:
    place = Place(tmp_path, clock, limited({"scope": "all", "name": "", "usd_micro": 10**9}))
    place.allowances.sweep()
    other = Ledger(tmp_path / "spend", clock)
    account = f"all\0\0{clock.now_us() // DAY_US}"
    for _ in range(3):
        ongoing = place.begin()
        place.allowances.reserve(ongoing, chat(max_tokens=10), {})
        ongoing.usage = Usage(10, 10)
        place.recorder.end(ongoing)
    assert other.balance(account)[1] > 0
    place.allowances.settle_waiting()
    assert other.balance(account) == (300, 0)
    place.allowances.close()
    other.close()


def test_embeddings_are_bounded_by_what_is_sent() -> None:
    unused: Any = None
    operation = operations(unused, unused, unused)[b"/v1/embeddings"]
    made = operation.parse(operation, b'{"model":"well","input":"Hi","max_tokens":9}')
    assert estimates.output_tokens_max(made, {}) == 0


def test_a_clock_set_back_neither_resets_nor_doubles_a_day(tmp_path: Path) -> None:
    clock = SetClock(1_700_000_000_000_000 // DAY_US * DAY_US)
    place = Place(tmp_path, clock, limited({"scope": "all", "name": "", "usd_micro": 1000}))

    def call() -> int:
        ongoing = place.begin()
        place.allowances.reserve(ongoing, chat(max_tokens=1), {})
        ongoing.cost_usd_micro, ongoing.usage = 0, type(ongoing.usage)(50, 50)
        place.recorder.end(ongoing)
        return place.spent()

    assert [call(), call()] == [500, 1000]
    with pytest.raises(Refused) as caught:
        call()
    assert caught.value.status == 402
    clock.advance(86_400)
    assert call() == 500
    clock.set_back(86_400)
    assert place.spent() == 1000
    with pytest.raises(Refused):
        call()
    clock.set_back(86_400)
    clock.advance(2 * 86_400)
    assert place.spent() == 500
    assert sum(row["cost_usd_micro"] for row in place.rows.kept if row.get("cost_usd_micro")) == 1500
    place.allowances.close()


def test_a_refused_rate_gives_the_budget_back(clock: ManualClock, tmp_path: Path) -> None:
    place = Place(tmp_path, clock, limited({"scope": "all", "name": "", "usd_micro": 10**9}))
    key = ClientKey("k", "shop", "ab" * 32, tokens_per_minute=10)
    with pytest.raises(Refused) as caught:
        place.allowances.reserve(place.begin(key), chat(max_tokens=100), {})
    assert caught.value.status == 429
    assert place.allowances.holds == 0
    assert place.allowances.report()[0]["held"] == 0
    place.allowances.close()


def refusal(place: Place, **fields: Any) -> str:
    with pytest.raises(Refused) as caught:
        place.allowances.reserve(place.begin(), chat(**fields), {})
    assert caught.value.status == 402
    return caught.value.message


@pytest.mark.parametrize(("micro", "budget", "helps"), [(10, "$0.00001", True), (0, "$0", False)])
def test_a_budget_is_told_as_people_write_it(clock: ManualClock, tmp_path: Path, micro: int, budget: str, helps: bool) -> None:
    place = Place(tmp_path, clock, limited({"scope": "all", "name": "", "usd_micro": micro}))
    words = refusal(place, max_tokens=1000)
    assert f"the budget of {budget} for all calls per day does not have" in words
    assert ("a new day begins" in words) is helps
    place.allowances.close()


def test_a_call_that_a_budget_does_not_have_is_told_what_would_help(clock: ManualClock, tmp_path: Path) -> None:
    place = Place(tmp_path, clock, limited({"scope": "all", "name": "", "usd_micro": 500}))
    words = refusal(place, max_tokens=1000)
    assert re.search(r"this call may cost \$0\.008\d{3}, which", words)
    assert "the budget of $0.0005 for all calls per day does not have: $0.0000 spent" in words
    assert "a smaller `max_tokens` holds less; a new day begins in " in words
    ongoing = place.begin()
    place.allowances.reserve(ongoing, chat(max_tokens=1), {})
    ongoing.cost_usd_micro, ongoing.usage = 0, type(ongoing.usage)(50, 50)
    place.recorder.end(ongoing)
    assert "max_tokens" not in refusal(place, max_tokens=1)
    place.allowances.close()


def test_a_price_that_is_missing_is_named_by_its_route(clock: ManualClock, tmp_path: Path) -> None:
    made = table(1, [release("well", "http://127.0.0.1:1/v1")])
    body = {**made, "budgets": [{"scope": "all", "name": "", "usd_micro": 500}]}
    place = Place(tmp_path, clock, decode_table(json.dumps(body).encode()))
    target = place.begin().target
    assert f"route {target.route} of release {target.version} costs is not known: write `routes.{target.route}.price`" in refusal(place)
    place.allowances.close()
