"""A call as spans, by the names of OTLP's JSON. Pure. Its ids follow from the call, so a record that is taken twice makes no second span.

The call is a client span of a model by the GenAI conventions: it covers all its attempts. Each attempt is a client span of HTTP inside it.
A caller that sent `traceparent` has the call in its own trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cohort.delivery.trace_views import timeline_of
from cohort.delivery.traces import ids_of
from cohort.gateway.contract import Call, ReleaseRoute, Result, failed
from cohort.gateway.contract_trace import ASKED_NOTHING, Attempt, SpanIds, attempt_span_id, parent_of

_CLIENT, _ERROR = 3, 2  # SpanKind and StatusCode of the protocol
_OPERATIONS = {"": "chat", "completions": "text_completion"}
"""GenAI's words for what a record calls its operation, where they differ."""
_PROVIDERS = {"azure": "azure.ai.openai", "openai-responses": "openai"}
Said = str | bool | int | float | None


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a route leads. `provider` in GenAI's words."""

    provider: str
    model: str
    address: str
    port: int


UpstreamOf = Callable[[str, str], Upstream | None]
"""By the digest of a release and the name of its route; None where it is not known."""


def unknown(_release: str, _route: str) -> Upstream | None:
    """Of spans whose upstreams nobody knows."""
    return None


def upstream_in(release: ReleaseRoute | None, name: str) -> Upstream | None:
    """Where a route of a release leads."""
    route = next((route for route in release.routes if route.name == name), None) if release is not None else None
    if route is None:
        return None
    where = urlsplit(route.base_url)
    port = where.port or (443 if where.scheme == "https" else 80)
    return Upstream(_PROVIDERS.get(route.provider, route.provider), route.model, where.hostname or "", port)


def request_of(calls: Sequence[Call], upstream_of: UpstreamOf = unknown) -> dict[str, Any]:
    """A request of the OTLP trace service."""
    resource = {"attributes": _attributes({"service.name": "cohort-gateway"})}
    scope = {"scope": {"name": "cohort"}, "spans": [span for call in calls for span in spans_of(call, upstream_of)]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}


def spans_of(call: Call, upstream_of: UpstreamOf = unknown) -> list[dict[str, Any]]:
    """The call from assignment to its last byte, then its attempts."""
    ids, parent = ids_of(call), parent_of(call.parent)
    said = _said(call, upstream_of(call.release, call.route))
    whole = _span(ids, f"{_operation(call)} {call.service}", call.at_us, (0, call.total_us or 0), said)
    whole["status"] = {"code": _ERROR, "message": call.result.value} if failed(call.result) else {}
    if parent is not None:
        whole["parentSpanId"] = parent.span_id
    return [whole, *_attempts(call, ids, upstream_of)]


def _attempts(call: Call, ids: SpanIds, upstream_of: UpstreamOf) -> Iterator[dict[str, Any]]:
    for bar in timeline_of(call).bars:
        attempt = bar.attempt
        if attempt is None or attempt.number == ASKED_NOTHING:
            continue
        end_us = bar.start_us + bar.total_us if attempt.total_us is not None else max(call.total_us or 0, bar.start_us)
        own = SpanIds(ids.trace_id, attempt_span_id(ids.span_id, attempt.number))
        span = _span(own, "POST", call.at_us, (bar.start_us, end_us), _tried(attempt, upstream_of(call.release, attempt.route)))
        bad = attempt.ended not in ("ok", "given_up")
        yield {**span, "parentSpanId": ids.span_id, "status": {"code": _ERROR, "message": attempt.ended} if bad else {}}


def _span(ids: SpanIds, name: str, at_us: int, times_us: tuple[int, int], said: Mapping[str, Said]) -> dict[str, Any]:
    """`times_us`: from and to, since the call's assignment at `at_us`."""
    return {
        "traceId": ids.trace_id,
        "spanId": ids.span_id,
        "name": name,
        "kind": _CLIENT,
        "startTimeUnixNano": str((at_us + times_us[0]) * 1000),
        "endTimeUnixNano": str((at_us + times_us[1]) * 1000),
        "attributes": _attributes(said),
    }


def _said(call: Call, upstream: Upstream | None) -> dict[str, Said]:
    bad = failed(call.result) or call.result is Result.CLIENT_GONE
    return {
        "gen_ai.operation.name": _operation(call),
        "gen_ai.provider.name": upstream.provider if upstream is not None else "cohort",
        "gen_ai.request.model": call.service,
        "gen_ai.request.stream": True if call.stream else None,
        "gen_ai.response.model": upstream.model if upstream is not None and call.status == 200 else None,
        "gen_ai.response.time_to_first_chunk": call.first_us / 1e6 if call.stream and call.first_us is not None else None,
        "gen_ai.conversation.id": call.unit,
        "gen_ai.agent.name": call.agent or None,
        "gen_ai.usage.input_tokens": call.tokens_in,
        "gen_ai.usage.output_tokens": call.tokens_out,
        "http.response.status_code": call.status or None,
        "error.type": (call.code or call.result.value) if bad else None,
        "cohort.release": call.release,
        "cohort.route": call.route,
        "cohort.arm": call.arm.value,
        "cohort.unit": call.unit,
        "cohort.key": call.key or None,
        "cohort.run": call.run or None,
        "cohort.attempts": call.attempts,
        "cohort.degraded": True if call.degraded else None,
        "cohort.cache": call.cache or call.looked or None,
        "cohort.cost_usd": None if call.cost_usd_micro is None else call.cost_usd_micro / 1e6,
        "cohort.saved_usd": None if call.saved_usd_micro is None else call.saved_usd_micro / 1e6,
        "cohort.time_to_first_byte_ms": None if call.first_us is None else call.first_us / 1000,
    }


def _tried(attempt: Attempt, upstream: Upstream | None) -> dict[str, Said]:
    """By the conventions for HTTP clients; those for models are the call's."""
    return {
        "http.request.method": "POST",
        "http.response.status_code": attempt.status or None,
        "http.request.resend_count": attempt.number - 1 if attempt.number > 1 else None,
        "server.address": upstream.address if upstream is not None else None,
        "server.port": upstream.port if upstream is not None else None,
        "error.type": None if attempt.ended == "ok" else str(attempt.status) if attempt.ended == "status" else attempt.ended,
        "cohort.route": attempt.route,
        "cohort.hedged": True if attempt.hedged else None,
        "cohort.wait_ms": attempt.wait_us / 1000 if attempt.wait_us else None,
        "cohort.connect_ms": attempt.connect_us / 1000 if attempt.connect_us else None,
        "cohort.time_to_first_byte_ms": None if attempt.first_us is None else attempt.first_us / 1000,
    }


def _operation(call: Call) -> str:
    return _OPERATIONS.get(call.operation, call.operation.replace(" ", "_"))


def _attributes(said: Mapping[str, Said]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in said.items() if value is not None]


def _value(value: str | bool | int | float) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"doubleValue": value}
