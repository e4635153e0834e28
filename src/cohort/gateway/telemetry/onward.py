"""What of the caller's trace an upstream gets, where that is not simply what the caller sent (W3C Trace Context)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

from cohort.gateway.contract_trace import attempt_span_id, parse_traceparent, span_ids

if TYPE_CHECKING:
    from cohort.gateway.records import Ongoing

TRACEPARENT, TRACESTATE = b"traceparent", b"tracestate"


class TraceMode(StrEnum):
    """`PASS`: as the caller sent it. `CONTINUE`: the attempt's span is the upstream's parent, for who exports spans. `DROP`: nothing."""

    PASS = "pass"  # noqa: S105  (not a password)
    CONTINUE = "continue"
    DROP = "drop"


class Onward:
    """`gateway` and `epoch` are those of the records, from which the ids of spans follow."""

    def __init__(self, mode: TraceMode, gateway: str, epoch: int) -> None:
        self._continues = mode is TraceMode.CONTINUE
        self._gateway = gateway
        self._epoch = epoch

    def headers(self, headers: Mapping[bytes, bytes], ongoing: Ongoing, number: int) -> Mapping[bytes, bytes]:
        """The caller's headers, with what attempt `number` tells of its trace. A call without a trace of its caller's begins none upstream."""
        if TRACEPARENT not in headers and TRACESTATE not in headers:
            return headers
        parent = parse_traceparent(headers.get(TRACEPARENT, b"")) if self._continues else None
        if parent is None:
            return {name: value for name, value in headers.items() if name not in (TRACEPARENT, TRACESTATE)}
        ids = span_ids(self._gateway, self._epoch, ongoing.seq, ongoing.arm.value, parent)
        own = f"00-{ids.trace_id}-{attempt_span_id(ids.span_id, number)}-{parent[-2:]}"
        return {**headers, TRACEPARENT: own.encode()}


def onward(mode: TraceMode, gateway: str, epoch: int) -> Onward | None:
    """None where the caller's headers pass as they are."""
    return None if mode is TraceMode.PASS else Onward(mode, gateway, epoch)
