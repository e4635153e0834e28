"""OTLP's trace request in protobuf, from the value that is its JSON. Receivers must take protobuf; JSON is not taken by all (Phoenix).

Only what a span of ours can hold is known; another field is an error, not left out. Numbers of fields are those of
opentelemetry-proto 1 (trace.proto, common.proto, resource.proto); the wire is that of protobuf's encoding guide.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
Encode = Callable[[Any], bytes]


def trace_request(said: Mapping[str, Any]) -> bytes:
    """`said`: an ExportTraceServiceRequest by the names of OTLP's JSON. Raises KeyError for a field that is not known here."""
    return _message(_REQUEST, said)


def _message(fields: Mapping[str, tuple[int, int, Encode]], said: Mapping[str, Any]) -> bytes:
    parts = []
    for name, value in said.items():
        number, wire, encode = fields[name]
        for item in value if isinstance(value, list) else (value,):
            parts.append(_varint(number << 3 | wire))
            parts.append(encode(item))
    return b"".join(parts)


def _varint(value: Any) -> bytes:
    rest, out = int(value) & 0xFFFF_FFFF_FFFF_FFFF, bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _text(value: str) -> bytes:
    return _sized(value.encode())


def _hex(value: str) -> bytes:
    return _sized(bytes.fromhex(value))


def _fixed64(value: Any) -> bytes:
    return struct.pack("<Q", int(value))


def _fixed32(value: Any) -> bytes:
    return struct.pack("<I", int(value))


def _double(value: float) -> bytes:
    return struct.pack("<d", value)


def _of(fields: Mapping[str, tuple[int, int, Encode]]) -> Encode:
    return lambda value: _sized(_message(fields, value))


_ANY: dict[str, tuple[int, int, Encode]] = {
    "stringValue": (1, _BYTES, _text),
    "boolValue": (2, _VARINT, _varint),
    "intValue": (3, _VARINT, _varint),
    "doubleValue": (4, _FIXED64, _double),
}
_ANY["arrayValue"] = (5, _BYTES, _of({"values": (1, _BYTES, _of(_ANY))}))
_ATTRIBUTE = _of({"key": (1, _BYTES, _text), "value": (2, _BYTES, _of(_ANY))})
_EVENT = _of({"timeUnixNano": (1, _FIXED64, _fixed64), "name": (2, _BYTES, _text), "attributes": (3, _BYTES, _ATTRIBUTE)})
_LINK = _of(
    {"traceId": (1, _BYTES, _hex), "spanId": (2, _BYTES, _hex), "traceState": (3, _BYTES, _text), "attributes": (4, _BYTES, _ATTRIBUTE)}
)
_SPAN = _of(
    {
        "traceId": (1, _BYTES, _hex),
        "spanId": (2, _BYTES, _hex),
        "traceState": (3, _BYTES, _text),
        "parentSpanId": (4, _BYTES, _hex),
        "name": (5, _BYTES, _text),
        "kind": (6, _VARINT, _varint),
        "startTimeUnixNano": (7, _FIXED64, _fixed64),
        "endTimeUnixNano": (8, _FIXED64, _fixed64),
        "attributes": (9, _BYTES, _ATTRIBUTE),
        "events": (11, _BYTES, _EVENT),
        "links": (13, _BYTES, _LINK),
        "status": (15, _BYTES, _of({"message": (2, _BYTES, _text), "code": (3, _VARINT, _varint)})),
        "flags": (16, _FIXED32, _fixed32),
    }
)
_SCOPE = _of({"name": (1, _BYTES, _text), "version": (2, _BYTES, _text)})
_RESOURCE = _of({"attributes": (1, _BYTES, _ATTRIBUTE)})
_SCOPE_SPANS = _of({"scope": (1, _BYTES, _SCOPE), "spans": (2, _BYTES, _SPAN), "schemaUrl": (3, _BYTES, _text)})
_RESOURCE_SPANS = _of({"resource": (1, _BYTES, _RESOURCE), "scopeSpans": (2, _BYTES, _SCOPE_SPANS), "schemaUrl": (3, _BYTES, _text)})
_REQUEST: dict[str, tuple[int, int, Encode]] = {"resourceSpans": (1, _BYTES, _RESOURCE_SPANS)}
