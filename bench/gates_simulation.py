"""Simulation for the battery of gates (numpy): oracles, batch replay of the processes, and worlds that drift and ramp."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from cohort.stats.binary import CANDIDATE_RATE_MAX, HIGH_BASE_RATIOS, HIGH_BASE_WEIGHTS, PRIOR_UNITS
from cohort.stats.failures import RATIOS, WEIGHTS
from cohort.stats.ordered import CONTAMINATIONS, LEHMANN_THETAS, SHAPE_WEIGHTS, SHIFT_ETAS
from cohort.stats.sketch import VALUE_MIN, Sketch

Floats = NDArray[np.float64]
CELLS_AT_ONCE = 2_000_000  # limit of runs x units held in memory
HISTORY_UNITS = 5_000  # stable outcomes that warm the ranks of 6.4
MEDIAN_MS, SIGMA = 1000.0, 0.6
TIMEOUT_MS = 300_000.0


def crossings(draw: Callable[[int, int], Floats], threshold: float, runs: int) -> tuple[Floats, Floats]:
    """(units until the sum of steps reaches `threshold`, the sum then), one per run. `draw(runs, units)` gives steps."""
    level, units = np.zeros(runs), np.zeros(runs)
    alive = np.arange(runs)
    while alive.size:
        chunk = max(16, min(4096, CELLS_AT_ONCE // alive.size))
        path = level[alive, None] + np.cumsum(draw(alive.size, chunk), axis=1)
        hit = path >= threshold
        done, first = hit.any(axis=1), hit.argmax(axis=1)
        units[alive] += np.where(done, first + 1, chunk)
        level[alive] = np.where(done, path[np.arange(alive.size), first], path[:, -1])
        alive = alive[~done]
    return units, level


def oracle_failures(stable: float, candidate: float, share: float, threshold: float, runs: int, rng: np.random.Generator) -> float:
    """Mean candidate units until the test that knows both rates, and sees every outcome, stops.

    By Wald's identity the mean time is the mean evidence at stopping divided by the information per unit; the former varies far less.
    """
    mean = share * candidate + (1 - share) * stable
    rates = np.array([share * candidate, share * (1 - candidate), (1 - share) * stable, (1 - share) * (1 - stable)])
    steps = np.log([candidate / mean, (1 - candidate) / (1 - mean), stable / mean, (1 - stable) / (1 - mean)])
    edges = np.cumsum(rates)[:3]

    def draw(count: int, units: int) -> Floats:
        return steps[np.searchsorted(edges, rng.random((count, units)))]

    _, evidence = crossings(draw, threshold, runs)
    return float(evidence.mean() / (rates @ steps) * share)


def binary_units(
    stable: float, candidate: float, share: float, prior: float, threshold: float, runs: int, rng: np.random.Generator
) -> float:
    """Mean candidate units until `LabelBinary` (6.3) with this prior rate crosses, replayed in batches."""
    failures, seen, total = np.zeros(runs), 0, np.zeros(runs)
    logs = np.zeros((runs, len(HIGH_BASE_RATIOS)))
    alive = np.arange(runs)
    while alive.size:
        chunk = max(16, min(2048, CELLS_AT_ONCE // 8 // alive.size))
        arm = rng.random((alive.size, chunk)) < share
        failed = rng.random((alive.size, chunk)) < np.where(arm, candidate, stable)
        past = failures[alive, None] + np.cumsum(failed, axis=1) - failed
        pooled = (past + PRIOR_UNITS * prior) / (seen + np.arange(chunk) + PRIOR_UNITS)
        paths = logs[alive, :, None] + np.cumsum(_binary_steps(arm, failed, pooled, share), axis=2)
        hit = _mixture(paths, HIGH_BASE_WEIGHTS) >= threshold
        done, first = hit.any(axis=1), hit.argmax(axis=1)
        total[alive] += np.where(done, first + 1, chunk)
        logs[alive], failures[alive] = paths[:, :, -1], failures[alive] + failed.sum(axis=1)
        seen += chunk
        alive = alive[~done]
    return float(total.mean() * share)


def binary_log_e(arm: NDArray[np.bool_], failed: NDArray[np.bool_], share: Floats, prior: float) -> Floats:
    """The evidence of `LabelBinary` (6.3) after each unit; rows are runs, `share` belongs to the columns."""
    past = np.cumsum(failed, axis=1) - failed
    pooled = (past + PRIOR_UNITS * prior) / (np.arange(arm.shape[1]) + PRIOR_UNITS)
    return _mixture(np.cumsum(_binary_steps(arm, failed, pooled, share), axis=2), HIGH_BASE_WEIGHTS)


def _binary_steps(arm: NDArray[np.bool_], failed: NDArray[np.bool_], pooled: Floats, share: float | Floats) -> Floats:
    steps = np.empty((arm.shape[0], len(HIGH_BASE_RATIOS), arm.shape[1]))
    for place, ratio in enumerate(HIGH_BASE_RATIOS):
        stable = pooled / (1 + share * (ratio - 1))
        candidate = np.maximum(stable, np.minimum(CANDIDATE_RATE_MAX, ratio * stable))
        mean = share * candidate + (1 - share) * stable
        rate = np.where(arm, candidate, stable)
        steps[:, place, :] = np.log(np.where(failed, rate / mean, (1 - rate) / (1 - mean)))
    return steps


def _mixture(paths: Floats, weights: tuple[float, ...]) -> Floats:
    """ln of the weighted mean over axis -2."""
    top = paths.max(axis=-2)
    return np.asarray(top + np.log(np.einsum("k,...kt->...t", np.array(weights), np.exp(paths - top[..., None, :]))))


def failures_log_e(labels: NDArray[np.bool_], shares: Floats) -> Floats:
    """The evidence of `LabelFailures` (6.2, margin 1) after each of one run's failures."""
    ratios = np.array(RATIOS)[:, None]
    return _mixture(np.cumsum(labels * np.log(ratios) - np.log1p(shares * (ratios - 1)), axis=1), WEIGHTS)


