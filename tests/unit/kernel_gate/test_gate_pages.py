"""The pages about actions and policies against the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cohort.base.errors import ERRORS
from cohort.kernel.actions import invariants, policy_text, reference
from cohort.kernel.actions.catalogue import ROWS

DOCS = Path(__file__).parents[3] / "docs"
POLICY = (DOCS / "reference/policy.md").read_text()
HOW_TO = (DOCS / "how-to/write-a-policy.md").read_text()
GATE = (DOCS / "explanation/the-action-gate.md").read_text()
BLOCK = re.compile(r"^( *)```cedar\n(.*?)```", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[str]:
    return [body for _, body in BLOCK.findall(page)]


def without_comments(text: str) -> list[str]:
    return [line for line in (re.sub(r"\s*//.*", "", line).rstrip() for line in text.splitlines()) if line]


def test_the_table_of_actions_is_the_catalogue() -> None:
    hint = "run `python -m cohort.kernel.actions.reference > docs/reference/actions.md`"
    assert (DOCS / "reference/actions.md").read_text() == reference.page(), hint


def test_the_policy_of_the_how_to_can_be_loaded_and_every_rule_has_a_name() -> None:
    (text,) = blocks(HOW_TO)
    own = [statement for statement in policy_text.read(text).statements if statement.own]
    assert len(own) == 5
    assert all(not statement.id.startswith("line-") for statement in own)


def test_the_schema_and_the_shipped_policy_are_shown_as_they_are() -> None:
    schema, shipped = blocks(POLICY)
    said = without_comments(policy_text.schema_text())
    assert without_comments(schema) == said[: len(without_comments(schema))]
    assert said[len(without_comments(schema))].startswith("action ")
    assert without_comments(shipped) == without_comments(policy_text.shipped())


def test_every_hard_rule_is_named() -> None:
    source = Path(str(invariants.__file__)).read_text()
    assert set(re.findall(r"`(invariant\.[a-z-]+)`", GATE)) == set(re.findall(r'"(invariant\.[a-z-]+)"', source))


@pytest.mark.parametrize("page", [POLICY, GATE])
def test_every_code_is_one(page: str) -> None:
    assert set(re.findall(r"`([A-Z]+_[A-Z_]+)`", page)) <= set(ERRORS)


def test_every_operation_of_the_specification_has_a_row() -> None:
    named = {name.split(".")[0] for name in ROWS}
    assert named == {
        "files",
        "terminal",
        "python",
        "process",
        "system",
        "http",
        "network",
        "browser",
        "mobile",
        "database",
        "memory",
        "agent",
        "release",
        "config",
    }
