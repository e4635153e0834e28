"""Texts of many callers through one model: together, in order, no more than may wait, and nothing for those who left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.base.clock import ManualClock
from cohort.base.settings_embeddings import EmbeddingsLimits
from cohort.gateway.embeddings.batching import Batcher, ModelFailed, QueueFull
from cohort.gateway.embeddings.model import Embedded, portions
from cohort.gateway.log import Log

WAIT_S = 20.0


class Held:
    """A model that works when it is let, says which texts it was given together, and fails on the text `fail`."""

    name, dimension, tokens_max = "held", 2, 8

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = threading.Event()
        self.begun = threading.Semaphore(0)

    def embed(self, texts: Sequence[str]) -> list[Embedded]:
        self.batches.append(list(texts))
        self.begun.release()
        assert self.open.wait(WAIT_S)
        if "fail" in texts:
            raise RuntimeError("no")
        return [Embedded(1, numpy.array([float(text), 1.0], dtype=numpy.float32)) for text in texts]


def run(work: Callable[[Held, Batcher], Awaitable[Any]], **limits: Any) -> tuple[Held, Any]:
    """What `work` returns, with a batcher that runs meanwhile."""
    model = Held()

    async def inside() -> Any:
        batcher = Batcher(model, EmbeddingsLimits(**limits), Log("test", ManualClock()))
        running = asyncio.ensure_future(batcher.run())
        try:
            return await asyncio.wait_for(work(model, batcher), WAIT_S)
        finally:
            model.open.set()
            running.cancel()
            await asyncio.wait([running])

    return model, asyncio.run(inside())


async def begun(model: Held) -> None:
    """Returns when the model has a batch that nobody waited for yet."""
    assert await asyncio.get_running_loop().run_in_executor(None, lambda: model.begun.acquire(timeout=WAIT_S))


async def asked(batcher: Batcher, *texts: str) -> asyncio.Task[list[Embedded]]:
    task = asyncio.ensure_future(batcher.embed(texts))
    await asyncio.sleep(0)
    return task


def test_what_comes_while_the_model_works_goes_through_together_and_back_to_whom_it_belongs() -> None:
    async def work(model: Held, batcher: Batcher) -> list[list[float]]:
        first = await asked(batcher, "0")
        await begun(model)
        others = [await asked(batcher, str(number), str(number + 10)) for number in (1, 2, 3)]
        model.open.set()
        return [[float(entry.vector[0]) for entry in await task] for task in (first, *others)]

    model, found = run(work)
    assert model.batches == [["0"], ["1", "11", "2", "12", "3", "13"]]
    assert found == [[0], [1, 11], [2, 12], [3, 13]]


def test_a_batch_is_never_larger_than_may_be_and_keeps_the_order() -> None:
    async def work(model: Held, batcher: Batcher) -> None:
        model.open.set()
        await batcher.embed([str(number) for number in range(7)])

    model, _ = run(work, batch_max=3)
    assert model.batches == [["0", "1", "2"], ["3", "4", "5"], ["6"]]


def test_more_texts_than_may_wait_are_refused_whole_and_those_that_wait_are_answered() -> None:
    async def work(model: Held, batcher: Batcher) -> tuple[int, int]:
        first = await asked(batcher, "0")
        await begun(model)
        waiting = await asked(batcher, "1", "2")
        with pytest.raises(QueueFull):
            await batcher.embed(["3", "4"])
        last = await asked(batcher, "5")
        model.open.set()
        await asyncio.gather(first, waiting, last)
        return batcher.refused, batcher.texts

    model, counts = run(work, queue_max=3)
    assert (model.batches[1], counts) == (["1", "2", "5"], (2, 4))


def test_texts_of_a_caller_that_left_are_not_embedded() -> None:
    async def work(model: Held, batcher: Batcher) -> None:
        first = await asked(batcher, "0")
        await begun(model)
        left, stays = await asked(batcher, "1"), await asked(batcher, "2")
        left.cancel()
        await asyncio.wait([left])
        model.open.set()
        await asyncio.gather(first, stays)

    assert run(work)[0].batches == [["0"], ["2"]]


def test_a_model_that_fails_fails_its_batch_and_goes_on() -> None:
    async def work(model: Held, batcher: Batcher) -> tuple[float, int]:
        model.open.set()
        with pytest.raises(ModelFailed):
            await batcher.embed(["1", "fail"])
        return float((await batcher.embed(["2"]))[0].vector[0]), batcher.failed

    assert run(work)[1] == (2.0, 2)


def test_an_idle_model_waits_for_company_where_it_is_told_to_and_no_longer_once_a_batch_is_full() -> None:
    async def work(model: Held, batcher: Batcher) -> None:
        model.open.set()
        await asyncio.gather(*[await asked(batcher, str(number)) for number in range(3)])

    model, _ = run(work, gather_ms=1e7, batch_max=3)
    assert model.batches == [["0", "1", "2"]]


@given(
    st.lists(st.integers(1, 512), max_size=80),
    st.builds(EmbeddingsLimits, batch_max=st.integers(1, 40), batch_tokens_max=st.integers(1, 9000)),
)
def test_portions_hold_every_text_once_and_keep_to_the_limits(tokens: list[int], limits: EmbeddingsLimits) -> None:
    found = list(portions(list(range(len(tokens))), tokens, limits))
    assert sorted(at for portion in found for at in portion) == list(range(len(tokens)))
    for portion in found:
        assert len(portion) <= limits.batch_max
        assert len(portion) == 1 or len(portion) * max(tokens[at] for at in portion) <= limits.batch_tokens_max
