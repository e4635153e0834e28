"""Who waits for an answer in this process, and who is told about every change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cohort.base.ids import ApprovalId
from cohort.kernel.approvals.limits import LOOK_S, WAIT_S_MAX
from cohort.kernel.model import Approval, ApprovalState
from cohort.kernel.ports import Listener


class Waiting:
    """Safe to use from many threads. Changes made by other processes are seen by looking, every `LOOK_S`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[ApprovalId, list[threading.Event]] = {}
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        with self._lock:
            self._listeners.append(listener)

    def tell(self, approval: Approval) -> None:
        """`approval` has changed, durably."""
        with self._lock:
            listeners, events = list(self._listeners), list(self._events.get(approval.id, ()))
        for event in events:
            event.set()
        for listener in listeners:
            listener(approval)

    def until_decided(self, approval: ApprovalId, wait_s: float, look: Callable[[], Approval]) -> Approval:
        """What `look` says once it is no longer pending, or after `wait_s` (at most `WAIT_S_MAX`). A change here is seen at once."""
        left_s = min(max(wait_s, 0.0), WAIT_S_MAX)
        with self._event(approval) as event:
            while True:
                event.clear()
                found = look()
                if found.state is not ApprovalState.PENDING or left_s <= 0:
                    return found
                step_s = min(LOOK_S, left_s)
                if not event.wait(step_s):  # a change wakes it early: once for each vote, and there are few
                    left_s -= step_s

    @contextmanager
    def _event(self, approval: ApprovalId) -> Iterator[threading.Event]:
        event = threading.Event()
        with self._lock:
            self._events.setdefault(approval, []).append(event)
        try:
            yield event
        finally:
            with self._lock:
                self._events[approval].remove(event)
                if not self._events[approval]:
                    del self._events[approval]
