"""What an upstream answers, held on its way to the client so that it can be kept afterwards. Bounded.

Held is a chat completion of OpenAI's, whole or in chunks, whichever end speaks that, the upstream or else the caller; where neither does,
what an Anthropic upstream said.
"""

from __future__ import annotations

from enum import Enum

from cohort.gateway.dialects.face import Flow, Usage

ANTHROPIC, KEEPS_RESPONSES = "anthropic", "openai-responses"
CHAT_NAME, RESPONSES_NAME = "chat completions", "responses"


class Form(Enum):
    """In what dialect an answer is held. NONE: in none that could be kept."""

    COMPLETION = "completion"
    MESSAGE = "message"
    NONE = "none"


_COMPLETION = Form.COMPLETION  # a member of an enum takes 60 ns to look up in its class, 3 ns in the module


class Tape:
    """One answer to a caller of `operation`. `over`: it was larger than `bytes_max`, or cannot be kept, and nothing of it is held."""

    __slots__ = ("_bytes_max", "_operation", "_pieces", "_size", "form", "over", "streamed")

    def __init__(self, bytes_max: int, operation: str) -> None:
        self._bytes_max = bytes_max
        self._operation = operation
        self._pieces: list[bytes] = []
        self._size = 0
        self.form = _COMPLETION
        self.over = False
        self.streamed = False

    def begin(self, provider: str) -> bool:
        """An attempt at `provider` begins; whether what the upstream says is held, or else what is passed on."""
        self._pieces, self._size, self.over, self.streamed = [], 0, False, False
        if provider == ANTHROPIC and self._operation != CHAT_NAME:
            self.form = Form.MESSAGE
        elif provider == KEEPS_RESPONSES and self._operation == RESPONSES_NAME:
            self.form, self.over = Form.NONE, True  # it is named by its upstream, which goes on from it for whom it was
        else:
            self.form = _COMPLETION
        return provider != ANTHROPIC or self.form is not _COMPLETION

    def piece(self, data: bytes) -> None:
        """Of a stream."""
        self.streamed = True
        self._hold(data)

    def whole(self, said: bytes, passed_on: bytes, provider: str) -> None:
        """An answer that is not streamed, as the upstream said it and as the client gets it."""
        self._hold(said if self.begin(provider) else passed_on)

    def abandon(self) -> None:
        """Two upstreams answer at once, and it is not known yet which is the client's: nothing is held from now on."""
        self._pieces, self._size, self.streamed = [], 0, False
        self._bytes_max, self.over = -1, True

    @property
    def data(self) -> bytes:
        """All that is held; of one piece the very same."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

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
        self._said = tape.begin(provider)

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
