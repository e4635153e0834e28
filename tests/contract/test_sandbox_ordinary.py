"""The contract of every sandbox once more, kept by an ordinary user: when the tests themselves run as root, in a process that is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support_ordinary import as_ordinary_user, is_root
from support_sandbox import need_bubblewrap

HERE = Path(__file__).parent
CHOSEN = "(exactly or time_is_over or memory or leaves or environment or same_time or are_limited or with_all or closing) and not forked and not limits"
"""What could differ for another user; the rest of the contract would only be repeated."""
PROGRAM = """
import contextlib, io, pytest
class Counted:
    def __init__(self): self.ends = {}
    def pytest_runtest_logreport(self, report):
        if report.failed or (report.when == "call" and report.passed): self.ends[report.nodeid] = report.outcome
counted = Counted()
with contextlib.redirect_stdout(io.StringIO()) as said:
    code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", told["chosen"], "--rootdir", told["root"], told["tests"]], plugins=[counted])
print(json.dumps({"uid": os.getuid(), "code": int(code), "passed": len(counted.ends), "said": said.getvalue()[-3000:]}))
"""


@pytest.mark.timeout(180)
def test_an_ordinary_user_has_the_same_sandboxes() -> None:
    if not is_root():
        pytest.skip("these tests are run by an ordinary user anyway")
    need_bubblewrap()
    found = json.loads(as_ordinary_user(PROGRAM, root=str(HERE.parents[1]), tests=str(HERE / "test_sandbox_backends.py"), chosen=CHOSEN))
    assert found["code"] == 0, found["said"]
    assert found["uid"] != 0
    assert found["passed"] > 30
