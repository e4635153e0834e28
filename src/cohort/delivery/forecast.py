"""Planning before traffic: what a plan can see with the traffic a service has (gates.md section 7). Pure."""

from __future__ import annotations

from cohort.delivery.model import CacheUse, Certificate, Forecast, Plan, Stage, StageForecast
from cohort.stats import expected_units_to_certificate, expected_units_to_detect, smallest_ratio_detected

RATIOS = (1.5, 2.0, 5.0, 10.0)
DEFAULT_UNITS_PER_S = 1.0
DEFAULT_FAILURE_RATE = 0.01
RATE_MIN = 1e-4
CACHED_SHARE_TOLD, CACHED_SHARE_MAX = 0.01, 0.99
YEAR_S = 366 * 86_400
PATIENCE = 3.0
"""A certificate expected to take more than this many floors is warned about."""


def forecast(
    service: str, plan: Plan, speed: float, units_per_s: float, failure_rate: float, assumed: bool, cached_share: float = 0.0
) -> Forecast:
    """`units_per_s` over both arms; `failure_rate` of stable units, `cached_share` of stable's calls that a cache answers, 0 to 1."""
    rate = max(failure_rate, RATE_MIN)
    stages = tuple(_stage(stage, plan, speed, units_per_s, rate) for stage in plan.stages)
    warnings = [f"{stage.name}: {warning}" for stage in stages for warning in stage.warnings]
    notes = cache_notes(plan, cached_share)
    return Forecast(service, plan.name, units_per_s, failure_rate, assumed, stages, tuple(warnings), cached_share, notes)


def cache_notes(plan: Plan, cached_share: float) -> tuple[str, ...]:
    """What becomes of calls that caches answer now, while units are split."""
    if cached_share < CACHED_SHARE_TOLD or all(_label_share(stage) is None or _shadow(stage) for stage in plan.stages):
        return ()
    if plan.caches is CacheUse.SERVE:
        seen = f"caches answer {cached_share:.0%} of the calls now; the candidate begins with empty ones"
        return (f"{seen}, and comparisons of latency, cost and tokens will take that for harm (`caches: serve`)",)
    if cached_share >= CACHED_SHARE_MAX:
        return ("caches answer nearly all calls now; while units are split between releases models are asked for all (`caches: bypass`)",)
    times = 1 / (1 - cached_share)
    return (
        f"caches answer {cached_share:.0%} of the calls now; while units are split between releases models are asked for all of them "
        f"(`caches: bypass`), about {times:.1f} times as many calls upstream",
    )


def _stage(stage: Stage, plan: Plan, speed: float, units_per_s: float, rate: float) -> StageForecast:
    floor_s = stage.floor_s / speed
    share = _label_share(stage)
    rate_per_s = units_per_s * (stage.shadow_pct / 100 if _shadow(stage) else 1.0)
    if share is None or rate_per_s <= 0:
        return StageForecast(stage.name, stage.traffic_pct, floor_s, rate_per_s * floor_s, None, {}, {}, None, ())
    detect = {f"{ratio:g}": expected_units_to_detect(rate, ratio, share, plan.alpha) for ratio in RATIOS}
    extra = {f"{ratio:g}": _extra_failed(detect[f"{ratio:g}"], share, rate, ratio, stage) for ratio in RATIOS}
    units = rate_per_s * floor_s
    smallest = smallest_ratio_detected(rate, share, plan.alpha, units) if units > 0 else None
    certificate_s = _certificate_s(stage.certificate, rate, share, plan.beta, rate_per_s)
    detect_s = {ratio: _seconds(units_needed, rate_per_s) for ratio, units_needed in detect.items()}
    warnings = _warnings(stage, smallest, certificate_s, floor_s)
    return StageForecast(stage.name, stage.traffic_pct, floor_s, units, smallest, extra, detect_s, certificate_s, warnings)


def _shadow(stage: Stage) -> bool:
    return stage.traffic_pct == 0 and stage.shadow_pct > 0


def _label_share(stage: Stage) -> float | None:
    """The candidate's share among compared units; None where nothing is compared."""
    if _shadow(stage):
        return 0.5
    return stage.traffic_pct / 100 if 0 < stage.traffic_pct < 100 else None


def _extra_failed(units: float, share: float, rate: float, ratio: float, stage: Stage) -> float:
    """Failed units beyond what stable would have failed; in shadow nobody meets them."""
    return 0.0 if _shadow(stage) else units * share * rate * (ratio - 1)


def _certificate_s(certificate: Certificate | None, rate: float, share: float, beta: float, units_per_s: float) -> float | None:
    if certificate is None or certificate.ratio is None:
        return None
    return _seconds(expected_units_to_certificate(rate, certificate.ratio, share, beta), units_per_s)


def _seconds(units: float, units_per_s: float) -> float | None:
    seconds = units / units_per_s
    return seconds if seconds <= YEAR_S else None


def _warnings(stage: Stage, smallest: float | None, certificate_s: float | None, floor_s: float) -> tuple[str, ...]:
    found = []
    if floor_s > 0 and (smallest is None or smallest > 10):
        found.append("this traffic cannot show even a tenfold failure rate within the floor")
    if stage.certificate is not None and stage.certificate.ratio is not None and floor_s > 0:
        if certificate_s is None:
            found.append("the certificate takes more than a year at this traffic")
        elif certificate_s > PATIENCE * floor_s:
            found.append(f"the certificate takes about {certificate_s / floor_s:.0f} times the floor at this traffic")
    return tuple(found)
