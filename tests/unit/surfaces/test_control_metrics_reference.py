"""The table of control's metrics against what a scrape gives, both ways: names, labels and kinds; each with a unit and a meaning."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cohort.kernel.face import SafetyCounts
from cohort.surfaces.http import telemetry as source
from cohort.surfaces.http.telemetry import Telemetry
from support_delivery import house

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "http-api.md"


def told() -> dict[str, tuple[set[str], str]]:
    """Name -> labels and kind."""
    section = PAGE.read_text().partition("\n### Metrics of control\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")]
    for name, _, kind, meaning in rows:
        assert re.fullmatch(r"(gauge|counter), \w.*", kind), f"{name} has no unit"
        assert len(meaning) > 4, f"{name} has no meaning"
    return {name.strip("`"): (set(re.findall(r"`(\w+)`", labels)), kind.partition(",")[0]) for name, labels, kind, _ in rows}


def scraped() -> dict[str, tuple[set[str], str]]:
    """Of a control that has every figure."""
    face = house().control
    whole = SafetyCounts(1, 0, 0, 0, None)
    telemetry = Telemetry(replace(face, kernel=replace(face.kernel, safety=lambda: whole)))
    telemetry.count("GET", 200)
    text = generate_latest(telemetry.registry).decode()
    found: dict[str, tuple[set[str], str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.get(sample.name, (set(), ""))[0] | set(sample.labels)
            found[sample.name] = (labels, family.type)
    return found


def test_every_metric_of_control_is_told_with_its_labels_and_kind_and_every_one_told_is_there() -> None:
    assert told() == scraped()


def test_no_metric_is_made_that_the_scrape_of_this_test_would_miss() -> None:
    """One that is left out under some condition must be in it all the same."""
    made = set(re.findall(r'"(cohort_[a-z_]+)"', Path(source.__file__).read_text()))
    names = {name.removesuffix("_total") for name in scraped()}
    assert len(made) > 10
    assert made - names == set()
