"""What outcomes say about choosing between two models: rates, when the wanted share moves, what another boundary would do, fitted weights."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.delivery.routing_fit import FIT_SAMPLES_MIN, fit
from cohort.delivery.routing_rules import MARGIN, SIDE_SAMPLES_MIN, Sample, difference, rate, suggest, what_if
from cohort.gateway.adaptive.features import Scorer, decode, encode
from cohort.gateway.contract_routing import FEATURES, WEIGHTS, RoutingPolicy

POLICY = RoutingPolicy("big", "small")
PLAIN = Sample("rel_1", "u", 0, "adaptive", False, 0.48, 0.5, "0" * len(FEATURES), False, 100)


def side(strong: bool, count: int, failed: int, **more: object) -> list[Sample]:
    """Conversations just on one side of the boundary."""
    place = 0.52 if strong else 0.48
    made = [replace(PLAIN, unit=f"{strong}{n}", strong=strong, difficulty=place, failed=n < failed) for n in range(count)]
    return [replace(sample, **more) for sample in made]  # type: ignore[arg-type]


def test_rates_are_those_of_the_books() -> None:
    found = rate(10, 100)  # Wilson's interval, as given by several statistics packages
    assert (found.low, found.high) == (pytest.approx(0.0552, abs=5e-5), pytest.approx(0.1744, abs=5e-5))
    assert rate(0, 0) == (type(found))(0, 0, None, 0.0, 1.0)
    low, high = difference(rate(56, 70), rate(48, 80))  # Newcombe 1998, table II, example (a), method 10
    assert (low, high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


@given(st.integers(0, 500), st.integers(1, 500))
def test_an_interval_holds_its_rate(failed: int, more: int) -> None:
    found = rate(failed, failed + more)
    assert 0 <= found.low <= failed / (failed + more) <= found.high <= 1


@pytest.mark.parametrize(
    ("weak_failed", "strong_failed", "wanted"),
    [(90, 10, 0.61), (0, 0, 0.59), (18, 10, 0.6)],
    ids=["weak fails", "weak is enough", "not clear"],
)
def test_the_share_goes_where_the_outcomes_say(weak_failed: int, strong_failed: int, wanted: float) -> None:
    count = 300 if wanted != 0.59 else 2000
    found = suggest(POLICY, 0.6, [*side(False, count, weak_failed), *side(True, count, strong_failed)])
    assert (found.share, found.moves) == (pytest.approx(wanted), wanted != 0.6)


@pytest.mark.parametrize(("weak_failed", "strong_failed", "share"), [(90, 10, 0.65), (0, 0, 0.55)])
def test_the_share_stays_within_what_the_release_allows(weak_failed: int, strong_failed: int, share: float) -> None:
    found = suggest(POLICY, share, [*side(False, 2000, weak_failed * 5), *side(True, 2000, strong_failed)])
    assert (found.share, found.moves) == (share, False)
    assert "allows no more" in found.reason


def test_a_clear_difference_that_is_not_worth_the_price_moves_nothing() -> None:
    samples = [*side(False, 1500, 75), *side(True, 1500, 45)]
    found = suggest(POLICY, 0.6, samples)
    assert 0 < difference(found.weak, found.strong)[0] < MARGIN
    assert not found.moves


def test_a_conversation_that_failed_once_has_failed() -> None:
    found = suggest(POLICY, 0.6, [*side(False, 300, 90), *side(False, 300, 0), *side(True, 300, 10)])
    assert (found.weak.failed, found.weak.count) == (90, 300)


def test_few_outcomes_move_nothing() -> None:
    few = SIDE_SAMPLES_MIN - 1
    found = suggest(POLICY, 0.6, [*side(False, few, few), *side(True, 5000, 0)])
    assert (found.share, found.moves) == (0.6, False)
    assert f"{few} weak" in found.reason


def test_one_conversation_of_many_calls_is_one() -> None:
    same = side(False, 1, 1) * 500
    assert suggest(POLICY, 0.6, [*same, *side(True, 500, 0)]).weak.count == 1


@pytest.mark.parametrize("change", [{"bucket": "control"}, {"difficulty": 0.1}])
def test_the_control_bucket_and_what_is_far_from_the_boundary_say_nothing(change: dict[str, object]) -> None:
    found = suggest(POLICY, 0.6, [*side(False, 500, 500, **change), *side(True, 500, 0)])
    assert found.weak.count == 0
    assert not found.moves


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 1)), max_size=60), st.floats(0.55, 0.65))
def test_a_share_never_leaves_its_range_nor_jumps(calls: list[tuple[bool, bool, float]], share: float) -> None:
    samples = [replace(PLAIN, unit=str(n), strong=strong, failed=bad, difficulty=at) for n, (strong, bad, at) in enumerate(calls * 20)]
    found = suggest(POLICY, share, samples)
    assert 0.55 <= found.share <= 0.65
    assert abs(found.share - share) <= 0.01 + 1e-6


# --- what if ---


def test_another_boundary_is_judged_on_what_is_known() -> None:
    samples = [
        *(replace(PLAIN, unit=f"w{n}", difficulty=0.2, failed=n < 10, cost_usd_micro=100) for n in range(50)),
        *(replace(PLAIN, unit=f"s{n}", difficulty=0.8, strong=True, failed=n < 1, cost_usd_micro=1000) for n in range(50)),
    ]
    here, everything, nothing = what_if(POLICY, samples, lambda sample: sample.difficulty, [0.5, 0.0, 0.9])
    assert (here.strong_share, here.known, here.failure_rate) == (0.5, 1.0, pytest.approx(0.11))
    assert here.cost_usd_per_1000 == pytest.approx(0.55)
    assert (everything.strong_share, everything.known, everything.cost_usd_per_1000) == (1.0, 0.5, pytest.approx(1.0))
    assert everything.failure_rate == pytest.approx(0.02)
    assert (nothing.strong_share, nothing.failure_rate, nothing.drift) == (0.0, pytest.approx(0.2), pytest.approx(0.5))


def test_what_nobody_saw_is_unknown_and_not_free() -> None:
    weak_only = [replace(PLAIN, unit=str(n), cost_usd_micro=None) for n in range(5)]
    (found,) = what_if(POLICY, weak_only, lambda _: 1.0, [0.5])
    assert (found.strong_share, found.known, found.failure_rate, found.cost_usd_per_1000) == (1.0, 0.0, None, None)
    assert what_if(POLICY, [], lambda _: 1.0, [0.5])[0].failure_rate is None


# --- fitted weights ---


def drawn(count: int, weights: dict[str, float], seed: int = 1) -> list[Sample]:
    """Outcomes of the weak model that really fails as `weights` say."""
    draws, truth = random.Random(seed), Scorer(weights)
    samples = []
    for number in range(count):
        features = decode(encode(tuple(draws.random() for _ in FEATURES)))
        failed = draws.random() < truth.difficulty(features)
        samples.append(replace(PLAIN, unit=str(number), features=encode(features), failed=failed))
    return samples


def test_a_fit_finds_what_makes_the_weak_model_fail() -> None:
    found = fit(drawn(4000, dict.fromkeys(WEIGHTS, 0.0) | {"bias": -2.0, "code": 4.0}), {})
    assert found is not None
    assert found.better
    assert found.loss < found.loss_before
    assert found.weights["code"] > 2.0 > max(weight for name, weight in found.weights.items() if name not in ("code", "bias"))
    assert all(weight >= 0 for name, weight in found.weights.items() if name != "bias")


def test_a_feature_that_goes_with_success_gets_no_weight_below_zero() -> None:
    hard = "f" * len(FEATURES)
    samples = [replace(PLAIN, unit=str(n), features=hard if n % 2 else PLAIN.features, failed=n % 2 == 0) for n in range(FIT_SAMPLES_MIN)]
    found = fit(samples, {})
    assert found is not None
    assert min(found.weights[name] for name in FEATURES) == 0


def test_a_fit_that_is_no_better_says_so() -> None:
    found = fit(drawn(FIT_SAMPLES_MIN, dict(WEIGHTS)), dict(WEIGHTS))
    assert found is not None
    assert found.better is (found.loss < found.loss_before)
    assert math.isfinite(found.loss)


def test_too_few_outcomes_or_failures_are_no_fit() -> None:
    enough = drawn(FIT_SAMPLES_MIN, dict(WEIGHTS))
    assert fit(enough[:-1], {}) is None
    assert fit([replace(sample, failed=False) for sample in enough], {}) is None
    assert fit([replace(sample, failed=True) for sample in enough], {}) is None
    assert fit([replace(sample, strong=True) for sample in enough], {}) is None
