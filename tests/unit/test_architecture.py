"""The shape of the house: the import contract of pyproject.toml, kept, and lean where it must be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "cohort"


def test_imports_point_down() -> None:
    """Runs in a process of its own: the linter puts the source tree on its path and keeps a graph in memory."""
    program = "import sys; from importlinter.cli import lint_imports_command; sys.argv[1:] = ['--no-cache']; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["utils", "util", "helpers", "common", "manager", "misc"])
def test_nothing_is_named_for_nothing(name: str) -> None:
    assert not [path for path in SOURCE.rglob("*") if path.stem == name or path.stem.endswith(f"_{name}")]


def test_rules_and_statistics_read_neither_clock_nor_chance_nor_world() -> None:
    forbidden = (
        "import os",
        "import time",
        "import random",
        "import secrets",
        "import socket",
        "import pathlib",
        "from pathlib",
        "import datetime",
    )
    pure = [*SOURCE.glob("stats/*.py"), *SOURCE.rglob("rules.py"), SOURCE / "ops" / "restarts.py"]
    found = [(path.name, line) for path in pure for line in path.read_text().splitlines() if line.strip().startswith(forbidden)]
    assert found == []


def test_the_product_never_imports_its_examples_tests_or_measurements() -> None:
    for path in SOURCE.rglob("*.py"):
        lines = path.read_text().splitlines()
        assert not [
            line
            for line in lines
            if line.split(" ")[:1] in (["import"], ["from"]) and line.split(" ")[1].split(".")[0] in ("examples", "tests", "bench")
        ]
