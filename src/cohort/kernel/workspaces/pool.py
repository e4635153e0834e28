"""Spare workspaces, made before they are asked for, so that registering an agent does not wait for mkfs and mount."""

from __future__ import annotations

import logging
import threading
from collections import deque

from cohort.base.errors import CohortError
from cohort.base.ids import Entropy
from cohort.kernel.workspaces.backend import Backend, Size

SPARES_MAX = 64
PAUSE_S = 30.0
"""How long the thread waits after a failure before it tries again."""
REFILL_PAUSE_S = 0.1
"""How long the thread leaves the machine to the registration that took a spare."""
NAME_BYTES = 12
STOP_WAIT_S = 70.0  # longer than one mkfs may take

_log = logging.getLogger(__name__)


def new_name(entropy: Entropy) -> str:
    """An opaque name: it is shown by mountinfo to everybody on the machine."""
    return entropy(NAME_BYTES).hex()


class Pool:
    """Keeps `count` spare workspaces of one size. Without `start` it is empty. Safe to use from many threads."""

    def __init__(self, backend: Backend, size: Size, count: int, entropy: Entropy) -> None:
        if not 0 <= count <= SPARES_MAX:
            raise CohortError("FIELD_INVALID", f"{count} spare workspaces", field="spares", hint=f"Use 0 to {SPARES_MAX}.")
        self._backend = backend
        self._size = size
        self._count = count
        self._entropy = entropy
        self._ready: deque[str] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._count and self._thread is None:
            self._thread = threading.Thread(target=self._fill, name="workspace-pool", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread and remove what nobody took."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(STOP_WAIT_S)
        while self._ready:
            _remove(self._backend, self._ready.popleft())

    def take(self, size: Size) -> str | None:
        """The name of a spare workspace of this size, which is the caller's now; None when there is none."""
        if size != self._size:
            return None
        with self._changed:
            found = self._ready.popleft() if self._ready else None
            self._changed.notify_all()
        return found

    def wait_full(self, wait_s: float) -> bool:
        """Whether all spares are ready within `wait_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._ready) >= self._count, wait_s)

    def _fill(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or len(self._ready) < self._count)
                if self._changed.wait_for(lambda: self._stopping, REFILL_PAUSE_S):
                    return
            self._make_one()

    def _make_one(self) -> None:
        name = new_name(self._entropy)
        try:
            self._backend.make(name, self._size)
        except CohortError as error:
            _log.warning("no spare workspace could be made: %s", error)
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, PAUSE_S)
            return
        with self._changed:
            self._ready.append(name)
            self._changed.notify_all()


def _remove(backend: Backend, name: str) -> None:
    try:
        backend.remove(name)
    except CohortError as error:
        _log.warning("a spare workspace is left for the next start: %s", error)
