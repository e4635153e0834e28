"""The key of a kept answer: equal if and only if what is asked is equal, for all requests."""

from __future__ import annotations

import json
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from cohort.gateway.cache.asking import TRANSPORT_FIELDS, canonical, exact_key

WORDS = st.text(max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.0, 1.0, 0.5]) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["messages", "tools", "temperature", "seed", "response_format", "new_field", *sorted(TRANSPORT_FIELDS)])
REQUESTS = st.dictionaries(NAMES, VALUES, max_size=6)


def key(
    fields: dict[str, Any], tenant: str = "", service: str = "s", release: str = "r", route: str = "m", operation: str = "o"
) -> bytes | None:
    return exact_key(tenant, service, release, route, operation, fields)


def text(fields: dict[str, Any]) -> str:
    return json.dumps(canonical(fields), sort_keys=True)


@given(REQUESTS, REQUESTS)
def test_keys_are_equal_if_and_only_if_the_canonical_requests_are(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (key(one) == key(other)) == (text(one) == text(other))


@given(REQUESTS, st.randoms(use_true_random=False))
def test_order_spacing_and_transport_change_no_key(fields: dict[str, Any], chance: Any) -> None:
    names = list(fields)
    chance.shuffle(names)
    again = json.loads(json.dumps({name: fields[name] for name in names}, indent=2))
    assert key(again) == key(fields)
    assert key({**fields, **dict.fromkeys(TRANSPORT_FIELDS, "anything")}) == key(fields)


@given(REQUESTS, NAMES.filter(lambda name: name not in TRANSPORT_FIELDS), VALUES)
def test_every_other_field_changes_it_known_or_not(fields: dict[str, Any], name: str, value: Any) -> None:
    changed = {**fields, name: value}
    assert (key(changed) == key(fields)) == (text(changed) == text(fields))


@given(st.lists(WORDS, min_size=5, max_size=5), st.lists(WORDS, min_size=5, max_size=5))
def test_tenant_service_release_route_and_operation_are_part_of_it_each_for_itself(one: list[str], other: list[str]) -> None:
    assert (key({}, *one) == key({}, *other)) == (one == other)


def test_a_request_nested_too_deeply_has_no_key() -> None:
    deep = orjson.loads(b"[" * 300 + b"]" * 300)
    assert key({"messages": deep}) is None


def test_zero_and_zero_point_zero_are_one_temperature_and_true_is_none() -> None:
    assert key({"temperature": 0}) == key({"temperature": 0.0})
    assert len({key({"seed": 1}), key({"seed": True}), key({"seed": "1"}), key({"seed": None}), key({})}) == 5
