"""Time that does not go back while the process lives, so that setting the clock back revives no token."""

from __future__ import annotations

from cohort.base.clock import Clock


class Steady:
    """The clock, or the start plus the time that has passed since, whichever is later. A clock set forward and back again leaves no trace."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start_us = clock.now_us()
        self._start_s = clock.monotonic_s()

    def now_us(self) -> int:
        """Microseconds since the Unix epoch."""
        passed_us = int((self._clock.monotonic_s() - self._start_s) * 1e6)
        return max(self._clock.now_us(), self._start_us + passed_us)

    def monotonic_s(self) -> float:
        return self._clock.monotonic_s()
