"""Pass counts: a report per window of time on the candidate's calls; so many passed in a row let a rollout go on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cohort.delivery.model import Gate, GateKind, Metric
from cohort.gateway.contract import Arm, Call, failed
from cohort.stats import Sketch

WINDOW_CALLS_MIN = 20
"""With fewer calls in its window a report is inconclusive: neither passed nor failed."""


class PassReports:
    """Reports of one stage run. `gate` None: nothing is reported. A window is `floor / passes` long, at rehearsal speed too."""

    def __init__(self, gate: Gate | None, window_us: int = 0) -> None:
        self._gate = gate
        self.window_us = window_us
        self.passed = 0  # in a row
        self.failures = 0  # in a row
        self.inconclusive = 0
        self._first_us: int | None = None
        self._window = 0
        self._calls = 0
        self._failed = 0
        self._latency = Sketch()

    @property
    def enough(self) -> bool:
        return self._gate is None or self.passed >= self._gate.passes

    @property
    def broken(self) -> bool:
        return self._gate is not None and 0 < self._gate.failures <= self.failures

    def take(self, call: Call) -> None:
        """One call of the stage run, in order of assignment."""
        if self._gate is None or not self.window_us:
            return
        if self._first_us is None:
            self._first_us = call.at_us
        window = (call.at_us - self._first_us) // self.window_us
        if window > self._window:
            self._close()
            self._window = window
        if call.arm is Arm.CANDIDATE:
            self._calls += 1
            self._failed += failed(call.result)
            if call.total_us is not None:
                self._latency.add(call.total_us)

    def _close(self) -> None:
        if self._calls < WINDOW_CALLS_MIN:
            self.inconclusive += 1
        elif self._within_limits():
            self.passed, self.failures = self.passed + 1, 0
        else:
            self.passed, self.failures = 0, self.failures + 1
        self._calls, self._failed, self._latency = 0, 0, Sketch()

    def _within_limits(self) -> bool:
        gate = self._gate
        if gate is None:
            return False
        slow = self._latency.quantile(1 - gate.share_over)
        too_slow = gate.limit_ms is not None and slow is not None and slow > gate.limit_ms * 1000
        return not too_slow and (gate.limit is None or self._failed <= gate.limit * self._calls)

    def to_state(self) -> dict[str, Any]:
        gate = self._gate
        kept = [gate.name, gate.limit, gate.limit_ms, gate.share_over, gate.passes, gate.failures] if gate else None
        numbers = [self.passed, self.failures, self.inconclusive, self._first_us, self._window, self._calls, self._failed]
        return {"gate": kept, "window_us": self.window_us, "numbers": numbers, "latency": self._latency.to_state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> PassReports:
        gate = None
        if state["gate"]:
            name, limit, limit_ms, share_over, passes, failures = state["gate"]
            gate = Gate(
                name,
                GateKind.PASSES,
                Metric.FAILURES,
                limit=limit,
                limit_ms=limit_ms,
                share_over=share_over,
                passes=passes,
                failures=failures,
            )
        self = cls(gate, state["window_us"])
        self.passed, self.failures, self.inconclusive, self._first_us, self._window, self._calls, self._failed = state["numbers"]
        self._latency = Sketch.from_state(state["latency"])
        return self
