"""A share seen in a sample: how sure one may be that it lies below a bound, and the interval that covers it."""

from __future__ import annotations

import math

ITERATIONS_MAX = 500
BISECTIONS = 60
PRECISION = 1e-12


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function: P(Beta(a, b) <= x). By its continued fraction (Numerical Recipes, 6.4; Lentz's method)."""
    if a <= 0 or b <= 0:
        raise ValueError(f"a and b must be above 0, found {a} and {b}")
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def clopper_pearson(hits: int, trials: int, alpha: float = 0.05) -> tuple[float, float]:
    """The exact interval of a binomial share, at least 1 - alpha (Clopper and Pearson, 1934). Without trials: 0 to 1."""
    if not 0 <= hits <= trials:
        raise ValueError(f"hits must be from 0 to the number of trials, found {hits} of {trials}")
    low = 0.0 if hits == 0 else _quantile(alpha / 2, hits, trials - hits + 1)
    high = 1.0 if hits == trials else _quantile(1 - alpha / 2, hits + 1, trials - hits)
    return low, high


def difference(one: tuple[int, int], other: tuple[int, int], z: float) -> tuple[float, float]:
    """The interval of the share of `one`, as hits and trials, minus that of `other`: from Wilson's of each (Newcombe, 1998, method 10)."""
    (share, low, high), (share_2, low_2, high_2) = _wilson(*one, z), _wilson(*other, z)
    apart = share - share_2
    return apart - math.hypot(share - low, high_2 - share_2), apart + math.hypot(high - share, share_2 - low_2)


def _wilson(hits: int, trials: int, z: float) -> tuple[float, float, float]:
    """The share with its interval (Wilson, 1927)."""
    if not 0 <= hits <= trials or trials == 0:
        raise ValueError(f"hits must be from 0 to the number of trials, which is above 0; found {hits} of {trials}")
    share = hits / trials
    middle = share + z * z / (2 * trials)
    reach = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return share, (middle - reach) / scale, (middle + reach) / scale


def _quantile(share: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if beta_cdf(middle, a, b) < share else (low, middle)
    return (low + high) / 2


def _fraction(x: float, a: float, b: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    value = d
    for m in range(1, ITERATIONS_MAX):
        for step in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):
            d = 1 / (1 + step * d or tiny)
            c = 1 + step / c or tiny
            value *= c * d
        if abs(c * d - 1) < PRECISION:
            break
    return value
