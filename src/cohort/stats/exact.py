"""Exact crossing probabilities of a label mixture by dynamic programming (gates.md section 6.10): no simulation, no approximation.

With a constant share, the evidence after n labels depends only on how many of them were the betted arm's; so the law of the first
crossing is a walk over (n, k) that can be summed exactly. Used as the oracle for tests and for the battery of section 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from cohort.stats.mixture import label_steps, log_mixture

LABELS_MAX = 200_000  # longest horizon computed; the work grows with its square


@dataclass(frozen=True, slots=True)
class Crossing:
    """`probability` that the mixture reaches the threshold within the horizon; `mean_labels` seen until then or until the horizon."""

    probability: float
    mean_labels: float


def mixture_log_e(ratios: Sequence[float], weights: Sequence[float], null_share: float, labels: int, betted: int) -> float:
    """ln E after `labels` labels of which `betted` were the betted arm's, in closed form."""
    won, lost = label_steps(null_share, ratios)
    return log_mixture(weights, [betted * up + (labels - betted) * down for up, down in zip(won, lost, strict=True)])


def crossing(
    ratios: Sequence[float],
    weights: Sequence[float],
    null_share: float,
    true_share: float,
    threshold: float,
    labels: int,
    tail: float = 0.0,
) -> Crossing:
    """The first crossing of `threshold` (a log e-value) when each label is the betted arm's with probability `true_share`.

    `null_share` is the probability the mixture bets against. Stops early once at most `tail` probability has not crossed.
    """
    if not 0 < labels <= LABELS_MAX:
        raise ValueError(f"labels is {labels}; it must be from 1 to {LABELS_MAX}")
    won, lost = label_steps(null_share, ratios)
    alive, offset, crossed, mean = [1.0], 0, 0.0, 0.0  # alive[i]: probability of i + offset betted labels and no crossing so far
    limit = 0  # fewest betted labels that cross after n labels; never falls as n grows
    for n in range(1, labels + 1):
        mean += _total(alive)
        alive = _next(alive, true_share)
        while (
            limit <= n and log_mixture(weights, [limit * up + (n - limit) * down for up, down in zip(won, lost, strict=True)]) < threshold
        ):
            limit += 1
        while alive and offset + len(alive) - 1 >= limit:
            crossed += alive.pop()
        if not alive or _total(alive) <= tail:
            break
    return Crossing(crossed, mean)


def _next(alive: list[float], share: float) -> list[float]:
    """One more label."""
    stay = 1.0 - share
    inner = [low * share + high * stay for low, high in pairwise(alive)]
    return [alive[0] * stay, *inner, alive[-1] * share]


def _total(parts: list[float]) -> float:
    total = 0.0
    for part in parts:
        total += part
    return total
