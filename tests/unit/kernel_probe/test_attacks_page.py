"""The page that lists the attacks says what the code does."""

from __future__ import annotations

from pathlib import Path

from cohort.kernel.sandbox.attacks import ATTACKS
from cohort.kernel.sandbox.attacks_page import page

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "attack-list.md"


def test_the_page_is_current() -> None:
    hint = "run `python -m cohort.kernel.sandbox.attacks_page > docs/reference/attack-list.md`"
    assert PAGE.read_text() == page(), hint


def test_no_cell_breaks_the_table_and_no_level_is_both_claimed_and_soft() -> None:
    for attack in ATTACKS:
        assert "|" not in attack.tries + attack.stopped_by
        assert not attack.stopped_at & attack.soft_at
        compile(attack.program, attack.name, "exec")
