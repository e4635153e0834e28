"""The same change asked for twice, done once: answers by idempotency key, for as long as a client goes on repeating.

Kept in memory: a change that was repeated over a restart of control meets the rooms' own rules (a taken name, a decided approval).
Actions are kept by the action gate, durably.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.surfaces.http.callers import Caller

ANSWERS_MAX = 1000
ANSWER_LIFE_S = 600.0


@dataclass(slots=True)
class _Place:
    """`lock` is held while the change is being made, so that a repetition waits for its answer."""

    what: str
    until_s: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    answer: Response | None = None


class Repeats:
    """Safe to use from many threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._places: OrderedDict[tuple[str, str], _Place] = OrderedDict()

    def once(self, caller: Caller, key: str | None, what: str, change: Callable[[], Response]) -> Response:
        """The answer of `change`, or of the time before. A refusal is not kept: it changed nothing.

        Raises:
            CohortError IDEMPOTENCY_MISMATCH: the key came with another request.
        """
        if key is None:
            return change()
        place = self._place((caller.name, key), what)
        with place.lock:
            if place.answer is None:
                place.answer = change()
            return place.answer

    def _place(self, name: tuple[str, str], what: str) -> _Place:
        now_s = self._clock.monotonic_s()
        with self._lock:
            while self._places and (len(self._places) >= ANSWERS_MAX or next(iter(self._places.values())).until_s <= now_s):
                self._places.popitem(last=False)
            place = self._places.setdefault(name, _Place(what, now_s + ANSWER_LIFE_S))
        if place.what != what:
            raise CohortError(
                "IDEMPOTENCY_MISMATCH", "this idempotency key came with another request", hint="Use a new key for every change."
            )
        return place


def once(request: Request, caller: Caller, key: str | None, body: object, change: Callable[[], Response]) -> Response:
    """`change`, once for this key. Errors: IDEMPOTENCY_MISMATCH and those of `change`."""
    repeats: Repeats = request.app.state.repeats
    what = hashlib.sha256(f"{request.method} {request.url.path} {body!r}".encode(errors="replace")).hexdigest()
    return repeats.once(caller, key, what, change)
