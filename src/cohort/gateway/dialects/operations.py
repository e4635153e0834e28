"""Every model call a caller can make: its path, its dialect, and its way through each kind of upstream."""

from __future__ import annotations

from collections.abc import Mapping

from cohort.gateway.dialects.face import Operation, Voice
from cohort.gateway.dialects.openai_same import VOICE, Through, parse_chat, parse_plain

PROVIDERS = ("openai",)
"""Protocols of upstreams."""
UPSTREAM_PATHS: Mapping[str, tuple[bytes, ...]] = {"openai": (b"/chat/completions", b"/completions", b"/embeddings", b"/moderations")}
"""What may be asked of each kind of upstream, behind its base URL."""

CHAT = Operation("chat completions", VOICE, parse_chat, {"openai": Through(b"/chat/completions", whole_release=True)})


def operations() -> dict[bytes, Operation]:
    """By the caller's path."""
    return {b"/v1/chat/completions": CHAT, **{b"/v1/" + name: _plain(name) for name in (b"completions", b"embeddings", b"moderations")}}


def voice_of(target: bytes) -> Voice:
    """In which dialect a caller of `target` is told of an error that comes before anything is known of its request."""
    del target
    return VOICE


def _plain(name: bytes) -> Operation:
    through = Through(b"/" + name, whole_release=False)
    return Operation(name.decode(), VOICE, parse_plain, {"openai": through}, conversational=False)
