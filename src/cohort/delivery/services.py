"""What a service is seen to do: its traffic by the minute, as a view and as the baseline of a rollout. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cohort.delivery.model import Rollout, ServiceView
from cohort.delivery.processes import Baseline
from cohort.delivery.traffic import MINUTE_US
from cohort.delivery.views import ref, row_view
from cohort.stats import Sketch

DAY_US = 86_400_000_000
RECENT_US = 5 * MINUTE_US
WARM_US = 60 * MINUTE_US
"""How much of stable's past warms up ranks and baselines."""
MINUTES_SHOWN = 30
SHOWN_US = MINUTES_SHOWN * MINUTE_US
RELEASES_SHOWN = 20

Row = Mapping[str, Any]


def warm_baseline(traffic: Sequence[Row], stable: str) -> Baseline:
    """The calls that the stable release's models answered before a rollout. It steers bets and frozen limits."""
    rows = [row for row in traffic if row["release"] == stable]
    return Baseline(sum(row["calls"] - row["cached"] for row in rows), sum(row["failed"] for row in rows), _merged(rows))


def units_per_s(traffic: Sequence[Row], now_us: int) -> float | None:
    """New units, over the time since the oldest of the rows began, at least a minute; None without any."""
    units = sum(int(row["units"]) for row in traffic)
    if not units:
        return None
    return units / max(now_us - min(int(row["minute_us"]) for row in traffic), MINUTE_US) * 1e6


def unit_failure_rate(traffic: Sequence[Row], stable: str) -> float | None:
    """Failed units / units of the stable release, cautiously rounded up by one failure; None with too few."""
    rows = [row for row in traffic if row["release"] == stable]
    return Baseline(sum(row["units"] for row in rows), sum(row["units_failed"] for row in rows)).failure_rate


def cached_share(traffic: Sequence[Row], stable: str) -> float:
    """The part of the stable release's calls that a cache answered, 0 to 1."""
    rows = [row for row in traffic if row["release"] == stable]
    calls = sum(row["calls"] for row in rows)
    return sum(row["cached"] for row in rows) / calls if calls else 0.0


def service_view(
    row: Row,
    active: Rollout | None,
    traffic: Sequence[Row],
    versions: Mapping[str, str],
    agrees: bool | None,
    cost_usd_micro: int | None,
    now_us: int,
) -> ServiceView:
    """`traffic` of the last `MINUTES_SHOWN` minutes; `versions`: digest -> version of the service's releases, newest first; the cost is today's."""
    recent = [entry for entry in traffic if entry["minute_us"] > now_us - RECENT_US - MINUTE_US]
    calls = sum(entry["calls"] for entry in recent)
    latency = _merged(recent)
    return ServiceView(
        name=row["name"],
        stable=ref(row["stable"], versions),
        candidate=ref(active.candidate, versions) if active else None,
        traffic_pct=active.present.traffic_pct if active else 0.0,
        rollout=row_view(active, versions) if active else None,
        calls_per_minute=_per_minute(recent, now_us) if recent else None,
        failure_rate=sum(entry["failed"] for entry in recent) / calls if calls else None,
        p50_ms=_ms(latency, 0.5),
        p95_ms=_ms(latency, 0.95),
        cost_usd_today=cost_usd_micro / 1e6 if cost_usd_micro is not None else None,
        minutes=_minutes(traffic, now_us),
        releases=tuple(ref(digest, versions) for digest in list(versions)[:RELEASES_SHOWN]),
        gateway_agrees=agrees,
        changed_us=row["changed_us"],
    )


def _merged(rows: Sequence[Row]) -> Sketch:
    whole = Sketch()
    for row in rows:
        whole.merge(Sketch.from_state(row["latency"]))
    return whole


def _per_minute(rows: Sequence[Row], now_us: int) -> float:
    """Over the time since the oldest of the rows began, at least a second."""
    spent_us = max(now_us - min(int(row["minute_us"]) for row in rows), 1_000_000)
    calls = sum(int(row["calls"]) for row in rows)
    return calls / spent_us * float(MINUTE_US)


def _minutes(rows: Sequence[Row], now_us: int) -> tuple[int, ...]:
    counts: dict[int, int] = {}
    for row in rows:
        counts[row["minute_us"]] = counts.get(row["minute_us"], 0) + row["calls"]
    last = now_us // MINUTE_US
    return tuple(counts.get((last - back) * MINUTE_US, 0) for back in range(MINUTES_SHOWN - 1, -1, -1))


def _ms(sketch: Sketch, q: float) -> float | None:
    value = sketch.quantile(q)
    return None if value is None else round(value / 1000, 3)
