"""From a call to the beginning of its answer: which route is asked, what is tried again, when to give up.

Everything here happens before the client has got a byte. A call may ask several routes of its release, never another release.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from hashlib import blake2b, sha256
from typing import Any, NamedTuple

from cohort.base.clock import Clock
from cohort.base.ids import Entropy
from cohort.gateway.cache.tape import Taped
from cohort.gateway.compiled import Target
from cohort.gateway.deadlines import Deadline, Deadlines, Expired
from cohort.gateway.dialects.face import UNKNOWN, Chat, Flow, Passage, Refused, Untranslatable, Usage
from cohort.gateway.http_messages import Request
from cohort.gateway.keys import KeyMissing, Keys
from cohort.gateway.records import Ongoing
from cohort.gateway.reliability.breakers import Circuit
from cohort.gateway.reliability.first_event import fault_of_first_event, with_first_event
from cohort.gateway.reliability.hedging import Race
from cohort.gateway.reliability.retrying import Fault, Slow, fault_of_error, fault_of_status, retry_after_s, wait_s
from cohort.gateway.reliability.telling import tell_answer, tell_end, tell_failure, tell_passed_over
from cohort.gateway.telemetry.onward import Onward
from cohort.gateway.upstream_connection import Broken, Invalid, NoAnswer, Overloaded, UpstreamConnection, UpstreamError
from cohort.gateway.upstreams import Upstreams

IDEMPOTENCY = b"idempotency-key"
_new = tuple.__new__  # a named tuple's own constructor takes three times as long
_NONE = Fault.NONE  # a member of an enum takes 60 ns to look up in its class, 3 ns in the module


class Answer(NamedTuple):
    """The beginning of an answer. The connection goes back with `finish`.

    `said`: the caller's first bytes of a stream (then there is a `flow`), the caller's whole answer, or an upstream's error as it came.
    """

    connection: UpstreamConnection
    passage: Passage
    said: bytes
    fault: Fault = Fault.NONE
    flow: Flow | None = None
    usage: Usage = UNKNOWN


class CircuitOpen(UpstreamError):
    """Every route has failed by making calls wait, and none may be tried yet. Nothing was sent."""

    def __init__(self, words: str, wait_s: float) -> None:
        super().__init__(words)
        self.wait_s = wait_s


class Counts:
    """What attempts did beyond one for each call."""

    __slots__ = ("degraded", "fallbacks", "hedges", "refused_open", "retries")

    def __init__(self) -> None:
        self.retries = self.fallbacks = self.degraded = self.hedges = self.refused_open = 0


class Asking:
    """One call while its routes are asked. `patient`: it may wait for a free connection."""

    __slots__ = ("began_s", "chat", "connect_s", "deadline", "head_s", "hedged", "number", "ongoing", "patient", "request", "wait_s")

    def __init__(self, ongoing: Ongoing, chat: Chat, request: Request, deadline: Deadline, patient: bool, hedged: bool = False) -> None:
        self.ongoing = ongoing
        self.chat = chat
        self.request = request
        self.deadline = deadline
        self.patient = patient
        self.hedged = hedged
        self.number = 0  # of the attempt under way
        self.began_s = self.head_s = 0.0  # when it began, and when its answer did
        self.wait_s = self.connect_s = 0.0  # before it; of it, until there was a connection


class Attempts:
    """Asks the routes of a call in their order until one answers."""

    def __init__(
        self,
        upstreams: Upstreams,
        keys: Keys,
        deadlines: Deadlines,
        entropy: Entropy,
        clock: Clock,
        answer_bytes_max: int,
        onward: Onward | None = None,
    ) -> None:
        self._upstreams = upstreams
        self._keys = keys
        self._onward = onward
        self._deadlines = deadlines
        self._entropy = entropy
        self._now_us, self._monotonic_s = clock.now_us, clock.monotonic_s
        self._answer_bytes_max = answer_bytes_max
        self._loop = asyncio.get_running_loop()
        self.counts = Counts()

    def ask(
        self, ongoing: Ongoing, chat: Chat, request: Request, deadline: Deadline, *, patient: bool = True
    ) -> Coroutine[Any, None, Answer]:
        """The first answer that is the client's, or the last one met. Afterwards `ongoing.target` is the route that gave it.

        Raises:
            UpstreamError, KeyMissing: the last failure met, when no attempt got an answer.
            Refused: no route can be asked this.
            CancelledError: the client left, or a limit is over (`deadline.expired`).
        """
        asking = Asking(ongoing, chat, request, deadline, patient)
        first = ongoing.target
        if not (first.others or first.breaker.failures):
            return self._ask_route(asking, first, more=False)
        chain = self._admitted(asking, first)
        if first.reliability.hedge_after_s is not None and patient and len(chain) > 1:
            return self._ask_hedged(asking, first, chain, first.reliability.hedge_after_s)
        return self._ask_chain(asking, first, chain)

    def failed(self, target: Target, *, slow: bool) -> None:
        """An answer of `target` that had begun broke off, or its time ran out."""
        target.breaker.failed(self._loop.time(), self._now_us(), slow=slow)

    # --- several routes --------------------------------------------------------------------------------------------------------

    def _admitted(self, asking: Asking, first: Target) -> Sequence[Target]:
        """The routes to ask. Where every circuit is open the first is asked all the same, unless it fails by making calls wait."""
        passages = asking.chat.operation.passages
        able = [target for target in (first, *first.others) if target.provider in passages] or [first]
        for target in able:  # written out: a generator takes half a microsecond
            if target.breaker.failures:
                break
        else:
            return able
        now_s = self._loop.time()
        chain = [target for target in able if not target.breaker.failures or target.breaker.admits(now_s)]
        if len(chain) < len(able):
            tell_passed_over(asking, (target for target in able if target not in chain), "circuit_open", self._monotonic_s())
        if chain:
            return chain
        if not able[0].breaker.slow:
            return able[:1]
        self.counts.refused_open += 1
        wait = min(target.breaker.wait_s(now_s) for target in able)
        raise CircuitOpen(f"no answer in time to the last {able[0].breaker.failures} calls; tried again in {wait:.0f} s", wait)

    async def _ask_chain(self, asking: Asking, first: Target, chain: Sequence[Target]) -> Answer:
        ongoing = asking.ongoing
        for target in chain[:-1]:
            ongoing.target = target
            try:
                answer = await self._ask_route(asking, target, more=True)
            except (UpstreamError, KeyMissing, Refused) as error:
                if isinstance(error, Refused):
                    tell_passed_over(asking, (target,), "impossible", self._monotonic_s())
                if may_cost(error):
                    ongoing.beside += (target,)
                self.counts.fallbacks += 1
                continue
            if answer.fault is _NONE:
                return self._noted(ongoing, first, answer)
            self._upstreams.finish(answer.connection)
            self.counts.fallbacks += 1
        ongoing.target = chain[-1]
        return self._noted(ongoing, first, await self._ask_route(asking, chain[-1], more=False))

    async def _ask_hedged(self, asking: Asking, first: Target, chain: Sequence[Target], after_s: float) -> Answer:
        """The routes side by side, each later than the one before it by `after_s`; the first good answer is the call's."""
        ongoing, deadline = asking.ongoing, asking.deadline

        async def ask(target: Target, own: Deadline) -> Answer:
            return await self._ask_route(Asking(ongoing, asking.chat, asking.request, own, patient=True, hedged=True), target, more=False)

        race = Race(chain, after_s, ask, lambda answer: self._upstreams.finish(answer.connection), self._deadlines, deadline)
        if ongoing.tape is not None:
            ongoing.tape.abandon()
        winner = await race.run()
        self.counts.hedges += race.hedges
        ongoing.beside += race.given_up(winner)
        ongoing.target = winner.target
        if winner.answer is None:
            raise winner.error or NoAnswer("there was no answer")
        if winner.answer.flow is not None:
            deadline.answering(self._loop.time(), winner.target.reliability.idle_s)
        return self._noted(ongoing, first, winner.answer)

    def _noted(self, ongoing: Ongoing, first: Target, answer: Answer) -> Answer:
        if ongoing.target is not first and answer.connection.status < 300:
            ongoing.degraded = True
            self.counts.degraded += 1
        return answer

    # --- one route -------------------------------------------------------------------------------------------------------------

    async def _ask_route(self, asking: Asking, target: Target, more: bool) -> Answer:
        """One route, tried as often as it may be. `more`: another route could still be asked."""
        passage = asking.chat.operation.passage(target.provider)
        body, tried = passage.request(asking.chat, target.rewriting), 0
        asking.wait_s = 0.0
        while True:
            tried += 1
            self._begin(asking, target, more)
            try:
                answer = await self._once(asking, target, passage, body)
            except asyncio.CancelledError:
                tell_end(asking, target, self._monotonic_s())
                raise
            except (
                UpstreamError,
                KeyMissing,
            ) as error:  # kept in no variable: with its traceback it would be a cycle, and hold the answer's bytes
                fault = fault_of_error(error)
                tell_failure(asking, target, error, self._monotonic_s())
                self._account(target, fault, spared=isinstance(error, Overloaded), slow=isinstance(error, Slow))
                wait = self._wait_s(tried, fault, None, asking, target)
                if wait is None:
                    raise
                if may_cost(error):
                    asking.ongoing.beside += (target,)
            else:
                if answer.fault is not _NONE or asking.ongoing.tries is not None or asking.connect_s or asking.hedged:
                    tell_answer(asking, target, answer, self._monotonic_s())
                if answer.fault is _NONE and not target.breaker.failures:
                    return answer
                self._account(target, answer.fault, spared=answer.connection.status == 429)
                wait = self._wait_s(tried, answer.fault, retry_after_s(answer.connection.headers), asking, target)
                if wait is None:
                    return answer
                self._upstreams.finish(answer.connection)
            self.counts.retries += 1
            self._deadlines.between(asking.deadline)
            since_s = self._monotonic_s()
            await asyncio.sleep(wait)
            asking.wait_s = self._monotonic_s() - since_s

    def _begin(self, asking: Asking, target: Target, more: bool) -> None:
        """One attempt begins: its limit, its place in the record, the route's probe if it is that."""
        asking.ongoing.attempts = asking.number = asking.ongoing.attempts + 1
        asking.began_s, asking.head_s, asking.connect_s = self._monotonic_s(), 0.0, 0.0
        limit_s = target.reliability.first_byte_s
        if limit_s is not None or more or asking.ongoing.attempts > 1:
            left_s = asking.deadline.left_s(self._loop.time())
            self._deadlines.attempt(asking.deadline, limit_s or (left_s / 2 if more else left_s))
        if target.breaker.failures:
            target.breaker.begin()

    async def _once(self, asking: Asking, target: Target, passage: Passage, body: bytes) -> Answer:
        """One exchange, until its answer has begun (a stream) or is here whole."""
        deadline = asking.deadline
        try:
            message = self._message(asking, target, passage, body)
            connection = await self._upstreams.exchange(target.origin, message, patient=asking.patient)
            asking.head_s, asking.connect_s = self._monotonic_s(), connection.waited_s
            try:
                if asking.ongoing.stream and 200 <= connection.status < 300:
                    return await self._stream_begun(asking, target, passage, connection)
                data = connection.taken() if connection.complete else await self._whole(connection, target, deadline)
                if not 200 <= connection.status < 300:
                    data = self._keys.hidden(target.api_key, target.key_line, data)
                answer = _read(asking.chat, passage, connection, data)
                if asking.ongoing.tape is not None:
                    asking.ongoing.tape.whole(data, answer.said, target.provider)
                return answer
            except BaseException:
                self._upstreams.finish(connection)
                raise
        except asyncio.CancelledError:
            if deadline.expired is None:
                target.breaker.left()
                raise
            if deadline.expired is Expired.TOTAL:
                self.failed(target, slow=True)
                raise
            raise Slow("no answer in the time of an attempt (reliability.first_byte_s, idle_s)") from None
        except (UpstreamError, KeyMissing):
            raise
        except BaseException:  # what the caller sent cannot be asked: it says nothing of the route, whose probe this may have been
            target.breaker.left()
            raise

    async def _stream_begun(self, asking: Asking, target: Target, passage: Passage, connection: UpstreamConnection) -> Answer:
        """The first bytes for the client; raises NoAnswer when there are none, Invalid when what comes is not the upstream's dialect."""
        flow = passage.flow(asking.chat)
        if asking.ongoing.tape is not None:
            flow = Taped(flow, asking.ongoing.tape, target.provider)
        chunk = await connection.chunk()
        if chunk[:1] == b":":
            chunk = await with_first_event(connection, chunk)
        fault = fault_of_first_event(chunk)
        said = flow.feed(chunk) if chunk else b""
        while not said:
            check(flow)
            if not chunk:
                raise NoAnswer("the stream of the answer was empty")
            chunk = await connection.chunk()
            said = flow.feed(chunk) if chunk else b""
        check(flow)
        asking.deadline.answering(self._loop.time(), target.reliability.idle_s)
        return Answer(connection, passage, said, fault, flow)

    def _account(self, target: Target, fault: Fault, *, spared: bool, slow: bool = False) -> None:
        """What an attempt says of its route. `spared`: nothing, as it was asked for too much (429) or the gateway is full."""
        if fault is _NONE:
            target.breaker.succeeded()
        elif spared:
            target.breaker.left()
        else:
            self.failed(target, slow=slow)

    def _wait_s(self, tried: int, fault: Fault, asked_s: float | None, asking: Asking, target: Target) -> float | None:
        """How long to wait before this route is tried again; None: not again."""
        named = IDEMPOTENCY in asking.request.headers and not asking.chat.shadow
        if tried > target.reliability.retries or not (fault is Fault.REFUSED or (fault is Fault.UNCERTAIN and named)):
            return None
        if target.breaker.state is not Circuit.CLOSED:
            return None
        wait = wait_s(tried, asked_s, target.reliability, self._entropy)
        return wait if wait is not None and wait < asking.deadline.left_s(self._loop.time()) else None

    async def _whole(self, connection: UpstreamConnection, target: Target, deadline: Deadline) -> bytes:
        """The body of an answer that is not streamed; raises Broken, or Invalid for one over its limit."""
        parts, size = [], connection.promised_bytes
        if size > self._answer_bytes_max:
            raise Invalid(f"the answer has {size} bytes, more than {self._answer_bytes_max} (answer_bytes_max)")
        size = 0
        deadline.answering(self._loop.time(), target.reliability.idle_s)
        while chunk := await connection.chunk():
            deadline.moved_s = self._loop.time()
            parts.append(chunk)
            size += len(chunk)
            if size > self._answer_bytes_max:
                raise Invalid(f"the answer is larger than {self._answer_bytes_max} bytes (answer_bytes_max)")
        return b"".join(parts)

    def _message(self, asking: Asking, target: Target, passage: Passage, body: bytes) -> bytes:
        headers: Mapping[bytes, bytes] = asking.request.headers
        if IDEMPOTENCY in headers:
            headers = upstream_headers(asking, target)
        if self._onward is not None:
            headers = self._onward.headers(headers, asking.ongoing, asking.number)
        passed = passage.headers(headers)
        own = self._keys.authorization(target.api_key, target.key_line) if target.api_key is not None else b""
        return b"%s%s%scontent-length: %d\r\n\r\n%s" % (target.heads[passage.path], own, passed, len(body), body)


