"""An ONNX file, written as its protocol buffers: nodes, small constants, and weights that lie in a file beside it. Pure.

Only what a graph of a text encoder needs of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (numbers of fields) and operators of OPSET.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

FLOAT, INT64 = 1, 7
IR_VERSION, OPSET = 9, 20
_ATTRIBUTE_FLOAT, _ATTRIBUTE_INT, _ATTRIBUTE_INTS = 1, 2, 7
_EXTERNAL = 1

Attribute = int | float | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the numbers of a weight lie: `start`, `size_bytes` in `file`, of 32 bits each, little-endian, rows first."""

    file: str
    start: int
    size_bytes: int
    shape: tuple[int, ...]


class Graph:
    """Operators in the order they run. Every method that adds something returns its name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[bytes] = []
        self._weights: dict[str, bytes] = {}
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._count = 0

    def input(self, name: str, shape: Sequence[int | str]) -> str:
        self._inputs.append(_value(name, INT64, shape))
        return name

    def output(self, name: str, source: str, shape: Sequence[int | str]) -> None:
        self._nodes.append(_node("Identity", (source,), name, {}))
        self._outputs.append(_value(name, FLOAT, shape))

    def op(self, operator: str, *inputs: str, **attributes: Attribute) -> str:
        name = self._fresh("n")
        self._nodes.append(_node(operator, inputs, name, attributes))
        return name

    def number(self, value: float) -> str:
        return self._constant(FLOAT, (), struct.pack("<f", value))

    def whole(self, *values: int) -> str:
        """A list of whole numbers: a shape, axes, places."""
        return self._constant(INT64, (len(values),), struct.pack(f"<{len(values)}q", *values))

    def outside(self, name: str, place: Place) -> str:
        """A weight that stays in its file; each is named once, however often it is used."""
        entries = {"location": place.file, "offset": str(place.start), "length": str(place.size_bytes)}
        said = b"".join(_field(13, _field(1, key.encode()) + _field(2, value.encode())) for key, value in entries.items())
        self._weights[name] = _tensor(name, FLOAT, place.shape, said + _number(14, _EXTERNAL))
        return name

    def model(self) -> bytes:
        parts = ((1, self._nodes), (2, [self._name.encode()]), (5, self._weights.values()), (11, self._inputs), (12, self._outputs))
        graph = b"".join(_field(tag, entry) for tag, entries in parts for entry in entries)
        return _number(1, IR_VERSION) + _field(8, _field(1, b"") + _number(2, OPSET)) + _field(7, graph)

    def _constant(self, kind: int, shape: tuple[int, ...], data: bytes) -> str:
        name = self._fresh("c")
        self._weights[name] = _tensor(name, kind, shape, _field(9, data))
        return name

    def _fresh(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"


def _node(operator: str, inputs: Sequence[str], output: str, attributes: dict[str, Attribute]) -> bytes:
    said = b"".join(_field(5, _attribute(name, value)) for name, value in attributes.items())
    return b"".join(_field(1, name.encode()) for name in inputs) + _field(2, output.encode()) + _field(4, operator.encode()) + said


def _attribute(name: str, value: Attribute) -> bytes:
    match value:
        case int():
            said = _number(3, value) + _number(20, _ATTRIBUTE_INT)
        case float():
            said = _varint(2 << 3 | 5) + struct.pack("<f", value) + _number(20, _ATTRIBUTE_FLOAT)
        case _:
            said = b"".join(_number(8, entry) for entry in value) + _number(20, _ATTRIBUTE_INTS)
    return _field(1, name.encode()) + said


def _tensor(name: str, kind: int, shape: Sequence[int], data: bytes) -> bytes:
    return b"".join(_number(1, size) for size in shape) + _number(2, kind) + _field(8, name.encode()) + data


def _value(name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    sizes = b"".join(_field(1, _number(1, size) if isinstance(size, int) else _field(2, size.encode())) for size in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, kind) + _field(2, sizes)))


def _number(tag: int, value: int) -> bytes:
    return _varint(tag << 3) + _varint(value)


def _field(tag: int, data: bytes) -> bytes:
    return _varint(tag << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out, left = bytearray(), value & 0xFFFFFFFFFFFFFFFF
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*out, left])
