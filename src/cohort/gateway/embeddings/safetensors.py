"""Which tensors a `.safetensors` file has and where they lie: its header only, the numbers stay in the file.

The format: https://huggingface.co/docs/safetensors. Eight bytes, the header's length; the header, JSON; the numbers, rows first, little-endian.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeGuard

import orjson

from cohort.base.errors import CohortError
from cohort.gateway.embeddings.folder import invalid
from cohort.gateway.embeddings.onnx_file import Place

HEADER_BYTES_MAX = 16 << 20
LENGTH_BYTES = 8
FLOAT_BYTES = 4
TAKE = "Take the one that came with the model."


def tensors(path: Path) -> dict[str, Place]:
    """The file's tensors of 32-bit numbers, by name; others are left out.

    Raises:
        CohortError CONFIG_INVALID: it is no such file, or is cut short.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if not 0 < length <= min(HEADER_BYTES_MAX, size - LENGTH_BYTES):
            raise _broken(path, "no header where it should be")
        head = file.read(length)
    try:
        said = orjson.loads(head)
    except orjson.JSONDecodeError as error:
        raise _broken(path, f"its header is no JSON: {error}") from error
    if not isinstance(said, dict):
        raise _broken(path, "its header is no JSON object")
    start = LENGTH_BYTES + length
    entries = {name: entry for name, entry in said.items() if isinstance(entry, dict) and entry.get("dtype") == "F32"}
    return {name: _place(path, name, entry, start, size) for name, entry in entries.items()}


def _place(path: Path, name: str, entry: dict[str, Any], start: int, size: int) -> Place:
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _wholes(shape) or not _wholes(offsets) or len(offsets) != 2:
        raise _broken(path, f"{name[:100]!r} has no shape or no place")
    begin, end = offsets
    if end - begin != FLOAT_BYTES * math.prod(shape) or start + end > size:
        raise _broken(path, f"{name[:100]!r} does not lie within it: the file is cut short, or its header is wrong")
    return Place(path.name, start + begin, end - begin, tuple(shape))


def _wholes(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values)


def _broken(path: Path, why: str) -> CohortError:
    return invalid("file", f"{path} is no safetensors file: {why}", TAKE)
