"""The log of the process: one JSON object per line on stderr. Never the content of a request, never a key."""

from __future__ import annotations

import sys
from typing import Any, TextIO

import orjson

from cohort.base.clock import Clock

REPEAT_AFTER_S = 60.0


class Log:
    def __init__(self, gateway_id: str, clock: Clock, out: TextIO = sys.stderr) -> None:
        self._gateway_id = gateway_id
        self._clock = clock
        self._out = out
        self._last_s: dict[str, float] = {}
        self.lost = 0

    def write(self, event: str, **fields: Any) -> None:
        """One line, at once. When nobody reads stderr any more, or its disk is full, the line is lost and counted: serving goes on."""
        line = orjson.dumps({"at_us": self._clock.now_us(), "gateway": self._gateway_id, "event": event, **fields}, default=str)
        try:
            self._out.write(line.decode() + "\n")
            self._out.flush()
        except OSError:
            self.lost += 1

    def seldom(self, event: str, **fields: Any) -> None:
        """The same, at most once a minute per event: for conditions that last."""
        now_s = self._clock.monotonic_s()
        if now_s - self._last_s.get(event, -REPEAT_AFTER_S) >= REPEAT_AFTER_S:
            self._last_s[event] = now_s
            self.write(event, **fields)
