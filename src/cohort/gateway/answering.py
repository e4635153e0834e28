"""One call from assignment to its record: ask the upstream, give the client what it says, name every way it can fail."""

from __future__ import annotations

import asyncio

from cohort.gateway import openai
from cohort.gateway.contract import Result
from cohort.gateway.deadlines import Deadlines
from cohort.gateway.http_messages import Reply, Request
from cohort.gateway.keys import KeyMissing, Keys
from cohort.gateway.records import Ongoing, Recorder
from cohort.gateway.table import Target
from cohort.gateway.upstream_connection import Broken, Invalid, NoAnswer, Overloaded, Unreachable, UpstreamConnection, UpstreamError
from cohort.gateway.upstreams import Upstreams

_OK = Result.OK  # a member of an enum takes 60 ns to look up in its class, 3 ns in the module
FORWARDED = frozenset({b"idempotency-key", b"openai-beta", b"traceparent", b"tracestate", b"x-request-id"})
_WITHHELD = frozenset(
    {
        b"alt-svc", b"connection", b"content-length", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"server",
        b"set-cookie", b"strict-transport-security", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip

_FAILURES: dict[type[Exception], tuple[int, str, Result]] = {
    Unreachable: (502, "upstream_unreachable", Result.UNREACHABLE),
    Overloaded: (503, "gateway_overloaded", Result.UNREACHABLE),
    NoAnswer: (502, "upstream_no_answer", Result.UPSTREAM_ERROR),
    Broken: (502, "upstream_response_interrupted", Result.INTERRUPTED),
    Invalid: (502, "upstream_invalid_response", Result.UPSTREAM_ERROR),
    KeyMissing: (502, "upstream_key_missing", Result.UPSTREAM_ERROR),
}


class Answering:
    """What calls share: connections, keys, deadlines."""

    def __init__(self, upstreams: Upstreams, keys: Keys, deadlines: Deadlines, recorder: Recorder, answer_bytes_max: int) -> None:
        self._upstreams = upstreams
        self._keys = keys
        self._deadlines = deadlines
        self._recorder = recorder
        self._answer_bytes_max = answer_bytes_max

    async def answer(self, ongoing: Ongoing, body: bytes, request: Request, reply: Reply) -> None:
        """Answer the client, whatever happens. Afterwards `ongoing` says how it went. Raises CancelledError when others cancelled it."""
        target = ongoing.target
        deadline = self._deadlines.begin(target.timeout_s)
        try:
            connection = await self._upstreams.exchange(target.origin, self._message(target, body, request))
            try:
                if ongoing.stream and 200 <= connection.status < 300:
                    await self._pass_stream(ongoing, connection, reply)
                else:
                    body = connection.taken() if connection.complete else await self._whole(connection)
                    self._pass_whole(ongoing, connection, reply, body)
            finally:
                self._upstreams.finish(connection)
        except asyncio.CancelledError:
            if not deadline.expired:
                ongoing.result = Result.CLIENT_GONE if reply.gone else Result.LOST
                raise
            words = f"the upstream did not finish within {ongoing.target.timeout_s:g} s (limits.timeout_s of the release)"
            self._fail(ongoing, reply, 504, "upstream_timeout", words, Result.TIMEOUT)
        except (UpstreamError, KeyMissing) as error:
            status, code, result = _FAILURES[type(error)]
            self._fail(ongoing, reply, status, code, f"release {ongoing.target.version}, route {ongoing.target.route}: {error}", result)
        finally:
            self._deadlines.end(deadline)

    def has_room(self, target: Target) -> bool:
        """A call of `target` would not have to wait for a connection."""
        return self._upstreams.has_room(target.origin)

    async def rehearse(self, ongoing: Ongoing, body: bytes, request: Request) -> None:
        """Ask like `answer`, for nobody: the answer is read and thrown away.

        What the gateway itself cuts short (it stops, it has no connection left) counts as a client that left, not against the candidate.
        """
        deadline = self._deadlines.begin(ongoing.target.timeout_s)
        try:
            await self._discard(ongoing, body, request)
        except asyncio.CancelledError:
            if not deadline.expired:
                ongoing.result = Result.CLIENT_GONE
                raise
            ongoing.result = Result.TIMEOUT
        except (UpstreamError, KeyMissing) as error:
            ongoing.result = Result.CLIENT_GONE if isinstance(error, Overloaded) else _FAILURES[type(error)][2]
        finally:
            self._deadlines.end(deadline)

    def _fail(self, ongoing: Ongoing, reply: Reply, status: int, code: str, words: str, result: Result) -> None:
        if reply.started:
            ongoing.result = Result.TIMEOUT if result is Result.TIMEOUT else Result.INTERRUPTED
            self._recorder.end(ongoing)
            reply.break_off(openai.stream_error(words, "upstream_stream_interrupted"))
            return
        ongoing.result, ongoing.status = result, status
        retry = b"retry-after: 1\r\n" if status == 503 else b""
        self._recorder.end(ongoing)
        reply.send(status, openai.error(words, code, kind="upstream_error"), _cohort_headers(ongoing) + retry)

    async def _pass_stream(self, ongoing: Ongoing, connection: UpstreamConnection, reply: Reply) -> None:
        chunk = await connection.chunk()  # seen before the head of the reply is committed
        if not chunk:
            raise NoAnswer("the stream of the answer was empty")
        self._recorder.first(ongoing)
        ongoing.status = connection.status
        content_type, headers = _passed_headers(connection, b"text/event-stream")
        reply.start(connection.status, b"content-type: %s\r\n%s%s" % (content_type, _cohort_headers(ongoing), headers))
        tail, tape = openai.Tail(), ongoing.tape

        def passed_on(data: bytes) -> bool:
            tail.feed(data)
            if tape is not None:
                tape.feed(data)
            reply.write(data)
            return reply.congested

        resting = passed_on(chunk)
        while resting or not await connection.flow(passed_on):
            await reply.drain()
            resting = False
        _judge_stream(ongoing, connection, tail)
        self._recorder.end(ongoing)
        reply.finish()

    def _pass_whole(self, ongoing: Ongoing, connection: UpstreamConnection, reply: Reply, body: bytes) -> None:
        status = connection.status
        content_type, headers = _passed_headers(connection, b"application/json")
        if 200 <= status < 300:
            ongoing.result, ongoing.usage = _OK, openai.usage_of(body)
            if ongoing.tape is not None:
                ongoing.tape.whole(body)
        else:
            ongoing.result = Result.UPSTREAM_ERROR
            status, body, content_type = _error_answer(ongoing, status, body)
        ongoing.status = status
        self._recorder.end(ongoing)
        headers = _cohort_headers(ongoing) + headers
        if ongoing.cost_usd_micro is not None:
            headers += b"x-cohort-cost-usd: %.6f\r\n" % (ongoing.cost_usd_micro / 1e6)
        reply.send(status, body, headers, content_type)

    async def _discard(self, ongoing: Ongoing, body: bytes, request: Request) -> None:
        message = self._message(ongoing.target, body, request)
        connection = await self._upstreams.exchange(ongoing.target.origin, message, patient=False)
        try:
            well = 200 <= connection.status < 300
            if ongoing.stream and well:
                await self._discard_stream(ongoing, connection)
            else:
                ongoing.usage = openai.usage_of(await self._whole(connection))
                ongoing.result = _OK if well else Result.UPSTREAM_ERROR
        finally:
            self._upstreams.finish(connection)

    async def _discard_stream(self, ongoing: Ongoing, connection: UpstreamConnection) -> None:
        tail = openai.Tail()
        while chunk := await connection.chunk():
            if ongoing.first_us is None:
                self._recorder.first(ongoing)
            tail.feed(chunk)
        if ongoing.first_us is None:
            raise NoAnswer("the stream of the answer was empty")
        _judge_stream(ongoing, connection, tail)

    async def _whole(self, connection: UpstreamConnection) -> bytes:
        """The body of an answer that is not streamed; raises Broken, or Invalid for one over its limit."""
        parts, size = [], 0
        while chunk := await connection.chunk():
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


def _judge_stream(ongoing: Ongoing, connection: UpstreamConnection, tail: openai.Tail) -> None:
    """How a stream ended that came to an end: an error reported as an event is one; a connection that closed must have said `[DONE]`."""
    ongoing.usage = tail.usage()
    if connection.delimited_by_close and not tail.done and not tail.failed:
        raise Broken("the stream ended without its end mark")
    ongoing.result = Result.UPSTREAM_ERROR if tail.failed else _OK


def _error_answer(ongoing: Ongoing, status: int, body: bytes) -> tuple[int, bytes, bytes]:
    """An upstream's refusal for the client: its own words where they have OpenAI's shape, but not those about the release's key."""
    where = f"release {ongoing.target.version}, route {ongoing.target.route}"
    if status == 401:
        words = f"{where}: the upstream refused the gateway's key; check `api_key` of the route"
        return 502, openai.error(words, "upstream_key_refused", kind="upstream_error"), b"application/json"
    if status < 400:
        words = f"{where}: the upstream answered with status {status}; check `base_url` of the route"
        return 502, openai.error(words, "upstream_invalid_response", kind="upstream_error"), b"application/json"
    if not openai.is_error(body):
        body = openai.error(f"{where}: the upstream answered with status {status}", "upstream_error", kind="upstream_error")
    return status, body, b"application/json"


def _cohort_headers(ongoing: Ongoing) -> bytes:
    return b"%sx-cohort-unit: %s\r\n%s" % (ongoing.target.reply_headers, ongoing.unit.encode(), ongoing.cache_line)


def _passed_headers(connection: UpstreamConnection, content_type: bytes) -> tuple[bytes, bytes]:
    """The content type of an answer (`content_type` where it has none), and the header lines that are the client's to see."""
    lines = b""
    for name, value in connection.headers:
        if name == b"content-type":
            content_type = value
        elif name not in _WITHHELD and not name.startswith(b"x-cohort-"):
            lines += b"%s: %s\r\n" % (name, value)
    return content_type, lines
