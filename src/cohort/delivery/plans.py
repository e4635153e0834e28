"""Plans: presets, and documents from people. Durations are floors; rates are 0 to 1, shares are per cent."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cohort.base.documents import dotted, load_document, parse_document
from cohort.base.errors import CohortError
from cohort.delivery.model import CacheUse, Certificate, Gate, GateKind, Metric, Plan, Stage
from cohort.delivery.plan_checks import Problem, can_be_asked, gate_problems, meets_candidate, plan_problems, stage_problems

STAGES_MAX = 20
GATES_MAX = 20
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_COMPARE = (Gate("failures", GateKind.COMPARISON, Metric.FAILURES), Gate("latency", GateKind.COMPARISON, Metric.LATENCY, margin=1.05))
_REGISTRY = Gate("registry", GateKind.INVARIANT, Metric.REGISTRY)
_WATCHED = (
    Gate("failures (frozen baseline)", GateKind.SLO, Metric.FAILURES, margin=2.0),
    Gate("latency (frozen baseline)", GateKind.SLO, Metric.LATENCY, share_over=0.10),
)
NEGLIGIBLE_RATE = 0.001
"""A failure rate shown to be below this is good enough for the presets, whatever the ratio to stable."""


def _rung(name: str, traffic_pct: float, floor_s: float, ratio: float | None, gates: tuple[Gate, ...], **more: Any) -> Stage:
    certificate = Certificate(ratio, NEGLIGIBLE_RATE) if ratio else None
    return Stage(name, traffic_pct, floor_s=floor_s, certificate=certificate, gates=gates, **more)


def _ladder() -> Plan:
    gates = (*_COMPARE, _REGISTRY, Gate("slo reports", GateKind.PASSES, Metric.FAILURES, limit=0.01, limit_ms=20_000, passes=3, failures=2))
    ratios = {10: 3.0, 25: 2.0, 50: 1.5, 75: 1.5}
    rungs = [_rung(f"{pct} %", pct, 86_400, ratio, gates) for pct, ratio in ratios.items()]
    last = _rung("100 %", 100, 86_400, 2.0, (*_WATCHED, *gates[2:]))
    return Plan(
        "ladder-10-25-50-75-100",
        (*rungs, last),
        description="One day a stage, three SLO reports passed in a row; two failed go back to 0 %.",
    )


def _fast() -> Plan:
    limits = (
        Gate("failure rate <= 0.5 %", GateKind.SLO, Metric.FAILURES, limit=0.005),
        Gate("95 % of calls <= 300 ms", GateKind.SLO, Metric.LATENCY, limit_ms=300, share_over=0.05),
    )
    gates = (*_COMPARE, *limits, _REGISTRY)
    rungs = (_rung("10 %", 10, 300, 3.0, gates), _rung("50 %", 50, 600, 1.5, gates), _rung("100 %", 100, 300, 2.0, (*limits, _REGISTRY)))
    return Plan("fast-10-50-100", rungs, description="Minutes a stage; any failing gate goes back to 0 % at once.")


PRESETS: dict[str, Plan] = {
    plan.name: plan
    for plan in (
        Plan(
            "shadow-5-25-100",
            (
                _rung("shadow", 0, 24 * 3600, 3.0, (*_COMPARE, _REGISTRY), shadow_pct=25),
                _rung("5 %", 5, 48 * 3600, 3.0, (*_COMPARE, _REGISTRY)),
                _rung("25 %", 25, 72 * 3600, 2.0, (*_COMPARE, _REGISTRY)),
                _rung("100 %", 100, 7 * 86_400, 2.0, (*_WATCHED, _REGISTRY)),
            ),
            description="A day of shadow, two days at 5 %, three at 25 %, then everything, watched for a week.",
        ),
        _ladder(),
        _fast(),
        Plan(
            "blue-green",
            (Stage("warm", 0, gates=(_REGISTRY,)), Stage("100 %", 100, floor_s=600, gates=(_REGISTRY,))),
            description="Everything at once, and everything back at once; no evidence is asked for.",
        ),
    )
}


def find_plan(text: str) -> Plan:
    """A preset by name, or the plan in a document's text (anything with a colon is a document).

    Raises:
        CohortError PLAN_UNKNOWN: no preset of that name; PLAN_INVALID: the document is wrong, with line and field.
    """
    if ":" in text:
        return parse_plan(text, "plan")
    if text not in PRESETS:
        raise CohortError(
            "PLAN_UNKNOWN", f"there is no plan {text!r}", field="plan", hint=f"Use one of {', '.join(PRESETS)}, or a plan file."
        )
    return PRESETS[text]


def parse_plan(text: str, source: str) -> Plan:
    """The plan in a YAML or JSON document.

    Raises:
        CohortError PLAN_INVALID: with line, field and fix; FILE_TOO_LARGE.
    """
    document = load_document(text, source, "PLAN_INVALID")
    form = parse_document(_PlanForm, document, "PLAN_INVALID")
    for path, what, fix in form.problems():
        field = dotted(path)
        raise CohortError("PLAN_INVALID", f"{document.place(path)}: {field}: {what}", field=field, hint=fix)
    return form.plan()


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Plain JSON values that `plan_from_json` takes back."""
    return dataclasses.asdict(plan)


