"""Every model call a caller can make: its path, its dialect, and its way through each kind of upstream."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cohort.gateway.dialects.chat_translated import ChatOverMessages
from cohort.gateway.dialects.face import Operation, Passage, Voice
from cohort.gateway.dialects.messages_same import MessagesThrough, parse_messages
from cohort.gateway.dialects.messages_translated import MessagesOverChat
from cohort.gateway.dialects.messages_voice import VOICE as MESSAGES_VOICE
from cohort.gateway.dialects.openai_same import VOICE, Through, parse_chat, parse_plain
from cohort.gateway.dialects.responses import Memory, ResponsesOverChat, ResponsesOverMessages, ResponsesVoice, parser
from cohort.gateway.dialects.responses_same import Given, ResponsesThrough

_OPENAI_PATHS = (b"/chat/completions", b"/completions", b"/embeddings", b"/moderations")
UPSTREAM_PATHS: Mapping[str, tuple[bytes, ...]] = {
    "openai": _OPENAI_PATHS,
    "openai-responses": (*_OPENAI_PATHS, b"/responses"),
    "anthropic": (b"/messages", b"/messages/count_tokens"),
}
"""What may be asked of each kind of upstream, behind its base URL."""

RESPONSES_NAME = "responses"


def _ways(openai: Passage, anthropic: Passage | None, responses: Passage | None = None) -> dict[str, Passage]:
    """`responses`: the way through an upstream that has OpenAI's Responses, where it is another than OpenAI's."""
    ways = {"openai": openai, "openai-responses": responses or openai}
    return {**ways, "anthropic": anthropic} if anthropic is not None else ways


CHAT = Operation("chat completions", VOICE, parse_chat, _ways(Through(b"/chat/completions", whole_release=True), ChatOverMessages()))
MESSAGES = Operation("messages", MESSAGES_VOICE, parse_messages, _ways(MessagesOverChat(), MessagesThrough(b"/messages")))
COUNT_TOKENS = Operation(
    "counting tokens",
    MESSAGES_VOICE,
    parse_messages,
    {"anthropic": MessagesThrough(b"/messages/count_tokens", counting=True)},
    conversational=False,
)


def operations(memory: Memory, given: Given, make_response_id: Callable[[], str]) -> dict[bytes, Operation]:
    """By the caller's path. `memory` holds the responses that a later call may go on from, `given` which ids of upstreams were given to whom."""
    voice = ResponsesVoice(memory)
    ways = _ways(ResponsesOverChat(voice), ResponsesOverMessages(voice), ResponsesThrough(given))
    return {
        b"/v1/chat/completions": CHAT,
        b"/v1/responses": Operation(RESPONSES_NAME, voice, parser(memory, make_response_id), ways),
        b"/v1/messages": MESSAGES,
        b"/v1/messages/count_tokens": COUNT_TOKENS,
        **{b"/v1/" + name: _plain(name) for name in (b"completions", b"embeddings", b"moderations")},
    }


def voice_of(target: bytes) -> Voice:
    """In which dialect a caller of `target` is told of an error that comes before anything is known of its request."""
    return MESSAGES_VOICE if target.startswith(b"/v1/messages") else VOICE


def _plain(name: bytes) -> Operation:
    through = Through(b"/" + name, whole_release=False)
    return Operation(name.decode(), VOICE, parse_plain, _ways(through, None), conversational=False)
