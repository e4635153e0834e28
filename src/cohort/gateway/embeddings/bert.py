"""A BERT encoder as an ONNX graph over the weights of a `.safetensors` file, which stay where they are: onnxruntime maps them.

The model: Devlin et al. 2018 (https://arxiv.org/abs/1810.04805); names of weights as Hugging Face's `BertModel` has them. One text has one
segment, so the graph takes no `token_type_ids`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.base.errors import CohortError
from cohort.gateway.embeddings.folder import CONFIG, MODULES, invalid, note
from cohort.gateway.embeddings.onnx_file import FLOAT, Graph, Place
from cohort.gateway.embeddings.safetensors import tensors

LAYERS_MAX, WIDTH_MAX, INNER_MAX, WORDS_MAX, PLACES_MAX = 48, 4096, 16_384, 1_000_000, 32_768
FAR = -1e4
"""What a token that is padding gets added to its attention: nothing is left of it."""
ACTIVATIONS = {"gelu": "Gelu", "relu": "Relu"}
"""By their names in the model's file: the operator."""
EXPORT = "Export it to ONNX and use that file."
WORDS = "embeddings.word_embeddings.weight"
KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a BERT. `inner`: of the two-step network behind attention. `places`: how many tokens a text may have."""

    layers: int
    width: int
    heads: int
    inner: int
    words: int
    places: int
    segments: int
    epsilon: float
    activation: str


def graph_of(folder: Path, weights: Path) -> bytes:
    """A model that finds its weights in the file's folder.

    Raises:
        CohortError CONFIG_INVALID: it is no BERT, or not one that is done here; says what it is.
    """
    _only_known_modules(folder)
    shape = _shape(folder / CONFIG, note(folder / CONFIG))
    return _Writer(weights, tensors(weights), shape).written()


def _shape(path: Path, said: Mapping[str, Any]) -> Shape:
    kind = said.get("model_type")
    if kind != "bert":
        raise _not_done(path, f"is of type {str(kind)[:50]!r}, and only `bert` is read from its weights")
    if said.get("position_embedding_type", "absolute") != "absolute" or said.get("is_decoder") is True:
        raise _not_done(path, "has relative positions or is a decoder")
    activation = said.get("hidden_act")
    if activation not in ACTIVATIONS:
        raise _not_done(path, f"has the activation {str(activation)[:50]!r}, not one of {', '.join(ACTIVATIONS)}")
    width, heads = _size(path, said, "hidden_size", WIDTH_MAX), _size(path, said, "num_attention_heads", WIDTH_MAX)
    if width % heads:
        raise _not_done(path, f"has {width} numbers for {heads} heads")
    epsilon = said.get("layer_norm_eps", 1e-12)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise _not_done(path, "has no `layer_norm_eps` between 0 and 1")
    return Shape(
        layers=_size(path, said, "num_hidden_layers", LAYERS_MAX),
        width=width,
        heads=heads,
        inner=_size(path, said, "intermediate_size", INNER_MAX),
        words=_size(path, said, "vocab_size", WORDS_MAX),
        places=_size(path, said, "max_position_embeddings", PLACES_MAX),
        segments=_size(path, said, "type_vocab_size", WIDTH_MAX),
        epsilon=epsilon,
        activation=activation,
    )


def _size(path: Path, said: Mapping[str, Any], name: str, most: int) -> int:
    value = said.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise _not_done(path, f"must say `{name}`, a whole number from 1 to {most}, found {str(value)[:50]!r}")
    return value


def _only_known_modules(folder: Path) -> None:
    """A folder may put more behind the transformer than pooling: its vectors would then be others than ours."""
    said = note(folder / MODULES, list)
    kinds = [str(entry.get("type") if isinstance(entry, dict) else entry).rpartition(".")[2] for entry in said]
    unknown = [kind for kind in kinds if kind not in KNOWN_MODULES]
    if unknown:
        raise _not_done(folder / MODULES, f"has {', '.join(unknown)[:100]} behind the transformer")


def _not_done(path: Path, what: str) -> CohortError:
    return invalid("model", f"{path} {what}", EXPORT)


class _Writer:
    """Tokens lie one below the other, texts behind texts, but where attention needs them by text and head."""

    def __init__(self, path: Path, known: Mapping[str, Place], shape: Shape) -> None:
        first = next((name for name in known if name == WORDS or name.endswith("." + WORDS)), WORDS)
        self._prefix = first.removesuffix(WORDS)
        self._path, self._known, self._shape = path, known, shape
        self._graph = Graph("bert")

    def written(self) -> bytes:
        graph, shape = self._graph, self._shape
        ids = graph.input("input_ids", ("texts", "tokens"))
        mask = graph.input("attention_mask", ("texts", "tokens"))
        sizes = graph.op("Shape", ids)
        x = self._embedded(ids, sizes)
        by_head = graph.op("Concat", sizes, graph.whole(shape.heads, shape.width // shape.heads), axis=0)
        seen = graph.op("Cast", graph.op("Unsqueeze", mask, graph.whole(1, 2)), to=FLOAT)
        hidden = graph.op("Mul", graph.op("Sub", graph.number(1.0), seen), graph.number(FAR))
        for layer in range(shape.layers):
            x = self._layer(f"encoder.layer.{layer}.", x, by_head, hidden)
        by_text = graph.op("Concat", sizes, graph.whole(shape.width), axis=0)
        graph.output("last_hidden_state", graph.op("Reshape", x, by_text), ("texts", "tokens", shape.width))
        return graph.model()

    def _embedded(self, ids: str, sizes: str) -> str:
        graph, shape = self._graph, self._shape
        words = graph.op("Gather", self._weight(WORDS, shape.words, shape.width), ids)
        places = self._weight("embeddings.position_embeddings.weight", shape.places, shape.width)
        tokens = graph.op("Gather", sizes, graph.whole(1))
        here = graph.op("Slice", places, graph.whole(0), tokens, graph.whole(0))
        segments = self._weight("embeddings.token_type_embeddings.weight", shape.segments, shape.width)
        x = graph.op("Add", graph.op("Add", words, graph.op("Gather", segments, graph.whole(0))), here)
        return self._normed("embeddings.LayerNorm.", graph.op("Reshape", x, graph.whole(-1, shape.width)))

    def _layer(self, name: str, x: str, by_head: str, hidden: str) -> str:
        graph, width, inner = self._graph, self._shape.width, self._shape.inner
        seen = self._linear(f"{name}attention.output.dense.", self._attention(f"{name}attention.self.", x, by_head, hidden), width, width)
        x = self._normed(f"{name}attention.output.LayerNorm.", graph.op("Add", x, seen))
        between = self._active(self._linear(f"{name}intermediate.dense.", x, width, inner))
        return self._normed(f"{name}output.LayerNorm.", graph.op("Add", x, self._linear(f"{name}output.dense.", between, inner, width)))

    def _attention(self, name: str, x: str, by_head: str, hidden: str) -> str:
        graph, width = self._graph, self._shape.width
        query, key, value = (
            graph.op("Reshape", self._linear(f"{name}{part}.", x, width, width), by_head) for part in ("query", "key", "value")
        )
        scores = graph.op("MatMul", graph.op("Transpose", query, perm=(0, 2, 1, 3)), graph.op("Transpose", key, perm=(0, 2, 3, 1)))
        scaled = graph.op("Mul", scores, graph.number(1 / math.sqrt(width // self._shape.heads)))
        weights = graph.op("Softmax", graph.op("Add", scaled, hidden), axis=-1)
        mixed = graph.op("MatMul", weights, graph.op("Transpose", value, perm=(0, 2, 1, 3)))
        return graph.op("Reshape", graph.op("Transpose", mixed, perm=(0, 2, 1, 3)), graph.whole(-1, width))

    def _active(self, x: str) -> str:
        return self._graph.op(ACTIVATIONS[self._shape.activation], x)

    def _linear(self, name: str, x: str, width_in: int, width_out: int) -> str:
        """As the file has them: a row of weights for each number that comes out."""
        return self._graph.op(
            "Gemm", x, self._weight(f"{name}weight", width_out, width_in), self._weight(f"{name}bias", width_out), transB=1
        )

    def _normed(self, name: str, x: str) -> str:
        scale, shift = self._weight(f"{name}weight", self._shape.width), self._weight(f"{name}bias", self._shape.width)
        return self._graph.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=self._shape.epsilon)

    def _weight(self, name: str, *shape: int) -> str:
        place = self._known.get(self._prefix + name)
        if place is None:
            raise invalid("file", f"{self._path} has no {name} in 32-bit numbers", EXPORT)
        if place.shape != shape:
            raise invalid(
                "file", f"{self._path}: {name} has the shape {list(place.shape)}, {CONFIG} says {list(shape)}", "Take both from one model."
            )
        return self._graph.outside(name, place)
