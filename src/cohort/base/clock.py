"""Time, as something handed in."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where a shell gets the time from; rules take times as arguments instead."""

    def now_us(self) -> int:
        """Microseconds since the Unix epoch."""
        ...

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back; only differences mean anything."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    monotonic_s = staticmethod(time.monotonic)


class ManualClock:
    """A clock that moves when told to; for tests and rehearsals."""

    def __init__(self, start_us: int = 1_700_000_000_000_000) -> None:
        self._now_us = start_us

    def now_us(self) -> int:
        return self._now_us

    def monotonic_s(self) -> float:
        return self._now_us / 1e6

    def advance(self, seconds: float) -> None:
        """Move forward by `seconds`; a clock never goes back."""
        if seconds < 0:
            raise ValueError(f"a clock cannot advance by {seconds} s")
        self._now_us += int(seconds * 1e6)
