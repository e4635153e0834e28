"""What tokens cost. Pure."""

from __future__ import annotations

from cohort.gateway.contract_price import Price
from cohort.gateway.dialects.face import Detail, Usage


def cost_usd_micro(price: Price | None, usage: Usage) -> int | None:
    """Millionths of a dollar: dollars per million tokens times tokens. None where the price or the usage is not known."""
    tokens_in, tokens_out, detail = usage
    if price is None or tokens_in is None or tokens_out is None:
        return None
    step = price if price.long is None else price.of(tokens_in)
    if detail is None:
        return round(tokens_in * step.input_usd_per_mtok + tokens_out * step.output_usd_per_mtok)
    factor = price.factor(detail.tier)
    if factor is None:
        return None
    return round(factor * (_input_usd_micro(step, tokens_in, detail) + tokens_out * step.output_usd_per_mtok))


def bound_usd_micro(price: Price, tokens_in: int, tokens_out: int, *, tier: str = "", kept_long: bool = False) -> int | None:
    """The most that a call with no more tokens can cost, rounded up; None where the tier's price is not known.

    It is not known before the call which part of the prompt its provider has in its cache, or writes into it: all of it is taken to be of the
    dearest kind. `kept_long`: it may be asked to keep it for longer than the shortest time. A tier that is cheaper may be refused it.
    """
    factor = price.factor(tier) if tier else 1.0
    if factor is None:
        return None
    dearest_in, dearest_out = _dearest_input(price, kept_long), price.output_usd_per_mtok
    if price.long is not None and price.of(tokens_in) is not price:
        dearest_in = max(dearest_in, _dearest_input(price.long, kept_long))
        dearest_out = max(dearest_out, price.long.output_usd_per_mtok)
    return -int(-(max(factor, 1.0) * (tokens_in * dearest_in + tokens_out * dearest_out)) // 1)


def prices_keeping(price: Price | None) -> bool:
    """Whether it makes a difference for how long the provider is asked to keep a prompt."""
    if price is None:
        return False
    return price.cache_write_long_usd_per_mtok is not None or (price.long is not None and prices_keeping(price.long))


def _dearest_input(price: Price, kept_long: bool) -> float:
    long = price.cache_write_long_usd_per_mtok if kept_long else None
    return max(price.input_usd_per_mtok, price.cached_usd_per_mtok or 0.0, price.cache_write_usd_per_mtok or 0.0, long or 0.0)


def _input_usd_micro(price: Price, tokens_in: int, detail: Detail) -> float:
    plain = price.input_usd_per_mtok
    kinds = (
        (detail.cached, price.cached_usd_per_mtok),
        (detail.written, price.cache_write_usd_per_mtok),
        (detail.written_long, price.cache_write_long_usd_per_mtok),
    )
    rest = tokens_in - detail.cached - detail.written - detail.written_long
    return rest * plain + sum(tokens * (plain if kind is None else kind) for tokens, kind in kinds)
