"""What a service's traffic was like, minute by minute, whether or not a rollout runs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cohort.gateway.contract import Call, failed
from cohort.stats import Sketch

MINUTE_US = 60_000_000
UNITS_REMEMBERED_MAX = 100_000
"""Units whose first call is remembered as counted; one that comes back after so many others counts as new."""

_COUNTS = ("calls", "failed", "cached", "units", "units_failed", "tokens_in", "tokens_out", "cost_usd_micro")
MinuteKey = tuple[str, str, int]
"""(service, release, minute_us)"""


@dataclass(slots=True)
class Minute:
    """Traffic of one release in one minute. `cached`: calls that a cache answered. `units`: those first seen in it; `units_failed`: those that
    failed for the first time in it. `latency` in microseconds, of calls that did not fail and that no cache answered.
    """

    calls: int = 0
    failed: int = 0
    cached: int = 0
    units: int = 0
    units_failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd_micro: int = 0
    latency: Sketch = field(default_factory=Sketch)

    def add(self, call: Call, recent: RecentUnits) -> None:
        bad = failed(call.result)
        new, newly_failed = recent.see(call.service, call.unit, bad)
        self.calls += 1
        self.failed += bad
        self.cached += call.answered_from_cache
        self.units += new
        self.units_failed += newly_failed
        self.tokens_in += call.tokens_in or 0
        self.tokens_out += call.tokens_out or 0
        self.cost_usd_micro += call.cost_usd_micro or 0
        if call.total_us is not None and not bad and not call.answered_from_cache:
            self.latency.add(call.total_us)

    def row(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in _COUNTS}, "latency": self.latency.to_state()}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Minute:
        return cls(**{name: row[name] for name in _COUNTS}, latency=Sketch.from_state(row["latency"]))


class RecentUnits:
    """Which units were counted lately, and whether they had failed. The oldest are forgotten first.

    Memory of this process: after a restart of control, conversations in progress count as new once more. Forecasts rest on it, no verdict does.
    """

    def __init__(self) -> None:
        self._failed: dict[tuple[str, str], bool] = {}

    def see(self, service: str, unit: str, bad: bool) -> tuple[bool, bool]:
        """One call of a unit: whether the unit is new, and whether this is its first failure."""
        before = self._failed.get((service, unit))
        if before is None and len(self._failed) >= UNITS_REMEMBERED_MAX:
            del self._failed[next(iter(self._failed))]
        self._failed[(service, unit)] = bad or bool(before)
        return before is None, bad and not before

    def forget(self) -> None:
        self._failed.clear()
