"""Copies of calls to a rollout's candidate, for nobody: the first to be dropped under load, redacted, never in the way of a client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from cohort.gateway.answering import Answering
from cohort.gateway.assignment import is_shadowed
from cohort.gateway.contract import Arm
from cohort.gateway.dialects.face import Chat, Refused
from cohort.gateway.http_messages import Request
from cohort.gateway.log import Log
from cohort.gateway.metrics import Metrics
from cohort.gateway.records import Ongoing, Recorder
from cohort.gateway.settings import Limits
from cohort.gateway.strands import Strand
from cohort.gateway.table import Table


class Shadows:
    """The copies of this process. `choose`: which of the candidate's routes is asked first."""

    def __init__(
        self,
        table: Table,
        recorder: Recorder,
        answering: Answering,
        metrics: Metrics,
        limits: Limits,
        log: Log,
        choose: Callable[[Ongoing, Chat], None],
    ) -> None:
        self._table = table
        self._recorder = recorder
        self._answering = answering
        self._metrics = metrics
        self._limits = limits
        self._log = log
        self._choose = choose
        self._running: set[Strand] = set()
        self._last: asyncio.Future[None] | None = None

    @property
    def count(self) -> int:
        return len(self._running)

    def maybe_copy(self, ongoing: Ongoing, chat: Chat, request: Request, in_flight: int) -> None:
        """Copy a call of the stable release where the rollout says so and there is room: with `in_flight` calls of clients there may be none."""
        split, salt = ongoing.service.split, ongoing.service.salts
        if split is None or salt is None or ongoing.arm is not Arm.STABLE or not is_shadowed(split, salt, ongoing.unit):
            return
        snapshot = self._table.snapshot
        if snapshot is None or "shadow" in snapshot.killed:
            return
        busy = len(self._running) >= self._limits.shadow_in_flight_max or in_flight >= self._limits.shadow_shed_in_flight
        if busy or not self._answering.has_room(ongoing.service.target(Arm.SHADOW)):
            self._metrics.shadow_dropped += 1
            return
        guard = ongoing.service.shadow_guard
        copied = replace(chat, shadow=True)
        if guard is not None:
            try:
                copied = guard.apply(copied, self._metrics.personal_found)
            except Refused:
                self._metrics.shadow_dropped += 1
                return
        shadow = self._recorder.copy(ongoing)
        self._choose(shadow, copied)
        strand = Strand(self._ask(shadow, copied, request), self._done)
        self._running.add(strand)
        strand.step()

    async def close(self) -> None:
        """End the copies still running."""
        for strand in list(self._running):
            strand.cancel()
        if self._running:
            self._last = asyncio.get_running_loop().create_future()
            await self._last

    async def _ask(self, shadow: Ongoing, chat: Chat, request: Request) -> None:
        try:
            await self._answering.rehearse(shadow, chat, request)
        finally:
            self._recorder.end(shadow)

    def _done(self, strand: Strand, error: BaseException | None) -> None:
        self._running.discard(strand)
        if isinstance(error, Exception):
            self._log.write("shadow_failed", error=type(error).__name__)
        if self._last is not None and not self._running:
            self._last.set_result(None)
