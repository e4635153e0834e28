"""Hedging: when a route has not begun to answer in time, the next one is asked as well, and the first that answers is the client's.

Each route is asked in a strand of its own, with a time limit of its own; the call's strand waits for news of any.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from cohort.gateway.compiled import Target
from cohort.gateway.deadlines import Deadline, Deadlines, Expired
from cohort.gateway.dialects.face import Refused
from cohort.gateway.keys import KeyMissing
from cohort.gateway.reliability.retrying import Fault, Slow
from cohort.gateway.strands import Pause, Strand
from cohort.gateway.upstream_connection import UpstreamError

if TYPE_CHECKING:
    from cohort.gateway.reliability.attempts import Answer

Ask = Callable[[Target, Deadline], "Awaitable[Answer]"]
"""One route, asked within a deadline of its own."""
GiveBack = Callable[["Answer"], None]
"""An answer that nobody will read."""


class Runner:
    """One route that is being asked. When it is `done` it has an answer or an error."""

    def __init__(self, target: Target, ask: Ask, deadlines: Deadlines, left_s: float, news: Pause) -> None:
        self.target = target
        self.answer: Answer | None = None
        self.error: UpstreamError | KeyMissing | Refused | None = None
        self.done = False
        self._news = news
        self._strand = Strand(self._run(ask, deadlines, left_s), self._ended)
        self._strand.step()

    @property
    def won(self) -> bool:
        return self.answer is not None and self.answer.fault is Fault.NONE

    def cancel(self) -> None:
        if not self.done:
            self._strand.cancel()

    async def _run(self, ask: Ask, deadlines: Deadlines, left_s: float) -> None:
        deadline = deadlines.begin(left_s)
        try:
            self.answer = await ask(self.target, deadline)
        except (UpstreamError, KeyMissing, Refused) as error:
            self.error = error.with_traceback(None)  # its frames would hold this runner, and it them
        except asyncio.CancelledError:
            if deadline.expired is not Expired.TOTAL:
                raise
            self.error = Slow("no answer in the time of the call (limits.timeout_s of the release)")
        finally:
            deadlines.end(deadline)

    def _ended(self, _strand: Strand, _error: BaseException | None) -> None:
        self.done = True
        self._news.wake()


class Race:
    """The routes of one call, each asked when those before it have failed or `after_s` has gone by."""

    def __init__(
        self, chain: Sequence[Target], after_s: float, ask: Ask, give_back: GiveBack, deadlines: Deadlines, deadline: Deadline
    ) -> None:
        self._waiting = list(chain)
        self._after_s = after_s
        self._ask = ask
        self._give_back = give_back
        self._deadlines = deadlines
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._news = Pause()
        self._runners: list[Runner] = []
        self.hedges = 0

    async def run(self) -> Runner:
        """The one whose answer or failure is the call's. The others are cancelled, their answers given back."""
        winner: Runner | None = None
        try:
            while winner is None:
                if self._waiting:
                    self._start()
                await self._some_news()
                winner = next((runner for runner in self._runners if runner.won), None)
                if winner is None and not self._waiting and all(runner.done for runner in self._runners):
                    winner = self._runners[-1]
            return winner
        finally:
            for runner in self._runners:
                runner.cancel()
                if runner is not winner and runner.answer is not None:
                    self._give_back(runner.answer)

    def given_up(self, winner: Runner) -> tuple[Target, ...]:
        """The routes that were asked beside the winner's and had not said no."""
        return tuple(
            runner.target for runner in self._runners if runner is not winner and (runner.error is None or isinstance(runner.error, Slow))
        )

    def _start(self) -> None:
        self.hedges += any(not runner.done for runner in self._runners)
        left_s = self._deadline.left_s(self._loop.time())
        self._runners.append(Runner(self._waiting.pop(0), self._ask, self._deadlines, left_s, self._news))

    async def _some_news(self) -> None:
        """Returns when a route is done that was not, or when it is time for the next one."""
        running = [runner for runner in self._runners if not runner.done]
        if not running or any(runner.won for runner in self._runners):
            return
        due_s = self._loop.time() + self._after_s if self._waiting else None
        timer = self._loop.call_at(due_s, self._news.wake) if due_s is not None else None
        try:
            await self._news
        finally:
            if timer is not None:
                timer.cancel()
