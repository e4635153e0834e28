"""Plan documents: every wrong one is refused with its line, its field and the fix; every right one says what it will do."""

from __future__ import annotations

import json

import pytest

from cohort.base.errors import CohortError
from cohort.delivery.model import Certificate, GateKind, Metric
from cohort.delivery.plans import PRESETS, find_plan, parse_plan, plan_from_json, plan_to_json

HEAD = "name: mine\nstages:\n"
LAST = "  - {traffic_pct: 100}\n"


def refusal(text: str) -> CohortError:
    with pytest.raises(CohortError) as caught:
        parse_plan(text, "mine.yaml")
    return caught.value


WRONG = [
    ("shares that go down", HEAD + "  - {traffic_pct: 50}\n  - {traffic_pct: 25}\n" + LAST, 4, "stages[1].traffic_pct", "only grow"),
    ("no stage at 100", HEAD + "  - {traffic_pct: 50}\n", 3, "stages[0].traffic_pct", "stage at 100"),
    ("no stages", "name: mine\nstages: []\n", 2, "stages", ""),
    ("a share over 100", HEAD + "  - {traffic_pct: 101}\n", 3, "stages[0].traffic_pct", ""),
    ("a share below 0", HEAD + "  - {traffic_pct: -1}\n" + LAST, 3, "stages[0].traffic_pct", ""),
    ("a share that is a word", HEAD + "  - {traffic_pct: some}\n" + LAST, 3, "stages[0].traffic_pct", ""),
    ("a duration without a unit we know", HEAD + "  - {traffic_pct: 5, floor: 3 weeks}\n" + LAST, 3, "stages[0].floor", ""),
    ("a duration below 0", HEAD + "  - {traffic_pct: 5, floor: -3}\n" + LAST, 3, "stages[0].floor", ""),
    ("a duration of years", HEAD + "  - {traffic_pct: 5, floor: 900d}\n" + LAST, 3, "stages[0].floor", ""),
    ("an unknown field", HEAD + "  - {traffic_pct: 5, flor: 3h}\n" + LAST, 3, "stages[0].flor", "`floor`"),
    (
        "an unknown gate kind",
        HEAD + "  - {traffic_pct: 5, gates: [{kind: vibes, metric: failures}]}\n" + LAST,
        3,
        "stages[0].gates[0].kind",
        "",
    ),
    ("an unknown metric", HEAD + "  - {traffic_pct: 5, gates: [{kind: slo, metric: joy}]}\n" + LAST, 3, "stages[0].gates[0].metric", ""),
    (
        "a margin below 1",
        HEAD + "  - {traffic_pct: 5, gates: [{kind: comparison, metric: cost, margin: 0.9}]}\n" + LAST,
        3,
        "stages[0].gates[0].margin",
        "",
    ),
    ("a certificate of nothing", HEAD + "  - {traffic_pct: 5, certificate: {}}\n" + LAST, 3, "stages[0].certificate", "ratio"),
    ("a ratio too near 1", HEAD + "  - {traffic_pct: 5, certificate: {ratio: 1.1}}\n" + LAST, 3, "stages[0].certificate.ratio", ""),
    (
        "a certificate where no unit meets the candidate",
        HEAD + "  - {traffic_pct: 0, certificate: {ratio: 3}}\n" + LAST,
        3,
        "stages[0].certificate",
        "shadow_pct",
    ),
    ("an alpha of 1", "name: mine\nalpha: 1\nstages:\n" + LAST, 2, "alpha", ""),
    ("a name with spaces", "name: my plan\nstages:\n" + LAST, 1, "name", ""),
    ("an infinite floor", HEAD + "  - {traffic_pct: 5, floor: .inf}\n" + LAST, 3, "stages[0].floor", ""),
    ("a share that is no number", HEAD + "  - {traffic_pct: .nan}\n" + LAST, 3, "stages[0].traffic_pct", ""),
    (
        "an invariant on what is no count",
        HEAD + "  - {traffic_pct: 5, gates: [{kind: invariant, metric: failures}]}\n" + LAST,
        3,
        "stages[0].gates[0].metric",
        "registry",
    ),
    (
        "a comparison of the registry",
        HEAD + "  - {traffic_pct: 5, gates: [{kind: comparison, metric: registry}]}\n" + LAST,
        3,
        "stages[0].gates[0].metric",
        "",
    ),
    (
        "a limit on cost",
        HEAD + "  - {traffic_pct: 5, gates: [{kind: slo, metric: cost, limit_ms: 3}]}\n" + LAST,
        3,
        "stages[0].gates[0].metric",
        "",
    ),
    (
        "a first byte limit without milliseconds",
        HEAD + "  - {traffic_pct: 5, gates: [{kind: slo, metric: first_byte}]}\n" + LAST,
        3,
        "stages[0].gates[0].limit_ms",
        "",
    ),
    (
        "a failure limit in milliseconds",
        HEAD + "  - {traffic_pct: 5, gates: [{kind: slo, metric: failures, limit_ms: 3}]}\n" + LAST,
        3,
        "stages[0].gates[0].limit_ms",
        "",
    ),
    (
        "a latency limit as a rate",
        HEAD + "  - {traffic_pct: 5, gates: [{kind: slo, metric: latency, limit: 0.1}]}\n" + LAST,
        3,
        "stages[0].gates[0].limit",
        "share_over",
    ),
    (
        "a pass count of none",
        HEAD + "  - {traffic_pct: 5, floor: 9s, gates: [{kind: passes, metric: failures, limit: 0.1}]}\n" + LAST,
        3,
        "stages[0].gates[0].passes",
        "",
    ),
    (
        "reports without a limit",
        HEAD + "  - {traffic_pct: 5, floor: 9s, gates: [{kind: passes, metric: failures, passes: 3}]}\n" + LAST,
        3,
        "stages[0].gates[0].limit",
        "",
    ),
    (
        "reports without a floor to divide",
        HEAD + "  - {traffic_pct: 5, gates: [{kind: passes, metric: failures, passes: 3, limit: 0.1}]}\n" + LAST,
        3,
        "stages[0].floor",
        "floor",
    ),
    (
        "two pass counts in one stage",
        HEAD
        + "  - {traffic_pct: 5, floor: 9s, gates: [{kind: passes, metric: failures, passes: 3, limit: 0.1}, "
        + "{kind: passes, name: other, metric: latency, passes: 3, limit_ms: 9}]}\n"
        + LAST,
        3,
        "stages[0].gates[1].kind",
        "",
    ),
    (
        "two gates of one name in a stage",
        HEAD
        + "  - {traffic_pct: 5, gates: [{kind: slo, metric: latency, limit_ms: 9}, {kind: slo, metric: latency, limit_ms: 99}]}\n"
        + LAST,
        3,
        "stages[0].gates[1].name",
        "name",
    ),
    (
        "one name for two questions",
        HEAD
        + "  - {traffic_pct: 5, gates: [{kind: slo, metric: latency, limit_ms: 9}]}\n"
        + "  - {traffic_pct: 100, gates: [{kind: slo, metric: latency, limit_ms: 99}]}\n",
        4,
        "stages[1].gates[0].name",
        "name",
    ),
    (
        "a comparison where no stable arm is left",
        HEAD + "  - {traffic_pct: 100, gates: [{kind: comparison, metric: failures}]}\n",
        3,
        "stages[0].gates[0].kind",
        "slo",
    ),
]


