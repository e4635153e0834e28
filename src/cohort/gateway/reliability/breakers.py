"""Circuit breakers: a route that fails again and again is passed over, and tried by one call now and then until it answers.

A breaker belongs to (release, route) and outlives routing tables. Times are of the event loop's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum

from cohort.gateway.contract_reliability import DEFAULT, Reliability, RouteTrouble
from cohort.gateway.log import Log


class Circuit(IntEnum):
    CLOSED = 0
    OPEN = 1
    PROBING = 2  # one call tries it; others pass it over


_CLOSED, _OPEN, _PROBING = Circuit  # a member of an enum takes 60 ns to look up in its class, 3 ns in the module
Changed = Callable[["Breaker", Circuit], None]
"""Told the breaker and the state it left."""


class Breaker:
    """One route's circuit. `failures` counts in a row; 0 is what a working route has, and all that a good call looks at."""

    __slots__ = ("_changed", "_due_s", "_limits", "failures", "release", "route", "service", "since_us", "slow", "state", "version")

    def __init__(
        self, release: str, version: str, route: str, limits: Reliability = DEFAULT, changed: Changed | None = None, service: str = ""
    ) -> None:
        self.service = service
        self.release = release
        self.version = version
        self.route = route
        self.state = _CLOSED
        self.failures = 0
        self.since_us = 0
        self.slow = False
        """The last failure was one of waiting: to try again would make a client wait as well."""
        self._limits = limits
        self._changed = changed
        self._due_s = 0.0

    def admits(self, now_s: float) -> bool:
        """Whether a call may try the route."""
        return self.state is _CLOSED or (self.state is _OPEN and now_s >= self._due_s)

    def begin(self) -> None:
        """A call tries the route. Behind an open circuit it is the probe, and others pass the route over until it ends in one of the three below."""
        if self.state is _OPEN:
            self._go(_PROBING)

    def succeeded(self) -> None:
        self.failures = 0
        self._go(_CLOSED)

    def failed(self, now_s: float, now_us: int, *, slow: bool) -> None:
        if not self.failures:
            self.since_us = now_us
        self.failures += 1
        self.slow = slow
        if self.failures >= self._limits.breaker_failures or self.state is not _CLOSED:
            self._due_s = now_s + self._limits.breaker_open_s
            self._go(_OPEN)

    def left(self) -> None:
        """A call ended without saying anything of the route: a probe makes room for the next one."""
        if self.state is _PROBING:
            self._go(_OPEN)

    def wait_s(self, now_s: float) -> float:
        """Until a call may try it again."""
        return max(self._due_s - now_s, 0.0)

    def trouble(self) -> RouteTrouble:
        return RouteTrouble(self.release, self.version, self.route, self.state.name.lower(), self.failures, self.since_us, self.service)

    def _go(self, state: Circuit) -> None:
        before, self.state = self.state, state
        if before is not state and self._changed is not None:
            self._changed(self, before)


class Breakers:
    """Every breaker of the process, by (digest of the release, name of the route)."""

    def __init__(self, changed: Changed | None = None) -> None:
        self._changed = changed
        self._known: dict[tuple[str, str], Breaker] = {}

    def of(self, release: str, version: str, route: str, limits: Reliability, service: str = "") -> Breaker:
        """The one there is, or a new one. A release never changes, so neither do its limits."""
        breaker = self._known.get((release, route))
        return breaker if breaker is not None else Breaker(release, version, route, limits, self._changed, service)

    def keep(self, used: Iterable[Breaker]) -> None:
        """Those of the table now in force; all others are forgotten."""
        self._known = {(breaker.release, breaker.route): breaker for breaker in used}

    def troubles(self) -> tuple[RouteTrouble, ...]:
        """Routes whose last call failed."""
        return tuple(breaker.trouble() for breaker in self._known.values() if breaker.failures)

    def open(self) -> list[Breaker]:
        return [breaker for breaker in self._known.values() if breaker.state is not _CLOSED]

    def problems(self) -> list[str]:
        """Circuits that are not closed, in words."""
        return [
            f"service {b.service}, release {b.version}, route {b.route}: {b.failures} calls failed in a row; its circuit is {b.state.name.lower()}"
            for b in self.open()
        ]


def log_circuit(log: Log, breaker: Breaker, before: Circuit) -> None:
    """The first failure that opens a circuit and the answer that closes it; probes in between are not worth a line each."""
    if before is _CLOSED:
        log.write("route_down", service=breaker.service, release=breaker.version, route=breaker.route, failures=breaker.failures)
    elif breaker.state is _CLOSED:
        log.write("route_recovered", service=breaker.service, release=breaker.version, route=breaker.route, down_since_us=breaker.since_us)
