"""Texts of many requests go through the model together. One thread works; texts wait in a bounded queue, in the order they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from cohort.base.settings_embeddings import EmbeddingsLimits
from cohort.gateway.embeddings.model import Embedded, Model
from cohort.gateway.log import Log

Waiting = tuple[str, "asyncio.Future[Embedded]"]


class QueueFull(Exception):
    """More texts wait than may."""


class ModelFailed(Exception):
    """The model raised something; the log says what."""


class Batcher:
    """While the model works on one batch, the next one gathers. `gather_ms` above 0 lets an idle model wait for company as well."""

    def __init__(self, model: Model, limits: EmbeddingsLimits, log: Log) -> None:
        self._model = model
        self._limits = limits
        self._log = log
        self._queue: deque[Waiting] = deque()
        self._some = asyncio.Event()
        self._full = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "model")
        self.texts = self.batches = self.refused = self.failed = 0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def embed(self, texts: Sequence[str]) -> list[Embedded]:
        """One for each text. When the caller is cancelled, texts that have not begun are not embedded.

        Raises:
            QueueFull: nothing was begun. ModelFailed: for any of the texts.
        """
        if len(self._queue) + len(texts) > self._limits.queue_max:
            self.refused += len(texts)
            raise QueueFull
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Embedded]] = [loop.create_future() for _ in texts]
        self._queue.extend(zip(texts, futures, strict=True))
        self._some.set()
        if len(self._queue) >= self._limits.batch_max:
            self._full.set()
        return await asyncio.gather(*futures)

    async def run(self) -> None:
        """Work until cancelled; then texts that wait are cancelled too."""
        try:
            while True:
                await self._some.wait()
                await self._gather()
                batch = self._take()
                if batch:
                    await self._work(batch)
        finally:
            for _, future in self._queue:
                future.cancel()
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _gather(self) -> None:
        if self._limits.gather_ms and len(self._queue) < self._limits.batch_max:
            self._full.clear()
            waiter = asyncio.ensure_future(self._full.wait())
            await asyncio.wait((waiter,), timeout=self._limits.gather_ms / 1000)
            waiter.cancel()

    def _take(self) -> list[Waiting]:
        batch: list[Waiting] = []
        while self._queue and len(batch) < self._limits.batch_max:
            entry = self._queue.popleft()
            if not entry[1].cancelled():
                batch.append(entry)
        if not self._queue:
            self._some.clear()
        return batch

    async def _work(self, batch: list[Waiting]) -> None:
        texts = [text for text, _ in batch]
        self.batches += 1
        self.texts += len(texts)
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._model.embed, texts)
        except Exception as error:  # the supervisor of one batch; the model's exceptions have no common class
            self.failed += len(batch)
            self._log.seldom("model_failed", error=type(error).__name__)  # not its words, which may repeat a text
            for _, future in batch:
                if not future.done():
                    future.set_exception(ModelFailed())
            return
        for (_, future), entry in zip(batch, found, strict=True):
            if not future.done():
                future.set_result(entry)
