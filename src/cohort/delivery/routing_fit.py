"""Weights of difficulty from outcomes: what to write into the next release. Nothing here changes what is served."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cohort.delivery.routing_rules import Sample
from cohort.gateway.adaptive.features import decode
from cohort.gateway.contract_routing import FEATURES, WEIGHTS

FIT_SAMPLES_MIN = 500
FIT_FAILURES_MIN = 50
FIT_SAMPLES_MAX = 5_000
ROUNDS = 400
STEP = 0.8
"""Below 2 over the largest curvature, 9 features of at most 1 each times 1/4: descent never overshoots."""
RIDGE = 0.002
"""Pull towards the present weights: with little evidence little changes."""
HOLDOUT = 4
"""Every fourth conversation is kept back to judge the fit by."""


@dataclass(frozen=True, slots=True)
class Fit:
    """`weights`: for `routing.weights`. `loss` and `loss_before`: mean log loss on conversations that were kept back; lower is better.

    `better` is False when the fit does not beat the weights in force there: then leave them.
    """

    weights: dict[str, float]
    conversations: int
    failures: int
    loss: float
    loss_before: float
    better: bool


def fit(samples: Sequence[Sample], weights: dict[str, float]) -> Fit | None:
    """Logistic regression of "the weak model failed" on the features, no weight below 0, by projected gradient; None with too few.

    `weights`: those in force, by which it is judged and towards which it is pulled. Only conversations that the weak model answered teach.
    """
    taught = [sample for sample in samples if not sample.strong][-FIT_SAMPLES_MAX:]
    failures = sum(sample.failed for sample in taught)
    if len(taught) < FIT_SAMPLES_MIN or failures < FIT_FAILURES_MIN or failures == len(taught):
        return None
    rows = [((1.0, *decode(sample.features)), float(sample.failed)) for sample in taught]
    learn = [row for place, row in enumerate(rows) if place % HOLDOUT]
    judge = [row for place, row in enumerate(rows) if place % HOLDOUT == 0]
    merged = {**WEIGHTS, **weights}
    before = [merged["bias"], *(merged[name] for name in FEATURES)]
    found = _descend(learn, before)
    loss, loss_before = _loss(judge, found), _loss(judge, before)
    named = {name: round(value, 3) for name, value in zip(("bias", *FEATURES), found, strict=True)}
    return Fit(named, len(taught), failures, loss, loss_before, loss < loss_before)


def _descend(rows: Sequence[tuple[tuple[float, ...], float]], start: Sequence[float]) -> list[float]:
    """Equal rows are folded into one with a count: features have 16 levels, so there are few."""
    folded: dict[tuple[float, ...], list[float]] = {}
    for features, label in rows:
        held = folded.setdefault(features, [0.0, 0.0])
        held[0] += 1
        held[1] += label
    weights = list(start)
    for _ in range(ROUNDS):
        slope = [RIDGE * (now - then) for now, then in zip(weights, start, strict=True)]
        for features, (count, failed) in folded.items():
            error = (count * _chance(features, weights) - failed) / len(rows)
            for place, value in enumerate(features):
                slope[place] += error * value
        weights = [now - STEP * down for now, down in zip(weights, slope, strict=True)]
        weights[1:] = [max(weight, 0.0) for weight in weights[1:]]
    return weights


def _loss(rows: Sequence[tuple[tuple[float, ...], float]], weights: Sequence[float]) -> float:
    total = 0.0
    for features, label in rows:
        chance = min(max(_chance(features, weights), 1e-9), 1 - 1e-9)
        total -= math.log(chance if label else 1 - chance)
    return total / len(rows)


def _chance(features: Sequence[float], weights: Sequence[float]) -> float:
    total = sum(weight * value for weight, value in zip(weights, features, strict=True))
    return 1.0 / (1.0 + math.exp(-min(max(total, -30.0), 30.0)))
