"""Coroutines run by hand: waits, endings, cancellation."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest

from cohort.gateway import strands
from cohort.gateway.deadlines import Deadlines, Expired
from cohort.gateway.strands import Pause, Strand


class Endings:
    """What became of strands."""

    def __init__(self) -> None:
        self.raised: list[BaseException | None] = []
        self.over = asyncio.Event()

    def begin(self, coroutine: Coroutine[Any, None, None]) -> Strand:
        strand = Strand(coroutine, self._end)
        strand.step()
        return strand

    def _end(self, _strand: Strand, error: BaseException | None) -> None:
        self.raised.append(error)
        self.over.set()


def test_a_strand_goes_on_where_its_pause_is_woken() -> None:
    pause, seen, endings = Pause(), list[str](), Endings()

    async def work() -> None:
        seen.append("begun")
        await pause
        seen.append("woken")

    endings.begin(work())
    assert (seen, endings.raised) == (["begun"], [])
    pause.wake()
    assert (seen, endings.raised) == (["begun", "woken"], [None])
    pause.wake()
    assert endings.raised == [None]


def test_a_strand_tells_what_it_raised() -> None:
    async def work() -> None:
        raise ValueError("broken")

    endings = Endings()
    endings.begin(work())
    assert [type(error) for error in endings.raised] == [ValueError]
    assert strands.running is None


def test_the_current_strand_is_the_one_that_runs_also_when_it_runs_another() -> None:
    seen: list[Strand | None] = []

    async def inner() -> None:
        seen.append(strands.running)

    async def outer() -> None:
        seen.append(strands.running)
        seen.append(Endings().begin(inner()))
        seen.append(strands.running)

    begun = Endings().begin(outer())
    assert seen == [begun, seen[2], seen[2], begun]
    assert seen[2] is not begun


def test_a_cancelled_strand_meets_it_where_it_waits() -> None:
    pause, endings, seen = Pause(), Endings(), list[str]()

    async def work() -> None:
        try:
            await pause
        except asyncio.CancelledError:
            seen.append("cancelled")
            await pause  # what it still has to do may wait
            raise

    strand = endings.begin(work())
    strand.cancel()
    assert (seen, endings.raised) == (["cancelled"], [])
    pause.wake()
    assert [type(error) for error in endings.raised] == [asyncio.CancelledError]


def test_a_strand_cancelled_while_it_runs_meets_it_at_its_next_wait() -> None:
    pause, endings = Pause(), Endings()

    async def work() -> None:
        strand = strands.running
        assert strand is not None
        strand.cancel()
        await pause

    endings.begin(work())
    assert [type(error) for error in endings.raised] == [asyncio.CancelledError]


@pytest.mark.parametrize("late", [False, True])
def test_a_strand_may_wait_for_a_future_and_be_cancelled_there_even_when_that_is_done(late: bool) -> None:
    async def scene() -> list[BaseException | None]:
        loop = asyncio.get_running_loop()
        endings, future = Endings(), loop.create_future()

        async def work() -> None:
            await future

        strand = endings.begin(work())
        if late:
            future.set_result(None)
        strand.cancel()
        await endings.over.wait()
        return endings.raised

    assert [type(error) for error in asyncio.run(scene())] == [asyncio.CancelledError]


def test_a_strand_gets_the_result_of_a_task() -> None:
    async def scene() -> list[int]:
        results: list[int] = []
        endings = Endings()

        async def seven() -> int:
            await asyncio.sleep(0)
            return 7

        async def work() -> None:
            results.append(await asyncio.get_running_loop().create_task(seven()))

        endings.begin(work())
        await endings.over.wait()
        assert endings.raised == [None]
        return results

    assert asyncio.run(scene()) == [7]


def test_a_deadline_cancels_the_strand_that_set_it_and_says_so() -> None:
    async def scene() -> list[Expired | None]:
        deadlines, endings, expired = Deadlines(), Endings(), list[Expired | None]()

        async def work() -> None:
            deadline = deadlines.begin(0.01)
            try:
                await Pause()
            except asyncio.CancelledError:
                expired.append(deadline.expired)

        endings.begin(work())
        await endings.over.wait()
        deadlines.close()
        return expired

    assert asyncio.run(scene()) == [Expired.TOTAL]


def test_what_a_cancelled_strand_held_is_free_at_once() -> None:
    class Held:
        pass

    seen: list[weakref.ref[Held]] = []

    async def call() -> None:
        held = Held()
        seen.append(weakref.ref(held))
        await Pause()

    gc.disable()
    try:
        strand = Strand(call(), lambda _strand, _error: None)
        strand.step()
        strand.cancel()
        assert seen[0]() is None
    finally:
        gc.enable()
