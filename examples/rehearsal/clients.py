"""The traffic process, and what its clients met between two moments."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehearsal.processes import Child, Failed
from rehearsal.releases import EXAMPLES, SERVICE

REPORT_S_MAX = 15.0


class Clients:
    """Conversations by the official openai client, in a process of their own."""

    def __init__(self, base_url: str, conversations_per_s: float, seed: int, folder: Path) -> None:
        self._changed = threading.Condition()
        self._latest: dict[str, Any] = {}
        argv = [sys.executable, str(EXAMPLES / "traffic.py"), "--base-url", base_url, "--service", SERVICE]
        argv += ["--conversations-per-s", str(conversations_per_s), "--seed", str(seed), "--stdin"]
        self.child = Child("traffic", argv, environment=os.environ, folder=folder, listen=self._heard)

    def _heard(self, report: dict[str, Any]) -> None:
        with self._changed:
            self._latest = report
            self._changed.notify_all()

    @property
    def latest(self) -> dict[str, Any]:
        """The newest report; empty before the first."""
        with self._changed:
            return self._latest

    def now(self) -> dict[str, Any]:
        """The next report from here on.

        Raises:
            Failed: none came.
        """
        with self._changed:
            last = self._latest.get("at", 0.0)
            if not self._changed.wait_for(lambda: self._latest.get("at", 0.0) > last, REPORT_S_MAX):
                raise Failed(f"the traffic did not report within {REPORT_S_MAX:g} s: {' | '.join(self.child.said)}")
            return self._latest

    def wait_conversations(self, count: int, within_s: float) -> dict[str, Any]:
        """Until that many conversations were begun."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._latest.get("conversations", 0) >= count, within_s):
                said = " | ".join(self.child.said) or "it said nothing"
                raise Failed(f"{self._latest.get('conversations', 0)} of {count} conversations after {within_s:g} s: {said}")
            return self._latest

    def pace(self, conversations_per_s: float) -> None:
        self.child.tell({"conversations_per_s": conversations_per_s})

    def stop(self) -> int:
        self.child.tell({"stop": True})
        return self.child.stop()


@dataclass(frozen=True, slots=True)
class Met:
    """What clients met between two reports. `other`: failures that no stand-in drew, which would be ours."""

    requests: int
    failures: int
    other: int
    connection_errors: int
    errors: dict[str, int]

    @classmethod
    def between(cls, before: dict[str, Any], after: dict[str, Any]) -> Met:
        kinds = {kind: count - before["errors"].get(kind, 0) for kind, count in after["errors"].items()}
        return cls(
            requests=after["requests"] - before["requests"],
            failures=after["failures"] - before["failures"],
            other=after["failures_other"] - before["failures_other"],
            connection_errors=after["connection_errors"] - before["connection_errors"],
            errors={kind: count for kind, count in kinds.items() if count},
        )


def met_by(report: dict[str, Any], version: str) -> dict[str, Any]:
    """What users of one release met, by their own account (the X-Cohort-Release header)."""
    nothing = {"requests": 0, "failures": 0, "units": 0, "units_failed": 0, "p50_ms": None, "p95_ms": None, "last_answer_at": 0.0}
    found: dict[str, Any] = report["releases"].get(version, nothing)
    return found
