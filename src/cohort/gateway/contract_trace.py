"""What the record of a call says of how it went: its attempts, its steps, the caller's trace. Part of the contract (`contract.py`).

Also how the ids of its spans follow from the call: both sides make the same ones, and a record that is taken twice makes no second span.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

TRIES_MAX = 32
"""Attempts that a record describes; of more, the first ones and the last."""
ASKED_NOTHING = 0
"""The number of an attempt that was not made: its circuit was open, or the upstream cannot be asked this."""
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One question to an upstream. Microseconds; `start_us` counts from the call's assignment, the rest from the attempt's start.

    `ended`: `ok`, `status` (the upstream's error status), `event` (its first event was an error), `unreachable`, `overloaded`, `forbidden`,
    `no_answer`, `interrupted`, `invalid`, `key_missing`, `timeout`, `given_up` (another was quicker, or the client left), `circuit_open`,
    `impossible` (the upstream has no such operation). `total_us` None: its answer was passed on until the call ended.
    """

    number: int
    route: str
    start_us: int
    total_us: int | None
    ended: str
    status: int = 0
    first_us: int | None = None  # until status and headers were there
    wait_us: int = 0  # waited before it began, because the one before it failed
    connect_us: int = 0  # of it, until there was a connection
    hedged: bool = False  # asked beside others


@dataclass(frozen=True, slots=True)
class Step:
    """One thing the gateway did for a call: `admission` (of a large request that took a millisecond or more), `personal`, `routing`, `cache`, `budget`.

    Microseconds from the call's assignment, before which `admission` lies.
    """

    name: str
    start_us: int
    total_us: int


class Parent(NamedTuple):
    """The caller's span (W3C Trace Context): hexadecimal digits."""

    trace_id: str
    span_id: str
    flags: str

    @property
    def sampled(self) -> bool:
        return bool(int(self.flags, 16) & 1)


def parse_traceparent(header: bytes) -> str | None:
    """`TRACE-SPAN-FLAGS` of a `traceparent` header, as a record has it; None where it is none (W3C Trace Context, section 3.2.2)."""
    found = _TRACEPARENT.fullmatch(header)
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[5]) or not int(found[2], 16) or not int(found[3], 16):
        return None
    return f"{found[2].decode()}-{found[3].decode()}-{found[4].decode()}"


def parent_of(text: str) -> Parent | None:
    """The `parent` of a record; None where it has none."""
    return Parent(*text.split("-")) if text else None


class SpanIds(NamedTuple):
    trace_id: str
    span_id: str


def span_ids(gateway: str, epoch: int, seq: int, arm: str, parent: str) -> SpanIds:
    """The ids of a call's span. It is in the caller's trace where it has a `parent`, otherwise in one of its own."""
    ids = hashlib.sha256(f"{gateway}/{epoch}/{seq}/{arm}".encode()).hexdigest()
    return SpanIds(parent[:32] or ids[:32], ids[32:48])


def attempt_span_id(span_id: str, number: int) -> str:
    """Of a call's attempt `number`, counted from 1."""
    return hashlib.sha256(f"{span_id}/{number}".encode()).hexdigest()[:16]


def decode_tries(entries: Sequence[Sequence[Any]]) -> tuple[Attempt, ...]:
    """Raises TypeError when they are none."""
    return tuple(Attempt(*entry) for entry in entries)


def decode_steps(entries: Sequence[Sequence[Any]]) -> tuple[Step, ...]:
    """Raises TypeError when they are none."""
    return tuple(Step(*entry) for entry in entries)