class OrderedReplay:
    """One run of `LabelOrdered` (6.4) in batches: the same ranks and shapes, up to rounding."""

    BATCH = 256

    def __init__(self, history: Floats) -> None:
        self._inverse = 1.0 / (math.log1p(0.01) - math.log1p(-0.01))
        self._counts = np.bincount(self._bins(history), minlength=2800)
        self._logs = np.zeros(len(SHAPE_WEIGHTS))

    def _bins(self, values: Floats) -> NDArray[np.int64]:
        return 1 + (np.log(values / VALUE_MIN) * self._inverse).astype(np.int64)

    def feed(self, arm: NDArray[np.bool_], share: Floats, values: Floats) -> Floats:
        """The evidence after each of these units."""
        rhos = _shapes(self._ranks(self._bins(values)))
        steps = np.log(np.where(arm, rhos, 1.0) / (1 - share + share * rhos))
        paths = self._logs[:, None] + np.cumsum(steps, axis=1)
        self._logs = paths[:, -1]
        return _mixture(paths, SHAPE_WEIGHTS)

    def _ranks(self, bins: NDArray[np.int64]) -> Floats:
        ranks = np.empty(bins.size)
        for start in range(0, bins.size, self.BATCH):
            batch = bins[start : start + self.BATCH]
            earlier = np.tri(batch.size, k=-1, dtype=bool)
            below = (np.cumsum(self._counts) - self._counts)[batch] + ((batch[None, :] < batch[:, None]) & earlier).sum(axis=1)
            same = self._counts[batch] + ((batch[None, :] == batch[:, None]) & earlier).sum(axis=1)
            count = self._counts.sum() + np.arange(batch.size)
            ranks[start : start + self.BATCH] = (2 * below + same + 1) / (2 * count + 2)
            self._counts += np.bincount(batch, minlength=self._counts.size)
        return ranks


def _shapes(ranks: Floats) -> Floats:
    z = ndtri(ranks)
    rows = [np.exp(eta * z - eta**2 / 2) for eta in SHIFT_ETAS]
    rows += [1 - eps + eps * np.exp(eta * z - eta**2 / 2) for eta, eps in CONTAMINATIONS]
    rows += [theta * (1 - ranks) ** (theta - 1) for theta in LEHMANN_THETAS]
    return np.stack(rows)


