"""Time limits of calls: one timer for all of them, accurate to `TICK_S`. A timer per call costs more than the call's own work."""

from __future__ import annotations

import asyncio
from typing import Any

TICK_S = 0.05


class Deadline:
    """The time limit of one task. A task that sees its cancellation asks `expired` for the reason."""

    __slots__ = ("due_s", "expired", "task")

    def __init__(self, task: asyncio.Task[Any] | None, due_s: float) -> None:
        self.task = task
        self.due_s = due_s
        self.expired = False


class Deadlines:
    """Cancels tasks whose time is over."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pending: set[Deadline] = set()
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def begin(self, timeout_s: float) -> Deadline:
        """The current task must call `end` within `timeout_s`."""
        deadline = Deadline(asyncio.current_task(self._loop), self._loop.time() + timeout_s)
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
            if deadline.task is not None:
                deadline.task.cancel()
        self._timer = self._loop.call_later(TICK_S, self._tick)
