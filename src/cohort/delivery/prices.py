"""What models cost, as providers publish it: `prices.json`, each price with its first day and its source.

A release's own price comes first. Where neither says one the price is unknown: a call has no cost then, and one that a budget counts is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from cohort.gateway.contract import Price, ReleaseRoute, Route

FILE = Path(__file__).with_name("prices.json")
_DATED = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2}|latest)$")
"""The end of a model's name that says which of its versions; they cost the same."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One published price; `valid_from` is a day, UTC, as YYYY-MM-DD."""

    host: str
    model: str
    price: Price
    valid_from: str
    source: str


@lru_cache(maxsize=1)
def listed() -> tuple[Listed, ...]:
    """Every price in the file, oldest first."""
    entries = orjson.loads(FILE.read_bytes())["prices"]
    made = [Listed(e["host"], e["model"], Price(e["input"], e["output"]), e["valid_from"], e["source"]) for e in entries]
    return tuple(sorted(made, key=lambda entry: entry.valid_from))


def day_of(now_us: int) -> str:
    return datetime.fromtimestamp(now_us / 1e6, UTC).date().isoformat()


def price_of(route: Route, day: str, prices: tuple[Listed, ...]) -> Price | None:
    """The price of a route on a day: its own, else the newest that is listed for its provider's host and model; None: unknown."""
    if route.price is not None:
        return route.price
    host, model = urlsplit(route.base_url).hostname, _DATED.sub("", route.model)
    found = [entry.price for entry in prices if entry.host == host and entry.model == model and entry.valid_from <= day]
    return found[-1] if found else None


def priced(release: ReleaseRoute, day: str, prices: tuple[Listed, ...] | None = None) -> ReleaseRoute:
    """The release with the price of every route that has one on `day`."""
    if all(route.price is not None for route in release.routes):
        return release
    known = listed() if prices is None else prices
    return replace(release, routes=tuple(replace(route, price=price_of(route, day, known)) for route in release.routes))