def upstream_headers(asking: Asking, target: Target) -> Mapping[bytes, bytes]:
    """The caller's headers. Its idempotency key becomes one of the caller, the release and the route; each try of the route has the same.

    Callers share the release's account at the upstream: two with one key could get each other's answer. Another route, or the same one of
    another release, is asked something else, which an upstream refuses under a key that it knows, or answers with what it said before. A
    copy for nobody has none: it would meet the client's answer.
    """
    headers, caller = asking.request.headers, asking.ongoing.caller
    if IDEMPOTENCY not in headers:
        return headers
    rest = {name: value for name, value in headers.items() if name != IDEMPOTENCY}
    if asking.chat.shadow:
        return rest
    who = "" if caller is None else f"tenant:{caller.key.tenant}" if caller.key.tenant else f"key:{caller.key.id}"
    scope = sha256(f"{target.digest}\n{target.route}\n{who}".encode()).digest()
    own = blake2b(headers[IDEMPOTENCY], key=scope, digest_size=16, person=b"cohort idempot").hexdigest()
    return {**rest, IDEMPOTENCY: own.encode()}


def may_cost(error: Exception) -> bool:
    """The upstream had the request, and may have worked on it before the attempt came to nothing."""
    return isinstance(error, (Slow, NoAnswer, Broken, Invalid))


def check(flow: Flow) -> None:
    """Raises Invalid when a stream cannot go on as what comes is not the upstream's dialect."""
    if flow.problem is not None:
        raise Invalid(flow.problem)


def _read(chat: Chat, passage: Passage, connection: UpstreamConnection, data: bytes) -> Answer:
    """A whole answer for the caller; raises Invalid where it is not what its dialect promises."""
    if not 200 <= connection.status < 300:
        return Answer(connection, passage, data, fault_of_status(connection.status))
    try:
        said, usage = passage.answer(chat, data)
    except Untranslatable as error:
        raise Invalid(str(error)) from error
    return _new(Answer, (connection, passage, said, _NONE, None, usage))