@pytest.mark.parametrize(("text", "line", "field", "hint"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_plan_is_refused_with_its_line_field_and_fix(text, line, field, hint):
    error = refusal(text)
    assert error.code == "PLAN_INVALID"
    assert error.field == field
    assert error.message.startswith(f"mine.yaml:{line}: {field}"), error.message
    assert error.hint
    assert hint in error.hint


def test_the_smallest_plan_compares_below_100_and_watches_at_100():
    plan = parse_plan(HEAD + "  - {traffic_pct: 5, floor: 1.5h}\n" + LAST, "mine.yaml")
    first, last = plan.stages
    assert (first.name, first.floor_s, last.name, last.floor_s) == ("5 %", 5400.0, "100 %", 0.0)
    assert [gate.kind for gate in first.gates] == [GateKind.COMPARISON, GateKind.COMPARISON, GateKind.INVARIANT]
    assert [gate.kind for gate in last.gates] == [GateKind.SLO, GateKind.SLO, GateKind.INVARIANT]
    assert (plan.alpha, plan.beta) == (0.01, 0.05)


def test_gates_of_the_plan_are_asked_where_they_can_be_answered():
    gates = "gates:\n  - {kind: comparison, metric: cost, margin: 1.2}\n  - {kind: slo, metric: failures, limit: 2%}\n"
    plan = parse_plan(f"name: mine\n{gates}stages:\n  - {{traffic_pct: 0}}\n  - {{traffic_pct: 5}}\n{LAST}", "mine.yaml")
    warm, first, last = plan.stages
    assert [gate.kind for gate in warm.gates] == []
    assert [(gate.kind, gate.metric) for gate in first.gates] == [(GateKind.COMPARISON, Metric.COST), (GateKind.SLO, Metric.FAILURES)]
    assert first.gates[1].limit == 0.02
    assert [gate.name for gate in last.gates] == ["failures (frozen baseline)", "latency (frozen baseline)", "failures slo"]


def test_a_stage_without_candidate_units_asks_for_no_evidence_by_default():
    plan = parse_plan(HEAD + "  - {traffic_pct: 0, name: warm}\n" + LAST, "mine.yaml")
    assert [gate.kind for gate in plan.stages[0].gates] == [GateKind.INVARIANT]


def test_rates_and_durations_may_be_written_as_people_do():
    text = HEAD + "  - {traffic_pct: 5, floor: 90 s, certificate: {limit: 0.5 %}}\n" + LAST
    assert parse_plan(text, "p").stages[0].certificate == Certificate(None, 0.005)
    for written, seconds in (("250ms", 0.25), ("2m", 120), ("2min", 120), ("3h", 10800), ("7d", 604800), ("12", 12)):
        assert parse_plan(HEAD + f"  - {{traffic_pct: 5, floor: {written}}}\n" + LAST, "p").stages[0].floor_s == seconds


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_storage_and_keep_their_own_rules(name):
    plan = find_plan(name)
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan
    shares = [stage.traffic_pct for stage in plan.stages]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    for stage in plan.stages:
        assert len({gate.name for gate in stage.gates}) == len(stage.gates)
        assert not any(gate.kind is GateKind.COMPARISON for gate in stage.gates) or stage.traffic_pct < 100


def test_the_presets_are_those_that_are_promised():
    ladder = {name: [(stage.traffic_pct, stage.shadow_pct > 0, stage.floor_s) for stage in plan.stages] for name, plan in PRESETS.items()}
    day = 86_400
    assert ladder["shadow-5-25-100"] == [(0, True, day), (5, False, 2 * day), (25, False, 3 * day), (100, False, 7 * day)]
    assert ladder["ladder-10-25-50-75-100"] == [(pct, False, day) for pct in (10, 25, 50, 75, 100)]
    assert ladder["fast-10-50-100"] == [(10, False, 300), (50, False, 600), (100, False, 300)]
    assert [pct for pct, *_ in ladder["blue-green"]] == [0, 100]


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(CohortError) as caught:
        find_plan("fast")
    assert (caught.value.code, caught.value.field) == ("PLAN_UNKNOWN", "plan")
    assert all(name in caught.value.hint for name in PRESETS)
