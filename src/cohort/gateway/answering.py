"""One call from assignment to its record: ask the upstream, give the client what it says, name every way it can fail."""

from __future__ import annotations

import asyncio

from cohort.gateway.contract import Result
from cohort.gateway.deadlines import Deadlines
from cohort.gateway.dialects.face import UNKNOWN, Chat, Flow, Passage, Untranslatable
from cohort.gateway.http_messages import Reply, Request
from cohort.gateway.keys import KeyMissing, Keys
from cohort.gateway.records import Ongoing, Recorder
from cohort.gateway.table import Target
from cohort.gateway.upstream_connection import Broken, Invalid, NoAnswer, Overloaded, Unreachable, UpstreamConnection, UpstreamError
from cohort.gateway.upstreams import Upstreams

_OK = Result.OK  # a member of an enum takes 60 ns to look up in its class, 3 ns in the module
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

    async def answer(self, ongoing: Ongoing, chat: Chat, request: Request, reply: Reply) -> None:
        """Answer the client, whatever happens. Afterwards `ongoing` says how it went.

        Raises:
            Refused: the upstream cannot be asked this. CancelledError: others cancelled it.
        """
        target = ongoing.target
        passage = chat.operation.passage(target.provider)
        deadline = self._deadlines.begin(target.timeout_s)
        try:
            connection = await self._upstreams.exchange(target.origin, self._message(target, passage, chat, request))
            try:
                if ongoing.stream and 200 <= connection.status < 300:
                    await self._pass_stream(ongoing, chat, passage, connection, reply)
                else:
                    body = connection.taken() if connection.complete else await self._whole(connection)
                    self._pass_whole(ongoing, chat, passage, connection, reply, body)
            finally:
                self._upstreams.finish(connection)
        except asyncio.CancelledError:
            if not deadline.expired:
                ongoing.result = Result.CLIENT_GONE if reply.gone else Result.LOST
                raise
            words = f"the upstream did not finish within {ongoing.target.timeout_s:g} s (limits.timeout_s of the release)"
            self._fail(ongoing, chat, reply, 504, "upstream_timeout", words, Result.TIMEOUT)
        except (UpstreamError, KeyMissing) as error:
            status, code, result = _FAILURES[type(error)]
            self._fail(ongoing, chat, reply, status, code, f"{_where(ongoing)}: {error}", result)
        finally:
            self._deadlines.end(deadline)

    def has_room(self, target: Target) -> bool:
        """A call of `target` would not have to wait for a connection."""
        return self._upstreams.has_room(target.origin)

    async def rehearse(self, ongoing: Ongoing, chat: Chat, request: Request) -> None:
        """Ask like `answer`, for nobody: the answer is read and thrown away.

        What the gateway itself cuts short (it stops, it has no connection left) counts as a client that left, not against the candidate.
        """
        deadline = self._deadlines.begin(ongoing.target.timeout_s)
        try:
            await self._discard(ongoing, chat, request)
        except asyncio.CancelledError:
            if not deadline.expired:
                ongoing.result = Result.CLIENT_GONE
                raise
            ongoing.result = Result.TIMEOUT
        except (UpstreamError, KeyMissing) as error:
            ongoing.result = Result.CLIENT_GONE if isinstance(error, Overloaded) else _FAILURES[type(error)][2]
        finally:
            self._deadlines.end(deadline)

    def _fail(self, ongoing: Ongoing, chat: Chat, reply: Reply, status: int, code: str, words: str, result: Result) -> None:
        if reply.started:
            ongoing.result = Result.TIMEOUT if result is Result.TIMEOUT else Result.INTERRUPTED
            self._recorder.end(ongoing)
            reply.break_off(chat.operation.voice.stream_error(words, "upstream_stream_interrupted"))
            return
        ongoing.result, ongoing.status = result, status
        retry = b"retry-after: 1\r\n" if status == 503 else b""
        self._recorder.end(ongoing)
        said = chat.operation.voice.error(status, words, code, kind="upstream_error")
        reply.send(status, said, _cohort_headers(ongoing) + retry)

    async def _pass_stream(self, ongoing: Ongoing, chat: Chat, passage: Passage, connection: UpstreamConnection, reply: Reply) -> None:
        flow = passage.flow(chat)
        first = await _first(flow, connection)  # seen before the head of the reply is committed
        self._recorder.first(ongoing)
        ongoing.status = connection.status
        content_type, headers = _passed_headers(connection, b"text/event-stream")
        reply.start(connection.status, b"content-type: %s\r\n%s%s" % (content_type, _cohort_headers(ongoing), headers))
        reply.write(first)

        def passed_on(data: bytes) -> bool:
            said = flow.feed(data)
            if said:
                reply.write(said)
            return reply.congested or flow.problem is not None

        resting = reply.congested
        while resting or not await connection.flow(passed_on):
            _check(flow)
            await reply.drain()
            resting = False
        _check(flow)
        _judge_stream(ongoing, connection, flow)
        last = flow.end()
        self._recorder.end(ongoing)
        if last:
            reply.write(last)
        reply.finish()

    def _pass_whole(
        self, ongoing: Ongoing, chat: Chat, passage: Passage, connection: UpstreamConnection, reply: Reply, body: bytes
    ) -> None:
        status = connection.status
        content_type, headers = _passed_headers(connection, b"application/json")
        if 200 <= status < 300:
            try:
                body, ongoing.usage = passage.answer(chat, body)
            except Untranslatable as error:
                raise Invalid(str(error)) from error
            ongoing.result = _OK
        else:
            ongoing.result = Result.UPSTREAM_ERROR
            status, body, content_type = _error_answer(ongoing, chat, passage, status, body)
        ongoing.status = status
        self._recorder.end(ongoing)
        headers = _cohort_headers(ongoing) + headers
        if ongoing.cost_usd_micro is not None:
            headers += b"x-cohort-cost-usd: %.6f\r\n" % (ongoing.cost_usd_micro / 1e6)
        reply.send(status, body, headers, content_type)

    async def _discard(self, ongoing: Ongoing, chat: Chat, request: Request) -> None:
        passage = chat.operation.passage(ongoing.target.provider)
        message = self._message(ongoing.target, passage, chat, request)
        connection = await self._upstreams.exchange(ongoing.target.origin, message, patient=False)
        try:
            well = 200 <= connection.status < 300
            if ongoing.stream and well:
                await self._discard_stream(ongoing, passage.flow(chat), connection)
            else:
                body = await self._whole(connection)
                ongoing.usage = passage.answer(chat, body)[1] if well else UNKNOWN
                ongoing.result = _OK if well else Result.UPSTREAM_ERROR
        except Untranslatable as error:
            raise Invalid(str(error)) from error
        finally:
            self._upstreams.finish(connection)

    async def _discard_stream(self, ongoing: Ongoing, flow: Flow, connection: UpstreamConnection) -> None:
        while chunk := await connection.chunk():
            if ongoing.first_us is None:
                self._recorder.first(ongoing)
            flow.feed(chunk)
            _check(flow)
        if ongoing.first_us is None:
            raise NoAnswer("the stream of the answer was empty")
        _judge_stream(ongoing, connection, flow)

    async def _whole(self, connection: UpstreamConnection) -> bytes:
        """The body of an answer that is not streamed; raises Broken, or Invalid for one over its limit."""
        parts, size = [], 0
        while chunk := await connection.chunk():
            parts.append(chunk)
            size += len(chunk)
            if size > self._answer_bytes_max:
                raise Invalid(f"the answer is larger than {self._answer_bytes_max} bytes (answer_bytes_max)")
        return b"".join(parts)

    def _message(self, target: Target, passage: Passage, chat: Chat, request: Request) -> bytes:
        body = passage.request(chat, target.rewriting)
        own = self._keys.authorization(target.api_key)
        passed = passage.headers(request.headers)
        return b"%s%s%scontent-length: %d\r\n\r\n%s" % (target.heads[passage.path], own, passed, len(body), body)


