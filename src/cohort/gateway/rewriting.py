"""From the client's request to the upstream's: `model`, prompt and parameters spliced into the original bytes.

Everything else stays byte for byte as the client wrote it. Where a splice is not certain (a key stands in the text again, or with
escapes) the parsed request is written out again instead, which keeps every value but not the spacing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from cohort.gateway.dialects.face import Chat, Refused
from cohort.gateway.dialects.repeated import check_model_once

ESCAPED_LETTER = b"\\u00"
_COLON = re.compile(rb"[ \n\r\t]*:[ \n\r\t]*")
OUTPUT_TOKENS = "max_output_tokens"
OUTPUT_TOKENS_UPSTREAM = "max_completion_tokens"
OUTPUT_TOKENS_NAMES = ("max_completion_tokens", "max_tokens")


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What a release changes in a request, encoded once.

    `parameters`: the upstream's name, the names that count as set by the client, the value, and `"name":value,`.
    """

    model: str
    model_json: bytes
    prompt: str | None
    prompt_json: bytes
    parameters: tuple[tuple[str, tuple[str, ...], Any, bytes], ...]

    def apply(self, chat: Chat) -> bytes:
        """The body for the upstream; raises Refused 400 when it is nested too deeply to be written out again."""
        fields = chat.fields
        missing = [p for p in self.parameters if not any(name in fields for name in p[1])] if self.parameters else []
        return self._spliced(chat, missing) or self.written(chat, self.fields(fields))

    def apply_model(self, chat: Chat, fields: dict[str, Any]) -> bytes:
        """The body, whose values are `fields`, with nothing but the model changed."""
        return spliced_model(chat, self) or self.written(chat, {**fields, "model": self.model})

    def fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A chat request's fields with what the release sets."""
        missing = {name: value for name, names, value, _ in self.parameters if not any(other in fields for other in names)}
        changed = {**fields, "model": self.model, **missing}
        if self.prompt is not None:
            changed["messages"] = [{"role": "system", "content": self.prompt}, *fields["messages"]]
        return changed

    def written(self, chat: Chat, fields: dict[str, Any]) -> bytes:
        """`fields` instead of the caller's body; raises Refused 400 for what is nested too deeply, and for a model that is named twice."""
        check_model_once(chat.body)
        try:
            return orjson.dumps(fields)
        except TypeError as error:
            raise Refused(400, "the body is nested too deeply", "invalid_json") from error

    def _spliced(self, chat: Chat, missing: list[tuple[str, tuple[str, ...], Any, bytes]]) -> bytes | None:
        if b"\\" in chat.body and chat.body.rfind(ESCAPED_LETTER) >= 0:
            return None  # a key may be written with escapes
        body = _replace(chat.body, b'"model"', orjson.dumps(chat.service), self.model_json)
        if body is not None and self.prompt is not None:
            body = _replace(body, b'"messages"', b"[", b"[" + self.prompt_json)
        if body is not None and missing:
            brace = body.index(b"{") + 1
            body = body[:brace] + b"".join(p[3] for p in missing) + body[brace:]
        return body


def rewriting(model: str, prompt: str | None, parameters: Mapping[str, Any]) -> Rewriting:
    """A release's changes. `max_output_tokens` goes upstream as `max_completion_tokens`."""
    entries = []
    for name, value in parameters.items():
        upstream = OUTPUT_TOKENS_UPSTREAM if name == OUTPUT_TOKENS else name
        names = OUTPUT_TOKENS_NAMES if upstream in OUTPUT_TOKENS_NAMES else (upstream,)
        entries.append((upstream, names, value, orjson.dumps(upstream) + b":" + orjson.dumps(value) + b","))
    message = orjson.dumps({"role": "system", "content": prompt}) + b","
    return Rewriting(model, orjson.dumps(model), prompt, message, tuple(entries))


def spliced_model(chat: Chat, rewriting: Rewriting, added: bytes = b"") -> bytes | None:
    """The body with the model replaced and `added` at its beginning; None when the place of the model cannot be told for certain."""
    if b"\\" in chat.body and chat.body.rfind(ESCAPED_LETTER) >= 0:
        return None  # a key may be written with escapes
    body = _replace(chat.body, b'"model"', orjson.dumps(chat.service), rewriting.model_json)
    if body is None or not added:
        return body
    brace = body.index(b"{") + 1
    return body[:brace] + added + body[brace:]


def _replace(body: bytes, key: bytes, old: bytes, new: bytes) -> bytes | None:
    """`body` with the value `old` of its only `key` replaced; None when that place cannot be told for certain."""
    at = body.find(key)
    if at < 0 or body.rfind(key) != at:  # of two searches through a long prompt, `rfind` takes half the time of `find`
        return None
    at += len(key)
    begin = at + 2 if body.startswith(b": ", at) else at + 1  # as most clients write it
    if not (body.startswith(b":", at) and body.startswith(old, begin)):
        colon = _COLON.match(body, at)
        if colon is None or not body.startswith(old, colon.end()):
            return None
        begin = colon.end()
    return b"".join((body[:begin], new, body[begin + len(old) :]))
