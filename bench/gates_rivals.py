"""Rules of the field, for comparison with the processes of Cohort. Each says in which minute it rolls back, or None.

They are written from their public descriptions, in the form a careful user would set up, and read once a minute or more rarely.
"""

from __future__ import annotations

import math

import numpy as np
from gates_simulation import Floats, Run, failures_log_e

from cohort.stats import log_threshold

WINDOW_MINUTES = 5
WINDOW_RATE_MAX = 0.05  # "success rate >= 95 %"
WINDOW_FAILURES_MAX = 3  # failed measurements tolerated
TOLERANCE = 0.25
CONFIDENCE_Z = 2.3263478740408408  # 98 %, two-sided
UNITS_MIN = 100  # of the candidate, before an asymptotic rule is read
MIXING_SD = 0.01  # of mSPRT: the size of difference it is tuned to
TUNED_UNITS = 10_000  # at which the asymptotic sequences are tightest


def label_process(run: Run, alpha: float) -> int | None:
    """6.2, read after every failure."""
    log_e = failures_log_e(run.labels, run.world.share[run.label_minute])
    hit = log_e >= log_threshold(alpha)
    return int(run.label_minute[hit.argmax()]) if hit.any() else None


def fixed_threshold(run: Run, _alpha: float) -> int | None:
    """The candidate's failure rate over each 5-minute window must stay at or below 5 %; the fourth bad window rolls back."""
    units = run.units_candidate.reshape(-1, WINDOW_MINUTES).sum(axis=1)
    failed = run.failed_candidate.reshape(-1, WINDOW_MINUTES).sum(axis=1)
    bad = np.flatnonzero(failed > WINDOW_RATE_MAX * units)
    return int(bad[WINDOW_FAILURES_MAX] + 1) * WINDOW_MINUTES - 1 if bad.size > WINDOW_FAILURES_MAX else None


def mann_whitney(run: Run, _alpha: float) -> int | None:
    """Every hour, Mann-Whitney on the 60 failure rates per minute of each arm, 98 % confidence, tolerance 0.25 of the shift."""
    candidate = run.failed_candidate / np.maximum(run.units_candidate, 1)
    stable = run.failed_stable / np.maximum(run.units_stable, 1)
    place = math.floor(60 * 60 / 2 - CONFIDENCE_Z * math.sqrt(60 * 60 * 121 / 12))
    for hour in range(run.world.share.size // 60):
        part = slice(hour * 60, hour * 60 + 60)
        shifts = np.sort(np.subtract.outer(candidate[part], stable[part]), axis=None)
        estimate = (shifts[1799] + shifts[1800]) / 2
        if shifts[place] > TOLERANCE * abs(estimate):
            return hour * 60 + 59
    return None


def _means(run: Run) -> tuple[Floats, Floats, Floats, Floats]:
    """(units and pooled failure rate of the candidate, the same of stable), cumulated to each minute."""
    n1, n0 = np.cumsum(run.units_candidate), np.cumsum(run.units_stable)
    return n1, np.cumsum(run.failed_candidate) / np.maximum(n1, 1), n0, np.cumsum(run.failed_stable) / np.maximum(n0, 1)


def _first(hit: np.ndarray, n1: Floats) -> int | None:
    hit = hit & (n1 >= UNITS_MIN)
    return int(hit.argmax()) if hit.any() else None


def msprt(run: Run, alpha: float) -> int | None:
    """Mixture SPRT with a normal prior on the difference of pooled means (Johari et al.), rolled back when the candidate is worse."""
    n1, p1, n0, p0 = _means(run)
    pooled = (n1 * p1 + n0 * p0) / (n1 + n0)
    variance = np.maximum(pooled * (1 - pooled), 1e-9) * (1 / np.maximum(n1, 1) + 1 / np.maximum(n0, 1))
    prior = MIXING_SD**2
    log_ratio = 0.5 * np.log(variance / (variance + prior)) + prior * (p1 - p0) ** 2 / (2 * variance * (variance + prior))
    return _first((log_ratio >= log_threshold(alpha)) & (p1 > p0), n1)


def _radius(variance: Floats, units: Floats, alpha: float) -> Floats:
    """Half width of an asymptotic confidence sequence (Waudby-Smith et al.) for a mean whose estimate has `variance` / `units`."""
    rho = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / TUNED_UNITS
    scaled = units * rho + 1
    return np.asarray(np.sqrt(variance * 2 * scaled / (units**2 * rho) * np.log(np.sqrt(scaled) / alpha)))


def asymptotic_difference(run: Run, alpha: float) -> int | None:
    """Asymptotic confidence sequence for the difference of pooled means; rolls back when it lies above zero."""
    n1, p1, n0, p0 = _means(run)
    units = n1 + n0
    variance = units * (p1 * (1 - p1) / np.maximum(n1, 1) + p0 * (1 - p0) / np.maximum(n0, 1))
    return _first(p1 - p0 > _radius(np.maximum(variance, 1e-9), units, alpha), n1)


def separate_sequences(run: Run, alpha: float) -> int | None:
    """One asymptotic confidence sequence for each arm's pooled mean at alpha/2; rolls back when they part."""
    n1, p1, n0, p0 = _means(run)
    lower = p1 - _radius(np.maximum(p1 * (1 - p1), 1e-9), np.maximum(n1, 1), alpha / 2)
    upper = p0 + _radius(np.maximum(p0 * (1 - p0), 1e-9), np.maximum(n0, 1), alpha / 2)
    return _first(lower > upper, n1)


RULES = {
    "Cohort 6.2": label_process,
    "fixed threshold, 5 min": fixed_threshold,
    "Mann-Whitney hourly": mann_whitney,
    "mSPRT": msprt,
    "asymptotic CS, difference": asymptotic_difference,
    "two separate CS": separate_sequences,
}
