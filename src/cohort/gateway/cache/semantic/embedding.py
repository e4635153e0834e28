"""Texts as vectors of length 1: by letters, without a model, or read from an embeddings endpoint's answer. numpy is loaded on first use."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Any

import orjson

from cohort.gateway.cache.semantic.text import TEXT_CHARS_MAX, stem
from cohort.gateway.cache.semantic.words import LANGUAGES, STOP

if TYPE_CHECKING:
    import numpy as np

    Vector = np.ndarray[Any, np.dtype[np.float32]]

LEXICAL = "lexical"
LEXICAL_DIMENSION = 512
DIMENSION_MAX = 8192
GRAMS = (3, 4)
WORD_WEIGHT, GRAM_WEIGHT, STOP_WEIGHT = 1.0, 0.35, 0.12
_WORD = re.compile(r"\w+", re.UNICODE)
_STOP = frozenset().union(*(STOP[name] for name in LANGUAGES))


class NoVector(Exception):
    """The text has none: nothing to see in it, or the endpoint's answer is not one. Says why."""


def lexical(text: str) -> Vector:
    """Hashed words and letter n-grams, words of grammar counting little. Raises NoVector for a text without words."""
    import numpy

    weights: dict[int, float] = {}
    for word in _WORD.findall(text[:TEXT_CHARS_MAX].casefold()):
        if word in _STOP:
            _add(weights, word, STOP_WEIGHT)
            continue
        _add(weights, "=" + stem(word), WORD_WEIGHT)
        padded = f"^{word}$"
        for size in GRAMS:
            for at in range(len(padded) - size + 1):
                _add(weights, padded[at : at + size], GRAM_WEIGHT)
    vector = numpy.zeros(LEXICAL_DIMENSION, dtype=numpy.float32)
    for place, weight in weights.items():
        vector[place] = weight
    return _unit(vector)


def from_answer(body: bytes) -> Vector:
    """The vector in the answer of an OpenAI-compatible `/embeddings`. Raises NoVector."""
    import numpy

    try:
        values = orjson.loads(body)["data"][0]["embedding"]
        vector = numpy.asarray(values, dtype=numpy.float32)
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise NoVector(f"not an answer with an embedding: {type(error).__name__}") from error
    if vector.ndim != 1 or not 0 < len(vector) <= DIMENSION_MAX:
        raise NoVector(f"an embedding of shape {vector.shape}")
    return _unit(vector)


def _add(weights: dict[int, float], feature: str, weight: float) -> None:
    hashed = zlib.crc32(feature.encode())
    place = hashed % LEXICAL_DIMENSION
    weights[place] = weights.get(place, 0.0) + (weight if hashed & 0x80000000 else -weight)


def _unit(vector: Vector) -> Vector:
    import numpy

    length = float(numpy.linalg.norm(vector))
    if not numpy.isfinite(length) or length == 0.0:
        raise NoVector("a vector without direction")
    scaled: Vector = (vector / length).astype(numpy.float32)
    return scaled
