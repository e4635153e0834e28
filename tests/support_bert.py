"""A small BERT with weights drawn by chance, as the folder its makers would publish, and what it gives, reckoned in plain numpy.

The reckoning shares nothing with the product: it reads the paper's formulas, one text at a time, without padding.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy

from support_model import GROUPS, tokenizer

LAYERS, WIDTH, HEADS, INNER, PLACES, SEGMENTS = 2, 32, 4, 64, 24, 2
SPECIAL = ("[PAD]", "[UNK]")
WORDS = [*SPECIAL, *(word for group in GROUPS for word in group)]
EPSILON = 1e-12
CONFIG: dict[str, Any] = {
    **{"model_type": "bert", "hidden_act": "gelu", "hidden_size": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS},
    **{"intermediate_size": INNER, "vocab_size": len(WORDS), "max_position_embeddings": PLACES, "type_vocab_size": SEGMENTS},
    **{"layer_norm_eps": EPSILON, "position_embedding_type": "absolute"},
}
Weights = dict[str, Any]


def drawn(prefix: str = "") -> Weights:
    """By their names. Numbers are large enough that a wrong order, scale or activation shows."""
    chance = numpy.random.default_rng(7)

    def draw(*shape: int) -> Any:
        return chance.normal(scale=0.6, size=shape).astype("<f4")

    found = {
        "embeddings.word_embeddings.weight": draw(len(WORDS), WIDTH),
        "embeddings.position_embeddings.weight": draw(PLACES, WIDTH),
        "embeddings.token_type_embeddings.weight": draw(SEGMENTS, WIDTH),
        **norm("embeddings.LayerNorm", draw),
    }
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        for part, out, into in (
            *((f"attention.self.{part}", WIDTH, WIDTH) for part in ("query", "key", "value")),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", INNER, WIDTH),
            ("output.dense", WIDTH, INNER),
        ):
            found |= {f"{name}.{part}.weight": draw(out, into), f"{name}.{part}.bias": draw(out)}
        found |= norm(f"{name}.attention.output.LayerNorm", draw) | norm(f"{name}.output.LayerNorm", draw)
    return {prefix + name: values for name, values in found.items()}


def norm(name: str, draw: Any) -> Weights:
    return {f"{name}.weight": 1 + draw(WIDTH), f"{name}.bias": draw(WIDTH)}


def write_bert(folder: Path, weights: Weights | None = None, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (folder / "model.safetensors").write_bytes(safetensors(drawn() if weights is None else weights))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer({word: at for at, word in enumerate(WORDS)})))
    return folder


def safetensors(weights: Weights) -> bytes:
    """With a tensor of whole numbers among them, as older models have."""
    weights = {"embeddings.position_ids": numpy.arange(PLACES, dtype="<i8")[None], **weights}
    head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, values in weights.items():
        kind = {"i8": "I64", "f4": "F32", "f2": "F16"}[values.dtype.str[1:]]
        head[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [len(body), len(body) + values.nbytes]}
        body += values.tobytes()
    said = json.dumps(head).encode()
    return len(said).to_bytes(8, "little") + said + body


def reckoned(weights: Weights, ids: list[int], activation: str = "gelu") -> Any:
    """One vector of length 1: the mean over the tokens."""
    w = {name: values.astype(numpy.float64) for name, values in weights.items()}
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = normed(x + w["embeddings.token_type_embeddings.weight"][0], w, "embeddings.LayerNorm")
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        query, key, value = (through(x, w, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        size = WIDTH // HEADS
        seen = numpy.zeros_like(x)
        for head in range(HEADS):
            here = slice(head * size, (head + 1) * size)
            scores = numpy.exp(query[:, here] @ key[:, here].T / math.sqrt(size))
            seen[:, here] = scores / scores.sum(axis=1, keepdims=True) @ value[:, here]
        x = normed(x + through(seen, w, f"{name}.attention.output.dense"), w, f"{name}.attention.output.LayerNorm")
        inner = through(x, w, f"{name}.intermediate.dense")
        active = numpy.maximum(inner, 0) if activation == "relu" else inner * 0.5 * (1 + numpy.vectorize(math.erf)(inner / math.sqrt(2)))
        x = normed(x + through(active, w, f"{name}.output.dense"), w, f"{name}.output.LayerNorm")
    mean = x.mean(axis=0)
    return mean / numpy.linalg.norm(mean)


def through(x: Any, weights: Weights, name: str) -> Any:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def normed(x: Any, weights: Weights, name: str) -> Any:
    centred = x - x.mean(axis=1, keepdims=True)
    scaled = centred / numpy.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]
