"""Every model call a caller can make: its path, its dialect, and its way through each kind of upstream."""

from __future__ import annotations

from collections.abc import Mapping

from cohort.gateway.dialects.chat_translated import ChatOverMessages
from cohort.gateway.dialects.face import Operation, Voice
from cohort.gateway.dialects.messages_same import MessagesThrough, parse_messages
from cohort.gateway.dialects.messages_translated import MessagesOverChat
from cohort.gateway.dialects.messages_voice import VOICE as MESSAGES_VOICE
from cohort.gateway.dialects.openai_same import VOICE, Through, parse_chat, parse_plain

PROVIDERS = ("openai", "anthropic")
"""Protocols of upstreams."""
UPSTREAM_PATHS: Mapping[str, tuple[bytes, ...]] = {
    "openai": (b"/chat/completions", b"/completions", b"/embeddings", b"/moderations"),
    "anthropic": (b"/messages", b"/messages/count_tokens"),
}
"""What may be asked of each kind of upstream, behind its base URL."""
KEY_LINES: Mapping[str, str] = {"openai": "authorization: Bearer {}\r\n", "anthropic": "x-api-key: {}\r\n"}
"""How each kind of upstream is given its key."""

CHAT = Operation(
    "chat completions",
    VOICE,
    parse_chat,
    {"openai": Through(b"/chat/completions", whole_release=True), "anthropic": ChatOverMessages()},
)
MESSAGES = Operation("messages", MESSAGES_VOICE, parse_messages, {"openai": MessagesOverChat(), "anthropic": MessagesThrough(b"/messages")})
COUNT_TOKENS = Operation(
    "counting tokens",
    MESSAGES_VOICE,
    parse_messages,
    {"anthropic": MessagesThrough(b"/messages/count_tokens", counting=True)},
    conversational=False,
)


def operations() -> dict[bytes, Operation]:
    """By the caller's path."""
    return {
        b"/v1/chat/completions": CHAT,
        b"/v1/messages": MESSAGES,
        b"/v1/messages/count_tokens": COUNT_TOKENS,
        **{b"/v1/" + name: _plain(name) for name in (b"completions", b"embeddings", b"moderations")},
    }


def voice_of(target: bytes) -> Voice:
    """In which dialect a caller of `target` is told of an error that comes before anything is known of its request."""
    return MESSAGES_VOICE if target.startswith(b"/v1/messages") else VOICE


def _plain(name: bytes) -> Operation:
    through = Through(b"/" + name, whole_release=False)
    return Operation(name.decode(), VOICE, parse_plain, {"openai": through}, conversational=False)
