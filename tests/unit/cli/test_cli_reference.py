"""The reference page of the commands is what the commands say."""

from __future__ import annotations

from pathlib import Path

from cohort.base.settings import OVERRIDES
from cohort.surfaces.cli.reference import reference

DOCS = Path(__file__).parents[3] / "docs" / "reference"


def test_the_page_is_current() -> None:
    assert (DOCS / "cli.md").read_text() == reference(), "run `make docs`"


def test_every_variable_is_on_the_configuration_page() -> None:
    page = (DOCS / "configuration.md").read_text()
    assert not [name for name in (*OVERRIDES, "COHORT_DATA_DIR", "COHORT_CONFIG", "COHORT_KEY", "COHORT_URL") if f"`{name}`" not in page]
