"""What a request for embeddings says, and the answer to it, in OpenAI's words. Pure."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from cohort.base.settings_embeddings import EmbeddingsLimits
from cohort.gateway.dialects.face import Refused
from cohort.gateway.embeddings.model import Embedded, Model
from cohort.gateway.openai import check_media, parse_object

FORMATS = ("float", "base64")


@dataclass(frozen=True, slots=True)
class Asked:
    """`base64`: vectors as their bytes, little-endian numbers of 32 bits, instead of as lists."""

    texts: tuple[str, ...]
    base64: bool


def asked(body: bytes, headers: dict[bytes, bytes], model: Model, limits: EmbeddingsLimits) -> Asked:
    """Raises Refused."""
    check_media(headers.get(b"content-type", b""), headers.get(b"content-encoding", b""))
    fields = parse_object(body)
    if fields.get("model") != model.name:
        raise Refused(404, f"there is one model here, `{model.name}`, found {str(fields.get('model'))[:100]!r}", "model_not_found", "model")
    form = fields.get("encoding_format") or "float"
    if form not in FORMATS:
        raise Refused(400, f"`encoding_format` must be one of {', '.join(FORMATS)}", "format_invalid", "encoding_format")
    if fields.get("dimensions") not in (None, model.dimension):
        raise Refused(400, f"this model's vectors have {model.dimension} numbers, no others", "dimensions_unsupported", "dimensions")
    return Asked(_texts(fields.get("input"), limits), form == "base64")


def _texts(value: Any, limits: EmbeddingsLimits) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else ()
    if not texts or not all(isinstance(text, str) for text in texts):
        raise Refused(400, "`input` must be a text or a list of texts; token numbers are not taken", "input_invalid", "input")
    if len(texts) > limits.texts_max:
        raise Refused(400, f"`input` has {len(texts)} texts, at most {limits.texts_max} (texts_max)", "input_too_many", "input")
    for text in texts:
        if not text.strip():
            raise Refused(400, "`input` has an empty text", "input_invalid", "input")
        if len(text) > limits.text_chars_max:
            words = f"a text of {len(text)} characters, at most {limits.text_chars_max} (text_chars_max)"
            raise Refused(400, words, "input_too_long", "input")
    return texts


def answer(asked: Asked, found: Sequence[Embedded], model: Model) -> bytes:
    """Raises Refused for a text of too many tokens: cut short, it would have another question's vector."""
    data = []
    for at, entry in enumerate(found):
        if entry.vector is None:
            words = f"text {at} has {entry.tokens} tokens, the model takes {model.tokens_max} at most"
            raise Refused(400, words, "input_too_long", "input")
        vector: Any = base64.b64encode(entry.vector.astype("<f4").tobytes()).decode() if asked.base64 else entry.vector
        data.append({"object": "embedding", "index": at, "embedding": vector})
    tokens = sum(entry.tokens for entry in found)
    body = {"object": "list", "data": data, "model": model.name, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
