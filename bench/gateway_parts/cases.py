"""What is asked and what must come back."""

from __future__ import annotations

import json
from typing import Any

BODY_BYTES = 800
CONNECTIONS = (1, 32)
CHAT, STREAM, PROMPT = "chat", "stream", "prompt"
CASES = ((CHAT, 1), (CHAT, 32), (STREAM, 32), (PROMPT, 8))
PROMPT_BYTES = 256 << 10
CHUNKS = 100
CHUNK_EVERY_S = 0.004
NUMBER = "000000000"
"""In a request, where another number stands each time for a target that would find the answer in its cache."""

ANSWER = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 200}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 150, "completion_tokens": 50, "total_tokens": 200},
    }
).encode()


def request_body(case: str) -> bytes:
    """A chat request of 800 bytes, streamed or not, or one of 256 KB. Its text ends with NUMBER."""
    body: dict[str, Any] = {
        "model": "bench",
        "messages": [{"role": "system", "content": "You are brief."}, {"role": "user", "content": ""}],
        "temperature": 0,
    }
    if case == STREAM:
        body["stream"] = True
    room = (PROMPT_BYTES if case == PROMPT else BODY_BYTES) - len(_written(body)) - len(NUMBER)
    body["messages"][1]["content"] = "word " * (room // 5) + "x" * (room % 5) + NUMBER
    return _written(body)


def _written(body: dict[str, Any]) -> bytes:
    """As OpenAI's clients write it."""
    return json.dumps(body, separators=(",", ":")).encode()


EVENT: dict[str, Any] = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1, "model": "m"}
WORDS = ("word ", "next ")
"""In turn: a peer takes a hundred equal chunks for a model that has gone mad, and breaks the stream off."""


def chunk(number: int) -> bytes:
    """One event of a stream."""
    choice = {"index": 0, "delta": {"content": WORDS[number % len(WORDS)]}, "finish_reason": None}
    return b"data: %s\n\n" % json.dumps({**EVENT, "choices": [choice]}).encode()


DONE = b"data: [DONE]\n\n"
STREAMED = b"".join(chunk(number) for number in range(CHUNKS)) + DONE
