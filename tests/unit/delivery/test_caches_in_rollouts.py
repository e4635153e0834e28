"""Caches in a rollout: the older release has the fuller one, and neither the split nor the comparison may take that for a difference."""

from __future__ import annotations

import random

import pytest

from cohort.delivery.evidence import Evidence
from cohort.delivery.forecast import forecast
from cohort.delivery.intake import Live
from cohort.delivery.model import CacheUse, Gate, GateKind, Metric, Plan, Stage
from cohort.delivery.plans import PRESETS, parse_plan, plan_from_json, plan_to_json
from cohort.delivery.routing import build_table
from cohort.gateway.contract import Arm, ReleaseRoute, Route
from support_calls import assigned, rollout_of

FAILURES = Gate("failures", GateKind.COMPARISON, Metric.FAILURES)
STEPS = Plan("p", (Stage("shadow", 0, 50), Stage("5", 5, gates=(FAILURES,)), Stage("100", 100)))
ROUTE = (Route("main", "openai", "http://127.0.0.1:9/v1", "m"),)
ROUTES = {digest: ReleaseRoute(digest, digest, ROUTE) for digest in ("rel_a", "rel_b")}


def test_a_sound_split_is_not_broken_by_what_caches_answer():
    """Each call a unit of its own, three in five of stable's answered from its cache, none of the candidate's."""
    plan = Plan("p", (Stage("5", 5, gates=(FAILURES,)),), caches=CacheUse.SERVE)
    live, drawn, units = Live(rollout_of(plan), Evidence(plan), None), random.Random(7), dict[str, object]()
    for number in range(1, 4001):
        one = assigned(number, number, 0.05)
        hit = one.arm is Arm.STABLE and drawn.random() < 0.6
        row = live.receive(assigned(number, number, 0.05, cache="l1" if hit else ""))
        assert row is not None
        assert row["cached"] is False, "it comes back from the database as evidence"
    live.take(live.ready(), units)
    assert live.evidence.taken == 4000
    assert live.evidence.split_problem is None


@pytest.mark.parametrize(("use", "shares"), [("serve", (0.0, 1.0)), ("bypass", (0.0, 0.5, 1.0))])
def test_what_a_cache_answered_is_in_no_evidence_where_caches_are_no_part_of_the_comparison(use, shares):
    """Of a split that still lets caches answer, under a table from before the rollout's, as well."""
    plan = Plan("p", STEPS.stages, caches=CacheUse(use))
    live = Live(rollout_of(plan), Evidence(plan), None)
    for number, share in enumerate(shares, 1):
        row = live.receive(assigned(number, 1, share, cache="l1"))
        assert row is not None
        assert row["cached"] is True
    assert live.ready() == []


@pytest.mark.parametrize(("stage", "use", "bypass"), [(0, "bypass", False), (1, "bypass", True), (2, "bypass", False), (1, "serve", False)])
def test_caches_are_passed_over_while_units_are_split_unless_the_plan_says_otherwise(stage, use, bypass):
    plan = Plan("p", STEPS.stages, caches=CacheUse(use))
    table = build_table(1, 1, {"support": "rel_a"}, [rollout_of(plan, stage=stage)], ROUTES)
    split = table.services["support"].split
    assert split is not None
    assert split.bypass_caches is bypass


def test_a_plan_says_whether_caches_answer_and_one_stored_before_it_could_bypasses_them():
    plan = parse_plan("name: mine\ncaches: serve\nstages:\n  - {traffic_pct: 5}\n  - {traffic_pct: 100}\n", "mine.yaml")
    assert plan.caches is CacheUse.SERVE
    assert plan_from_json(plan_to_json(plan)) == plan
    old = {name: value for name, value in plan_to_json(plan).items() if name != "caches"}
    assert plan_from_json(old).caches is CacheUse.BYPASS


@pytest.mark.parametrize(
    ("share", "use", "says"), [(0.6, "bypass", "2.5 times"), (1.0, "bypass", "all"), (0.6, "serve", "empty"), (0.0, "serve", "")]
)
def test_a_forecast_says_what_becomes_of_the_caches(share, use, says):
    plan = Plan("p", PRESETS["shadow-5-25-100"].stages, caches=CacheUse(use))
    seen = forecast("support", plan, 1.0, 50.0, 0.01, False, share)
    assert seen.warnings == ()
    assert (says in seen.notes[0]) if says else seen.notes == ()
