"""OpenAI's Responses, answered by chat completions where the upstream has nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson

from cohort.gateway import openai
from cohort.gateway.dialects.chat_from_messages import ChunksFlow, completion_of
from cohort.gateway.dialects.chat_translated import ChatOverMessages
from cohort.gateway.dialects.events import MISSHAPEN, loaded
from cohort.gateway.dialects.face import Chat, Flow, Operation, Refused, Unsaid, Untranslatable, Usage
from cohort.gateway.dialects.openai_same import OpenAIVoice, forwarded
from cohort.gateway.dialects.refusals import as_openai, told_instead
from cohort.gateway.dialects.responses_answer import Said, Turn, ended, message_of, said_in
from cohort.gateway.dialects.responses_request import translate
from cohort.gateway.dialects.responses_stream import ResponsesFlow, error_event
from cohort.gateway.rewriting import Rewriting

PREVIOUS = "previous_response_id"
RESPONSE_ID = re.compile(r"resp_[0-9a-f]{32}")


class Memory(Protocol):
    """Where responses are kept. Both may be lost: what is not there any more is refused by name."""

    def get(self, response_id: str) -> dict[str, Any] | None:
        """What was kept."""
        ...

    def now_s(self) -> float:
        """When a call begins, for `keep`."""
        ...

    def keep(
        self, response_id: str, unit: str, owner: str, messages: list[dict[str, Any]], response: dict[str, Any], began_s: float
    ) -> None:
        """Keep one, unless its unit was erased since the call began."""
        ...


class ResponsesVoice(OpenAIVoice):
    """Answers in the dialect of Responses."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def stream_error(self, message: str, code: str) -> bytes:
        return b"\n\n" + error_event(message, code, 0)

    def whole(self, chat: Chat, answer: bytes) -> bytes:
        turn = turn_of(chat)
        try:
            said = said_in(loaded(answer))
            response = ended(chat, turn, said)
        except MISSHAPEN as error:
            words = told_instead(answer) or f"the upstream's answer is not a chat completion: {type(error).__name__}"
            raise Untranslatable(words) from error
        self._keep(chat, turn, said)
        return orjson.dumps(response)

    def flow(self, chat: Chat) -> Flow:
        return ResponsesFlow(chat, turn_of(chat), self._keep)

    def _keep(self, chat: Chat, turn: Turn, said: Said) -> None:
        if turn.keep and not chat.shadow:
            messages = [*turn.messages, message_of(said)]
            self._memory.keep(turn.response_id, chat.unit, chat.owner, messages, ended(chat, turn, said), turn.began_s)


class ResponsesOverChat:
    """`/v1/responses` by way of chat completions."""

    path = b"/chat/completions"

    def __init__(self, voice: ResponsesVoice) -> None:
        self._voice = voice

    def headers(self, headers: Mapping[bytes, bytes]) -> bytes:
        return forwarded(headers)

    def request(self, chat: Chat, rewriting: Rewriting) -> bytes:
        check_sayable(chat)
        return rewriting.written(chat, rewriting.fields(chat.fields))

    def answer(self, chat: Chat, body: bytes) -> tuple[bytes, Usage]:
        return self._voice.whole(chat, body), openai.usage_of(body)

    def flow(self, chat: Chat) -> Flow:
        return self._voice.flow(chat)

    def refusal(self, _status: int, body: bytes) -> bytes | None:
        return as_openai(body)


class ResponsesOverMessages(ChatOverMessages):
    """`/v1/responses` by way of chat completions by way of Anthropic's messages."""

    def __init__(self, voice: ResponsesVoice) -> None:
        self._voice = voice

    def request(self, chat: Chat, rewriting: Rewriting) -> bytes:
        check_sayable(chat)
        return super().request(chat, rewriting)

    def answer(self, chat: Chat, body: bytes) -> tuple[bytes, Usage]:
        completion, usage = completion_of(chat, body)
        return self._voice.whole(chat, completion), usage

    def flow(self, chat: Chat) -> Flow:
        return Joined(ChunksFlow(chat), self._voice.flow(chat))


class Joined:
    """Two flows, one behind the other."""

    def __init__(self, first: Flow, second: Flow) -> None:
        self._first = first
        self._second = second

    def feed(self, data: bytes) -> bytes:
        return self._second.feed(self._first.feed(data))

    def end(self) -> bytes:
        return self._second.feed(self._first.end()) + self._second.end()

    @property
    def problem(self) -> str | None:
        return self._first.problem or self._second.problem

    @property
    def done(self) -> bool:
        return self._second.done

    @property
    def failed(self) -> bool:
        return self._second.failed

    def usage(self) -> Usage:
        return self._first.usage()


def parser(memory: Memory, make_id: Callable[[], str]) -> Callable[[Operation, bytes], Chat]:
    """Reads requests of Responses, and what they go on from out of `memory`."""

    def parse(operation: Operation, body: bytes) -> Chat:
        native = openai.parse_object(body)
        service, stream = openai.service_of(native), openai.wants_stream(native)
        previous = native.get(PREVIOUS)
        kept = memory.get(previous) if isinstance(previous, str) and RESPONSE_ID.fullmatch(previous) else None
        fields, messages, unsayable = translate(native, kept["messages"] if kept else [])
        if previous is not None and kept is None:
            unsayable = unsayable or Unsaid("`previous_response_id`", PREVIOUS)
        turn = Turn(make_id(), messages, native.get("store") is not False, kept["owner"] if kept else None, memory.now_s())
        unit = kept["unit"] if kept else ""
        return Chat(body, fields, service, stream, operation, native, unit=unit, unsayable=unsayable, turn=turn)

    return parse


def turn_of(chat: Chat) -> Turn:
    """Raises Refused when the call is not one of Responses."""
    if chat.turn is None:
        raise Refused(500, "a call of another operation was answered as a response", "internal_error", kind="server_error")
    return chat.turn


def check_sayable(chat: Chat) -> None:
    """Raises Refused 400 for what a chat completion cannot say, or what is not kept any more."""
    if chat.unsayable is not None and chat.unsayable.field == PREVIOUS:
        raise _not_kept()
    if chat.unsayable is not None:
        words = f"the upstream of this service has chat completions only, which cannot say {chat.unsayable.words}"
        raise Refused(400, words, "not_translatable", chat.unsayable.field)


def claim(chat: Chat, owner: str) -> None:
    """What comes of `chat` is `owner`'s; raises Refused 400 when what it goes on from is somebody else's."""
    chat.owner = owner
    if chat.turn is not None and chat.turn.earlier_owner not in (None, owner):
        raise _not_kept()


def _not_kept() -> Refused:
    words = "the response of `previous_response_id` is not kept here: it is too old, was not stored, or never was; send the conversation"
    return Refused(400, words, "previous_response_not_found", PREVIOUS)
