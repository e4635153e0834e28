"""How many tokens an agent may ask for in a minute: each is a record, so without a limit whoever holds a key could fill the log with them."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from cohort.base.clock import Clock
from cohort.base.ids import AgentId

TOKENS_PER_MINUTE_MAX = 120
"""Twice what `sessions.SESSIONS_MAX` sessions need that are refreshed before each of their tokens ends."""
AGENTS_MAX = 10_000
MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Excess:
    """One more than the minute allows. `first`: not said within the last minute; `wait_s`: until one is free."""

    first: bool
    wait_s: int


@dataclass(slots=True)
class _Minute:
    asked_s: deque[float] = field(default_factory=deque)
    said_s: float | None = None


class Pace:
    """Counts for at most `AGENTS_MAX` agents: the one that asked longest ago is forgotten first. Safe to use from many threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._minutes: OrderedDict[AgentId, _Minute] = OrderedDict()

    def ask(self, agent: AgentId) -> Excess | None:
        """Count one; when the minute is used up it is not counted, and the answer says so."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            minute = self._minutes.setdefault(agent, _Minute())
            self._minutes.move_to_end(agent)
            while len(self._minutes) > AGENTS_MAX:
                self._minutes.popitem(last=False)
            while minute.asked_s and minute.asked_s[0] <= now_s - MINUTE_S:
                minute.asked_s.popleft()
            if len(minute.asked_s) < TOKENS_PER_MINUTE_MAX:
                minute.asked_s.append(now_s)
                return None
            return _excess(minute, now_s)


def _excess(minute: _Minute, now_s: float) -> Excess:
    first = minute.said_s is None or minute.said_s <= now_s - MINUTE_S
    if first:
        minute.said_s = now_s
    return Excess(first, max(1, math.ceil(minute.asked_s[0] + MINUTE_S - now_s)))
