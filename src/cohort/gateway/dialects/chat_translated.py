"""A caller that speaks OpenAI's chat completions, and an upstream that speaks Anthropic's dialect."""

from __future__ import annotations

from collections.abc import Mapping

from cohort.gateway.dialects.chat_as_messages import translate
from cohort.gateway.dialects.chat_from_messages import ChunksFlow, completion_of, openai_error
from cohort.gateway.dialects.face import Chat, Flow, Usage
from cohort.gateway.dialects.messages_same import upstream_headers
from cohort.gateway.dialects.refusals import error_in
from cohort.gateway.rewriting import Rewriting

_FORWARDED = frozenset({b"idempotency-key", b"traceparent", b"tracestate", b"x-request-id"})


class ChatOverMessages:
    """`/v1/chat/completions` by way of messages."""

    path = b"/messages"

    def headers(self, headers: Mapping[bytes, bytes]) -> bytes:
        return upstream_headers(headers, _FORWARDED)

    def request(self, chat: Chat, rewriting: Rewriting) -> bytes:
        return rewriting.written(chat, translate(rewriting.fields(chat.fields)))

    def answer(self, chat: Chat, body: bytes) -> tuple[bytes, Usage]:
        return completion_of(chat, body)

    def flow(self, chat: Chat) -> Flow:
        return ChunksFlow(chat)

    def refusal(self, _status: int, body: bytes) -> bytes | None:
        error = error_in(body)
        return None if error is None else openai_error({"error": error})
