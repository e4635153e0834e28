"""The beginning of a stream, seen before the client is told anything: is it server-sent events, and is the first one an error?"""

from __future__ import annotations

import re

import orjson

from cohort.gateway.reliability.retrying import Fault
from cohort.gateway.upstream_connection import Invalid, UpstreamConnection

FIELDS = (b"data:", b"event:", b":", b"id:", b"retry:", b"\xef\xbb\xbf")
LONGEST_FIELD_BYTES = 6
DATA = b"data:"
COMMENTS_BYTES_MAX = 64 << 10
_LINE_END = re.compile(rb"\n[\r\n]*")


async def with_first_event(connection: UpstreamConnection, piece: bytes) -> bytes:
    """A beginning of comments, which keep the connection while a model is waited for (OpenRouter), and the event behind them.

    Passed on at once they would settle that this route answers, and an error behind them could go to no other. They wait for it up to
    `COMMENTS_BYTES_MAX`, and in the time of the attempt.
    """
    while not _behind_comments(piece) and len(piece) < COMMENTS_BYTES_MAX:
        more = await connection.chunk()
        if not more:
            break
        piece += more
    return piece


def fault_of_first_event(piece: bytes) -> Fault:
    """`piece` is what came first. An error there is one before the client has got a byte, so another route may still answer.

    Only the first line that is no comment is looked at, and as far as it has come: later events pass through unseen.

    Raises:
        Invalid: not server-sent events, or an event that is not JSON.
    """
    begun = piece.lstrip(b"\r\n")
    if begun.startswith(b":"):
        begun = _behind_comments(begun)
    if len(begun) < LONGEST_FIELD_BYTES:
        return Fault.NONE
    if not begun.startswith(FIELDS):
        raise Invalid("the stream does not begin with a server-sent event")
    line, newline, _ = begun.partition(b"\n")
    if line.startswith(b"event:"):
        return Fault.UNCERTAIN if line[6:].strip() == b"error" else Fault.NONE
    if not newline or not line.startswith(DATA):
        return Fault.NONE
    return _fault_of_data(line[len(DATA) :].strip())


def _behind_comments(piece: bytes) -> bytes:
    """From the first line that is neither comment nor empty."""
    at = 0
    while piece.startswith(b":", at):
        end = _LINE_END.search(piece, at)
        if end is None:
            return b""
        at = end.end()
    return piece[at:]


def _fault_of_data(data: bytes) -> Fault:
    if data == b"[DONE]":
        return Fault.NONE
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Invalid("the first event of the stream is not JSON") from error
    return Fault.UNCERTAIN if isinstance(event, dict) and event.get("error") is not None else Fault.NONE
