"""What may be tried again after a failure, and after which wait. Pure.

A chat completion changes nothing at its upstream, but it costs. So one route is asked again only where it cannot have begun to work (no
connection, or a status that refuses the work), or where the client names the request with `Idempotency-Key`. Another route is asked
after every failure that is the route's and not the request's.
"""

from __future__ import annotations

from enum import IntEnum

from cohort.base.ids import Entropy
from cohort.gateway.contract_reliability import Reliability
from cohort.gateway.keys import KeyMissing
from cohort.gateway.upstream_connection import Forbidden, Overloaded, Unreachable, UpstreamError

JITTER_BYTES = 4


class Slow(UpstreamError):
    """No byte of an answer in the time of the attempt, or none for too long after one."""


class Fault(IntEnum):
    """Whose failure an attempt is, and what may follow it. Ordered: from `ELSEWHERE` on, another route may be asked."""

    NONE = 0  # an answer, good or bad, that is the client's
    ELSEWHERE = 1  # of the route; asking the same one again would not help
    UNCERTAIN = 2  # of the route, which may have begun to work
    REFUSED = 3  # of the route, which did nothing


_ELSEWHERE_STATUS = frozenset({401, 402, 403, 404})
_REFUSED_STATUS = frozenset({408, 425, 429, 503, 529})


def fault_of_status(status: int) -> Fault:
    """2xx and what is wrong with the request itself (400, 413, 422 and the like) are the client's."""
    if status in _REFUSED_STATUS:
        return Fault.REFUSED
    if status >= 500:
        return Fault.UNCERTAIN
    return Fault.ELSEWHERE if status in _ELSEWHERE_STATUS or status < 200 or 300 <= status < 400 else Fault.NONE


def fault_of_error(error: UpstreamError | KeyMissing) -> Fault:
    if isinstance(error, Unreachable):
        return Fault.REFUSED
    return Fault.ELSEWHERE if isinstance(error, (Forbidden, KeyMissing, Overloaded, Slow)) else Fault.UNCERTAIN


def wait_s(tried: int, retry_after_s: float | None, limits: Reliability, entropy: Entropy) -> float | None:
    """Before try `tried` + 1 of a route: random below a ceiling that doubles (full jitter), never less than the upstream asked for.

    None: the upstream asks for more than `retry_wait_s_max`.
    """
    ceiling_s = min(limits.backoff_s * float(1 << (tried - 1)), limits.retry_wait_s_max)
    jitter_s = ceiling_s * int.from_bytes(entropy(JITTER_BYTES), "big") / (1 << 8 * JITTER_BYTES)
    if retry_after_s is None:
        return jitter_s
    return None if retry_after_s > limits.retry_wait_s_max else max(retry_after_s, jitter_s)


def retry_after_s(headers: list[tuple[bytes, bytes]]) -> float | None:
    """What an upstream asks for in seconds; None without it, or where it names a date."""
    for name, value in headers:
        if name == b"retry-after" and value.isdigit() and len(value) <= 9:
            return float(value)
        if name == b"retry-after-ms" and value.isdigit() and len(value) <= 12:
            return int(value) / 1000
    return None
