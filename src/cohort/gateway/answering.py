"""One call from assignment to its record: ask the upstream, give the client what it says, name every way it can fail."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from cohort.gateway.compiled import Target
from cohort.gateway.contract import Result
from cohort.gateway.deadlines import Deadline, Deadlines, Expired
from cohort.gateway.dialects.face import Chat, Flow, Passage, Refused, Withheld
from cohort.gateway.http_messages import Reply, Request
from cohort.gateway.keys import KeyMissing
from cohort.gateway.metrics import Metrics
from cohort.gateway.records import Ongoing, Recorder
from cohort.gateway.reliability.attempts import Answer, Attempts, CircuitOpen, check
from cohort.gateway.reliability.retrying import Slow
from cohort.gateway.spend.allowances import Allowances
from cohort.gateway.upstream_connection import (
    Broken,
    Forbidden,
    Invalid,
    NoAnswer,
    Overloaded,
    Unreachable,
    UpstreamConnection,
    UpstreamError,
)
from cohort.gateway.upstreams import Upstreams

TRAILER = b"trailer: x-cohort-cost-usd\r\n"
_OK = Result.OK  # a member of an enum takes 60 ns to look up in its class, 3 ns in the module
_WITHHELD = frozenset(
    {
        b"alt-svc", b"clear-site-data", b"connection", b"content-encoding", b"content-length", b"keep-alive", b"location",
        b"proxy-authenticate", b"proxy-connection", b"refresh", b"server", b"set-cookie", b"strict-transport-security", b"te", b"trailer",
        b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
_CODINGS = {b"content-encoding": b"identity", b"transfer-encoding": b"chunked"}
"""What is asked for. An answer in another coding could be neither judged nor counted."""
_WITHHELD_BEGINNINGS = (b"x-cohort-", b"access-control-")
"""Which web pages may read an answer is not an upstream's to say: llama.cpp and others allow every page."""

_FAILURES: dict[type[Exception], tuple[int, str, Result]] = {
    Unreachable: (502, "upstream_unreachable", Result.UNREACHABLE),
    Overloaded: (503, "gateway_overloaded", Result.UNREACHABLE),
    Forbidden: (502, "upstream_address_refused", Result.UNREACHABLE),
    NoAnswer: (502, "upstream_no_answer", Result.UPSTREAM_ERROR),
    Broken: (502, "upstream_response_interrupted", Result.INTERRUPTED),
    Invalid: (502, "upstream_invalid_response", Result.UPSTREAM_ERROR),
    KeyMissing: (502, "upstream_key_missing", Result.UPSTREAM_ERROR),
    Slow: (504, "upstream_timeout", Result.TIMEOUT),
    CircuitOpen: (503, "upstream_circuit_open", Result.UPSTREAM_ERROR),
}


