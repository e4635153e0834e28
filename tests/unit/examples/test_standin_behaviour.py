"""The draws of the stand-in model: what they are determined by, and that they keep to their rates."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "examples" / "upstreams"))
from standin.behaviour import Behaviour, changed, draw, parse_model

CALLS = 20_000


def fates(behaviour: Behaviour, seed: int = 1, incident: float = 0.0):
    return [draw(behaviour, seed, "standin-x", number, incident) for number in range(1, CALLS + 1)]


def test_the_same_seed_model_and_number_meet_the_same_fate_and_another_seed_another():
    behaviour = Behaviour(failure_rate=0.3)
    assert fates(behaviour)[:50] == fates(behaviour)[:50]
    assert [fate.latency_s for fate in fates(behaviour)[:50]] != [fate.latency_s for fate in fates(behaviour, seed=2)[:50]]


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.08, 1.0])
def test_failures_come_at_their_rate(rate: float):
    failed = sum(fate.status != 200 for fate in fates(Behaviour(failure_rate=rate)))
    assert failed / CALLS == pytest.approx(rate, abs=4 * (rate * (1 - rate) / CALLS) ** 0.5)


def test_a_quarter_of_the_failures_is_answered_with_429_and_the_rest_with_500():
    statuses = [fate.status for fate in fates(Behaviour(failure_rate=0.5)) if fate.status != 200]
    assert set(statuses) == {429, 500}
    assert statuses.count(429) / len(statuses) == pytest.approx(0.25, abs=0.02)


def test_latency_is_log_normal_around_its_median_and_the_slow_share_is_slower_by_its_factor():
    plain = [fate.latency_s for fate in fates(Behaviour(latency_ms=60, latency_sigma=0.4))]
    assert statistics.median(plain) == pytest.approx(0.060, rel=0.02)
    assert statistics.quantiles(plain, n=20)[-1] == pytest.approx(0.060 * 1.931, rel=0.04)
    tailed = fates(Behaviour(latency_ms=60, latency_sigma=0.4, slow_share=0.1, slow_factor=4))
    assert sum(fate.slow for fate in tailed) / CALLS == pytest.approx(0.1, abs=0.01)
    ratios = {round(slow.latency_s / before, 6) for slow, before in zip(tailed, plain, strict=True)}
    assert ratios == {1.0, 4.0}


def test_an_incident_raises_the_failure_rate_of_every_model_and_leaves_latencies_alone():
    calm, hit = fates(Behaviour(failure_rate=0.01)), fates(Behaviour(failure_rate=0.01), incident=0.2)
    assert sum(fate.status != 200 for fate in hit) / CALLS == pytest.approx(0.2, abs=0.015)
    assert [fate.latency_s for fate in calm] == [fate.latency_s for fate in hit]
    assert {n for n, fate in enumerate(calm) if fate.status != 200} <= {n for n, fate in enumerate(hit) if fate.status != 200}


def test_a_model_option_overrides_the_defaults_it_names():
    name, behaviour = parse_model("standin-big:failure_rate=0.01,latency_ms=70", Behaviour(latency_sigma=0.2))
    assert (name, behaviour) == ("standin-big", Behaviour(failure_rate=0.01, latency_ms=70, latency_sigma=0.2))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"failure_rate": 1.5}, "failure_rate is a share"),
        ({"latency_ms": -1}, "latency_ms is from 0"),
        ({"slow_share": "often"}, "could not convert"),
        ({"failure_rate": True}, "failure_rate is a number"),
        ({"speed": 2}, "unknown setting 'speed'"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings: dict[str, object], said: str):
    with pytest.raises(ValueError, match=said):
        changed(Behaviour(), settings)
