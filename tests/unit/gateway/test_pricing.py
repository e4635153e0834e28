"""What tokens cost: caches, long prompts and tiers; and what upstreams say of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_spend_rules import Place, chat

from cohort.base.clock import ManualClock
from cohort.gateway.compiled import compile_table
from cohort.gateway.contract import decode_table, encode
from cohort.gateway.contract_price import Price
from cohort.gateway.dialects import messages_same, responses_same
from cohort.gateway.dialects.chat_from_messages import openai_usage
from cohort.gateway.dialects.chat_to_messages import MessagesFlow
from cohort.gateway.dialects.chat_to_messages import usage_of as usage_for_messages
from cohort.gateway.dialects.face import Detail, Refused, Usage
from cohort.gateway.openai import Tail, usage_of
from cohort.gateway.spend import estimates
from cohort.gateway.spend.pricing import bound_usd_micro, cost_usd_micro
from support_gateway import release, table

LONG = Price(4, 20, 0.4, 5, 8)
WHOLE = Price(2, 10, 0.2, 2.5, 4, 1000, LONG, {"flex": 0.5, "priority": 2.0})


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (Usage(1000, 100), 3000),
        (Usage(1001, 100), 1001 * 4 + 2000),  # one token too long, and all of it costs more
        (Usage(1000, 100, Detail(cached=400)), 600 * 2 + 80 + 1000),
        (Usage(1000, 100, Detail(written=400)), 600 * 2 + 1000 + 1000),
        (Usage(1000, 100, Detail(written_long=400)), 600 * 2 + 1600 + 1000),
        (Usage(2000, 0, Detail(1000, 500, 500)), 400 + 2500 + 4000),
        (Usage(1000, 100, Detail(tier="flex")), 1500),
        (Usage(2000, 0, Detail(cached=2000, tier="priority")), 1600),
        (Usage(1000, 100, Detail(tier="scale")), None),
        (Usage(None, 100, Detail(cached=1)), None),
    ],
)
def test_a_call_costs_what_its_kinds_of_tokens_cost(usage: Usage, cost: int | None) -> None:
    assert cost_usd_micro(WHOLE, usage) == cost


def test_a_kind_without_a_price_costs_what_other_input_costs_and_tiers_count_only_where_they_are_known_to() -> None:
    assert cost_usd_micro(Price(2, 10), Usage(1000, 100, Detail(400, 300, 200, "priority"))) == 3000
    assert cost_usd_micro(Price(2, 10, tiers={}), Usage(1000, 100, Detail(tier="priority"))) is None


def test_a_bound_takes_the_prompt_to_be_of_the_dearest_kind() -> None:
    assert bound_usd_micro(WHOLE, 1000, 10) == 1000 * 2.5 + 100
    assert bound_usd_micro(WHOLE, 1000, 10, kept_long=True) == 1000 * 4 + 100
    assert bound_usd_micro(WHOLE, 1001, 10) == 1001 * 5 + 200
    assert bound_usd_micro(WHOLE, 1000, 10, tier="priority") == 2 * (1000 * 2.5 + 100)
    assert bound_usd_micro(WHOLE, 1000, 10, tier="flex") == 1000 * 2.5 + 100  # it may be answered by the standard tier
    assert bound_usd_micro(WHOLE, 1000, 10, tier="scale") is None
    assert bound_usd_micro(Price(1, 1), 10, 10, tier="scale") == 20


def openai_answer(**said: Any) -> bytes:
    return json.dumps({"choices": [], **said}).encode()


USED = {"prompt_tokens": 100, "completion_tokens": 7}


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        ({"usage": {**USED, "prompt_tokens_details": {"cached_tokens": 60}}}, Detail(cached=60)),
        ({"usage": {**USED, "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 40}}}, Detail(60, 40)),
        ({"usage": {**USED, "prompt_tokens_details": {"cached_tokens": 61, "cache_write_tokens": 40}}}, None),  # more than there was
        ({"usage": {**USED, "prompt_tokens_details": {"cached_tokens": -1}}}, None),
        ({"usage": {**USED, "prompt_tokens_details": "none"}, "service_tier": "default"}, None),
        ({"usage": USED, "service_tier": "priority"}, Detail(tier="priority")),
        ({"usage": USED, "service_tier": 5}, None),
    ],
)
def test_openai_s_words_for_it(said: dict[str, Any], detail: Detail | None) -> None:
    assert usage_of(openai_answer(**said)) == Usage(100, 7, detail)
    tail = Tail()
    tail.feed(b"data: " + openai_answer(**said) + b"\n\ndata: [DONE]\n\n")
    assert tail.usage() == Usage(100, 7, detail)


def test_openai_s_words_in_responses() -> None:
    usage = {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 60}, "output_tokens": 7}
    body = json.dumps({"service_tier": "flex", "output": [], "usage": usage})
    wanted = Usage(100, 7, Detail(cached=60, tier="flex"))
    assert responses_same.native_usage(body.encode()) == wanted
    tail = responses_same.ResponsesTail()
    tail.feed(f'event: response.completed\ndata: {{"type":"response.completed","response":{body}}}\n\n'.encode())
    assert tail.usage() == wanted


def test_of_several_words_in_a_stream_the_last_counts() -> None:
    tail = responses_same.ResponsesTail()
    for tokens, tier in ((1, "flex"), (100, "priority")):
        usage = {"input_tokens": tokens, "output_tokens": 7}
        body = json.dumps({"service_tier": tier, "output": [], "usage": usage})
        tail.feed(f'event: response.in_progress\ndata: {{"type":"response.in_progress","response":{body}}}\n\n'.encode())
    assert tail.usage() == Usage(100, 7, Detail(tier="priority"))


def test_a_stream_is_not_over_because_its_model_says_so() -> None:
    tail = Tail()
    tail.feed(b'data: {"choices":[{"delta":{"content":"data: [DONE]"}}]}\n\n')
    assert not tail.done
    tail.feed(b"data: [DONE]\n\n")
    assert tail.done


def test_anthropic_s_callers_are_told_what_was_cached_beside_the_rest() -> None:
    told = usage_for_messages({**USED, "prompt_tokens_details": {"cached_tokens": 60}})
    assert (told["input_tokens"], told["cache_read_input_tokens"], told["output_tokens"]) == (40, 60, 7)
    assert usage_for_messages({**USED, "prompt_tokens_details": {"cached_tokens": 101}})["input_tokens"] == 0


def test_a_translated_stream_says_them_too() -> None:
    flow = MessagesFlow("well")
    flow.feed(b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n')
    last = openai_answer(usage={**USED, "prompt_tokens_details": {"cached_tokens": 60}}, service_tier="flex")
    flow.feed(b"data: " + last + b"\n\ndata: [DONE]\n\n")
    assert flow.usage() == Usage(100, 7, Detail(cached=60, tier="flex"))


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        ({"cache_read_input_tokens": 30}, Detail(cached=30)),
        ({"cache_creation_input_tokens": 30}, Detail(written=30)),
        ({"cache_creation_input_tokens": 30, "cache_creation": {"ephemeral_1h_input_tokens": 20}}, Detail(0, 10, 20)),
        ({"cache_creation_input_tokens": 30, "cache_creation": {"ephemeral_1h_input_tokens": 99}}, Detail(0, 0, 30)),
        ({"cache_creation_input_tokens": 30, "cache_creation": None}, Detail(written=30)),
    ],
)
def test_anthropic_s_words_for_it(said: dict[str, Any], detail: Detail) -> None:
    usage = {"input_tokens": 10, "output_tokens": 7, **said}
    assert messages_same.usage_in(usage) == Usage(40, 7, detail)
    assert openai_usage(usage)["prompt_tokens_details"] == {"cached_tokens": detail.cached}
    assert messages_same.usage_in({"input_tokens": 10, "output_tokens": 7, "cache_read_input_tokens": 0}).detail is None


def priced(price: dict[str, Any]) -> dict[str, Any]:
    return table(1, [release("well", "http://127.0.0.1:1/v1", route={"price": price})])


TERMS = {"input_usd_per_mtok": 2.0, "output_usd_per_mtok": 8.0}


def test_a_price_comes_over_whole() -> None:
    whole = {
        **TERMS,
        "cached_usd_per_mtok": 0.2,
        "long_above_tokens": 5,
        "long": {**TERMS, "cached_usd_per_mtok": 0.4},
        "tiers": {"flex": 0.5},
    }
    read = decode_table(json.dumps(priced(whole)).encode())
    (route,) = read.releases["rel_well"].routes
    assert route.price == Price(2, 8, 0.2, None, None, 5, Price(2, 8, 0.4), {"flex": 0.5})
    assert decode_table(encode(read)) == read


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"cached_usd_per_mtok": -1}, "cached_usd_per_mtok must be from 0"),
        ({"input_usd_per_mtok": None}, "input_usd_per_mtok must be a number"),
        ({"cache_write_usd_per_mtok": True}, "cache_write_usd_per_mtok must be a number"),
        ({"long": TERMS}, "belong together"),
        ({"long_above_tokens": 5}, "belong together"),
        ({"long": TERMS, "long_above_tokens": 0.5}, "a whole number above 0"),
        ({"long": {**TERMS, "long": TERMS, "long_above_tokens": 9}, "long_above_tokens": 5}, "tokens only"),
        ({"long": {**TERMS, "output_usd_per_mtok": 1e9}, "long_above_tokens": 5}, r"long\.output_usd_per_mtok must be from 0"),
        ({"tiers": {"flex": 101}}, r"tiers\.flex must be from 0 to 100"),
    ],
)
def test_a_wrong_price_is_refused_by_its_name(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compile_table(decode_table(json.dumps(priced({**TERMS, **wrong})).encode()))


def held(place: Place, **fields: Any) -> int:
    ongoing = place.begin()
    place.allowances.reserve(ongoing, chat(max_tokens=10, **fields), {})
    return int(str(place.allowances.report()[0]["held"]))


def test_what_is_reserved_knows_of_tiers_and_of_long_keeping(clock: ManualClock, tmp_path: Path) -> None:
    whole = {**TERMS, "cache_write_usd_per_mtok": 3.0, "cache_write_long_usd_per_mtok": 4.0, "tiers": {"priority": 2.0}}
    body = {**priced(whole), "budgets": [{"scope": "all", "name": "", "usd_micro": 10**9}]}

    def holds(name: str, **fields: Any) -> int:
        return held(Place(tmp_path / name, clock, decode_table(json.dumps(body).encode())), **fields)

    plain, padded = holds("plain"), holds("padded", service_tier="default")
    tokens = estimates.prompt_tokens_max(chat(max_tokens=10))
    assert plain == tokens * 3 + 80
    assert holds("priority", service_tier="priority") == 2 * (
        estimates.prompt_tokens_max(chat(max_tokens=10, service_tier="priority")) * 3 + 80
    )
    assert padded == estimates.prompt_tokens_max(chat(max_tokens=10, service_tier="default")) * 3 + 80
    long = holds("long", cache_control={"type": "ephemeral", "ttl": "1h"})
    assert long == estimates.prompt_tokens_max(chat(max_tokens=10, cache_control={"type": "ephemeral", "ttl": "1h"})) * 4 + 80
    with pytest.raises(Refused) as caught:
        holds("scale", service_tier="scale")
    assert (caught.value.status, caught.value.code, caught.value.param) == (402, "price_unknown", "service_tier")
    assert "priority" in caught.value.message


def test_a_release_s_own_tier_counts_where_the_caller_names_none() -> None:
    assert estimates.tier_asked(chat(), {"service_tier": "flex"}) == "flex"
    assert estimates.tier_asked(chat(service_tier="auto"), {"service_tier": "flex"}) == ""
    assert estimates.tier_asked(chat(service_tier="priority"), {}) == "priority"
    assert not estimates.may_be_kept_long(chat(), {"temperature": 1})
    assert estimates.may_be_kept_long(chat(), {"prompt_cache_retention": "24h"})
    assert estimates.may_be_kept_long(chat(user="\u00e9"), {})  # written as an escape


def test_what_was_cached_is_settled_as_such(clock: ManualClock, tmp_path: Path) -> None:
    body = {**priced({**TERMS, "cached_usd_per_mtok": 0.5}), "budgets": [{"scope": "all", "name": "", "usd_micro": 10**9}]}
    place = Place(tmp_path, clock, decode_table(json.dumps(body).encode()))
    ongoing = place.begin()
    place.allowances.reserve(ongoing, chat(max_tokens=10), {})
    ongoing.usage = Usage(100, 10, Detail(cached=80))
    place.recorder.end(ongoing)
    assert place.spent() == 20 * 2 + 80 * 0.5 + 10 * 8
