"""Choosing between a strong and a weak model: scores, the boundary, pins, the control bucket, and every way to switch it off."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.gateway.adaptive import router as routing
from cohort.gateway.adaptive.features import Scorer, decode, encode, turns
from cohort.gateway.adaptive.router import ADAPTIVE, CONTROL, AdaptiveRouter
from cohort.gateway.adaptive.share import Boundary, Share
from cohort.gateway.contract_routing import FEATURES, WEIGHTS, RoutingPolicy

POLICY = RoutingPolicy("big", "small", control_bucket_share=0.0)
EASY = "What are your opening hours?"
HARD = "Compare these two functions and prove which is right:\n```\ndef f(a, b):\n    return {k: a[k] + b[k] for k in a}\n```\n" * 12


def chat(*turns_: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text} for text in turns_], **more}


def test_a_long_question_with_code_is_harder_than_a_short_one() -> None:
    scorer = Scorer({})
    easy, hard = scorer.hardest(chat(EASY))[0], scorer.hardest(chat(HARD))[0]
    assert 0 < easy < 0.4 < 0.7 < hard < 1


@pytest.mark.parametrize(
    ("feature", "harder"),
    [
        ("length", chat("word " * 300)),
        ("context", {"messages": [{"role": "user", "content": "word " * 3000}, {"role": "user", "content": "a word"}]}),
        ("code", chat("a word {}[]();")),
        ("figures", chat("a word 12345")),
        ("questions", chat("a? word? and? more?")),
        ("structure", chat("a\nword\nand\nmore")),
        ("tools", chat("a word", tools=[{"type": "function"}])),
        ("format", chat("a word", response_format={"type": "json_object"})),
    ],
)
def test_each_feature_sees_what_it_is_named_for(feature: str, harder: dict[str, Any]) -> None:
    place = FEATURES.index(feature)
    assert turns(harder)[-1][place] > turns(chat("a word"))[-1][place]
    assert Scorer({"bias": 0.0, feature: 5.0}).hardest(harder)[0] > Scorer({"bias": 0.0, feature: 0.0}).hardest(harder)[0]


def test_a_turn_without_text_has_nothing_of_any_feature() -> None:
    assert turns(chat("")) == [(0.0,) * len(FEATURES)]


def test_signs_count_whatever_the_letters_between_them_take() -> None:
    plain, wide = turns(chat("what?\n{a} = 12" + "e" * 9))[0], turns(chat("what？\n{a} = £€" + "漢" * 9))[0]
    assert plain == wide


@given(st.text(st.sampled_from("ab {}[]();=<>`_\\|&019+-*/^%$?\n€£？؟é漢"), max_size=80))
def test_signs_are_counted_one_by_one(text: str) -> None:
    def count(signs: str) -> int:
        return sum(text.count(sign) for sign in signs)

    features = dict(zip(FEATURES, turns(chat(text))[0], strict=True))
    size = max(len(text), 1)
    assert features["code"] == min(count("{}[]();=<>`_\\|&") / size * 8.0, 1.0)
    assert features["figures"] == min(count("0123456789+-*/^%$€£") / size * 6.0, 1.0)
    assert features["questions"] == min(math.log1p(count("?？؟")) / math.log1p(6), 1.0)
    assert features["structure"] == min(math.log1p(count("\n")) / math.log1p(40), 1.0)


def test_text_in_parts_counts_and_pictures_do_not() -> None:
    parts = [{"type": "text", "text": EASY}, {"type": "image_url", "image_url": {"url": "x" * 10_000}}]
    assert turns({"messages": [{"role": "user", "content": parts}]}) == turns(chat(EASY))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["messages", "role", "content", "tools", "type"]), inner)
        ),
        max_leaves=12,
    )
)
def test_any_value_has_a_score(value: Any) -> None:
    fields = value if isinstance(value, dict) else {"messages": value}
    assert 0 < Scorer({}).hardest(fields)[0] < 1


@given(st.lists(st.text(max_size=200), min_size=1, max_size=12), st.text(max_size=200))
def test_a_conversation_only_becomes_harder(history: list[str], next_turn: str) -> None:
    scorer = Scorer({})
    assert scorer.hardest(chat(*history, next_turn))[0] >= scorer.hardest(chat(*history))[0]


@given(st.lists(st.floats(0, 1), min_size=len(FEATURES), max_size=len(FEATURES)))
def test_features_are_reported_to_within_half_a_level(values: list[float]) -> None:
    assert all(abs(a - b) <= 1 / 30 + 1e-9 for a, b in zip(decode(encode(tuple(values))), values, strict=True))


def test_what_is_no_report_of_features_is_refused() -> None:
    for text in ("", "0" * 9, "g" * 8):
        with pytest.raises(ValueError):  # noqa: PT011
            decode(text)


# --- the boundary ---


@settings(max_examples=25)
@given(st.floats(0.2, 0.8), st.floats(0.15, 0.85), st.integers(0, 1000))
def test_the_wanted_share_is_kept_where_people_allow_the_boundary_to_go(share: float, middle: float, seed: int) -> None:
    draws = random.Random(seed)
    policy = replace(POLICY, strong_share=share, strong_share_range=(0.0, 1.0), drift_max=1.0)
    boundary, strong = Boundary(policy), 0
    for number in range(6000):
        difficulty = min(max(draws.gauss(middle, 0.1), 0.0), 1.0)
        strong += number >= 2000 and difficulty >= boundary.value
        boundary.see(difficulty)
    assert abs(strong / 4000 - share) < 0.03


@given(st.lists(st.floats(0, 1), max_size=300), st.floats(0, 0.2), st.floats(0, 1))
def test_the_boundary_never_leaves_what_people_approved(difficulties: list[float], drift_max: float, start: float) -> None:
    boundary = Boundary(replace(POLICY, boundary=start, drift_max=drift_max))
    for difficulty in difficulties:
        boundary.see(difficulty)
        assert boundary.drift <= drift_max + 1e-12
        assert 0 <= boundary.value <= 1


def test_a_boundary_that_would_go_further_says_so() -> None:
    boundary = Boundary(replace(POLICY, drift_max=0.01))
    for _ in range(50):
        boundary.see(0.99)
    assert (boundary.value, boundary.limited) == (pytest.approx(0.51), True)
    boundary.see(0.0)
    assert not boundary.limited


@pytest.mark.parametrize(("wanted", "kept"), [(None, 0.6), (0.61, 0.61), (0.9, 0.65), (0.1, 0.55)])
def test_outcomes_move_the_wanted_share_within_its_range_only(wanted: float | None, kept: float) -> None:
    assert Boundary(POLICY, wanted).target_share == kept


# --- the router ---


def choose(made: AdaptiveRouter, unit: str, *texts: str, policy: RoutingPolicy = POLICY, killed: frozenset[str] = frozenset()) -> Any:
    return made.choose("support", "rel_1", policy, unit, chat(*texts), killed)


def test_hard_conversations_get_the_strong_model_and_easy_ones_the_weak() -> None:
    made = AdaptiveRouter()
    assert [choose(made, text, text).strong for text in (EASY, HARD)] == [False, True]


def test_a_conversation_goes_up_and_never_down() -> None:
    made = AdaptiveRouter()
    assert [choose(made, "u", *texts).strong for texts in ((EASY,), (EASY, HARD), (EASY,))] == [False, True, True]


def test_after_a_restart_a_conversation_that_was_hard_is_still_hard() -> None:
    choose(first := AdaptiveRouter(), "u", HARD)
    assert choose(first, "u", HARD, EASY).strong
    assert choose(AdaptiveRouter(), "u", HARD, EASY).strong


def test_the_control_bucket_never_adapts() -> None:
    policy = replace(POLICY, control_bucket_share=1.0, strong_share=0.05, strong_share_range=(0.0, 1.0), drift_max=1.0)
    made = AdaptiveRouter()
    for number in range(300):
        chosen = choose(made, f"u{number}", HARD, policy=policy)
        assert (chosen.bucket, chosen.boundary, chosen.strong) == (CONTROL, policy.boundary, True)
    state = made.state("support", "rel_1", policy, frozenset())
    assert (state.boundary, state.shares[CONTROL], state.shares[ADAPTIVE]) == (policy.boundary, 1.0, None)


def test_units_are_spread_over_the_buckets_as_the_release_says() -> None:
    policy = replace(POLICY, control_bucket_share=0.25)
    made = AdaptiveRouter()
    buckets = [choose(made, f"u{number}", EASY, policy=policy).bucket for number in range(2000)]
    assert abs(buckets.count(CONTROL) / 2000 - 0.25) < 0.04


def test_a_share_is_kept_even_among_equal_requests() -> None:
    policy = replace(POLICY, boundary=0.3, strong_share_range=(0.0, 1.0), drift_max=0.5)
    made = AdaptiveRouter()
    strong = [choose(made, f"u{number}", EASY, policy=policy).strong for number in range(3000)]
    assert abs(sum(strong[1000:]) / 2000 - policy.strong_share) < 0.05


def test_every_switch_is_read_on_every_request() -> None:
    made = AdaptiveRouter()
    assert choose(made, "a", HARD).strong
    assert choose(made, "a", HARD, killed=frozenset({"routing.adaptive"})) is None
    assert choose(AdaptiveRouter(enabled=False), "a", HARD) is None
    assert not choose(made, "a", HARD, policy=replace(POLICY, override="small")).strong
    assert choose(made, "b", EASY, policy=replace(POLICY, override="big")).strong


@pytest.mark.parametrize("frozen", [{"policy": replace(POLICY, adapt=False)}, {"killed": frozenset({"routing.adapt"})}])
def test_a_frozen_boundary_stays_where_it_was_approved(frozen: Any) -> None:
    made = AdaptiveRouter()
    for number in range(200):
        choose(made, f"u{number}", HARD)
    moved = made.state("support", "rel_1", POLICY, frozenset())
    assert moved.boundary > POLICY.boundary
    assert choose(made, "next", HARD, **frozen).boundary == POLICY.boundary
    assert made.state("support", "rel_1", frozen.get("policy", POLICY), frozen.get("killed", frozenset())).mode == "frozen"


def test_pins_are_bounded_and_the_least_seen_goes_first() -> None:
    made = AdaptiveRouter(pins_max=2)
    for unit in ("a", "b", "a", "c"):
        choose(made, unit, HARD)
    assert [choose(made, unit, EASY).strong for unit in ("a", "c")] == [True, True]
    assert not choose(made, "b", EASY).strong


def test_drift_is_the_larger_of_the_boundarys_and_the_shares() -> None:
    made = AdaptiveRouter()
    for number in range(routing.SHARE_SEEN_MIN):
        choose(made, f"u{number}", HARD)
    state = made.state("support", "rel_1", POLICY, frozenset())
    assert state.drift == pytest.approx(0.4)
    assert state.conversations == routing.SHARE_SEEN_MIN


def test_few_conversations_say_nothing_of_the_share() -> None:
    made = AdaptiveRouter()
    choose(made, "u", HARD)
    assert made.state("support", "rel_1", POLICY, frozenset()).drift < 0.01


def test_weights_are_known_by_name() -> None:
    assert set(WEIGHTS) == {"bias", *FEATURES}
    assert all(weight >= 0 for name, weight in WEIGHTS.items() if name != "bias")


@pytest.mark.parametrize("known_before", [True, False], ids=["a release in use", "a release seen later"])
def test_a_wanted_share_reaches_the_release_it_is_for(known_before: bool) -> None:
    made = AdaptiveRouter()
    if known_before:
        choose(made, "first", EASY)
    made.aim({("support", "rel_1"): 0.64})
    choose(made, "second", EASY)
    assert made.state("support", "rel_1", POLICY, frozenset()).target_share == 0.64
    made.aim({("other", "rel_1"): 0.64})
    assert made.state("support", "rel_1", POLICY, frozenset()).target_share == POLICY.strong_share


def test_another_policy_of_the_same_release_is_obeyed_at_once() -> None:
    made = AdaptiveRouter()
    before = choose(made, "first", EASY).difficulty
    assert choose(made, "second", EASY, policy=replace(POLICY, weights={"bias": 9.0})).difficulty > before


def test_after_many_conversations_the_newest_count_most() -> None:
    share = Share()
    for strong in [False] * 5000 + [True] * 1000:
        share.add(strong)
    assert share.value is not None
    assert share.value > 0.8


def test_of_a_very_long_conversation_the_newest_turns_are_read() -> None:
    turns_ = [EASY] * 40
    assert Scorer({}).hardest(chat(*turns_, HARD))[1] == turns(chat(*turns_, HARD))[-1]
    assert turns(chat(*turns_, HARD))[-1][FEATURES.index("code")] > turns(chat(EASY))[-1][FEATURES.index("code")]


def test_asking_for_text_is_no_format() -> None:
    assert turns(chat(EASY, response_format={"type": "text"})) == turns(chat(EASY))


def test_a_request_of_no_conversation_is_counted_and_not_remembered() -> None:
    made = AdaptiveRouter(pins_max=1)
    choose(made, "kept", EASY)
    for number in range(3):
        choice = made.choose("support", "rel_1", POLICY, f"lone {number}", chat(HARD), frozenset(), lone=True)
        assert choice is not None
        assert choice.strong
    assert made.state("support", "rel_1", POLICY, frozenset()).conversations == 4
    choose(made, "kept", HARD)
    assert made.state("support", "rel_1", POLICY, frozenset()).conversations == 4


def test_a_candidate_has_the_boundary_of_the_stable_release() -> None:
    """Else its conversations would get another share of the strong model, and a comparison would take that for the release's doing."""
    policy, router = replace(POLICY, drift_max=1.0), AdaptiveRouter()

    def boundary(digest: str, unit: str, of: RoutingPolicy = policy) -> float | None:
        choice = router.choose("support", digest, of, unit, chat(EASY), frozenset(), like="old")
        assert choice is not None
        return choice.boundary

    for round_ in range(3):
        for number in range(20):
            boundary("old", f"u{round_}-{number}")
        learned = router.state("support", "old", policy, frozenset()).boundary
        assert learned < policy.boundary
        assert [boundary("new", f"c{round_}-{number}") for number in range(5)] == [learned] * 5
    assert boundary("other", "u", replace(policy, weights={"bias": 1.0})) == policy.boundary
    for number in range(20):
        router.choose("support", "new", policy, f"all-{number}", chat(EASY), frozenset(), like=None)
    assert router.state("support", "new", policy, frozenset()).boundary < learned, "with all traffic it goes on by itself"
    assert boundary("new", "promoted") == router.state("support", "new", policy, frozenset()).boundary
