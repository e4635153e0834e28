"""Repeated wrong attempts by one source are refused for a while."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry

FAILURES_MAX = 10
LOCK_S = 60.0
"""How long a source is refused, and how long its failures are remembered after the last one."""
SOURCES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class _Record:
    failures: int
    last_s: float


class Attempts:
    """Counts failures per source, for at most `SOURCES_MAX` sources: the one that failed longest ago is forgotten first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def check(self, source: str) -> None:
        """Refuse a source that failed `FAILURES_MAX` times in a row.

        Raises:
            CohortError TOO_MANY_ATTEMPTS: with the seconds to wait.
        """
        with self._lock:
            record = self._fresh(source)
        if record.failures < FAILURES_MAX:
            return
        wait_s = max(1, math.ceil(record.last_s + LOCK_S - self._clock.monotonic_s()))
        raise CohortError(
            "TOO_MANY_ATTEMPTS",
            f"{record.failures} wrong attempts in a row",
            retry=Retry.SAFE,
            hint=f"Wait {wait_s} s and try again.",
            wait_s=wait_s,
        )

    def failed(self, source: str) -> None:
        with self._lock:
            self._records[source] = _Record(self._fresh(source).failures + 1, self._clock.monotonic_s())
            self._records.move_to_end(source)
            while len(self._records) > SOURCES_MAX:
                self._records.popitem(last=False)

    def succeeded(self, source: str) -> None:
        with self._lock:
            self._records.pop(source, None)

    def _fresh(self, source: str) -> _Record:
        record = self._records.get(source)
        if record is None or self._clock.monotonic_s() >= record.last_s + LOCK_S:
            return _Record(0, 0.0)
        return record
