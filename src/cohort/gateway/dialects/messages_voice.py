"""Anthropic's dialect, as its callers are answered: errors, whole messages, streams."""

from __future__ import annotations

from typing import Any

import orjson

from cohort.gateway.dialects.chat_to_messages import MessagesFlow, message_of
from cohort.gateway.dialects.face import BAD_REQUEST, Chat, Flow
from cohort.gateway.dialects.refusals import error_in

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Anthropic's error types by status; others are `invalid_request_error` below 500 and `api_error` from there on."""


def error_type(status: int) -> str:
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def error_body(kind: str, message: str, code: str | None, param: str | None = None) -> bytes:
    """Anthropic's shape, and beside it OpenAI's `code` and `param`, which its clients pass over."""
    error: dict[str, Any] = {"type": kind, "message": message}
    if code is not None:
        error["code"] = code
    if param is not None:
        error["param"] = param
    return orjson.dumps({"type": "error", "error": error})


def as_message_error(status: int, body: bytes) -> bytes | None:
    """An upstream's error in Anthropic's shape: itself where it has that; None where it says nothing."""
    error = error_in(body)
    if error is None:
        return None
    if is_message_error(body):
        return body
    code, param = error.get("code"), error.get("param")
    return error_body(
        error_type(status), error["message"], code if isinstance(code, str) else None, param if isinstance(param, str) else None
    )


def is_message_error(body: bytes) -> bool:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(fields, dict) and fields.get("type") == "error" and isinstance(fields.get("error"), dict)


class MessagesVoice:
    """Answers in Anthropic's dialect."""

    def error(self, status: int, message: str, code: str, param: str | None = None, kind: str = BAD_REQUEST) -> bytes:
        del kind
        return error_body(error_type(status), message, code, param)

    def stream_error(self, message: str, code: str) -> bytes:
        return b"\n\nevent: error\ndata: " + error_body("api_error", message, code) + b"\n\n"

    def whole(self, chat: Chat, answer: bytes) -> bytes:
        return message_of(chat, answer)

    def flow(self, chat: Chat) -> Flow:
        return MessagesFlow(chat.service)


VOICE = MessagesVoice()
