"""The whole product under many connections that call, leave at random and meet a killed worker: the books add up. `bench/budgets.py` is the same at a thousand."""

from __future__ import annotations

import json
import subprocess
import sys

from support_gateway import SRC

PROGRAM = SRC.parent / "bench" / "budgets.py"


def test_books_add_up_after_many_calls_at_once_random_leaving_and_a_killed_worker() -> None:
    options = ["--connections", "120", "--seconds", "3", "--kills", "1", "--usd", "3", "--json"]
    done = subprocess.run([sys.executable, str(PROGRAM), *options], capture_output=True, text=True, timeout=150, check=False)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert (found["wrong"], found["held"], found["kills"]) == ([], 0, 1), found
    assert min(found["met_200"], found["met_402"], found["met_left"]) > 0, found
    assert 0 < found["spent"] <= found["budget"] == 3_000_000
