"""The OpenAI dialect: the shape of errors, what a chat request says, what an answer says of its usage."""

from __future__ import annotations

from typing import Any

import orjson

from cohort.gateway.contract_price import STANDARD_TIERS
from cohort.gateway.dialects.face import BAD_REQUEST, TOKENS_MAX, UNKNOWN, Detail, Refused, Usage

TAIL_BYTES = 16 << 10
DONE = b"data: [DONE]"
_new = tuple.__new__  # a named tuple's own constructor takes three times as long


def error(message: str, code: str, param: str | None = None, kind: str = BAD_REQUEST) -> bytes:
    """An error as OpenAI clients expect it."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def stream_error(message: str, code: str) -> bytes:
    """The event that ends an interrupted stream; the blank line before it ends whatever was cut."""
    return b"\n\ndata: " + error(message, code, kind="upstream_error") + b"\n\n"


def check_media(content_type: bytes, encoding: bytes = b"") -> None:
    """Raises Refused 415 for a body that is not declared as JSON, or compressed."""
    if content_type != b"application/json" and not content_type.lower().startswith(b"application/json"):
        raise Refused(415, "the body must be JSON: send `Content-Type: application/json`", "unsupported_media_type")
    if encoding and encoding.lower() != b"identity":
        raise Refused(415, "the body must not be compressed: send it without `Content-Encoding`", "unsupported_encoding")


def service_of(fields: dict[str, Any]) -> str:
    """The service a request names as its model; raises Refused 400."""
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise Refused(400, "`model` must be the name of a service", "model_missing", "model")
    return model


def wants_stream(fields: dict[str, Any]) -> bool:
    """Raises Refused 400 when `stream` is neither true nor false."""
    stream = fields.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise Refused(400, f"`stream` must be true or false, found {type(stream).__name__}", "stream_invalid", "stream")
    return bool(stream)


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object; raises Refused 400 that says where it stops being one."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        reason = "it is nested too deeply" if "allocate" in str(problem) else str(problem)  # orjson's words beyond 1024 levels
        raise Refused(400, f"the body is not valid JSON: {reason}", "invalid_json") from problem
    if not isinstance(fields, dict):
        raise Refused(400, f"the body must be a JSON object, found {type(fields).__name__}", "invalid_json")
    return fields


def usage_of(body: bytes) -> Usage:
    """The usage of a whole answer; nothing known when it is not the JSON of one."""
    try:
        return usage_in(orjson.loads(body))
    except orjson.JSONDecodeError:
        return UNKNOWN


def is_error(body: bytes) -> bool:
    """Whether an upstream's error is already in OpenAI's shape."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(fields, dict) and isinstance(fields.get("error"), dict)


class Tail:
    """The last bytes of a stream of server-sent events, enough to find its usage and how it ended."""

    __slots__ = ("_pieces", "_size")
    problem: str | None = None  # of the class: it is looked at for each chunk, and never set

    def __init__(self) -> None:
        self._pieces: list[bytes] = [b"\n"]  # every line has a line end before it, and no text within JSON has one
        self._size = 1

    def feed(self, data: bytes) -> bytes:
        """Joined seldom: cutting 16 KB for each chunk took a quarter of a chunk's time."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size > 2 * TAIL_BYTES:
            self._join()
        return data

    def end(self) -> bytes:
        return b""

    def _join(self) -> bytes:
        tail = b"".join(self._pieces)[-TAIL_BYTES:]
        self._pieces, self._size = [tail], len(tail)
        return tail

    @property
    def done(self) -> bool:
        """It ended with `[DONE]`."""
        return b"\n" + DONE in self._join()[-64:]

    @property
    def failed(self) -> bool:
        """The upstream reported an error as an event."""
        return reports_error(self._join())

    def usage(self) -> Usage:
        tail = self._join()
        at = tail.rfind(b'"usage":{')
        if at < 0:
            at = tail.rfind(b'"usage": {')
        start = tail.rfind(b"data:", 0, max(at, 0))
        if at < 0 or start < 0:
            return UNKNOWN
        line = tail[start + 5 :].split(b"\n", 1)[0]
        return usage_of(line)


def reports_error(tail: bytes) -> bool:
    """One of the last events of a stream is an error. It may stand beside other fields (OpenRouter), and `"error"` cannot stand in a text."""
    at = tail.rfind(b'"error"')
    while at >= 0:
        start = tail.rfind(b"\ndata:", 0, at)
        if start < 0:
            return False
        try:
            event = orjson.loads(tail[start + 6 :].split(b"\n", 1)[0])
        except orjson.JSONDecodeError:
            event = None
        if isinstance(event, dict) and event.get("error"):
            return True
        at = tail.rfind(b'"error"', 0, start)
    return False


def usage_in(fields: Any) -> Usage:
    """The usage that an answer or a chunk reports in its `usage`."""
    usage = fields.get("usage") if isinstance(fields, dict) else None
    if not isinstance(usage, dict):
        return UNKNOWN
    asked, written, total = usage.get("prompt_tokens"), usage.get("completion_tokens"), usage.get("total_tokens")
    details, tier = usage.get("prompt_tokens_details"), fields.get("service_tier")
    detail = detail_of(_count(asked), details, tier) if details or tier else None
    if type(asked) is int and type(written) is int and 0 <= asked <= TOKENS_MAX and 0 <= written <= TOKENS_MAX:
        if total != asked + written:
            written = written_of(asked, written, total)
        return _new(Usage, (asked, written, detail))
    tokens_in = _count(asked)
    return Usage(tokens_in, written_of(tokens_in, written, total), detail)


def written_of(asked: Any, written: Any, total: Any) -> int | None:
    """Tokens that were written, thoughts included: Gemini counts them in the total only, and charges for them.

    Of embeddings there is no number, and the total is what was read.
    """
    known, beyond = _count(written), _count(total)
    if beyond is None or _count(asked) is None or beyond < asked + (known or 0):
        return known
    return beyond - int(asked) if written is None or known is not None else None


def detail_of(tokens_in: int | None, details: Any, tier: Any) -> Detail | None:
    """None where nothing was cached, or more than there was, and the tier is the standard one."""
    said = details if isinstance(details, dict) else {}
    cached, written = _count(said.get("cached_tokens")) or 0, _count(said.get("cache_write_tokens")) or 0
    if cached + written > (tokens_in or 0):
        cached = written = 0
    named = tier if isinstance(tier, str) and tier not in STANDARD_TIERS else ""
    return Detail(cached, written, 0, named) if cached or written or named else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= TOKENS_MAX else None  # a bool is an int, but not its type
