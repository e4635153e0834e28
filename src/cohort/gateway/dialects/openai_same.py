"""An OpenAI caller and an upstream that speaks OpenAI's protocol: bytes pass as they are, but for what the release sets."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from cohort.gateway import openai
from cohort.gateway.dialects.face import BAD_REQUEST, FORWARDED, UNKNOWN, Chat, Flow, Operation, Refused, Untranslatable, Usage, passed_on
from cohort.gateway.dialects.refusals import as_openai, told_instead
from cohort.gateway.rewriting import Rewriting


def forwarded(headers: Mapping[bytes, bytes]) -> bytes:
    """Of the caller's headers the lines that OpenAI's kind of upstream gets."""
    if FORWARDED.isdisjoint(headers):
        return b""
    return passed_on(headers, FORWARDED.intersection(headers))


class OpenAIVoice:
    """Answers in OpenAI's dialect."""

    def error(self, _status: int, message: str, code: str, param: str | None = None, kind: str = BAD_REQUEST) -> bytes:
        return openai.error(message, code, param, kind)

    def stream_error(self, message: str, code: str) -> bytes:
        return openai.stream_error(message, code)

    def whole(self, _chat: Chat, answer: bytes) -> bytes:
        return answer

    def flow(self, _chat: Chat) -> Flow:
        return openai.Tail()


class Through:
    """One of OpenAI's paths, to an upstream that has it. `whole_release`: the release's prompt and parameters apply, not its model alone."""

    def __init__(self, path: bytes, whole_release: bool) -> None:
        self.path = path
        self._whole_release = whole_release

    def headers(self, headers: Mapping[bytes, bytes]) -> bytes:
        return forwarded(headers)

    def request(self, chat: Chat, rewriting: Rewriting) -> bytes:
        return rewriting.apply(chat) if self._whole_release else rewriting.apply_model(chat, chat.native)

    def answer(self, chat: Chat, body: bytes) -> tuple[bytes, Usage]:
        try:
            fields = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Untranslatable("the answer is not JSON") from error
        chat.answered, usage = (body, fields), openai.usage_in(fields)
        if usage is UNKNOWN and (wrong := told_instead(body)):
            raise Untranslatable(wrong)
        return body, usage

    def flow(self, _chat: Chat) -> Flow:
        return openai.Tail()

    def refusal(self, _status: int, body: bytes) -> bytes | None:
        return as_openai(body)


def parse_chat(operation: Operation, body: bytes) -> Chat:
    """A chat request; raises Refused 400: not JSON, or a wrong field, which is named."""
    fields = openai.parse_object(body)
    service, messages = openai.service_of(fields), fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "`messages` must be a list with at least one message", "messages_missing", "messages")
    return Chat(body, fields, service, "stream" in fields and openai.wants_stream(fields), operation, fields)


def parse_plain(operation: Operation, body: bytes) -> Chat:
    """A request that only has to name its service; raises Refused 400."""
    fields = openai.parse_object(body)
    return Chat(body, fields, openai.service_of(fields), openai.wants_stream(fields), operation, fields)


VOICE = OpenAIVoice()
