"""A caller that speaks Anthropic's dialect, and an upstream with OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Mapping

from cohort.gateway import openai
from cohort.gateway.dialects.chat_to_messages import MessagesFlow, message_of
from cohort.gateway.dialects.face import Chat, Flow, Refused, Usage
from cohort.gateway.dialects.messages_voice import as_message_error
from cohort.gateway.dialects.openai_same import forwarded
from cohort.gateway.rewriting import Rewriting


class MessagesOverChat:
    """`/v1/messages` by way of chat completions."""

    path = b"/chat/completions"

    def headers(self, headers: Mapping[bytes, bytes]) -> bytes:
        return forwarded(headers)

    def request(self, chat: Chat, rewriting: Rewriting) -> bytes:
        check_sayable(chat)
        return rewriting.written(chat, rewriting.fields(chat.fields))

    def answer(self, chat: Chat, body: bytes) -> tuple[bytes, Usage]:
        return message_of(chat, body), openai.usage_of(body)

    def flow(self, chat: Chat) -> Flow:
        return MessagesFlow(chat.service)

    def refusal(self, status: int, body: bytes) -> bytes | None:
        return as_message_error(status, body)


def check_sayable(chat: Chat) -> None:
    """Raises Refused 400 for what a chat completion cannot say."""
    if chat.unsayable is not None:
        words = f"the upstream of this service speaks OpenAI's dialect, which cannot say {chat.unsayable.words}"
        raise Refused(400, words, "not_translatable", chat.unsayable.field)
