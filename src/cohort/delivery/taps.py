"""One spool that control takes from, and how far it has."""

from __future__ import annotations

from typing import Protocol

from cohort.gateway.contract import Batch, Cursor

RECORDS_MAX = 4000
SETTLE_US = 100_000
"""How much later than its assignment a record may be in a worker's spool: what a turn of its event loop may take."""


class Source(Protocol):
    """Where records come from. Every method may raise CohortError DATA_PLANE_UNAVAILABLE."""

    def pull(self, after: Cursor, *, records_max: int, wait_ms: int) -> Batch: ...

    def acknowledge(self, upto: Cursor) -> None: ...


class Tap:
    """One spool, as far as it was taken.

    `cursor`: everything before it is stored; None: the database knows. `complete_us`: every record of an earlier assignment has been pulled.
    """

    def __init__(self, source: Source, gateway: str | None = None) -> None:
        self.source = source
        self.gateway = gateway
        self.epoch = 0
        self.cursor: Cursor | None = None
        self.complete_us = 0
        self._acknowledged: Cursor | None = None

    def pull(self, wait_ms: int, now_us: int) -> Batch:
        batch = self.source.pull(self.cursor or Cursor(), records_max=RECORDS_MAX, wait_ms=wait_ms)
        if batch.behind == 0:
            self.complete_us = max(self.complete_us, now_us - SETTLE_US)
        elif batch.records:
            self.complete_us = max(self.complete_us, batch.records[-1].at_us)
        return batch

    def former_names(self) -> tuple[str, ...]:
        """Other names under which the spool was written, the last one first."""
        return self.source.pull(Cursor(), records_max=1, wait_ms=0).formerly

    def acknowledge(self) -> None:
        if self.cursor is not None and self._acknowledged != self.cursor:
            self.source.acknowledge(self.cursor)
            self._acknowledged = self.cursor
