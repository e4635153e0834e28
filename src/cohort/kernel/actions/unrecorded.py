"""Outcomes that the log could not take when their action ended: offered again until it takes them.

They wait in memory. What is left of them when the process ends is closed at the next start with the outcome `unknown`.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.base.ids import ActionId
from cohort.kernel.face import Entry
from cohort.kernel.model import Position, Record
from cohort.kernel.ports import AuditLog

WAITING_MAX = 256
BYTES_MAX = 64 << 20
"""Of private payloads among them."""
PAUSE_S_MIN = 0.5
PAUSE_S_MAX = 30.0
GIVE_UP_S = 1800.0
"""Long before another process on the same Postgres takes the action for one that nobody will end."""
STOP_S = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """`then`: told where the record is."""

    action: ActionId
    record: Record
    since_s: float
    then: Callable[[Position], object]

    @property
    def bytes(self) -> int:
        return sum(len(text) for text in self.record.private.values())


class Unrecorded:
    """Safe to use from many threads. Its own thread runs only while something waits."""

    def __init__(
        self,
        audit: AuditLog,
        entries: Callable[[ActionId], Sequence[Entry]],
        clock: Clock,
        waiting_max: int = WAITING_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._waiting_max = waiting_max
        self._bytes_max = bytes_max
        self._audit = audit
        self._entries = entries
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, action: ActionId, record: Record, then: Callable[[Position], object]) -> bool:
        """Offer it again from now on; False when there is no room for it, or no more time."""
        one = _Waiting(action, record, self._clock.monotonic_s(), then)
        with self._lock:
            full = len(self._waiting) >= self._waiting_max or one.bytes + sum(other.bytes for other in self._waiting) > self._bytes_max
            if full or self._stop.is_set():
                return False
            self._waiting.append(one)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="unrecorded outcomes", daemon=True)
                self._thread.start()
        return True

    def settle(self) -> int:
        """Offer them now, the oldest first, until one is not taken; how many still wait."""
        with self._settling:
            while self._waiting and self._is_settled(self._waiting[0]):
                with self._lock:
                    self._waiting.popleft()
            return len(self._waiting)

    def stop(self) -> None:
        """Offer them once more and no more after that."""
        self._stop.set()
        thread = self._thread
        if thread is not None:
            thread.join(STOP_S)
        if self.settle():
            _log.warning("%d outcomes could not be recorded; the next start records them as unknown", len(self._waiting))

    def _is_settled(self, one: _Waiting) -> bool:
        """Whether it is in the log, or never will be. An append whose answer was lost may have written it: the log is asked first."""
        try:
            if any(entry.body.get("kind") == "outcome" for entry in self._entries(one.action)):
                return True
            position = self._audit.append(one.record)
        except CohortError as error:
            late = self._clock.monotonic_s() - one.since_s >= GIVE_UP_S
            if error.retry is Retry.NEVER or late:
                _log.error("the outcome of %s is given up; the next start records it as unknown: %s", one.action, error)
            return error.retry is Retry.NEVER or late
        one.then(position)
        return True

    def _run(self) -> None:
        pause_s = PAUSE_S_MIN
        while not self._stop.wait(pause_s):
            before = len(self._waiting)
            try:
                left = self.settle()
            except Exception:  # the supervisor of this thread: the next round tries again
                _log.exception("recording outcomes failed")
                left = before
            pause_s = PAUSE_S_MIN if left < before else min(2 * pause_s, PAUSE_S_MAX)
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
