"""The promise over whole rollouts, by simulation with fixed seeds: harmless candidates stay, harmful ones go."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from cohort.delivery.evidence import Evidence, Unit
from cohort.delivery.model import Plan
from cohort.delivery.plans import PRESETS
from cohort.gateway.contract import Arm, Call, Result
from support_calls import arm_at, call, name

ALPHA = 0.1
ROLLOUTS = 100
UNITS = 120
CALLS = 6


def plan_at(*shares: float) -> Plan:
    """The comparing stages of a preset, with its gates and weights, at shares that see enough units in a quick test."""
    preset = PRESETS["shadow-5-25-100"]
    stages = tuple(replace(stage, traffic_pct=share, shadow_pct=0.0) for stage, share in zip(preset.stages[1:3], shares, strict=True))
    return replace(preset, stages=(*stages, preset.stages[3]), alpha=ALPHA)


def simulate(seed: int, *, worse: float = 0.0, slower: float = 1.0, shares: tuple[float, float] = (25.0, 60.0)) -> Evidence:
    """Units of six calls each, of which a few do all the failing; rates and latency drift; an incident hits both arms in the ramp."""
    chance, evidence, units = random.Random(seed), Evidence(plan_at(*shares)), dict[str, Unit]()
    first = seed * UNITS  # other units, and so other buckets, in each rollout
    proneness = [chance.choice((0.0, 0.0, 0.0, 0.0, 8.0)) for _ in range(UNITS)]
    at_us, total = 1, UNITS * CALLS
    for index in range(total):
        part = index / total
        run, share = (1, shares[0] / 100) if part < 0.55 else (2, shares[1] / 100)
        number = min(int(abs(chance.gauss(part, 0.25)) * UNITS), UNITS - 1)
        unit = name(first + number)
        arm, at_us = arm_at(unit, share), at_us + 1000
        rate = (0.25 if 0.5 < part < 0.62 else 0.03 + 0.02 * math.sin(9 * part)) * proneness[number]
        harmed = arm is Arm.CANDIDATE
        result = Result.UPSTREAM_ERROR if chance.random() < min(rate + (worse if harmed else 0.0), 0.95) else Result.OK
        latency_us = chance.lognormvariate(12 + part + (1.0 if 0.5 < part < 0.62 else 0.0), 0.6) * (slower if harmed else 1.0)
        one: Call = call(at_us, unit, arm, run=run, share=share, result=result, total_us=int(latency_us))
        evidence.take([one], units)
        if evidence.alarm is not None:
            break
    return evidence


def test_a_harmless_candidate_is_rolled_back_at_most_as_often_as_promised():
    ended = [simulate(seed) for seed in range(ROLLOUTS)]
    alarms = sum(evidence.alarm is not None for evidence in ended)
    assert alarms <= ROLLOUTS * ALPHA + 3 * math.sqrt(ROLLOUTS * ALPHA * (1 - ALPHA)), alarms
    assert not any(evidence.split_broken for evidence in ended)


@pytest.mark.parametrize(("harm", "gate"), [({"worse": 0.25}, "failures"), ({"slower": 2.5}, "latency")])
def test_a_harmful_candidate_is_rolled_back_for_what_it_does(harm, gate):
    ended = [simulate(ROLLOUTS + seed, **harm) for seed in range(12)]
    named = [evidence.alarm.gate for evidence in ended if evidence.alarm is not None]
    assert len(named) >= 11, named
    assert named.count(gate) >= 10, named


def test_a_split_that_is_off_by_half_is_noticed_before_it_is_judged():
    """Every third candidate unit is sent to stable: the audit sees it, whatever the outcomes."""
    evidence, units = Evidence(plan_at(50.0, 60.0)), dict[str, Unit]()
    for number in range(600):
        arm = arm_at(name(number), 0.5)
        wrong = arm is Arm.CANDIDATE and number % 3 == 0
        evidence.take([call(1 + number, name(number), Arm.STABLE if wrong else arm, share=0.5)], units)
    assert evidence.split_broken
