"""The lines of a spool segment: CRC-32 as 8 hexadecimal digits, a space, JSON, a newline. Pure.

The first line of a segment is its header; a line that holds `gap` says how many records could not be written before it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import orjson

PREFIX_BYTES = 9
GAP = b'{"gap":'


@dataclass(frozen=True, slots=True)
class Damage:
    """`length` bytes at `offset` that are not a whole line."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What stood in a piece of a segment. `end` is the offset behind the last whole line that was taken."""

    payloads: tuple[bytes, ...]
    gaps: tuple[str, ...]
    damage: tuple[Damage, ...]
    end: int


def frame(payload: bytes) -> bytes:
    """`payload` (JSON without a newline) as a line."""
    return b"%08x %s\n" % (zlib.crc32(payload), payload)


def unframe(line: bytes) -> bytes | None:
    """The payload of a line without its newline; None when the line is damaged."""
    payload = line[PREFIX_BYTES:]
    return payload if line[:PREFIX_BYTES] == b"%08x " % zlib.crc32(payload) and payload else None


def header(gateway: str, epoch: int, segment: int) -> bytes:
    return orjson.dumps({"header": {"gateway": gateway, "epoch": epoch, "segment": segment}})


def header_of(first_line: bytes) -> tuple[str, int] | None:
    """The gateway and the epoch that wrote a segment; None when its header is damaged."""
    payload = unframe(first_line)
    if payload is None:
        return None
    try:
        header = orjson.loads(payload)["header"]
        gateway, epoch = header["gateway"], header["epoch"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return (gateway, epoch) if isinstance(gateway, str) and isinstance(epoch, int) else None


def newest_us(tail: bytes) -> int:
    """The latest moment named in the end of a segment: its header's epoch, its records' assignment; 0 when nothing can be read."""
    newest = 0
    for line in tail.split(b"\n"):
        payload = unframe(line)
        if payload is None or payload.startswith(GAP):
            continue
        body = orjson.loads(payload)
        found = body["header"]["epoch"] if "header" in body else body.get("at_us", 0)
        newest = max(newest, found if isinstance(found, int) else 0)
    return newest


def gap(dropped: int, from_us: int, to_us: int, reason: str) -> bytes:
    return orjson.dumps({"gap": {"dropped": dropped, "from_us": from_us, "to_us": to_us, "reason": reason}})


def scan(data: bytes, offset: int, records_max: int) -> Scan:
    """Whole lines of `data`, which begins at `offset` of its segment; stops after `records_max` records."""
    payloads: list[bytes] = []
    gaps: list[str] = []
    damage: list[Damage] = []
    at = 0
    while len(payloads) < records_max and (newline := data.find(b"\n", at)) >= 0:
        payload = unframe(data[at:newline])
        if payload is None:
            damage.append(Damage(offset + at, newline + 1 - at))
        elif payload.startswith(GAP):
            gaps.append(_gap_words(payload))
        elif offset + at > 0:
            payloads.append(payload)
        at = newline + 1
    return Scan(tuple(payloads), tuple(gaps), tuple(damage), offset + at)


def _gap_words(payload: bytes) -> str:
    body: dict[str, Any] = orjson.loads(payload)["gap"]
    return f"{body['dropped']} records from {body['from_us']} to {body['to_us']} (us) were not written: {body['reason']}"
