"""Time limits of calls: one timer for all of them, accurate to `TICK_S`. A timer per call costs more than the call's own work.

A deadline has a total, which never moves, and at times a nearer limit: for an attempt to begin to answer, or for the next piece of an answer.
"""

from __future__ import annotations

import asyncio
from enum import Enum

from cohort.gateway import strands
from cohort.gateway.strands import Strand

TICK_S = 0.05
LATE_TICKS = 2
"""Ticks in a row that come late before the process counts as overloaded; one may be a machine that slept."""


class Expired(Enum):
    """Which limit ended a wait."""

    TOTAL = "total"
    ATTEMPT = "attempt"
    IDLE = "idle"


class Deadline:
    """The time limit of one strand. A strand that sees its cancellation asks `expired` for the reason."""

    __slots__ = ("_idle_s", "due_s", "expired", "moved_s", "strand", "total_s")

    def __init__(self, strand: Strand | None, total_s: float) -> None:
        self.strand = strand
        self.total_s = total_s
        self.due_s = total_s
        self.moved_s = 0.0
        """When the last piece of an answer came; infinite while the client, not the upstream, is waited for. Whoever passes pieces on sets it."""
        self.expired: Expired | None = None
        self._idle_s = 0.0

    def left_s(self, now_s: float) -> float:
        return self.total_s - now_s

    def answering(self, now_s: float, idle_s: float) -> None:
        """An answer has begun: from now on no two pieces of it may be more than `idle_s` apart."""
        self._idle_s, self.moved_s = idle_s, now_s
        self.due_s = min(self.total_s, now_s + idle_s)

    def overdue(self, now_s: float) -> Expired | None:
        """Which limit is over; called when `due_s` is, and moves it when it is not."""
        if now_s >= self.total_s:
            return Expired.TOTAL
        if not self._idle_s:
            return Expired.ATTEMPT
        if self.moved_s + self._idle_s <= now_s:
            return Expired.IDLE
        self.due_s = min(self.total_s, min(self.moved_s, now_s) + self._idle_s)
        return None


class Deadlines:
    """Cancels strands whose time is over. `late`: the event loop has come late to its own timer, more than once in a row."""

    def __init__(self, late_s: float = 0.5) -> None:
        self._loop = asyncio.get_running_loop()
        self._pending: set[Deadline] = set()
        self._late_s = late_s
        self._late_ticks = 0
        self._next_s = self._loop.time() + TICK_S
        self._timer = self._loop.call_at(self._next_s, self._tick)
        self.late = False

    def begin(self, timeout_s: float) -> Deadline:
        """The current strand must call `end` within `timeout_s`."""
        deadline = Deadline(strands.running, self._loop.time() + timeout_s)
        self._pending.add(deadline)
        return deadline

    def attempt(self, deadline: Deadline, within_s: float) -> None:
        """An attempt begins: it must begin to answer within `within_s`."""
        deadline.expired, deadline._idle_s = None, 0.0
        deadline.due_s = min(deadline.total_s, self._loop.time() + within_s)
        self._pending.add(deadline)

    def between(self, deadline: Deadline) -> None:
        """An attempt is over and another one will begin: meanwhile only the total holds, and what ended the last one says nothing any more."""
        deadline.expired, deadline._idle_s = None, 0.0
        deadline.due_s = deadline.total_s
        self._pending.add(deadline)

    def end(self, deadline: Deadline) -> None:
        self._pending.discard(deadline)

    def close(self) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        now_s = self._loop.time()
        self._late_ticks = self._late_ticks + 1 if now_s - self._next_s > self._late_s else 0
        self.late = self._late_ticks >= LATE_TICKS
        for deadline in [d for d in self._pending if d.due_s <= now_s]:
            expired = deadline.overdue(now_s)
            if expired is None:
                continue
            self._pending.discard(deadline)
            deadline.expired = expired
            if deadline.strand is not None:
                deadline.strand.cancel()
        self._next_s = self._loop.time() + TICK_S
        self._timer = self._loop.call_at(self._next_s, self._tick)
