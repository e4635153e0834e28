"""What runs now, by workspace, so that closing a workspace ends all of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cohort.base.errors import CohortError
from cohort.kernel.model import StoppedBy
from cohort.kernel.sandbox.execution import KILL_WAIT_S, Execution


class Active:
    """Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, set[Execution]] = {}

    def add(self, workspace: str, execution: Execution) -> None:
        with self._lock:
            self._running.setdefault(workspace, set()).add(execution)

    def remove(self, workspace: str, execution: Execution) -> None:
        with self._lock:
            here = self._running.get(workspace, set())
            here.discard(execution)
            if not here:
                self._running.pop(workspace, None)

    @contextmanager
    def during(self, workspace: str, execution: Execution) -> Iterator[None]:
        self.add(workspace, execution)
        try:
            yield
        finally:
            self.remove(workspace, execution)

    def end(self, workspace: str) -> None:
        """Stop everything in `workspace` and wait until it is gone. Errors: PROCESS_FAILED: something does not end."""
        with self._lock:
            running = list(self._running.get(workspace, ()))
        for execution in running:
            execution.stop(StoppedBy.SIGNAL)
        for execution in running:
            if not execution.over.wait(KILL_WAIT_S):
                raise CohortError("PROCESS_FAILED", f"something in {workspace} does not end", hint="Look at it with `ps`.")