@dataclass(frozen=True, slots=True)
class Slowdown:
    """A tenth (`part`) of calls takes exp(SIGMA * `shift`) times as long; `timed_out` of them hit the time limit instead."""

    name: str
    part: float = 1.0
    shift: float = 0.0
    timed_out: float = 0.0
    reference: tuple[float, float] = (0.0, 0.0)  # (oracle, portfolio) of gates.md section 8

    def draw(self, arm: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
        """Outcomes as standard scores; infinite where the call timed out."""
        hurt = rng.random(arm.shape)
        scores = rng.standard_normal(arm.shape) + np.where(arm & (hurt < self.part), self.shift, 0.0)
        return np.where(arm & (hurt < self.timed_out), np.inf, scores)

    def log_steps(self, arm: NDArray[np.bool_], scores: Floats, share: float) -> Floats:
        """The log likelihood ratios of the test that knows both laws."""
        finite = np.where(np.isfinite(scores), scores, 0.0)
        rho = (1 - self.part) + self.part * np.exp(self.shift * finite - self.shift**2 / 2) - self.timed_out
        steps = np.where(arm, np.log(rho), 0.0) - np.log(1 - share + share * rho)
        return np.where(np.isfinite(scores), steps, -math.log(share))


def values_ms(scores: Floats) -> Floats:
    return np.where(np.isfinite(scores), MEDIAN_MS * np.exp(SIGMA * np.where(np.isfinite(scores), scores, 0.0)), TIMEOUT_MS)


def _p95_shift(growth: float) -> float:
    """The shift of a tenth of the calls that makes p95 grow by `growth`."""
    normal = NormalDist()
    quantile = normal.inv_cdf(0.95) + math.log(1 + growth) / SIGMA
    return quantile - normal.inv_cdf((0.95 - 0.9 * normal.cdf(quantile)) / 0.1)


SLOWDOWNS = (
    Slowdown("all calls +10 %", shift=math.log(1.1) / SIGMA, reference=(395, 502)),
    Slowdown("all calls +50 %", shift=math.log(1.5) / SIGMA, reference=(22.5, 29.8)),
    Slowdown("all calls +100 %", shift=math.log(2.0) / SIGMA, reference=(8.2, 11.5)),
    Slowdown("a tenth slowed, p95 +10 %", part=0.1, shift=_p95_shift(0.1), reference=(938, 1329)),
    Slowdown("a tenth slowed, p95 +50 %", part=0.1, shift=_p95_shift(0.5), reference=(91, 111)),
    Slowdown("a tenth slowed, p95 +100 %", part=0.1, shift=_p95_shift(1.0), reference=(46, 59)),
    Slowdown("20 % take twice as long", part=0.2, shift=math.log(2.0) / SIGMA, reference=(134, 163)),
    Slowdown("5 % take four times as long", part=0.05, shift=math.log(4.0) / SIGMA, reference=(186, 235)),
    Slowdown("3 % hit the time limit", timed_out=0.03, reference=(69, 131)),
)


def oracle_slowdown(slowdown: Slowdown, share: float, threshold: float, runs: int, rng: np.random.Generator) -> float:
    """Mean candidate units until the test that knows both laws stops."""

    def draw(count: int, units: int) -> Floats:
        arm = rng.random((count, units)) < share
        return slowdown.log_steps(arm, slowdown.draw(arm, rng), share)

    units, _ = crossings(draw, threshold, runs)
    return float(units.mean() * share)


def ordered_units(slowdown: Slowdown, share: float, threshold: float, runs: int, rng: np.random.Generator) -> float:
    """Mean candidate units until `LabelOrdered` (6.4), warmed with HISTORY_UNITS, crosses."""
    total = 0
    for _ in range(runs):
        replay = OrderedReplay(values_ms(rng.standard_normal(HISTORY_UNITS)))
        while True:
            arm = rng.random(2048) < share
            hit = replay.feed(arm, np.full(arm.size, share), values_ms(slowdown.draw(arm, rng))) >= threshold
            if hit.any():
                total += int(hit.argmax()) + 1
                break
            total += arm.size
    return total / runs * share


def history_sketch(values: Floats) -> Sketch:
    sketch = Sketch()
    for value in values.tolist():
        sketch.add(value)
    return sketch


@dataclass(frozen=True, slots=True)
class World:
    """What happens minute by minute: the candidate's share and both arms' failure rates. Traffic: UNITS_PER_MINUTE."""

    name: str
    share: Floats
    stable: Floats
    candidate: Floats


UNITS_PER_MINUTE = 300
DAY = 1440


def worlds() -> tuple[World, ...]:
    """Three of a healthy release, two of a harmful one; rates of failure per unit."""
    ladder = np.repeat([0.05, 0.25, 0.5], DAY)
    steady = np.full(DAY, 0.01)
    minute = np.arange(3 * DAY)
    drifting = 0.01 * (1 + 0.5 * np.sin(2 * math.pi * minute / DAY)) * (1 + minute / (3 * DAY))
    incident = np.where((minute >= DAY - 30) & (minute < DAY + 360), 0.05, 0.01)
    at_5 = np.full(DAY, 0.05)
    return (
        World("healthy, steady, 5 % for a day", at_5, steady, steady),
        World("healthy, drift and ramp 5-25-50 %, three days", ladder, drifting, drifting),
        World("healthy, incident 1 -> 5 % in both arms during the ramp", ladder, incident, incident),
        World("harmful, 1 -> 2 %, 5 % for a day", at_5, steady, 2 * steady),
        World("harmful, 1 -> 5 %, 5 % for a day", at_5, steady, 5 * steady),
    )


@dataclass(frozen=True, slots=True)
class Run:
    """One simulated rollout: counts per minute, and the arm of each failure in order."""

    world: World
    units_candidate: NDArray[np.int64]
    units_stable: NDArray[np.int64]
    failed_candidate: NDArray[np.int64]
    failed_stable: NDArray[np.int64]
    labels: NDArray[np.bool_]
    label_minute: NDArray[np.int64]


def simulate(world: World, rng: np.random.Generator) -> Run:
    units_candidate = rng.binomial(UNITS_PER_MINUTE, world.share)
    failed_candidate = rng.binomial(units_candidate, world.candidate)
    failed_stable = rng.binomial(UNITS_PER_MINUTE - units_candidate, world.stable)
    minutes = np.concatenate(
        [np.repeat(np.arange(world.share.size), failed_candidate), np.repeat(np.arange(world.share.size), failed_stable)]
    )
    labels = np.arange(minutes.size) < failed_candidate.sum()
    order = np.lexsort((rng.random(minutes.size), minutes))
    return Run(
        world,
        units_candidate,
        UNITS_PER_MINUTE - units_candidate,
        failed_candidate,
        failed_stable,
        labels[order],
        minutes[order],
    )
