"""A transformer of MiniLM-L6's shape with weights drawn by chance, as an ONNX file with a tokenizer: for times, which do not depend on weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy

from support_model import FLOAT, GROUPS, INT64, SPECIAL, field, node, number, tensor, tokenizer, value

LAYERS, WIDTH, HEADS, INNER, WORDS = 6, 384, 12, 1536, 1000
OPSET = 20
FAR = -1e4
"""What a token that is padding gets added to its attention."""


class Graph:
    """Nodes and weights, each under a name of its own."""

    def __init__(self) -> None:
        self.nodes: list[bytes] = []
        self.weights: list[bytes] = []
        self._chance = numpy.random.default_rng(1)
        self._count = 0

    def op(self, operation: str, *inputs: str, **attributes: int) -> str:
        self._count += 1
        name = f"n{self._count}"
        self.nodes.append(node(operation, inputs, name, **attributes))
        return name

    def constant(self, values: Any) -> str:
        self._count += 1
        name, array = f"w{self._count}", numpy.asarray(values)
        kind = INT64 if array.dtype.kind == "i" else FLOAT
        self.weights.append(tensor(name, kind, array.shape, array.astype("<i8" if kind == INT64 else "<f4").tobytes()))
        return name

    def drawn(self, *shape: int) -> str:
        return self.constant(self._chance.normal(scale=1 / math.sqrt(shape[0]), size=shape).astype(numpy.float32))

    def linear(self, x: str, width_in: int, width_out: int) -> str:
        return self.op("Add", self.op("MatMul", x, self.drawn(width_in, width_out)), self.drawn(width_out))

    def normed(self, x: str) -> str:
        return self.op("LayerNormalization", x, self.constant(numpy.ones(WIDTH, "f4")), self.constant(numpy.zeros(WIDTH, "f4")), axis=-1)

    def heads(self, x: str) -> str:
        """Batch, tokens, width to batch, heads, tokens, part of the width."""
        shaped = self.op("Reshape", x, self.constant([0, 0, HEADS, WIDTH // HEADS]))
        return self.turned(shaped, (0, 2, 1, 3))

    def turned(self, x: str, order: tuple[int, ...]) -> str:
        self._count += 1
        name = f"n{self._count}"
        said = field(1, b"perm") + b"".join(number(8, place) for place in order) + number(20, 7)
        self.nodes.append(field(1, x.encode()) + field(2, name.encode()) + field(4, b"Transpose") + field(5, said))
        return name

    def attention(self, x: str, far: str) -> str:
        query, key, worth = (self.heads(self.linear(x, WIDTH, WIDTH)) for _ in range(3))
        scores = self.op("MatMul", query, self.turned(key, (0, 1, 3, 2)))
        scaled = self.op("Mul", scores, self.constant(numpy.array((WIDTH // HEADS) ** -0.5, "f4")))
        mixed = self.op("MatMul", self.op("Softmax", self.op("Add", scaled, far)), worth)
        return self.linear(self.op("Reshape", self.turned(mixed, (0, 2, 1, 3)), self.constant([0, 0, WIDTH])), WIDTH, WIDTH)

    def layer(self, x: str, far: str) -> str:
        x = self.normed(self.op("Add", x, self.attention(x, far)))
        inner = self.op("Gelu", self.linear(x, WIDTH, INNER))
        return self.normed(self.op("Add", x, self.linear(inner, INNER, WIDTH)))


def write_shape(folder: Path, layers: int = LAYERS) -> Path:
    """A folder like a model's; the file has 7 MB for each layer."""
    folder.mkdir(parents=True)
    graph = Graph()
    x = graph.normed(graph.op("Gather", graph.drawn(WORDS, WIDTH), "input_ids"))
    mask = graph.op("Cast", graph.op("Unsqueeze", "attention_mask", graph.constant([1, 2])), to=FLOAT)
    one, far = graph.constant(numpy.array(1.0, "f4")), graph.constant(numpy.array(FAR, "f4"))
    hidden_by_mask = graph.op("Mul", graph.op("Sub", one, mask), far)
    for _ in range(layers):
        x = graph.layer(x, hidden_by_mask)
    graph.nodes.append(node("Identity", [x], "last_hidden_state"))
    inputs = [value(name, INT64, ("batch", "tokens")) for name in ("input_ids", "attention_mask")]
    outputs = [value("last_hidden_state", FLOAT, ("batch", "tokens", WIDTH))]
    parts = [(1, graph.nodes), (2, [b"shape"]), (5, graph.weights), (11, inputs), (12, outputs)]
    body = b"".join(field(tag, entry) for tag, entries in parts for entry in entries)
    (folder / "model.onnx").write_bytes(number(1, 9) + field(8, field(1, b"") + number(2, OPSET)) + field(7, body))
    words = [*SPECIAL, *(word for group in GROUPS for word in group)]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer({word: at for at, word in enumerate(words)})))
    return folder
