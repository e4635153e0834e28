"""What a request asks of the caches: its `cache-control`, whether its answer may be kept, and the key of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

KEY_BYTES = 32
KEY_VERSION = 1
TRANSPORT_FIELDS = frozenset(
    {"model", "stream", "stream_options", "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
)
"""What says how the answer is carried or who asks, not what is asked. Every other field is part of the key, known or not."""
DIRECTIVES_CHARS_MAX = 200
_BEGUN = blake2b(digest_size=KEY_BYTES, person=b"cohort exact")

VARIES = frozenset({b"anthropic-beta", b"anthropic-version", b"openai-beta"})
"""Headers that go upstream and change what is answered."""


def variant_of(headers: Mapping[bytes, bytes]) -> str:
    """What of a request's headers its answer depends on, as part of the key; mostly nothing."""
    if VARIES.isdisjoint(headers):
        return ""
    return "".join(f"\0{name.decode()}:{headers[name].decode('latin-1')}" for name in sorted(VARIES.intersection(headers)))


@dataclass(frozen=True, slots=True)
class CacheControl:
    """The directives of RFC 9111 section 5.2.1 that are honoured. `max_age_s`: None for any age."""

    no_store: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    max_age_s: float | None = None


ANYTHING = CacheControl()


def cache_control(header: bytes | None) -> CacheControl:
    """The directives in a `cache-control` header. What is not known, or not well formed, asks for nothing."""
    if not header:
        return ANYTHING
    found = {}
    for part in header[:DIRECTIVES_CHARS_MAX].decode("ascii", "replace").lower().split(","):
        name, _, value = part.partition("=")
        found[name.strip()] = value.strip().strip('"')
    age = found.get("max-age", "")
    return CacheControl(
        no_store="no-store" in found,
        no_cache="no-cache" in found,
        only_if_cached="only-if-cached" in found,
        max_age_s=float(age) if age.isascii() and age.isdigit() else None,
    )


def is_deterministic(fields: Mapping[str, Any], parameters: Mapping[str, Any]) -> bool:
    """The model is asked for its likeliest answer: temperature 0, set by the client or else by the release."""
    temperature = fields["temperature"] if "temperature" in fields else parameters.get("temperature")
    return temperature == 0 and type(temperature) in (int, float)  # not a bool, which is an int


def wants_usage(fields: Mapping[str, Any]) -> bool:
    """A stream that is to end with a chunk of usage."""
    options = fields.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def canonical(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a request that its answer depends on. Numbers of equal value are equal: `0` and `0.0`."""
    return {
        name: int(value) if type(value) is float and value.is_integer() else value
        for name, value in fields.items()
        if name not in TRANSPORT_FIELDS
    }


def exact_key(tenant: str, service: str, release: str, route: str, operation: str, fields: Mapping[str, Any]) -> bytes | None:
    """The key of the answer: two requests have one key if and only if everything here is canonically equal.

    None for a request that cannot be written out again: nested too deeply.
    """
    try:
        text = orjson.dumps([KEY_VERSION, tenant, service, release, route, operation, canonical(fields)], option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return None
    hashed = _BEGUN.copy()
    hashed.update(text)
    return hashed.digest()
