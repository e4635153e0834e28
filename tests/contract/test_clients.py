"""Keys and budgets of the gateway's clients, on each store."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.delivery.clients import Clients, Terms, spending
from cohort.delivery.routing import build_table, without
from cohort.gateway.contract import ReleaseRoute, Route, decode_table, encode
from cohort.gateway.contract_spend import Budget, ClientKey, Scope

TERMS = Terms(("support",), "acme", "web", "ag_1", 2_000_000, 60, 9000, 10**15)


class Told:
    def __init__(self) -> None:
        self.records: list[Any] = []
        self.changes = 0

    def record(self, body: Any) -> None:
        self.records.append(dict(body))

    def changed(self) -> None:
        self.changes += 1


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def clients(database: Any, clock: ManualClock, told: Told) -> Clients:
    return Clients(database, clock, record=told.record, changed=told.changed)


def pushed(database: Any) -> Any:
    with database.read() as connection:
        return spending(connection)


def test_a_key_is_kept_and_pushed_as_its_hash_alone(clients: Clients, database: Any, told: Told) -> None:
    made = clients.create("shop", TERMS, "anna")
    assert made.text.startswith("cgk_")
    assert made.text not in repr(made)
    sent = pushed(database)
    digest = hashlib.sha256(made.text.encode()).hexdigest()
    assert sent.keys == (ClientKey(made.client.id, "shop", digest, ("support",), "acme", "web", "ag_1", 2_000_000, 60, 9000, 10**15),)
    assert sent.keys_required
    assert clients.list_keys() == [made.client]
    assert made.text not in repr(told.records)
    assert told.records[0]["budget_usd_micro_per_day"] == 2_000_000
    assert told.changes == 1


def test_a_revoked_key_is_pushed_no_more_and_one_goes_on_being_required(clients: Clients, database: Any, told: Told) -> None:
    made = clients.create("shop", Terms(), "anna")
    clients.revoke("shop", "bert")
    assert pushed(database) == type(pushed(database))((), True, ())
    assert clients.list_keys()[0].revoked_us is not None
    assert told.records[-1] == {"event": "client_key_revoked", "key": made.client.id, "name": "shop", "actor": "bert"}
    assert clients.create("shop", Terms(), "anna").client.id != made.client.id


def test_a_key_that_is_revoked_is_said_to_be_and_since_when(clients: Clients, database: Any, told: Told) -> None:
    made = clients.create("shop", Terms(), "anna")
    clients.revoke("shop", "bert")
    done = len(told.records)
    for again in ("shop", made.client.id):
        with pytest.raises(CohortError, match=r"is revoked already, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC") as caught:
            clients.revoke(again, "bert")
        assert caught.value.code == "NOT_FOUND"
    assert len(told.records) == done
    clients.create("shop", Terms(), "anna")
    clients.revoke("shop", "bert")
    with pytest.raises(CohortError, match="there is no key 'other'"):
        clients.revoke("other", "bert")


def test_what_a_key_is_called_is_not_taken_for_a_key(clients: Clients) -> None:
    made = clients.create("shop", TERMS, "anna")
    assert not made.client.id.startswith(made.text[:3])


def test_without_any_key_none_is_required(database: Any) -> None:
    assert not pushed(database).keys_required


def test_nothing_is_done_that_the_log_did_not_take(database: Any, clock: ManualClock) -> None:
    def refuse(_body: Any) -> None:
        raise CohortError("AUDIT_UNAVAILABLE", "the log is away")

    silent = Clients(database, clock)
    silent.create("shop", Terms(), "anna")
    deaf = Clients(database, clock, record=refuse)
    for act in (
        lambda: deaf.create("other", Terms(), "anna"),
        lambda: deaf.revoke("shop", "anna"),
        lambda: deaf.set_budget(Budget(Scope.ALL, "", 1), "anna"),
    ):
        with pytest.raises(CohortError, match="the log is away"):
            act()
    assert [client.revoked_us for client in silent.list_keys()] == [None]
    assert silent.budgets() == []


@pytest.mark.parametrize(
    ("name", "terms", "field"),
    [
        ("", Terms(), "name"),
        ("shop\nroot", Terms(), "name"),
        ("shop", Terms(team="a\r\nb"), "team"),
        ("shop", Terms(services=("x" * 64,)), "services"),
        ("shop", Terms(services=tuple(f"s{number}" for number in range(257))), "services"),
        ("shop", Terms(requests_per_minute=-1), "requests_per_minute"),
        ("shop", Terms(budget_usd_micro_per_day=10**16), "budget_usd_per_day"),
    ],
)
def test_what_is_no_key_is_refused_by_its_field(clients: Clients, name: str, terms: Terms, field: str) -> None:
    with pytest.raises(CohortError) as caught:
        clients.create(name, terms, "anna")
    assert (caught.value.code, caught.value.field) == ("FIELD_INVALID", field)


def test_a_budget_is_set_changed_and_removed(clients: Clients, database: Any, told: Told) -> None:
    clients.set_budget(Budget(Scope.TEAM, "web", 5), "anna")
    clients.set_budget(Budget(Scope.TEAM, "web", 7), "bert")
    clients.set_budget(Budget(Scope.RUN, "*", 9), "bert")
    assert pushed(database).budgets == (Budget(Scope.RUN, "*", 9), Budget(Scope.TEAM, "web", 7))
    clients.remove_budget(Scope.TEAM, "web", "bert")
    assert [entry.budget.scope for entry in clients.budgets()] == [Scope.RUN]
    assert [body["event"] for body in told.records] == ["budget", "budget", "budget", "budget_removed"]


def test_what_is_pushed_is_read_back_and_survives_a_rollback_without_the_database(clients: Clients, database: Any) -> None:
    clients.create("shop", TERMS, "anna")
    clients.set_budget(Budget(Scope.SERVICE, "support", 5), "anna")
    route = ReleaseRoute("rel_a", "1", (Route("main", "openai", "http://127.0.0.1:1/v1", "m"),))
    table = build_table(3, 1, {"support": "rel_a"}, (), {"rel_a": route}, (), pushed(database))
    assert decode_table(encode(table)) == table
    off = without(table, "support", None, 4, 2)
    assert (off.keys, off.keys_required, off.budgets) == (table.keys, True, table.budgets)
