"""Time limits of calls: one timer for all of them, accurate to `TICK_S`. A timer per call costs more than the call's own work."""

from __future__ import annotations

import asyncio
from typing import Any

TICK_S = 0.05


class Deadlines:
    """Cancels tasks whose time is over. A task that sees its cancellation asks `expired` for the reason."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due_s: dict[asyncio.Task[Any], float] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def begin(self, timeout_s: float) -> None:
        """The current task must end within `timeout_s`."""
        task = asyncio.current_task()
        if task is not None:
            self._due_s[task] = self._loop.time() + timeout_s

    def end(self) -> bool:
        """The current task is through; True when it had been cancelled for its time."""
        task = asyncio.current_task()
        if task is None:
            return False
        self._due_s.pop(task, None)
        if task not in self._expired:
            return False
        self._expired.discard(task)
        return True

    def __len__(self) -> int:
        return len(self._due_s)

    def close(self) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        now_s = self._loop.time()
        for task in [t for t, due_s in self._due_s.items() if due_s <= now_s]:
            del self._due_s[task]
            self._expired.add(task)
            task.cancel()
        self._timer = self._loop.call_later(TICK_S, self._tick)
