"""What an upstream answers, held on its way to the client so that it can be kept afterwards. Bounded.

Held is a chat completion of OpenAI's, or a stream of its chunks, whichever end speaks that: the upstream, or else the caller.
"""

from __future__ import annotations

from cohort.gateway.dialects.face import Flow, Usage

OPENAI = "openai"


class Tape:
    """One answer. `over`: it was larger than `bytes_max` and nothing of it is held."""

    __slots__ = ("_bytes_max", "_pieces", "_size", "over", "streamed")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._pieces: list[bytes] = []
        self._size = 0
        self.over = False
        self.streamed = False

    def piece(self, data: bytes) -> None:
        """Of a stream."""
        self.streamed = True
        self._hold(data)

    def whole(self, said: bytes, passed_on: bytes, provider: str) -> None:
        """An answer that is not streamed, as the upstream said it and as the client gets it."""
        self.clear()
        self._hold(said if provider == OPENAI else passed_on)

    def clear(self) -> None:
        """Another attempt begins."""
        self._pieces, self._size, self.over, self.streamed = [], 0, False, False

    def abandon(self) -> None:
        """Two upstreams answer at once, and it is not known yet which is the client's: nothing is held from now on."""
        self.clear()
        self._bytes_max, self.over = -1, True

    @property
    def data(self) -> bytes:
        return b"".join(self._pieces)

    def _hold(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._bytes_max:
            self._pieces, self.over = [], True
        elif not self.over:
            self._pieces.append(data)


class Taped:
    """A flow whose bytes are held as they pass."""

    def __init__(self, flow: Flow, tape: Tape, provider: str) -> None:
        self.problem = flow.problem
        self._flow = flow
        self._tape = tape
        tape.clear()
        self._said = provider == OPENAI

    def feed(self, data: bytes) -> bytes:
        passed_on = self._flow.feed(data)
        self.problem = self._flow.problem
        self._tape.piece(data if self._said else passed_on)
        return passed_on

    def end(self) -> bytes:
        last = self._flow.end()
        self.problem = self._flow.problem
        if last and not self._said:
            self._tape.piece(last)
        return last

    @property
    def done(self) -> bool:
        return self._flow.done

    @property
    def failed(self) -> bool:
        return self._flow.failed

    def usage(self) -> Usage:
        return self._flow.usage()
