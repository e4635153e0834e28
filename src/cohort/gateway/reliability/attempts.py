"""From a call to the beginning of its answer: which route is asked, what is tried again, when to give up.

Everything here happens before the client has got a byte. A call may ask several routes of its release, never another release.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from cohort.base.ids import Entropy
from cohort.gateway.deadlines import Deadline, Deadlines, Expired
from cohort.gateway.http_messages import Request
from cohort.gateway.keys import KeyMissing, Keys
from cohort.gateway.openai import Chat
from cohort.gateway.records import Ongoing
from cohort.gateway.reliability.breakers import Circuit
from cohort.gateway.reliability.first_event import fault_of_first_event
from cohort.gateway.reliability.retrying import Fault, Slow, fault_of_error, fault_of_status, retry_after_s, wait_s
from cohort.gateway.table import Target
from cohort.gateway.upstream_connection import Invalid, NoAnswer, Overloaded, UpstreamConnection, UpstreamError
from cohort.gateway.upstreams import Upstreams

FORWARDED = frozenset({b"cdn-loop", b"idempotency-key", b"openai-beta", b"traceparent", b"tracestate", b"x-request-id"})
_NONE = Fault.NONE  # a member of an enum takes 60 ns to look up in its class, 3 ns in the module


class Answer(NamedTuple):
    """The beginning of an answer: of a stream its first piece, of any other all of it. The connection goes back with `finish`."""

    connection: UpstreamConnection
    data: bytes


class CircuitOpen(UpstreamError):
    """Every route has failed by making calls wait, and none may be tried yet. Nothing was sent."""

    def __init__(self, words: str, wait_s: float) -> None:
        super().__init__(words)
        self.wait_s = wait_s


class Counts:
    """What attempts did beyond one for each call."""

    __slots__ = ("degraded", "fallbacks", "refused_open", "retries")

    def __init__(self) -> None:
        self.retries = self.fallbacks = self.degraded = self.refused_open = 0


class Attempts:
    """Asks the routes of a call in their order until one answers."""

    def __init__(
        self, upstreams: Upstreams, keys: Keys, deadlines: Deadlines, entropy: Entropy, now_us: Callable[[], int], answer_bytes_max: int
    ) -> None:
        self._upstreams = upstreams
        self._keys = keys
        self._deadlines = deadlines
        self._entropy = entropy
        self._now_us = now_us
        self._answer_bytes_max = answer_bytes_max
        self._loop = asyncio.get_running_loop()
        self.counts = Counts()

    async def ask(self, ongoing: Ongoing, chat: Chat, request: Request, deadline: Deadline, *, patient: bool = True) -> Answer:
        """The first answer that is the client's, or the last one met. Afterwards `ongoing.target` is the route that gave it.

        Raises:
            UpstreamError, KeyMissing: the last failure met, when no attempt got an answer.
            CancelledError: the client left, or the total limit is over (`deadline.expired`).
        """
        first = ongoing.target
        chain = self._admitted(first)
        answer: Answer | None = None
        for position, target in enumerate(chain):
            if position:
                self.counts.fallbacks += 1
            ongoing.target = target
            try:
                more = position + 1 < len(chain)
                answer, fault = await self._ask_route(ongoing, chat, request, deadline, patient, more)
            except (UpstreamError, KeyMissing):
                if not more:
                    raise
                continue
            if fault is _NONE or not more:
                break
            self._upstreams.finish(answer.connection)
        if answer is None:
            raise NoAnswer("no route could be asked")
        if ongoing.target is not first and answer.connection.status < 300:
            ongoing.degraded = True
            self.counts.degraded += 1
        return answer

    def failed(self, target: Target, *, slow: bool) -> None:
        """An answer of `target` that had begun broke off, or its time ran out."""
        target.breaker.failed(self._loop.time(), self._now_us(), slow=slow)

    # --- one route -------------------------------------------------------------------------------------------------------------

    def _admitted(self, first: Target) -> tuple[Target, ...] | list[Target]:
        """The routes to ask. Where every circuit is open the first is asked all the same, unless it fails by making calls wait."""
        if not first.others and not first.breaker.failures:
            return (first,)
        now_s = self._loop.time()
        chain = [target for target in (first, *first.others) if not target.breaker.failures or target.breaker.admits(now_s)]
        if chain:
            return chain
        if first.breaker.slow:
            self.counts.refused_open += 1
            wait = min(target.breaker.wait_s(now_s) for target in (first, *first.others))
            raise CircuitOpen(f"no answer in time to the last {first.breaker.failures} calls; tried again in {wait:.0f} s", wait)
        return (first,)

    async def _ask_route(
        self, ongoing: Ongoing, chat: Chat, request: Request, deadline: Deadline, patient: bool, more: bool
    ) -> tuple[Answer, Fault]:
        """One route, tried as often as it may be. `more`: another route could still be asked."""
        target, limits = ongoing.target, ongoing.target.reliability
        body, tried = target.rewriting.apply(chat), 0
        while True:
            tried += 1
            ongoing.attempts += 1
            if limits.first_byte_s is not None or more or ongoing.attempts > 1:
                rest_s = deadline.left_s(self._loop.time())
                self._deadlines.attempt(deadline, limits.first_byte_s or (rest_s / 2 if more else rest_s))
            answer, error = None, None
            if target.breaker.failures:
                target.breaker.begin()
            try:
                answer = await self._once(ongoing, target, body, request, deadline, patient)
                fault = _fault(ongoing, answer)
            except (UpstreamError, KeyMissing) as caught:
                error, fault = caught, fault_of_error(caught)
            self._account(target, answer, error, fault)
            wait = None if fault is _NONE else self._wait_s(tried, fault, answer, request, target, deadline)
            if wait is None:
                if answer is None:
                    raise error or NoAnswer("no answer")
                return answer, fault
            if answer is not None:
                self._upstreams.finish(answer.connection)
            self.counts.retries += 1
            await asyncio.sleep(wait)

    async def _once(self, ongoing: Ongoing, target: Target, body: bytes, request: Request, deadline: Deadline, patient: bool) -> Answer:
        """One exchange, until its answer has begun (a stream) or is here."""
        try:
            connection = await self._upstreams.exchange(target.origin, self._message(target, body, request), patient=patient)
            try:
                if ongoing.stream and 200 <= connection.status < 300:
                    data = await connection.chunk()
                    if not data:
                        raise NoAnswer("the stream of the answer was empty")
                    deadline.answering(self._loop.time(), target.reliability.idle_s)
                else:
                    data = connection.taken() if connection.complete else await self._whole(connection, target, deadline)
            except BaseException:
                self._upstreams.finish(connection)
                raise
        except asyncio.CancelledError:
            if deadline.expired is Expired.ATTEMPT or deadline.expired is Expired.IDLE:
                raise Slow("no answer in the time of an attempt (reliability.first_byte_s, idle_s)") from None
            if deadline.expired is None:
                target.breaker.left()
            else:
                self.failed(target, slow=True)
            raise
        return Answer(connection, data)

    def _account(self, target: Target, answer: Answer | None, error: Exception | None, fault: Fault) -> None:
        """What an attempt says of its route. 429 and a full gateway say nothing."""
        breaker = target.breaker
        if fault is _NONE:
            if breaker.failures:
                breaker.succeeded()
        elif isinstance(error, Overloaded) or (answer is not None and answer.connection.status == 429):
            breaker.left()
        else:
            breaker.failed(self._loop.time(), self._now_us(), slow=isinstance(error, Slow))

    def _wait_s(
        self, tried: int, fault: Fault, answer: Answer | None, request: Request, target: Target, deadline: Deadline
    ) -> float | None:
        """How long to wait before this route is tried again; None: not again."""
        named = b"idempotency-key" in request.headers
        if tried > target.reliability.retries or not (fault is Fault.REFUSED or (fault is Fault.UNCERTAIN and named)):
            return None
        if target.breaker.state is not Circuit.CLOSED:
            return None
        asked = retry_after_s(answer.connection.headers) if answer is not None else None
        wait = wait_s(tried, asked, target.reliability, self._entropy)
        return wait if wait is not None and wait < deadline.left_s(self._loop.time()) else None

    async def _whole(self, connection: UpstreamConnection, target: Target, deadline: Deadline) -> bytes:
        """The body of an answer that is not streamed; raises Broken, or Invalid for one over its limit."""
        parts, size = [], 0
        deadline.answering(self._loop.time(), target.reliability.idle_s)
        while chunk := await connection.chunk():
            deadline.moved_s = self._loop.time()
            parts.append(chunk)
            size += len(chunk)
            if size > self._answer_bytes_max:
                raise Invalid(f"the answer is larger than {self._answer_bytes_max} bytes (answer_bytes_max)")
        return b"".join(parts)

    def _message(self, target: Target, body: bytes, request: Request) -> bytes:
        headers, passed = request.headers, b""
        own = self._keys.authorization(target.api_key)
        if not FORWARDED.isdisjoint(headers):
            passed = b"".join([b"%s: %s\r\n" % (name, headers[name]) for name in FORWARDED.intersection(headers)])
        return b"%s%s%scontent-length: %d\r\n\r\n%s" % (target.head, own, passed, len(body), body)


def _fault(ongoing: Ongoing, answer: Answer) -> Fault:
    """Whether an answer is the client's. Raises Invalid for a stream that does not begin as one."""
    status = answer.connection.status
    if 200 <= status < 300:
        return fault_of_first_event(answer.data) if ongoing.stream else _NONE
    return fault_of_status(status)
