"""What a plan document may ask: a question that no evidence can answer would let a rollout pass, or wait for ever. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cohort.base.yaml_text import Path
from cohort.delivery.model import Gate, GateKind, Metric, Plan, Stage

Problem = tuple[Path, str, str]
"""The field, what is wrong with it, and the fix."""

_METRICS: dict[GateKind, tuple[Metric, ...]] = {
    GateKind.INVARIANT: (Metric.REGISTRY,),
    GateKind.SLO: (Metric.FAILURES, Metric.LATENCY, Metric.FIRST_BYTE),
    GateKind.COMPARISON: (Metric.FAILURES, Metric.LATENCY, Metric.FIRST_BYTE, Metric.COST, Metric.TOKENS, Metric.FEEDBACK),
    GateKind.PASSES: (Metric.FAILURES, Metric.LATENCY),
}


def meets_candidate(traffic_pct: float, shadow_pct: float) -> bool:
    """Whether any unit meets the candidate in such a stage."""
    return traffic_pct > 0 or shadow_pct > 0


def can_be_asked(gate: Gate, traffic_pct: float, shadow_pct: float) -> bool:
    """Whether a stage has what the gate looks at: a candidate, and for a comparison stable beside it."""
    if gate.kind is GateKind.INVARIANT:
        return True
    return meets_candidate(traffic_pct, shadow_pct) and (gate.kind is not GateKind.COMPARISON or traffic_pct < 100)


def gate_problems(gates: Sequence[Gate], path: Path) -> Iterator[Problem]:
    """Wrong in any stage; `path` is where the list stands."""
    for index, gate in enumerate(gates):
        yield from _gate_problems(gate, (*path, index))
        if gate.name in {other.name for other in gates[:index]}:
            yield (*path, index, "name"), f"a second gate is called {gate.name!r}", "Give each gate a name of its own."
        if gate.kind is GateKind.PASSES and any(other.kind is GateKind.PASSES for other in gates[:index]):
            yield (*path, index, "kind"), "a second pass count", "Write one gate of kind passes, with both limits."


def _gate_problems(gate: Gate, path: Path) -> Iterator[Problem]:
    known = _METRICS[gate.kind]
    if gate.metric not in known:
        fix = f"Use one of: {', '.join(known)}."
        yield (*path, "metric"), f"a gate of kind {gate.kind.value} cannot look at {gate.metric.value}", fix
    elif gate.kind is GateKind.SLO:
        yield from _limit_problems(gate, path)
    elif gate.kind is GateKind.PASSES:
        yield from _count_problems(gate, path)


def _limit_problems(gate: Gate, path: Path) -> Iterator[Problem]:
    if gate.metric is Metric.FAILURES and gate.limit_ms is not None:
        yield (*path, "limit_ms"), "failures have no milliseconds", "Write `limit`, a rate such as 1%."
    elif gate.metric is not Metric.FAILURES and gate.limit is not None:
        yield (
            (*path, "limit"),
            "a rate limits failures, not times",
            "Write `limit_ms`, and in `share_over` the share of units allowed above it.",
        )
    elif gate.metric is Metric.FIRST_BYTE and gate.limit_ms is None:
        yield (*path, "limit_ms"), "there is no frozen baseline of the first byte", "Write `limit_ms`."


def _count_problems(gate: Gate, path: Path) -> Iterator[Problem]:
    if gate.passes < 1:
        yield (*path, "passes"), "no report would have to pass", "Write how many reports must pass in a row, 1 or more."
    if gate.limit is None and gate.limit_ms is None:
        yield (*path, "limit"), "a report without a limit always passes", "Write `limit`, `limit_ms` or both."


def stage_problems(stage: Stage, path: Path) -> Iterator[Problem]:
    """Wrong in this stage: what its traffic cannot answer. `path` is where the stage stands."""
    for index, gate in enumerate(stage.gates):
        if not can_be_asked(gate, stage.traffic_pct, stage.shadow_pct):
            if stage.traffic_pct == 100:
                why, fix = (
                    "at 100 % no stable release is left to compare with",
                    "Use a gate of kind slo; without a limit it takes the frozen baseline.",
                )
            else:
                why, fix = "no unit meets the candidate in this stage", "Remove the gate, or give the stage traffic_pct or shadow_pct."
            yield (*path, "gates", index, "kind"), why, fix
        if gate.kind is GateKind.PASSES and stage.floor_s <= 0:
            yield (*path, "floor"), "a pass count needs time to report on", "Write a floor; each report covers floor / passes of it."
    if stage.certificate is None:
        return
    if stage.certificate.ratio is None and stage.certificate.limit is None:
        yield (*path, "certificate"), "a certificate of nothing", "Write `ratio`, `limit` or both."
    elif not meets_candidate(stage.traffic_pct, stage.shadow_pct):
        yield (*path, "certificate"), "no unit meets the candidate in this stage", "Remove it, or give the stage traffic_pct or shadow_pct."


def plan_problems(plan: Plan) -> Iterator[Problem]:
    """Wrong from stage to stage."""
    known: dict[str, Gate] = {}
    for index, stage in enumerate(plan.stages):
        before = plan.stages[index - 1].traffic_pct if index else 0.0
        if stage.traffic_pct < before:
            what = f"{stage.traffic_pct:g} is below {before:g} of the stage before"
            yield (
                ("stages", index, "traffic_pct"),
                what,
                "Shares may only grow from stage to stage; to go back, use `cohort rollout rollback`.",
            )
        for place, gate in enumerate(stage.gates):
            if known.setdefault(gate.name, gate) != gate:
                what = f"{gate.name!r} asked something else in an earlier stage"
                yield (
                    ("stages", index, "gates", place, "name"),
                    what,
                    "Give each question a name of its own; its evidence is kept under it.",
                )
    if plan.stages[-1].traffic_pct != 100:
        last = len(plan.stages) - 1
        what = f"the last stage is at {plan.stages[-1].traffic_pct:g} %"
        yield ("stages", last, "traffic_pct"), what, "End the plan with a stage at 100."
