"""Server-sent events: cut from bytes however these come in pieces, and a flow that answers each with the caller's bytes."""

from __future__ import annotations

from typing import Any

import orjson

from cohort.gateway.dialects.face import TOKENS_MAX, UNKNOWN, Untranslatable, Usage

EVENT_BYTES_MAX = 8 << 20
DONE = b"[DONE]"
MISSHAPEN = (LookupError, TypeError, AttributeError, ValueError)
"""What reading a value of foreign making raises where it is not of the promised shape."""


class Events:
    """The data of the events of a stream, in their order. Lines may end in LF or CRLF; everything but `data` is passed over."""

    __slots__ = ("_bytes", "_data", "_rest")

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._bytes = 0
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that `piece` completes; raises Untranslatable for one over `EVENT_BYTES_MAX`."""
        self._bytes += len(piece)
        if self._bytes > EVENT_BYTES_MAX + len(piece):
            raise Untranslatable(f"an event of the stream is larger than {EVENT_BYTES_MAX} bytes")
        if b"\n" not in piece:
            self._rest.append(piece)
            return []
        lines = b"".join([*self._rest, piece]).split(b"\n")
        self._rest = [lines.pop()]
        events = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        self._bytes = len(self._rest[0]) + sum(map(len, self._data))
        return events


class Translated:
    """A flow that answers events: the ways of both dialects' streams share. Subclasses say what an event becomes."""

    def __init__(self) -> None:
        self.problem: str | None = None
        self.done = False
        self.failed = False
        self._events = Events()

    def feed(self, data: bytes) -> bytes:
        said: list[bytes] = []
        try:
            for event in self._events.feed(data):
                if self.done or self.failed:
                    break
                said.append(self._said(event))
        except Untranslatable as error:
            self.problem = str(error)
        except MISSHAPEN as error:
            self.problem = f"an event of the stream is not what its dialect promises: {type(error).__name__}"
        return b"".join(said)

    def end(self) -> bytes:
        if not (self.done or self.failed or self.problem):
            self.problem = "the stream ended without its end mark"
        return b""

    def usage(self) -> Usage:
        return UNKNOWN

    def _said(self, event: bytes) -> bytes:
        raise NotImplementedError


def is_preface(chunk: dict[str, Any]) -> bool:
    """A chunk that begins nothing: Azure sends what its filter says of the prompt first, in one without id, model and choices."""
    return not chunk.get("choices") and not chunk.get("id")


def loaded(data: bytes) -> dict[str, Any]:
    """A JSON object of an upstream; raises Untranslatable when it is none."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Untranslatable("the upstream's answer is not JSON") from error
    if not isinstance(value, dict):
        raise Untranslatable("the upstream's answer is not a JSON object")
    return value


def count(value: Any) -> int:
    """A number of tokens; 0 for anything else."""
    return value if type(value) is int and 0 <= value <= TOKENS_MAX else 0
