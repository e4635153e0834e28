"""Spans of calls at a collector that is really asked over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from cohort.delivery.otlp import BATCH_MAX, WAITING_MAX, Export, Exporter, export_from
from cohort.delivery.otlp_protobuf import trace_request
from cohort.delivery.otlp_spans import Upstream, request_of, spans_of
from cohort.gateway.contract import Call, Result
from cohort.gateway.contract_trace import Attempt, Step

CALL = Call("call", "gw", 1, 2, 1_700_000_000_000_000, "support", "rel_a", "ab" * 16, total_us=900_000, first_us=200_000, route="main")


class Collector(BaseHTTPRequestHandler):
    seen: ClassVar[list[tuple[str, dict[str, str], Any]]] = []
    status: ClassVar[int] = 200

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["content-length"]))
        body = json.loads(sent) if self.headers["content-type"] == "application/json" else sent
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
    return Exporter(Export(url, {"x-tenant": "acme"}, share, protobuf=False))


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


def span_of(call: Call) -> dict[str, Any]:
    return spans_of(call)[0]


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


def test_only_a_change_of_what_is_wrong_is_logged(collector: str, caplog: pytest.LogCaptureFixture) -> None:
    made = exporter(collector + "/v1/traces")
    for Collector.status in (415, 415, 200, 415):
        made.offer([CALL])
        made.post()
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["status 415 to application/json"] * 2


def test_protobuf_is_what_is_sent_unless_json_is_asked_for(collector: str) -> None:
    made = Exporter(Export(collector + "/v1/traces", {}, 1.0))
    made.offer([CALL])
    made.post()
    _, headers, body = Collector.seen[0]
    assert (headers["content-type"], body) == ("application/x-protobuf", trace_request(request_of([CALL])))
    assert made.posted == 1


def text(value: str) -> dict[str, Any]:
    return {"stringValue": value}


REQUEST = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": text("cohort-gateway")}]},
            "scopeSpans": [
                {
                    "scope": {"name": "cohort", "version": "1"},
                    "spans": [
                        {
                            "traceId": "0af7651916cd43dd8448eb211c80319c",
                            "spanId": "b7ad6b7169203331",
                            "traceState": "a=b",
                            "parentSpanId": "00f067aa0ba902b7",
                            "name": "chat \u00e9",
                            "kind": 3,
                            "startTimeUnixNano": "1700000000000000000",
                            "endTimeUnixNano": "1700000000000000300",
                            "attributes": [
                                {"key": "n", "value": {"intValue": "-300"}},
                                {"key": "d", "value": {"doubleValue": 0.5}},
                                {"key": "b", "value": {"boolValue": True}},
                                {"key": "l", "value": {"arrayValue": {"values": [text("x"), {"intValue": "7"}]}}},
                            ],
                            "events": [
                                {
                                    "timeUnixNano": "1700000000000000100",
                                    "name": "first",
                                    "attributes": [{"key": "k", "value": text("v")}],
                                }
                            ],
                            "links": [{"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331"}],
                            "status": {"message": "timeout", "code": 2},
                            "flags": 1,
                        }
                    ],
                }
            ],
        }
    ]
}
WRITTEN = """
0a89020a220a200a0c736572766963652e6e616d6512100a0e636f686f72742d6761746577617912e2010a0b0a06636f686f727412013112d2010a100af7651916cd43dd
8448eb211c80319c1208b7ad6b71692033311a03613d62220800f067aa0ba902b72a076368617420c3a930033900002a36fe9c9717412c012a36fe9c97174a100a016e12
0b18d4fdffffffffffffff014a0e0a0164120921000000000000e03f4a070a0162120210014a100a016c120b2a090a030a01780a0218075a1a0964002a36fe9c97171205
66697273741a080a016b12030a01766a1c0a100af7651916cd43dd8448eb211c80319c1208b7ad6b71692033317a0b120774696d656f75741802850101000000
"""
"""Of `REQUEST`, by the classes that opentelemetry-proto 1.45 generates."""


def test_protobuf_is_written_as_opentelemetry_s_own_classes_write_it() -> None:
    assert trace_request(REQUEST) == bytes.fromhex(WRITTEN)
    with pytest.raises(KeyError, match="surprise"):
        trace_request({"resourceSpans": [{"surprise": 1}]})


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
    units = [
        next(e["value"]["stringValue"] for e in span["attributes"] if e["key"] == "cohort.unit")
        for span in spans()
        if span["name"] != "POST"
    ]
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
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_HEADERS": "a=Basic%20x"},
            "http://c/v1/traces",
            {"a": "Basic x"},
            1.0,
        ),
    ],
)
def test_the_usual_variables_are_read(environ: dict[str, str], url: str, headers: dict[str, str], share: float) -> None:
    assert export_from(environ) == Export(url, headers, share)
    for name in ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"):
        assert export_from({**environ, name: "http/json"}) == Export(url, headers, share, protobuf=False)


def test_without_an_endpoint_nothing_is_exported() -> None:
    assert export_from({}) is None


PARENT = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"


def said(span: dict[str, Any]) -> dict[str, Any]:
    return {entry["key"]: next(iter(entry["value"].values())) for entry in span["attributes"]}


def test_a_call_is_in_its_callers_trace_with_each_attempt_inside_it() -> None:
    tries = (
        Attempt(1, "main", 1_000, 50_000, "status", 503, 40_000, connect_us=2_000),
        Attempt(0, "spare", 51_000, 0, "circuit_open"),
        Attempt(2, "backup", 80_000, None, "ok", 200, 90_000, wait_us=29_000),
    )
    more = {"parent": PARENT + "01", "tries": tries, "stream": True, "status": 200, "attempts": 2, "route": "backup", "agent": "clerk"}
    call = Call(**{**_fields(CALL), **more, "steps": (Step("cache", 1, 2),)})
    where = {"main": Upstream("openai", "gpt", "api.one.example", 443), "backup": Upstream("anthropic", "claude", "api.two.example", 8443)}
    whole, first, second = spans_of(call, lambda _release, route: where[route])
    assert (whole["traceId"], whole["parentSpanId"]) == (PARENT[:32], "b7ad6b7169203331")
    assert {first["parentSpanId"], second["parentSpanId"]} == {whole["spanId"]}
    assert {first["traceId"], second["traceId"]} == {PARENT[:32]}
    assert len({whole["spanId"], first["spanId"], second["spanId"]}) == 3
    assert said(whole) | {
        "gen_ai.provider.name": "anthropic",
        "gen_ai.response.model": "claude",
        "gen_ai.conversation.id": CALL.unit,
        "gen_ai.agent.name": "clerk",
        "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": 0.2,
    } == said(whole)
    assert (first["name"], said(first)["http.response.status_code"], said(first)["error.type"], first["status"]["code"]) == (
        "POST",
        "503",
        "503",
        2,
    )
    assert (said(second)["server.address"], said(second)["server.port"], said(second)["http.request.resend_count"]) == (
        "api.two.example",
        "8443",
        "1",
    )
    assert int(first["endTimeUnixNano"]) - int(first["startTimeUnixNano"]) == 50_000_000
    assert second["endTimeUnixNano"] == whole["endTimeUnixNano"]
    assert trace_request(request_of([call]))


def test_a_call_without_attempts_to_tell_of_has_one_and_a_kept_answer_none() -> None:
    whole, attempt = spans_of(CALL)
    assert attempt["parentSpanId"] == whole["spanId"]
    assert "parentSpanId" not in whole
    assert len(spans_of(Call(**{**_fields(CALL), "cache": "l1", "attempts": 0}))) == 1


def test_the_callers_own_decision_on_sampling_is_followed() -> None:
    for share, flags, kept in ((0.0, "01", 1), (1.0, "00", 0)):
        made = exporter("http://127.0.0.1:1/v1/traces", share)
        made.offer([Call(**{**_fields(CALL), "parent": PARENT + flags})])
        assert len(made._waiting) == kept
