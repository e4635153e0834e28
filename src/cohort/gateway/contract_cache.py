"""What a release says of its caches, as control tells the gateway. Reference: docs/reference/caches.md."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TTL_S_DEFAULT = 3600.0
TTL_S_MAX = 30 * 86_400.0
THRESHOLD_DEFAULT = 0.85
FALSE_HIT_MAX_DEFAULT = 0.01
SAMPLE_SHARE_DEFAULT = 0.05


@dataclass(frozen=True, slots=True)
class EmbeddingsRoute:
    """An endpoint with OpenAI's `/embeddings`. `api_key` is a reference (`env:NAME`, `file:/path`), never the key."""

    base_url: str
    model: str
    api_key: str | None = None


@dataclass(frozen=True, slots=True)
class SemanticPolicy:
    """When an answer to another wording may serve.

    `threshold`: cosine from which an entry is looked at. `false_hit_max`: the share of wrong answers that is put up with.
    `sample_share`: the part of hits that the model answers as well. `embeddings`: None for the lexical fallback. `judge`: the service that is
    asked whether two answers say the same where letters leave it open; None: then it stays open.
    """

    threshold: float = THRESHOLD_DEFAULT
    false_hit_max: float = FALSE_HIT_MAX_DEFAULT
    sample_share: float = SAMPLE_SHARE_DEFAULT
    embeddings: EmbeddingsRoute | None = None
    judge: str | None = None


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Whose answers are kept and for how long. `sampled`: also of requests whose answer is drawn by chance (temperature above 0).

    `shared` and `disk`: in Redis and on disk as well, where the gateway has them.
    """

    exact: bool = True
    ttl_s: float = TTL_S_DEFAULT
    sampled: bool = False
    shared: bool = False
    disk: bool = False
    semantic: SemanticPolicy | None = None


def decode_cache(entry: Mapping[str, Any] | None) -> CachePolicy | None:
    """The policy in `entry`; raises ValueError or TypeError when it is none."""
    if entry is None:
        return None
    semantic = entry.get("semantic")
    policy = CachePolicy(**{**entry, "semantic": _semantic(semantic) if semantic is not None else None})
    _within("ttl_s", policy.ttl_s, 0.0, TTL_S_MAX)
    for name in ("exact", "sampled", "shared", "disk"):
        if not isinstance(getattr(policy, name), bool):
            raise ValueError(f"cache.{name} must be true or false")
    return policy


def _semantic(entry: Mapping[str, Any]) -> SemanticPolicy:
    embeddings = entry.get("embeddings")
    policy = SemanticPolicy(**{**entry, "embeddings": EmbeddingsRoute(**embeddings) if embeddings is not None else None})
    _within("semantic.threshold", policy.threshold, 0.0, 1.0)
    _within("semantic.false_hit_max", policy.false_hit_max, 0.0, 1.0)
    _within("semantic.sample_share", policy.sample_share, 0.0, 1.0)
    if policy.judge is not None and not (isinstance(policy.judge, str) and policy.judge):
        raise ValueError(f"cache.semantic.judge must be the name of a service, found {policy.judge!r}")
    return policy


def _within(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"cache.{name} must be a number from {low:g} to {high:g}, found {value!r}")