class Answering:
    """What calls share: attempts, connections, deadlines."""

    def __init__(
        self, attempts: Attempts, upstreams: Upstreams, deadlines: Deadlines, recorder: Recorder, allowances: Allowances, metrics: Metrics
    ) -> None:
        self._attempts = attempts
        self._upstreams = upstreams
        self._deadlines = deadlines
        self._recorder = recorder
        self._allowances = allowances
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self.in_flight = 0

    async def answer(self, ongoing: Ongoing, chat: Chat, request: Request, reply: Reply, ended: Callable[[], object] | None = None) -> None:
        """Answer the client, whatever happens. Afterwards `ongoing` says how it went, and is recorded; then `ended` is called.

        Raises:
            CancelledError: others cancelled it.
        """
        self.in_flight += 1
        deadline = self._deadlines.begin(ongoing.target.timeout_s)
        try:
            if ongoing.service.limited:
                self._allowances.reserve(ongoing, chat, request.headers)
            answer = await self._attempts.ask(ongoing, chat, request, deadline)
            try:
                if answer.flow is not None:
                    ongoing.trailer = b"te" in request.headers and reply.takes_trailers(request)
                    await self._pass_stream(ongoing, answer, answer.flow, reply, deadline)
                else:
                    self._pass_whole(ongoing, chat, answer, reply)
            finally:
                self._upstreams.finish(answer.connection)
        except asyncio.CancelledError:
            if deadline.expired is None:
                ongoing.result = Result.CLIENT_GONE if reply.gone else Result.LOST
                raise
            self._fail(ongoing, chat, reply, Slow(_late(ongoing, deadline)))
        except (UpstreamError, KeyMissing) as error:
            self._fail(ongoing, chat, reply, error)
        except Refused as refused:
            self._refuse(ongoing, chat, reply, refused)
        finally:
            self._deadlines.end(deadline)
            self.in_flight -= 1
            if ongoing.total_us is None:
                self._recorder.end(ongoing)
        if ended is not None:
            ended()

    def has_room(self, target: Target) -> bool:
        """A call of `target` would not have to wait for a connection."""
        return self._upstreams.has_room(target.origin)

    async def rehearse(self, ongoing: Ongoing, chat: Chat, request: Request) -> bytes | None:
        """Ask like `answer`, for no client: a good answer that is not streamed is returned, any other read and thrown away.

        What the gateway itself cuts short (it stops, it has no connection left) counts as a client that left, not against the candidate.
        """
        deadline = self._deadlines.begin(ongoing.target.timeout_s)
        try:
            return await self._discard(ongoing, chat, request, deadline)
        except asyncio.CancelledError:
            if deadline.expired is None:
                ongoing.result = Result.CLIENT_GONE
                raise
            ongoing.result = Result.TIMEOUT
        except (UpstreamError, KeyMissing) as error:
            ongoing.result = Result.CLIENT_GONE if isinstance(error, Overloaded) else _FAILURES[type(error)][2]
        except Refused as refused:  # the candidate cannot be asked what stable was
            ongoing.result = Result.CLIENT_GONE if isinstance(refused, Withheld) else Result.UPSTREAM_ERROR
        finally:
            self._deadlines.end(deadline)
        return None

    def _refuse(self, ongoing: Ongoing, chat: Chat, reply: Reply, refused: Refused) -> None:
        """The upstream cannot be asked this, or a limit does not let it pass."""
        self._metrics.refused(refused.code)
        ongoing.result = Result.CLIENT_GONE if isinstance(refused, Withheld) else Result.UPSTREAM_ERROR
        ongoing.refused(refused)
        self._recorder.end(ongoing)
        said = chat.operation.voice.error(refused.status, refused.message, refused.code, refused.param, refused.kind)
        reply.send(refused.status, said, refused.headers)

    def _fail(self, ongoing: Ongoing, chat: Chat, reply: Reply, error: UpstreamError | KeyMissing) -> None:
        status, code, result = _FAILURES[type(error)]
        words = f"{_where(ongoing)}: {error}"
        if reply.started:
            self._attempts.failed(ongoing.target, slow=isinstance(error, Slow))
            ongoing.result = Result.TIMEOUT if result is Result.TIMEOUT else Result.INTERRUPTED
            ongoing.code(code)
            self._recorder.end(ongoing)
            reply.break_off(chat.operation.voice.stream_error(words, "upstream_stream_interrupted"), _trailers(ongoing))
            return
        ongoing.result, ongoing.status = result, status
        ongoing.code(code)
        wait_s = math.ceil(error.wait_s) if isinstance(error, CircuitOpen) else 1
        retry = b"retry-after: %d\r\n" % max(wait_s, 1) if status == 503 else b""
        self._recorder.end(ongoing)
        said = chat.operation.voice.error(status, words, code, kind="upstream_error")
        reply.send(status, said, _cohort_headers(ongoing) + retry)

    async def _pass_stream(self, ongoing: Ongoing, answer: Answer, flow: Flow, reply: Reply, deadline: Deadline) -> None:
        connection, now_s = answer.connection, self._loop.time
        self._recorder.first(ongoing)
        ongoing.status = connection.status
        content_type, headers = _passed_headers(connection, b"text/event-stream")
        if ongoing.trailer:
            headers += TRAILER
        reply.start(connection.status, b"content-type: %s\r\n%s%s" % (content_type, _cohort_headers(ongoing), headers))
        reply.write(answer.said)
        reserved = ongoing.reserved
        if reserved is not None:
            reserved.events += answer.said.count(b"data:")

        def passed_on(data: bytes) -> bool:
            deadline.moved_s = now_s()
            if reserved is not None:
                reserved.events += data.count(b"data:")
            said = flow.feed(data)
            if said:
                reply.write(said)
            return reply.congested or flow.problem is not None

        try:
            resting = reply.congested
            while resting or not await connection.flow(passed_on):
                check(flow)
                deadline.moved_s = math.inf  # until the client has taken what there is
                await reply.drain()
                deadline.moved_s = now_s()
                resting = False
            last = flow.end()
            check(flow)
        finally:
            ongoing.usage = flow.usage()
        _judge_stream(ongoing, connection, flow)
        self._recorder.end(ongoing)
        if last:
            reply.write(last)
        reply.finish(_trailers(ongoing))

    def _pass_whole(self, ongoing: Ongoing, chat: Chat, answer: Answer, reply: Reply) -> None:
        status, body = answer.connection.status, answer.said
        content_type, headers = _passed_headers(answer.connection, b"application/json")
        if 200 <= status < 300:
            ongoing.result, ongoing.usage = _OK, answer.usage
        else:
            ongoing.result = Result.UPSTREAM_ERROR
            status, body, content_type = _error_answer(ongoing, chat, answer.passage, status, body)
        ongoing.status = status
        self._recorder.end(ongoing)
        headers = _cohort_headers(ongoing) + headers + _cost_line(ongoing)
        reply.send(status, body, headers, content_type)

    async def _discard(self, ongoing: Ongoing, chat: Chat, request: Request, deadline: Deadline) -> bytes | None:
        answer = await self._attempts.ask(ongoing, chat, request, deadline, patient=False)
        try:
            if answer.flow is not None:
                await self._discard_stream(ongoing, answer.flow, answer.connection, deadline)
                return None
            ongoing.usage = answer.usage
            ongoing.result = _OK if 200 <= answer.connection.status < 300 else Result.UPSTREAM_ERROR
            return answer.said if ongoing.result is _OK else None
        finally:
            self._upstreams.finish(answer.connection)

    async def _discard_stream(self, ongoing: Ongoing, flow: Flow, connection: UpstreamConnection, deadline: Deadline) -> None:
        self._recorder.first(ongoing)
        while chunk := await connection.chunk():
            deadline.moved_s = self._loop.time()
            flow.feed(chunk)
            check(flow)
        flow.end()
        check(flow)
        ongoing.usage = flow.usage()
        _judge_stream(ongoing, connection, flow)


