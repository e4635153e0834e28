"""The part of the contract between control and the gateway that says what a route costs. See `contract.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

PRICE_MAX_USD_PER_MTOK = 1_000_000.0
TIER_FACTOR_MAX = 100.0
STANDARD_TIERS = frozenset({"", "auto", "default", "standard", "standard_only"})
"""Names of the tier that the prices are of."""


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens. A kind of input whose price is None costs what other input costs.

    `cached`: read from the provider's cache; `cache_write`: written into it, `cache_write_long` to be kept for longer than the shortest time.
    `long`: what all tokens of a call cost whose prompt has more than `long_above_tokens`. `tiers`: by what the prices are multiplied for a
    service tier other than the standard one; None: tiers are not looked at; not named: what the tier costs is not known.
    """

    input_usd_per_mtok: float = 0.0
    output_usd_per_mtok: float = 0.0
    cached_usd_per_mtok: float | None = None
    cache_write_usd_per_mtok: float | None = None
    cache_write_long_usd_per_mtok: float | None = None
    long_above_tokens: int | None = None
    long: Price | None = None
    tiers: Mapping[str, float] | None = None

    def of(self, tokens_in: int) -> Price:
        """The prices of a call with a prompt of so many tokens."""
        return self if self.long is None or self.long_above_tokens is None or tokens_in <= self.long_above_tokens else self.long

    def factor(self, tier: str) -> float | None:
        """Of a service tier; None: not known."""
        return 1.0 if self.tiers is None or tier in STANDARD_TIERS else self.tiers.get(tier)


RATES = tuple(field.name for field in fields(Price) if field.name.endswith("_usd_per_mtok"))


def decode_price(entry: Mapping[str, Any] | None) -> Price | None:
    """Raises TypeError for what is no price."""
    if entry is None:
        return None
    return Price(**{**entry, "long": decode_price(entry.get("long"))})


def check_price(price: Price, place: str) -> None:
    """Raises ValueError that names what is wrong."""
    for name, value in _numbers(price):
        most = TIER_FACTOR_MAX if name.startswith("tiers.") else PRICE_MAX_USD_PER_MTOK
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{place}.{name} must be a number, found {value!r}")
        if not 0 <= value <= most:
            raise ValueError(f"{place}.{name} must be from 0 to {most:g}")
    above = price.long_above_tokens
    if (price.long is None) != (above is None):
        raise ValueError(f"{place}: `long` and `long_above_tokens` belong together")
    if above is not None and (isinstance(above, bool) or not isinstance(above, int) or above < 1):
        raise ValueError(f"{place}.long_above_tokens must be a whole number above 0, found {above!r}")
    if price.long is not None:
        if price.long.long is not None or price.long.tiers is not None:
            raise ValueError(f"{place}.long has prices of tokens only")
        check_price(price.long, f"{place}.long")


def _numbers(price: Price) -> Iterator[tuple[str, Any]]:
    for name in RATES:
        value = getattr(price, name)
        if value is not None or name in ("input_usd_per_mtok", "output_usd_per_mtok"):
            yield name, value
    for tier, factor in (price.tiers or {}).items():
        yield f"tiers.{tier}", factor
