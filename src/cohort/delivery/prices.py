"""What models cost, as providers publish it: `prices.json`, each price with its first day and its source.

A release's own price comes first. Where neither says one the price is unknown: a call has no cost then, and one that a budget counts is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from cohort.gateway.contract import ReleaseRoute, Route
from cohort.gateway.contract_price import Price, check_price, decode_price

FILE = Path(__file__).with_name("prices.json")
_DATED = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2}|latest)$")
"""The end of a model's name that says which of its versions; they cost the same."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One published price. Days are UTC, as YYYY-MM-DD: `valid_from`, the first that it is known to hold on; `checked`, when its source was read.

    `unchecked`: what of it was not read there, and where it is from instead; empty: nothing.
    """

    host: str
    model: str
    price: Price
    valid_from: str
    source: str
    checked: str = ""
    unchecked: str = ""


@lru_cache(maxsize=1)
def listed() -> tuple[Listed, ...]:
    """Every price in the file, oldest first."""
    entries = orjson.loads(FILE.read_bytes())["prices"]
    return tuple(sorted((_listed(entry) for entry in entries), key=lambda entry: entry.valid_from))


def _listed(entry: dict[str, Any]) -> Listed:
    price = decode_price(entry["price"]) or Price()
    check_price(price, f"{FILE.name}: {entry['model']}")
    return Listed(entry["host"], entry["model"], price, entry["valid_from"], entry["source"], entry["checked"], entry.get("unchecked", ""))


def day_of(now_us: int) -> str:
    return datetime.fromtimestamp(now_us / 1e6, UTC).date().isoformat()


def price_of(route: Route, day: str, prices: tuple[Listed, ...]) -> Price | None:
    """The price of a route on a day: its own, else the newest that is listed for its provider's host and model; None: unknown."""
    if route.price is not None:
        return route.price
    host, model = urlsplit(route.base_url).hostname, _DATED.sub("", route.model.removeprefix("models/"))
    found = [entry.price for entry in prices if entry.host == host and entry.model == model and entry.valid_from <= day]
    return found[-1] if found else None


def priced(release: ReleaseRoute, day: str, prices: tuple[Listed, ...] | None = None) -> ReleaseRoute:
    """The release with the price of every route that has one on `day`."""
    if all(route.price is not None for route in release.routes):
        return release
    known = listed() if prices is None else prices
    return replace(release, routes=tuple(replace(route, price=price_of(route, day, known)) for route in release.routes))
