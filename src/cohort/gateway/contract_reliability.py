"""How the routes of a release are tried, and what a gateway says of routes in trouble. Part of the contract (`contract.py`)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RETRIES_MAX = 10


@dataclass(frozen=True, slots=True)
class Reliability:
    """Section `reliability` of a manifest; the defaults hold where it says nothing. The total limit is the release's `timeout_s`.

    Raises ValueError, naming the field, for a value that cannot be used.
    """

    retries: int = 1  # further tries of one route, where they are safe
    backoff_s: float = 0.1  # a wait before a further try is random below this, doubled for each try
    retry_wait_s_max: float = 2.0  # the longest wait; an upstream that asks for more is not waited for
    first_byte_s: float | None = None  # until an answer begins; None: half of the time left while another route remains
    idle_s: float = 60.0  # between two pieces of an answer
    hedge_after_s: float | None = None  # ask the next route as well when nothing has begun by then; None: never
    breaker_failures: int = 5  # failures in a row that open a route's circuit
    breaker_open_s: float = 10.0  # how long before one call may try it again

    def __post_init__(self) -> None:
        for name, minimum, maximum in (("retries", 0, RETRIES_MAX), ("breaker_failures", 1, 1000)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
                raise ValueError(f"reliability.{name} must be a whole number from {minimum} to {maximum}, found {value!r}")
        for name in ("backoff_s", "retry_wait_s_max", "first_byte_s", "idle_s", "hedge_after_s", "breaker_open_s"):
            value = getattr(self, name)
            if value is not None and not (type(value) in (int, float) and math.isfinite(value) and value > 0):
                raise ValueError(f"reliability.{name} must be a number above 0, found {value!r}")


DEFAULT = Reliability()
NAMES = frozenset(f.name for f in dataclasses.fields(Reliability))


def decode_reliability(entry: Mapping[str, Any] | None) -> Reliability | None:
    """The section in a table; None where there is none. Raises ValueError."""
    if entry is None:
        return None
    unknown = set(entry) - NAMES
    if unknown:
        raise ValueError(f"reliability.{min(unknown)}: unknown field")
    return Reliability(**entry)


@dataclass(frozen=True, slots=True)
class RouteTrouble:
    """One route whose last call failed. `state`: closed, open or probing. `since_us` is the first failure in this row of them."""

    release: str  # digest
    version: str
    route: str
    state: str
    failures: int
    since_us: int
    service: str = ""
