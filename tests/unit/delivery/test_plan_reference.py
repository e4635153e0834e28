"""The plan reference against the code: its example is a plan, its tables name every field with its default."""

from __future__ import annotations

import re
from pathlib import Path

from cohort.delivery import plan_checks, plans, rules
from cohort.delivery.model import Certificate, GateKind
from cohort.delivery.reports import WINDOW_CALLS_MIN

PAGE = (Path(__file__).parents[3] / "docs/reference/plans.md").read_text()


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def named(text: str) -> list[str]:
    """The first cell of each row of the tables in `text`."""
    return re.findall(r"^\| `([a-z_0-9-]+)` \|", text, re.MULTILINE)


def test_the_example_is_a_plan_that_means_what_it_says():
    examples = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 1
    plan = plans.parse_plan(examples[0], "plans.md")
    assert (plan.alpha, plan.beta, len(plan.stages)) == (0.01, 0.05, 4)
    assert plan.stages[0].certificate == Certificate(3.0, 0.001)
    assert [gate.name for gate in plan.stages[1].gates] == [
        "failures comparison",
        "latency comparison",
        "at most 2 % fail",
        "registry invariant",
    ]
    assert [gate.name for gate in plan.stages[3].gates][:2] == ["failures (frozen baseline)", "latency (frozen baseline)"]


def test_every_field_is_in_its_table():
    assert named(section("The plan")) == list(plans._PlanForm.model_fields)
    assert sorted(named(section("A stage"))) == sorted(plans._StageForm.model_fields)
    fields, kinds = section("Gates").split("| Kind | Metrics |")
    assert sorted(named(fields)) == sorted(plans._GateForm.model_fields)
    assert named(section("Certificates")) == list(plans._CertificateForm.model_fields)
    assert sorted(named(kinds)) == sorted(GateKind)


def test_each_kind_lists_the_metrics_it_can_look_at():
    for kind, metrics in plan_checks._METRICS.items():
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{kind.value}` | `"))
        assert re.findall(r"`([a-z_]+)`", row.split("|")[2]) == [metric.value for metric in metrics]


def test_presets_and_numbers_are_those_of_the_code():
    assert named(section("Presets")) == list(plans.PRESETS)
    assert f"after {rules.EVIDENCE_UNITS_MIN} units" in PAGE
    assert f"fewer than {WINDOW_CALLS_MIN}\n" in PAGE
    for name, plan in plans.PRESETS.items():
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}`"))
        ratios = [f"{stage.certificate.ratio:g}" for stage in plan.stages if stage.certificate]
        assert (f"{', '.join(ratios)} times" if ratios else "none") in row
