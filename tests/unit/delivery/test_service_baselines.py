"""What a service was seen to do, as the baseline of a rollout and as the rate that a forecast starts from."""

from __future__ import annotations

from typing import Any

import pytest

from cohort.delivery.services import MINUTE_US, cached_share, units_per_s, warm_baseline
from cohort.stats import Sketch


def row(release: str, minute: int, calls: int, failed: int, latency_us: float, cached: int = 0) -> dict[str, Any]:
    sketch = Sketch()
    for _ in range(calls - failed):
        sketch.add(latency_us)
    return {
        "release": release,
        "minute_us": minute * MINUTE_US,
        "calls": calls,
        "failed": failed,
        "cached": cached,
        "units": calls,
        "latency": sketch.to_state(),
    }


def test_the_baseline_of_a_rollout_is_the_stable_release_alone():
    traffic = [row("rel_old", 1, 400, 200, 900_000), row("rel_stable", 2, 300, 3, 50_000), row("rel_refused", 2, 40, 8, 400_000)]
    baseline = warm_baseline(traffic, "rel_stable")
    assert (baseline.calls, baseline.failed) == (300, 3)
    assert baseline.p95_us == pytest.approx(50_000, rel=0.02)
    assert warm_baseline(traffic, "rel_new").failure_rate is None


def test_a_baseline_is_of_what_models_answered():
    """Calls of caches do not fail: counted in, they would make stable look safer than the models that a rollout asks."""
    traffic = [row("rel_stable", 1, 1000, 10, 50_000, cached=600), row("rel_other", 1, 100, 0, 50_000, cached=100)]
    assert (warm_baseline(traffic, "rel_stable").calls, cached_share(traffic, "rel_stable")) == (400, 0.6)
    assert cached_share([], "rel_stable") == 0.0


def test_a_forecast_counts_from_when_traffic_began_and_nothing_is_no_rate():
    traffic = [row("rel_stable", 10, 600, 0, 1000), row("rel_new", 11, 600, 0, 1000)]
    assert units_per_s(traffic, 12 * MINUTE_US) == pytest.approx(10.0)
    assert units_per_s([], 12 * MINUTE_US) is None
