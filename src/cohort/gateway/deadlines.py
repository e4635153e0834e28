"""Time limits of calls: one timer for all of them, accurate to `TICK_S`. A timer per call costs more than the call's own work."""

from __future__ import annotations

import asyncio

from cohort.gateway import strands
from cohort.gateway.strands import Strand

TICK_S = 0.05


class Deadline:
    """The time limit of one strand. A strand that sees its cancellation asks `expired` for the reason."""

    __slots__ = ("due_s", "expired", "strand")

    def __init__(self, strand: Strand | None, due_s: float) -> None:
        self.strand = strand
        self.due_s = due_s
        self.expired = False


class Deadlines:
    """Cancels strands whose time is over."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pending: set[Deadline] = set()
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def begin(self, timeout_s: float) -> Deadline:
        """The current strand must call `end` within `timeout_s`."""
        deadline = Deadline(strands.current(), self._loop.time() + timeout_s)
        self._pending.add(deadline)
        return deadline

    def end(self, deadline: Deadline) -> None:
        self._pending.discard(deadline)

    def close(self) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        now_s = self._loop.time()
        for deadline in [d for d in self._pending if d.due_s <= now_s]:
            self._pending.discard(deadline)
            deadline.expired = True
            if deadline.strand is not None:
                deadline.strand.cancel()
        self._timer = self._loop.call_later(TICK_S, self._tick)
