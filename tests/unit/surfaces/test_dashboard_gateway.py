"""The pages about calls, costs, keys and budgets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.testclient import TestClient

from cohort.delivery.accounts import Balance, add_up
from cohort.delivery.clients import Terms
from cohort.delivery.contents import Content, Contents, Said
from cohort.delivery.traces import Wanted
from cohort.gateway.contract import Call, Result
from cohort.gateway.contract_spend import Budget, Scope
from cohort.gateway.contract_trace import Attempt, Step
from cohort.surfaces.dashboard.pages_gateway import requests_fragments
from cohort.surfaces.http.app import create_app
from cohort.surfaces.http.callers import Caller
from support_delivery import AUDITOR_KEY, VIEWER_KEY, House, house
from support_views import NOW_US

BY = {"Authorization": f"Bearer {VIEWER_KEY}"}
CALL = Call("call", "gw-1", 7, 1, NOW_US - 5_000_000, "support", "rel_x", "ab" * 16, total_us=900_000, first_us=200_000, route="main")
PRICED = dataclasses.replace(CALL, tokens_in=11, tokens_out=7, cost_usd_micro=18_000, key="cgk_1")
FAILED = dataclasses.replace(CALL, seq=2, result=Result.TIMEOUT, status=504, attempts=3, degraded=True, estimated=True, cost_usd_micro=5)


@pytest.fixture
def home() -> House:
    made = house()
    made.control.accounts.recent.take([PRICED, FAILED])
    database = made.control.clients._database
    with database.write() as connection:
        add_up(database, connection, [PRICED, FAILED])
    return made


@pytest.fixture
def client(home: House) -> TestClient:
    return TestClient(create_app(home.control), base_url="http://localhost")


def test_requests_show_calls_and_filter_them(client: TestClient) -> None:
    page = client.get("/requests", headers=BY).text
    assert "$0.018000" in page
    assert "3 attempts" in page
    assert "/requests/gw-1/7/1" in page
    failed = client.get("/requests?trouble=true", headers=BY).text
    assert "/requests/gw-1/7/2" in failed
    assert "/requests/gw-1/7/1" not in failed
    assert 'data-live="/live/requests?trouble=true"' in failed
    assert "No call yet" in client.get("/requests?service=billing", headers=BY).text


def test_one_request_is_shown_step_by_step(client: TestClient) -> None:
    page = client.get("/requests/gw-1/7/2", headers=BY).text
    for words in (
        "main, 3 attempts; not the release&#39;s first route: degraded",
        "timeout, status 504",
        "$0.000005, estimated",
        "until the first byte, ",
    ):
        assert words in page
    assert client.get("/requests/gw-1/7/9", headers=BY).status_code == 404
    found = client.get("/api/v1/gateway/requests/gw-1/7/1", headers=BY).json()
    assert found["items"][0]["cost_usd_micro"] == 18_000


TRIED = dataclasses.replace(
    FAILED,
    seq=4,
    result=Result.OK,
    status=200,
    stream=True,
    run="nightly-7",
    agent="clerk",
    key="cgk_2",
    tries=(
        Attempt(1, "main", 200, 90_000, "status", 503, 89_000, connect_us=3_000),
        Attempt(2, "main", 150_000, 30_000, "timeout", wait_us=50_000),
        Attempt(0, "spare", 180_000, 0, "circuit_open"),
        Attempt(3, "backup", 180_000, None, "ok", 200, 15_000),
    ),
    steps=(Step("budget", 50, 40),),
    held_usd_micro=900,
    budgets=("team:web",),
    parent="0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)


def test_a_request_is_drawn_as_what_happened_when(client: TestClient, home: House) -> None:
    home.control.accounts.recent.take([TRIED])
    page = client.get("/requests/gw-1/7/4", headers=BY).text
    for words in (
        "1. main",
        "status 503, 3.0 ms for a connection",
        "before trying again",
        "2. main",
        "too slow",
        "3. backup",
        "passing on",
    ):
        assert words in page.replace("\u202f", " ").replace("\u00a0", " "), words
    assert "not asked: its circuit is open" in page
    assert "$0.000900 held on team web; $0.000005 settled" in page
    assert "0af7651916cd43dd8448eb211c80319c" in page
    assert page.count('<svg class="bars"') == 7
    timeline = client.get("/api/v1/gateway/requests/gw-1/7/4", headers=BY).json()["timelines"][0]
    assert (timeline["trace_id"], timeline["parent_id"]) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    bars = [(bar["name"], bar["start_us"], bar["total_us"]) for bar in timeline["bars"]]
    assert bars[0] == ("budget", 50, 40)
    assert ("wait", 100_000, 50_000) in bars
    assert ("3. backup", 180_000, 20_000) in bars
    assert bars[-1] == ("passing on", 200_000, 700_000)


@pytest.mark.parametrize(
    "query",
    [
        "run=nightly-7",
        "agent=clerk",
        "result=ok&degraded=true",
        "trace=0AF7651916CD43DD8448EB211C80319C",
        "key=cgk_2",
        "service=support&run=nightly-7",
    ],
)
def test_each_filter_finds_its_calls_on_the_page_and_by_the_api(client: TestClient, home: House, query: str) -> None:
    home.control.accounts.recent.take([TRIED])
    assert [call["seq"] for call in client.get(f"/api/v1/gateway/requests?{query}", headers=BY).json()["items"]] == [4]
    page = client.get(f"/requests?{query}", headers=BY).text
    assert "/requests/gw-1/7/4" in page
    assert "/requests/gw-1/7/1" not in page


def test_calls_are_found_by_the_model_of_their_route(client: TestClient, home: House) -> None:
    release = home.registry.releases[0]
    name, route = next(iter(release.manifest["routes"].items()))
    home.control.accounts.recent.take([dataclasses.replace(CALL, seq=5, release=str(release.digest), route=name)])
    found = client.get("/api/v1/gateway/requests", params={"model": route["model"]}, headers=BY).json()["items"]
    assert [call["seq"] for call in found] == [5]
    assert client.get("/api/v1/gateway/requests?model=none-such", headers=BY).json()["items"] == []


def test_keys_of_one_name_are_told_apart(client: TestClient, home: House) -> None:
    first = home.control.clients.create("shop", Terms(), "anna").client
    home.control.clients.revoke("shop", "anna")
    second = home.control.clients.create("shop", Terms(), "anna").client
    home.control.clients.create("desk", Terms(), "anna")
    page = client.get("/requests", headers=BY).text
    for words in (f"shop ({first.id[-4:]}, revoked)", f"shop ({second.id[-4:]})", ">desk<"):
        assert words in page


def test_spending_shows_costs_keys_and_budgets(client: TestClient, home: House) -> None:
    home.control.clients.create("shop", Terms(("support",), budget_usd_micro_per_day=2_000_000), "anna")
    home.control.clients.set_budget(Budget(Scope.TEAM, "web", 50_000_000), "anna")
    page = client.get("/spending", headers=BY).text
    for words in ("support", "cgk_1", "main", "shop", "team web", "The gateway does not answer"):
        assert words in page
    costs = client.get("/api/v1/gateway/costs", headers=BY).json()["items"]
    assert sum(cost["cost_usd_micro"] for cost in costs) == 18_005
    assert client.get("/api/v1/gateway/balances", headers=BY).json() == {"items": None}
    assert client.get("/spending?span=hour", headers=BY).status_code == 200


def test_spending_that_is_not_known_is_not_said_to_be_nothing(client: TestClient, home: House) -> None:
    assert "$0.0180 in the last day." in client.get("/spending", headers=BY).text
    free, unknown = dataclasses.replace(PRICED, seq=3, service="free", cost_usd_micro=0), dataclasses.replace(CALL, seq=4, service="dark")
    database = home.control.clients._database
    with database.write() as connection:
        add_up(database, connection, [free, unknown])
    page = client.get("/spending", headers=BY).text
    assert "$0.0180 in the last day, without 1 call whose cost is not known." in page
    assert '<td>dark</td><td class="num">not known</td>' in page
    assert '<td>free</td><td class="num">$0.00</td>' in page
    new = house()
    database = new.control.clients._database
    with database.write() as connection:
        add_up(database, connection, [unknown])
    page = TestClient(create_app(new.control), base_url="http://localhost").get("/spending", headers=BY).text
    assert "What 1 call of the last day cost is not known: their routes have no price, or the upstream" in page
    assert "$0.00" not in page


def test_budgets_of_a_call_are_named_as_people_named_them(client: TestClient, home: House) -> None:
    made = home.control.clients.create("shop", Terms(), "anna").client
    held = dataclasses.replace(PRICED, seq=6, key=made.id, held_usd_micro=900, budgets=(f"key:{made.id}", "team:web", "all"))
    home.control.accounts.recent.take([held])
    assert "$0.000900 held on key shop, team web, all;" in client.get("/requests/gw-1/7/6", headers=BY).text


def test_budgets_of_releases_are_shown_by_service_and_version(client: TestClient, home: House) -> None:
    release = home.registry.releases[0]
    accounts: Any = home.control.accounts
    accounts.left = [
        Balance("release", str(release.digest), 3_000_000, 1_000_000, 0),
        Balance("release", "rel_" + "f" * 60, 9_000_000, 0, 0),
    ]
    page = client.get("/spending", headers=BY).text
    for words in (f"release {release.service} {release.version}", "$3.00 a day", "release rel_ffffffffffff<"):
        assert words in page


def test_what_a_client_put_in_a_name_is_text_on_the_page(home: House) -> None:
    home.control.accounts.recent.take([dataclasses.replace(CALL, seq=3, route="<script>alert(1)</script>")])
    html = requests_fragments(home.control, Caller("v", "viewer"), Wanted())["calls"]
    assert "<script>" not in html


class OneSample:
    """A worker that has the content of one call."""

    def content(self, epoch: int, seq: int, arm: str) -> Content | None:
        return (
            Content((Said("user", "Where is <b>my</b> order?"),), "On its way.", {"email": 1})
            if (epoch, seq, arm) == (7, 8, "stable")
            else None
        )


def test_content_is_shown_to_those_who_may_audit_and_to_nobody_else(client: TestClient, home: House) -> None:
    noted: list[Mapping[str, object]] = []
    home.control.accounts._contents = Contents([OneSample()], noted.append)
    home.control.accounts.recent.take([dataclasses.replace(CALL, seq=8, content=True), dataclasses.replace(CALL, seq=9)])
    auditor = {"Authorization": f"Bearer {AUDITOR_KEY}"}
    assert 'href="/requests/gw-1/7/8/content"' in client.get("/requests/gw-1/7/8", headers=auditor).text
    viewed = client.get("/requests/gw-1/7/8", headers=BY).text
    assert "/content" not in viewed
    assert "needs the right to audit" in viewed
    for path in ("/requests/gw-1/7/8/content", "/api/v1/gateway/requests/gw-1/7/8/content"):
        assert client.get(path, headers=BY).status_code == 403
    assert noted == []
    page = client.get("/requests/gw-1/7/8/content", headers=auditor).text
    for words in ("Where is &lt;b&gt;my&lt;/b&gt; order?", "On its way.", "email 1"):
        assert words in page
    found = client.get("/api/v1/gateway/requests/gw-1/7/8/content", headers=auditor).json()
    assert (found["asked"][0]["role"], found["found"]) == ("user", {"email": 1})
    assert [entry["request"] for entry in noted] == ["gw-1/7/8", "gw-1/7/8"]
    assert client.get("/requests/gw-1/7/9/content", headers=auditor).status_code == 404
