"""The exact tiers outside this process: found by waiting, written by one task behind a bounded queue, off the way of every call."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from dataclasses import dataclass

from cohort.base.errors import CohortError, Retry
from cohort.gateway.cache.answers import Answer
from cohort.gateway.cache.disk import Disk
from cohort.gateway.cache.erasing import Erased
from cohort.gateway.cache.packing import Found
from cohort.gateway.cache.shared import Shared, Unavailable
from cohort.gateway.contract_cache import CachePolicy
from cohort.gateway.log import Log

QUEUED_MAX = 256
QUEUED_BYTES_MAX = 16 << 20
SWEEP_S = 60.0
CHECK_S = 5.0


@dataclass(frozen=True, slots=True)
class Writing:
    """One answer on its way out. `began_s`: when its call began, for erasures in between."""

    key: bytes
    answer: Answer
    unit: str
    began_s: float
    policy: CachePolicy


class Outside:
    """L2 and L3. A tier that fails is a miss, said in the log once a minute; only an erasure raises."""

    def __init__(self, disk: Disk, shared: Shared | None, erased: Erased, log: Log) -> None:
        self._disk = disk
        self._shared = shared
        self._erased = erased
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Writing] = deque()
        self._queued_bytes = 0
        self._more = asyncio.Event()
        self._writing = asyncio.Lock()
        self._retired = False
        self.dropped = 0

    def serves(self, policy: CachePolicy) -> bool:
        return policy.disk or (policy.shared and self._shared is not None)

    async def find_shared(self, key: bytes, policy: CachePolicy) -> Found | None:
        if not policy.shared or self._shared is None or self._shared.rests:
            return None
        try:
            return await self._shared.find(key)
        except Unavailable as error:
            self._log.seldom("cache_shared_failed", reason=str(error))
            return None

    async def find_on_disk(self, key: bytes, policy: CachePolicy) -> Found | None:
        if not policy.disk:
            return None
        try:
            return await self._loop.run_in_executor(None, self._disk.find, key)
        except OSError as error:
            self._disk_failed(error)
            return None

    def offer(self, writing: Writing) -> None:
        """Have an answer written soon. When there is too much to write it is not, and counted."""
        size = len(writing.answer.body)
        if len(self._queue) >= QUEUED_MAX or self._queued_bytes + size > QUEUED_BYTES_MAX:
            self.dropped += 1
            return
        self._queue.append(writing)
        self._queued_bytes += size
        self._more.set()

    async def run(self) -> None:
        """Write what is offered, and tidy the disk, until cancelled."""
        swept_s = self._loop.time()
        while True:
            self._more.clear()
            await self.write_all()
            if self._loop.time() - swept_s >= SWEEP_S:
                swept_s = self._loop.time()
                await self._sweep()
            if self._shared is not None:
                await self._shared.check()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_S if self._shared is None else CHECK_S):
                    await self._more.wait()

    async def write_all(self) -> None:
        """Write what waits."""
        while self._queue:
            writing = self._queue.popleft()
            self._queued_bytes -= len(writing.answer.body)
            async with self._writing:
                await self._write_safely(writing)

    async def erase(self, unit: str) -> dict[str, int]:
        """Remove the answers to a unit's calls from every tier there is; how many each had.

        Raises:
            CohortError CACHE_NOT_ERASED: a tier did not answer; some may still be there.
        """
        async with self._writing:  # what is being written is seen; what is written later looks at `erased` first
            try:
                on_disk = await self._loop.run_in_executor(None, self._disk.erase, unit)
                shared = await self._shared.erase(unit) if self._shared is not None else 0
            except (OSError, Unavailable) as error:
                raise CohortError(
                    "CACHE_NOT_ERASED", f"not every answer could be erased: {error}", retry=Retry.SAFE, hint="Ask again once it works."
                ) from error
        return {"l2": shared, "l3": on_disk}

    def state(self) -> dict[str, dict[str, int]]:
        disk = self._disk
        on_disk = {
            "entries": len(disk),
            "bytes": disk.used_bytes,
            "evicted": disk.evicted,
            "damaged": disk.damaged,
            "dropped": self.dropped,
        }
        return {"l3": on_disk}

    def retire(self) -> None:
        """Write nothing from now on: what waits to be written is dropped."""
        self._retired = True
        self._queue.clear()
        self._queued_bytes = 0

    @property
    def problem(self) -> str | None:
        """What keeps a tier from being used now, in words."""
        return self._shared.problem if self._shared is not None else None

    def close(self) -> None:
        if self._shared is not None:
            self._shared.close()

    async def _write_safely(self, writing: Writing) -> None:
        try:
            await self._write(writing)
        except Exception as error:  # the supervisor of writes: what is wrong with one answer must not end the gateway
            self._log.write("cache_write_failed", error=type(error).__name__)

    async def _write(self, writing: Writing) -> None:
        key, answer, unit, ttl_s = writing.key, writing.answer, writing.unit, writing.policy.ttl_s
        if self._retired or self._erased.since(unit, writing.began_s):
            return
        try:
            if writing.policy.disk:
                await self._loop.run_in_executor(None, self._disk.keep, key, answer, unit, ttl_s)
            if writing.policy.shared and self._shared is not None and not self._shared.rests:
                await self._shared.keep(key, answer, unit, ttl_s)
        except OSError as error:
            self._disk_failed(error)
        except Unavailable as error:
            self._log.seldom("cache_shared_failed", reason=str(error))

    async def _sweep(self) -> None:
        try:
            await self._loop.run_in_executor(None, self._disk.sweep)
        except OSError as error:
            self._disk_failed(error)

    def _disk_failed(self, error: OSError) -> None:
        self._log.seldom("cache_disk_failed", reason=os.strerror(error.errno or 0))
