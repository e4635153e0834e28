"""Which price a route has."""

from __future__ import annotations

from datetime import date

import pytest

from cohort.delivery.prices import Listed, day_of, listed, price_of, priced
from cohort.gateway.contract import ReleaseRoute, Route
from cohort.gateway.contract_price import Price

OLD, NEW = Price(1, 2), Price(3, 4)
TABLE = (Listed("api.example.com", "big", OLD, "2026-01-01", "s"), Listed("api.example.com", "big", NEW, "2026-06-01", "s"))


def route(model: str = "big", host: str = "api.example.com", price: Price | None = None) -> Route:
    return Route("main", "openai", f"https://{host}/v1", model, None, price)


@pytest.mark.parametrize(
    ("asked", "day", "found"),
    [
        (route(), "2025-12-31", None),
        (route(), "2026-01-01", OLD),
        (route(), "2026-05-31", OLD),
        (route(), "2026-06-01", NEW),
        (route("big-2026-04-14"), "2026-06-01", NEW),
        (route("big-20260414"), "2026-06-01", NEW),
        (route("models/big"), "2026-06-01", NEW),
        (route("bigger"), "2026-06-01", None),
        (route(host="127.0.0.1"), "2026-06-01", None),
        (route(price=Price(0, 0)), "2026-06-01", Price(0, 0)),
    ],
)
def test_a_price_is_the_releases_own_or_the_newest_listed_or_unknown(asked: Route, day: str, found: Price | None) -> None:
    assert price_of(asked, day, TABLE) == found
    assert priced(ReleaseRoute("rel_a", "1", (asked,)), day, TABLE).routes[0].price == found


def test_every_listed_price_has_a_day_a_source_and_a_price() -> None:
    for entry in listed():
        date.fromisoformat(entry.valid_from)
        assert date.fromisoformat(entry.checked) <= date(2026, 11, 21)
        assert entry.source.startswith("https://")
        price, long = entry.price, entry.price.long or entry.price
        assert 0 <= (price.cached_usd_per_mtok or 0) <= price.input_usd_per_mtok
        assert price.output_usd_per_mtok >= 0
        assert price.input_usd_per_mtok <= long.input_usd_per_mtok
        assert price.output_usd_per_mtok <= long.output_usd_per_mtok
        assert price.tiers is not None, "what another tier costs is known or not, and never taken to be the standard price"
    assert {entry.host for entry in listed()} == {"api.anthropic.com", "api.openai.com", "generativelanguage.googleapis.com"}
    assert len({(entry.host, entry.model, entry.valid_from) for entry in listed()}) == len(listed())


def test_days_are_utc() -> None:
    assert (day_of(1_767_225_599_999_999), day_of(1_767_225_600_000_000)) == ("2025-12-31", "2026-01-01")
