"""Spans of calls at a collector that is really asked over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from cohort.delivery.otlp import BATCH_MAX, WAITING_MAX, Export, Exporter, export_from, span_of
from cohort.gateway.contract import Call, Result

CALL = Call("call", "gw", 1, 2, 1_700_000_000_000_000, "support", "rel_a", "ab" * 16, total_us=900_000, first_us=200_000, route="main")


class Collector(BaseHTTPRequestHandler):
    seen: ClassVar[list[tuple[str, dict[str, str], Any]]] = []
    status: ClassVar[int] = 200

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def collector() -> Iterator[str]:
    Collector.seen, Collector.status = [], 200
    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def exporter(url: str, share: float = 1.0) -> Exporter:
    return Exporter(Export(url, {"x-tenant": "acme"}, share))


def spans() -> list[dict[str, Any]]:
    return [span for _, _, body in Collector.seen for span in body["resourceSpans"][0]["scopeSpans"][0]["spans"]]


def test_calls_arrive_as_spans_with_genai_names(collector: str) -> None:
    made = exporter(collector + "/v1/traces")
    made.offer([Call(**{**_fields(CALL), "tokens_in": 11, "tokens_out": 7, "cost_usd_micro": 18_000, "status": 200})])
    made.post()
    path, headers, _ = Collector.seen[0]
    assert (path, headers["x-tenant"], headers["content-type"]) == ("/v1/traces", "acme", "application/json")
    span = spans()[0]
    said = {entry["key"]: next(iter(entry["value"].values())) for entry in span["attributes"]}
    assert said["gen_ai.usage.input_tokens"] == "11"
    assert said["gen_ai.request.model"] == "support"
    assert said["cohort.cost_usd"] == 0.018
    assert int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]) == 900_000_000
    assert (len(span["traceId"]), len(span["spanId"]), span["status"]) == (32, 16, {})
    assert made.posted == 1


def _fields(call: Call) -> dict[str, Any]:
    return {name: getattr(call, name) for name in Call.__slots__}


def test_a_failed_call_is_an_error_and_the_same_call_the_same_span() -> None:
    failed = Call(**{**_fields(CALL), "result": Result.TIMEOUT})
    assert span_of(failed)["status"] == {"code": 2, "message": "timeout"}
    assert span_of(failed)["spanId"] == span_of(CALL)["spanId"]
    assert span_of(Call(**{**_fields(CALL), "seq": 3}))["traceId"] != span_of(CALL)["traceId"]


def test_a_collector_that_refuses_or_is_away_costs_spans_and_nothing_else(collector: str) -> None:
    Collector.status = 503
    made = exporter(collector + "/v1/traces")
    made.offer([CALL])
    made.post()
    away = exporter("http://127.0.0.1:1/v1/traces")
    away.offer([CALL])
    away.post()
    assert (made.posted, made.lost, away.lost) == (0, 1, 1)


def test_what_waits_is_bounded_and_goes_in_batches(collector: str) -> None:
    made = exporter(collector + "/v1/traces")
    made.offer(CALL for _ in range(WAITING_MAX + 7))
    assert made.lost == 7
    made.post()
    assert made.posted == WAITING_MAX
    assert len(Collector.seen) == WAITING_MAX // BATCH_MAX


def test_units_are_sampled_whole(collector: str) -> None:
    made = exporter(collector + "/v1/traces", 0.25)
    calls = [Call(**{**_fields(CALL), "unit": f"{number % 400:032x}", "seq": number}) for number in range(800)]
    made.offer(calls)
    made.post()
    units = [next(e["value"]["stringValue"] for e in span["attributes"] if e["key"] == "cohort.unit") for span in spans()]
    assert 50 < len(set(units)) < 150
    assert len(units) == 2 * len(set(units))
    none = exporter(collector, 0.0)
    none.offer(calls)
    none.post()
    assert none.posted == 0


@pytest.mark.parametrize(
    ("environ", "url", "headers", "share"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces", {}, 1.0),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x", "OTEL_TRACES_SAMPLER_ARG": "0.1"}, "http://c/x", {}, 0.1),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_HEADERS": "a=1, b=2=3", "OTEL_TRACES_SAMPLER_ARG": "much"},
            "http://c/v1/traces",
            {"a": "1", "b": "2=3"},
            1.0,
        ),
    ],
)
def test_the_usual_variables_are_read(environ: dict[str, str], url: str, headers: dict[str, str], share: float) -> None:
    assert export_from(environ) == Export(url, headers, share)


def test_without_an_endpoint_nothing_is_exported() -> None:
    assert export_from({}) is None