def plan_from_json(body: dict[str, Any]) -> Plan:
    stages = []
    for stage in body["stages"]:
        gates = tuple(Gate(**{**gate, "kind": GateKind(gate["kind"]), "metric": Metric(gate["metric"])}) for gate in stage["gates"])
        certificate = Certificate(**stage["certificate"]) if stage["certificate"] else None
        stages.append(Stage(**{**stage, "gates": gates, "certificate": certificate}))
    caches = CacheUse(body.get("caches", CacheUse.BYPASS))
    return Plan(**{**body, "stages": tuple(stages), "caches": caches})


# --- the document form ---------------------------------------------------------------------------------------------------------


def _seconds(value: Any) -> Any:
    """`48h`, `90 s`, `1.5m`, or a number of seconds."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)\s*", value)
    if not match:
        raise ValueError("not a duration; write for example 30s, 15m, 48h or 7d")
    return float(match[1]) * _UNITS_S[match[2]]


def _rate(value: Any) -> Any:
    """`1 %` or 0.01."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError as error:
            raise ValueError("not a rate; write for example 0.01 or 1%") from error
    return value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=366 * 86_400)]
Rate = Annotated[float, BeforeValidator(_rate), Field(gt=0, lt=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
Name = Annotated[str, Field(min_length=1, max_length=63)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)


class _CertificateForm(_Form):
    ratio: Annotated[float, Field(gt=1.15, le=20)] | None = None
    limit: Rate | None = None


class _GateForm(_Form):
    kind: Literal["invariant", "slo", "comparison", "passes"]
    metric: Literal["failures", "latency", "first_byte", "cost", "tokens", "feedback", "registry"]
    name: Name | None = None
    margin: Annotated[float, Field(ge=1, le=10)] = 1.0
    limit: Rate | None = None
    limit_ms: Annotated[float, Field(gt=0, le=3_600_000)] | None = None
    share_over: Rate = 0.05
    passes: Annotated[int, Field(ge=0, le=100)] = 0
    failures: Annotated[int, Field(ge=0, le=100)] = 0
    dry_run: bool = False

    def gate(self) -> Gate:
        body = self.model_dump()
        return Gate(
            **{**body, "name": self.name or f"{self.metric} {self.kind}", "kind": GateKind(self.kind), "metric": Metric(self.metric)}
        )


class _StageForm(_Form):
    name: Name | None = None
    traffic_pct: Percent
    shadow_pct: Percent = 0.0
    floor: Seconds = 0.0
    certificate: _CertificateForm | None = None
    gates: Annotated[list[_GateForm], Field(max_length=GATES_MAX)] | None = None
    approval: bool = False
    pause: bool = False


class _PlanForm(_Form):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")]
    description: Annotated[str, Field(max_length=500)] = ""
    alpha: Annotated[float, BeforeValidator(_rate), Field(gt=0, le=0.2)] = 0.01
    beta: Annotated[float, BeforeValidator(_rate), Field(gt=0, le=0.2)] = 0.05
    caches: Literal["bypass", "serve"] = "bypass"
    gates: Annotated[list[_GateForm], Field(max_length=GATES_MAX)] | None = None
    stages: Annotated[list[_StageForm], Field(min_length=1, max_length=STAGES_MAX)]

    def plan(self) -> Plan:
        stages = tuple(self._stage(stage) for stage in self.stages)
        return Plan(self.name, stages, self.alpha, self.beta, self.description, CacheUse(self.caches))

    def problems(self) -> Iterator[Problem]:
        """What is wrong beyond single fields, in the order of the document."""
        plan = self.plan()
        yield from gate_problems([gate.gate() for gate in self.gates or ()], ("gates",))
        for index, (form, stage) in enumerate(zip(self.stages, plan.stages, strict=True)):
            path = ("stages", index)
            if form.gates is not None:
                yield from gate_problems(stage.gates, (*path, "gates"))
            yield from stage_problems(stage, path)
        yield from plan_problems(plan)

    def _stage(self, form: _StageForm) -> Stage:
        certificate = Certificate(form.certificate.ratio, form.certificate.limit) if form.certificate else None
        name = form.name or ("shadow" if form.shadow_pct and not form.traffic_pct else f"{form.traffic_pct:g} %")
        return Stage(name, form.traffic_pct, form.shadow_pct, form.floor, certificate, self._gates(form), form.approval, form.pause)

    def _gates(self, form: _StageForm) -> tuple[Gate, ...]:
        """The stage's own gates; else those of the plan that it can answer; where it can answer no comparison, frozen baselines stand in."""
        if form.gates is not None:
            return tuple(gate.gate() for gate in form.gates)
        usual = [gate.gate() for gate in self.gates] if self.gates is not None else [*_COMPARE, _REGISTRY]
        asked = [gate for gate in usual if can_be_asked(gate, form.traffic_pct, form.shadow_pct)]
        missed = any(gate.kind is GateKind.COMPARISON for gate in usual) and not any(gate.kind is GateKind.COMPARISON for gate in asked)
        stand_in = _WATCHED if missed and meets_candidate(form.traffic_pct, form.shadow_pct) else ()
        return (*stand_in, *asked)
