"""The seam between a call and the dialects of its two ends: what the caller said, and how it is answered.

A caller's path is an `Operation`. Its `Voice` is the caller's dialect; its `Passage` for a provider translates a call to that provider
and back. Where both ends speak the same dialect a passage changes nothing but what the release sets, and copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from cohort.gateway.dialects.responses_answer import Turn
    from cohort.gateway.rewriting import Rewriting

BAD_REQUEST = "invalid_request_error"
TOKENS_MAX = 1_000_000_000
"""Of one answer. A larger number is no number of tokens: it would not fit where it is kept, and its cost would be absurd."""
SHOWN_MAX = 100
PASSED_BYTES_MAX = 2048
FORWARDED = frozenset({b"cdn-loop", b"idempotency-key", b"openai-beta", b"traceparent", b"tracestate", b"x-request-id"})


class Refused(Exception):
    """A request that is answered with an error before anything is sent upstream. The caller's voice says it; `headers`: ready lines."""

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, kind: str = BAD_REQUEST, headers: bytes = b""
    ) -> None:
        super().__init__(message)
        self.headers = headers
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind
        self.headers = headers


def shown(value: object) -> str:
    """A caller's value in words about it: the beginning is enough."""
    return repr(value[:SHOWN_MAX] if isinstance(value, str) else type(value).__name__)


def passed_on(headers: Mapping[bytes, bytes], names: Iterable[bytes]) -> bytes:
    """The lines of these headers for an upstream.

    Raises:
        Withheld 400: one is longer than such a header is, or not ASCII. Servers close a connection for either, and a caller could have an
            upstream look broken to everybody.
    """
    lines = b""
    for name in names:
        value = headers[name]
        if len(value) > PASSED_BYTES_MAX or not value.isascii():
            words = f"the header {name.decode()} goes to the upstream: send at most {PASSED_BYTES_MAX} characters of ASCII in it"
            raise Withheld(400, words, "header_invalid", name.decode())
        lines += b"%s: %s\r\n" % (name, value)
    return lines


class Withheld(Refused):
    """The caller's own doing, or a limit of the caller or of all: no failure of the release that would have been asked."""


class Unsaid(NamedTuple):
    """What of a request another dialect has no words for, and the field in which it stands."""

    words: str
    field: str


class Untranslatable(Exception):
    """An upstream's answer that is not what its dialect promises. Says why."""


class Detail(NamedTuple):
    """What of the prompt's tokens was read from the provider's cache or written into it, and the tier that answered; empty: the standard one."""

    cached: int = 0
    written: int = 0
    written_long: int = 0
    tier: str = ""


class Usage(NamedTuple):
    """Tokens of one answer; None where the upstream did not say. `detail`: only where something in it makes a difference."""

    tokens_in: int | None = None
    tokens_out: int | None = None
    detail: Detail | None = None


UNKNOWN = Usage()


class Flow(Protocol):
    """One streamed answer on its way from the upstream to the caller. It never raises: it runs inside the upstream's protocol."""

    @property
    def problem(self) -> str | None:
        """Why the answer cannot go on, when it cannot: what the upstream sends is not its dialect."""
        ...

    def feed(self, data: bytes) -> bytes:
        """What the caller gets for the upstream's next bytes; nothing when an event is not whole yet."""
        ...

    def end(self) -> bytes:
        """The caller's last bytes, once the upstream's are over."""
        ...

    @property
    def done(self) -> bool:
        """The upstream said that this was all."""
        ...

    @property
    def failed(self) -> bool:
        """The upstream reported an error as an event."""
        ...

    def usage(self) -> Usage: ...


class Voice(Protocol):
    """The dialect in which one kind of caller is answered."""

    def error(self, status: int, message: str, code: str, param: str | None = None, kind: str = BAD_REQUEST) -> bytes:
        """The body of an error. `kind` and `code` are OpenAI's words, which a voice of another dialect puts into its own."""
        ...

    def stream_error(self, message: str, code: str) -> bytes:
        """The event that ends an interrupted stream, whatever was cut before it."""
        ...

    def whole(self, chat: Chat, answer: bytes) -> bytes:
        """An OpenAI chat completion, such as a kept one, for this caller; raises Untranslatable."""
        ...

    def flow(self, chat: Chat) -> Flow:
        """An OpenAI stream of chat completion chunks, for this caller."""
        ...


class Passage(Protocol):
    """One operation's way through one kind of upstream."""

    path: bytes
    """Behind the upstream's base URL."""

    def headers(self, headers: Mapping[bytes, bytes]) -> bytes:
        """Of the caller's headers, the lines for the upstream."""
        ...

    def request(self, chat: Chat, rewriting: Rewriting) -> bytes:
        """The upstream's request; raises Refused for what this upstream cannot be asked."""
        ...

    def answer(self, chat: Chat, body: bytes) -> tuple[bytes, Usage]:
        """The caller's answer and its usage; raises Untranslatable."""
        ...

    def flow(self, chat: Chat) -> Flow: ...

    def refusal(self, status: int, body: bytes) -> bytes | None:
        """An upstream's error in the caller's dialect; None where it is not in the upstream's own shape."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """What a path of the gateway asks for. `conversational`: it is answered with a turn of a chat, and `Chat.fields` are those of one."""

    name: str
    voice: Voice
    parse: Callable[[Operation, bytes], Chat]
    passages: Mapping[str, Passage]
    conversational: bool = True

    def passage(self, provider: str) -> Passage:
        """The way through `provider`; raises Refused 400 where it has no such operation."""
        found = self.passages.get(provider)
        if found is None:
            words = f"the upstream of this service speaks {provider}, which has nothing for {self.name}"
            raise Refused(400, words, "operation_not_supported", "model")
        return found


@dataclass(slots=True)
class Chat:
    """One call: its original bytes and what the gateway needs to know of it.

    `fields` are those of an OpenAI chat completion whatever the caller's dialect (of an operation that is not conversational: its own);
    `native` are the caller's own, and `unsayable` names what of them `fields` could not take up. `at_us` and `unit` are set at assignment; a
    unit that is there before is that of the response the call goes on from. `shadow`: nobody gets the answer.
    """

    body: bytes
    fields: dict[str, Any]
    service: str
    stream: bool
    operation: Operation
    native: dict[str, Any]
    unit: str = ""
    at_us: int = 0
    unsayable: Unsaid | None = None
    turn: Turn | None = None
    shadow: bool = False
    owner: str = ""
    lone: bool = False  # nothing names its conversation: no other call is of its unit
    verbatim: bool = False  # the body is byte for byte what `native` is written as
    answered: tuple[bytes, Any] = (b"", None)  # a whole answer and what it was read as, where it had to be read
