"""Whatever a provider charges for: no call costs more than was reserved for it, and what is not known is never nothing."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.gateway.contract_price import Price
from cohort.gateway.dialects.face import Detail, Usage
from cohort.gateway.spend.pricing import bound_usd_micro, cost_usd_micro

DOLLARS = st.floats(0, 1000, allow_nan=False).map(lambda value: round(value, 4))
KINDS = st.one_of(st.none(), DOLLARS)
FLAT = st.builds(Price, DOLLARS, DOLLARS, KINDS, KINDS, KINDS)
TIERS = ("", "default", "flex", "priority", "scale")
STEPPED = st.builds(lambda base, above, long: replace(base, long_above_tokens=above, long=long), FLAT, st.integers(1, 2000), FLAT)
FACTORS = st.one_of(st.none(), st.dictionaries(st.sampled_from(TIERS[2:]), st.floats(0, 4).map(lambda value: round(value, 3))))
PRICES = st.builds(lambda price, tiers: replace(price, tiers=tiers), st.one_of(FLAT, STEPPED), FACTORS)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    kinds = [draw(st.integers(0, 1000)) for _ in range(4)]
    return Usage(sum(kinds), draw(st.integers(0, 1000)), draw(st.sampled_from([None, Detail(*kinds[:3], draw(st.sampled_from(TIERS)))])))


@settings(max_examples=200)
@given(PRICES, usages(), st.integers(0, 1500), st.integers(0, 1500))
def test_no_call_costs_more_than_was_reserved(price: Price, usage: Usage, more_in: int, more_out: int) -> None:
    tokens_in, tokens_out, detail = usage
    assert tokens_in is not None
    assert tokens_out is not None
    tier = detail.tier if detail is not None else ""
    cost, bound = (
        cost_usd_micro(price, usage),
        bound_usd_micro(price, tokens_in + more_in, tokens_out + more_out, tier=tier, kept_long=True),
    )
    assert (cost is None) == (bound is None) == (price.factor(tier) is None)
    if cost is not None and bound is not None:
        assert 0 <= cost <= bound


@settings(max_examples=100)
@given(FLAT, usages())
def test_every_token_is_paid_for_once(price: Price, usage: Usage) -> None:
    tokens_in, tokens_out, _ = usage
    assert tokens_in is not None
    assert tokens_out is not None
    same = replace(price, cached_usd_per_mtok=price.input_usd_per_mtok, cache_write_usd_per_mtok=None, cache_write_long_usd_per_mtok=None)
    plain, mixed = cost_usd_micro(same, Usage(tokens_in, tokens_out)), cost_usd_micro(same, usage)
    assert plain is not None
    assert mixed is not None
    assert abs(plain - mixed) <= 1