def _late(ongoing: Ongoing, deadline: Deadline) -> str:
    """Which limit is over, in words."""
    if deadline.expired is Expired.IDLE:
        return f"nothing more came for {ongoing.target.reliability.idle_s:g} s (reliability.idle_s of the release)"
    return f"the upstream did not finish within {ongoing.target.timeout_s:g} s (limits.timeout_s of the release)"


def _judge_stream(ongoing: Ongoing, connection: UpstreamConnection, flow: Flow) -> None:
    """How a stream ended that came to an end: an error reported as an event is one; a connection that closed must have said `[DONE]`."""
    if connection.delimited_by_close and not flow.done and not flow.failed:
        raise Broken("the stream ended without its end mark")
    ongoing.result = Result.UPSTREAM_ERROR if flow.failed else _OK


def _error_answer(ongoing: Ongoing, chat: Chat, passage: Passage, status: int, body: bytes) -> tuple[int, bytes, bytes]:
    """An upstream's refusal for the client: its own words where they have its dialect's shape, but not those about the release's key."""
    where, said = _where(ongoing), chat.operation.voice.error
    if status == 401:
        words = f"{where}: the upstream refused the gateway's key; check `api_key` of the route"
        return 502, said(502, words, "upstream_key_refused", kind="upstream_error"), b"application/json"
    if not 400 <= status < 600:
        words = f"{where}: the upstream answered with status {status}; check `base_url` of the route"
        return 502, said(502, words, "upstream_invalid_response", kind="upstream_error"), b"application/json"
    own = passage.refusal(status, body)
    if own is None:
        own = said(status, f"{where}: the upstream answered with status {status}", "upstream_error", kind="upstream_error")
    return status, own, b"application/json"


def _where(ongoing: Ongoing) -> str:
    return f"release {ongoing.target.version}, route {ongoing.target.route}"


def _cost_line(ongoing: Ongoing) -> bytes:
    """Known when the call has ended, where price and usage are."""
    return b"" if ongoing.cost_usd_micro is None else b"x-cohort-cost-usd: %d.%06d\r\n" % divmod(ongoing.cost_usd_micro, 1_000_000)


def _trailers(ongoing: Ongoing) -> bytes:
    return _cost_line(ongoing) if ongoing.trailer else b""


def _cohort_headers(ongoing: Ongoing) -> bytes:
    degraded = b"x-cohort-degraded: %s\r\n" % ongoing.first.route.encode() if ongoing.degraded else b""
    return b"%sx-cohort-unit: %s\r\n%s%s" % (ongoing.target.reply_headers, ongoing.unit.encode(), degraded, ongoing.cache_line)


def _passed_headers(connection: UpstreamConnection, content_type: bytes) -> tuple[bytes, bytes]:
    """The content type of an answer (`content_type` where it has none), and the header lines that are the client's to see.

    Raises:
        Invalid: the answer is in a coding that was not asked for.
    """
    lines = b""
    for name, value in connection.headers:
        if name == b"content-type":
            content_type = value
        elif name in _WITHHELD:
            if name in _CODINGS and value.lower() not in (_CODINGS[name], b"", b"identity"):
                raise Invalid(f"the answer came with {name.decode()} {value[:40].decode('latin-1')!r}, which was not asked for")
        elif not name.startswith(_WITHHELD_BEGINNINGS):
            lines += b"%s: %s\r\n" % (name, value)
    return content_type, lines