async def _first(flow: Flow, connection: UpstreamConnection) -> bytes:
    """The first bytes for the client; raises NoAnswer when there are none, Invalid when what comes is not the upstream's dialect."""
    said = b""
    while not said:
        chunk = await connection.chunk()
        if not chunk:
            raise NoAnswer("the stream of the answer was empty")
        said = flow.feed(chunk)
        _check(flow)
    return said


def _check(flow: Flow) -> None:
    if flow.problem is not None:
        raise Invalid(flow.problem)


def _judge_stream(ongoing: Ongoing, connection: UpstreamConnection, flow: Flow) -> None:
    """How a stream ended that came to an end: an error reported as an event is one; a connection that closed must have said `[DONE]`."""
    ongoing.usage = flow.usage()
    if connection.delimited_by_close and not flow.done and not flow.failed:
        raise Broken("the stream ended without its end mark")
    ongoing.result = Result.UPSTREAM_ERROR if flow.failed else _OK


def _error_answer(ongoing: Ongoing, chat: Chat, passage: Passage, status: int, body: bytes) -> tuple[int, bytes, bytes]:
    """An upstream's refusal for the client: its own words where they have its dialect's shape, but not those about the release's key."""
    where, said = _where(ongoing), chat.operation.voice.error
    if status == 401:
        words = f"{where}: the upstream refused the gateway's key; check `api_key` of the route"
        return 502, said(502, words, "upstream_key_refused", kind="upstream_error"), b"application/json"
    if status < 400:
        words = f"{where}: the upstream answered with status {status}; check `base_url` of the route"
        return 502, said(502, words, "upstream_invalid_response", kind="upstream_error"), b"application/json"
    own = passage.refusal(status, body)
    if own is None:
        own = said(status, f"{where}: the upstream answered with status {status}", "upstream_error", kind="upstream_error")
    return status, own, b"application/json"


def _where(ongoing: Ongoing) -> str:
    return f"release {ongoing.target.version}, route {ongoing.target.route}"


def _cohort_headers(ongoing: Ongoing) -> bytes:
    return b"%sx-cohort-unit: %s\r\n" % (ongoing.target.reply_headers, ongoing.unit.encode())


def _passed_headers(connection: UpstreamConnection, content_type: bytes) -> tuple[bytes, bytes]:
    """The content type of an answer (`content_type` where it has none), and the header lines that are the client's to see."""
    lines = b""
    for name, value in connection.headers:
        if name == b"content-type":
            content_type = value
        elif name not in _WITHHELD and not name.startswith(b"x-cohort-"):
            lines += b"%s: %s\r\n" % (name, value)
    return content_type, lines
