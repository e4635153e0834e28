"""When to start a process again after it died. A pure rule."""

from __future__ import annotations

from dataclasses import dataclass

QUICK_S = 10.0
"""A process that lived shorter than this died quickly."""
QUICK_DEATHS_MAX = 5
"""So many quick deaths in a row, and the process is given up."""
DELAY_FIRST_S = 0.1
DELAY_MAX_S = 5.0
RETRY_S = 60.0
"""A process given up is tried once in so long, for causes that go away by themselves (a database that was down)."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Start again after `delay_s`. `quick_deaths` is the count so far; `given_up` says that it is now only tried now and then."""

    delay_s: float
    quick_deaths: int
    given_up: bool


def after_death(lived_s: float, quick_deaths: int, *, killed: bool = False) -> Restart:
    """What follows a death; `quick_deaths` are those in a row before it. One death after a long life is answered at once.

    `killed`: from outside, while it worked. That says nothing against the process, so it is never given up; it waits all the same, as what
    kills it may be the machine that has no room for it.
    """
    if lived_s >= QUICK_S:
        return Restart(0.0, 0, given_up=False)
    count = quick_deaths + 1
    if count >= QUICK_DEATHS_MAX and not killed:
        return Restart(RETRY_S, count, given_up=True)
    return Restart(min(DELAY_MAX_S, DELAY_FIRST_S * 2 ** min(count - 1, QUICK_DEATHS_MAX)), count, given_up=False)
