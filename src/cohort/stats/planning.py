"""What a plan can see before there is traffic: closed forms (gates.md section 7).

Rates are failure probabilities per unit, shares the candidate's part of the units, results numbers of units of both arms together.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from cohort.stats.certificate import CERTIFICATE_WEIGHTS
from cohort.stats.certificate import stable_share as worst_stable_share
from cohort.stats.mixture import log_threshold

MIXTURE_PRICE = 1.2  # evidence needed beyond ln(1/alpha), as a factor: the price of not knowing the size of the regression (section 7)
RATE_MAX = 1.0 - 1e-9
BISECTIONS = 60


def kl_bernoulli(p: float, q: float) -> float:
    """KL(p, q) in nats between failure probabilities, 0 < q < 1."""
    first = p * math.log(p / q) if p > 0.0 else 0.0
    second = (1.0 - p) * math.log((1.0 - p) / (1.0 - q)) if p < 1.0 else 0.0
    return first + second


def information(base_rate: float, ratio: float, share: float) -> float:
    """I = w KL(p1, pbar) + (1 - w) KL(p0, pbar): nats per unit by which the arms can be told apart, the bound of any test."""
    stable, candidate = base_rate, min(RATE_MAX, base_rate * ratio)
    mean = share * candidate + (1.0 - share) * stable
    return share * kl_bernoulli(candidate, mean) + (1.0 - share) * kl_bernoulli(stable, mean)


def expected_units_to_detect(base_rate: float, ratio: float, share: float, alpha: float) -> float:
    """Expected units until a candidate that fails `ratio` times as often is rolled back: 1.2 ln(1/alpha)/I.

    Infinite where nothing can be detected: a ratio of at most one, no failures, or only one arm.
    """
    _check(base_rate, share)
    target = MIXTURE_PRICE * log_threshold(alpha)
    if ratio <= 1.0 or base_rate == 0.0 or not 0.0 < share < 1.0:
        return math.inf
    return target / information(base_rate, ratio, share)


def expected_units_to_certificate(base_rate: float, ratio: float, share: float, beta: float) -> float:
    """Expected units until a candidate as good as stable is certified not to fail `ratio` times as often (section 6.6).

    Each failure brings KL(1 - w, W) nats; the mixture's price is that of its middle bet. Infinite without failures or with only one arm.
    """
    _check(base_rate, share)
    target = log_threshold(beta) - math.log(CERTIFICATE_WEIGHTS[1])
    if ratio <= 1.0 or base_rate == 0.0 or not 0.0 < share < 1.0:
        return math.inf
    return target / (base_rate * kl_bernoulli(1.0 - share, worst_stable_share(share, ratio)))


def smallest_ratio_detected(base_rate: float, share: float, alpha: float, units: float, power: float = 0.8) -> float | None:
    """The smallest failure ratio that `units` units detect with probability `power`; None if even certain failure is not.

    Log evidence after n units is about normal with mean n I and variance n V of the log likelihood ratio.
    """
    _check(base_rate, share)
    if not 0.0 < power < 1.0:
        raise ValueError(f"power is {power!r}; it must be above 0 and below 1")
    target, quantile = MIXTURE_PRICE * log_threshold(alpha), NormalDist().inv_cdf(power)
    if base_rate == 0.0 or units <= 0 or not 0.0 < share < 1.0:
        return None
    low, high = 1.0, RATE_MAX / base_rate
    if not _detects(base_rate, high, share, units, target, quantile):
        return None
    for _ in range(BISECTIONS):
        middle = math.sqrt(low * high)
        if _detects(base_rate, middle, share, units, target, quantile):
            high = middle
        else:
            low = middle
    return high


def _detects(base_rate: float, ratio: float, share: float, units: float, target: float, quantile: float) -> bool:
    drift = information(base_rate, ratio, share)
    spread = _log_ratio_variance(base_rate, ratio, share)
    return units * drift - quantile * math.sqrt(units * spread) >= target


def _log_ratio_variance(base_rate: float, ratio: float, share: float) -> float:
    """Variance per unit of the log likelihood ratio under harm."""
    stable, candidate = base_rate, min(RATE_MAX, base_rate * ratio)
    mean = share * candidate + (1.0 - share) * stable
    square = 0.0
    for part, rate in ((share, candidate), (1.0 - share, stable)):
        square += part * (rate * math.log(rate / mean) ** 2 + (1.0 - rate) * math.log((1.0 - rate) / (1.0 - mean)) ** 2)
    return square - information(base_rate, ratio, share) ** 2


def _check(base_rate: float, share: float) -> None:
    if not 0.0 <= base_rate < 1.0:
        raise ValueError(f"base_rate is {base_rate!r}; it must be at least 0 and below 1")
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share is {share!r}; it must be from 0 to 1")
