"""The example of docs/explanation/gates.md does what the page says."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "gates.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_has_examples():
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_runs(example):
    exec(compile(example, str(PAGE), "exec"), {})
