"""Calls as OpenTelemetry spans, with the GenAI conventions' names, posted as OTLP over HTTP by a thread of control: off the path of every call.

Made from the records that control takes anyway. A collector that is away or slow costs spans, which are counted, and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import httpx2
import orjson

from cohort.delivery.otlp_protobuf import trace_request
from cohort.delivery.otlp_spans import UpstreamOf, request_of, unknown
from cohort.gateway.contract import Call
from cohort.gateway.contract_trace import parent_of

WAITING_MAX = 10_000
BATCH_MAX = 500
EVERY_S = 2.0
ANSWER_S = 5.0
TRACES_PATH = "/v1/traces"

log = logging.getLogger("cohort.otlp")


@dataclass(frozen=True, slots=True)
class Export:
    """Where spans go, with which headers, which share of the units they are of, and how they are written: protobuf, else JSON."""

    url: str
    headers: Mapping[str, str]
    share: float
    protobuf: bool = True


def export_from(environ: Mapping[str, str]) -> Export | None:
    """From the variables of every OpenTelemetry exporter; None where no endpoint is named. A share that is no number is 1.

    Of the protocols `http/json` is JSON; any other is `http/protobuf`, as there is no gRPC here.
    """
    url = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
    if not url and environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        url = environ["OTEL_EXPORTER_OTLP_ENDPOINT"].rstrip("/") + TRACES_PATH
    if not url:
        return None
    text = environ.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
    pairs = [part.partition("=") for part in text.split(",") if "=" in part]
    headers = {name.strip(): unquote(value.strip()) for name, _, value in pairs}
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    return Export(url, headers, _share(environ.get("OTEL_TRACES_SAMPLER_ARG", "1")), protocol != "http/json")


class Exporter:
    """`offer` never blocks; `run` posts what was offered until told to stop."""

    def __init__(self, export: Export, client: httpx2.Client | None = None, upstream_of: UpstreamOf = unknown) -> None:
        self._export = export
        self._upstream_of = upstream_of
        self._client = client or httpx2.Client(timeout=ANSWER_S, trust_env=False)
        self._waiting: deque[Call] = deque()
        self._offered = threading.Lock()
        self._problem = ""
        self.posted = 0
        self.lost = 0

    def offer(self, calls: Iterable[Call]) -> None:
        """Those of sampled units and traces; beyond `WAITING_MAX` they are lost."""
        with self._offered:
            for call in calls:
                if not wanted(call, self._export.share):
                    continue
                if len(self._waiting) >= WAITING_MAX:
                    self.lost += 1
                else:
                    self._waiting.append(call)

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(EVERY_S):
            self.post()
        self.post()
        self._client.close()

    def post(self) -> None:
        """Everything that waits, in batches; a batch that is not taken is lost."""
        while batch := self._next():
            problem = self._problem_with(batch)
            if problem:
                self.lost += len(batch)
            else:
                self.posted += len(batch)
            if problem and problem != self._problem:
                log.warning("spans for %s are lost: %s", self._export.url, problem)
            self._problem = problem

    def _problem_with(self, batch: Sequence[Call]) -> str:
        """Post one; empty when it was taken. Only a change of it is logged."""
        request = request_of(batch, self._upstream_of)
        protobuf = self._export.protobuf
        content = trace_request(request) if protobuf else orjson.dumps(request)
        kind = "application/x-protobuf" if protobuf else "application/json"
        try:
            answer = self._client.post(self._export.url, content=content, headers={"content-type": kind, **self._export.headers})
        except httpx2.HTTPError as error:
            return type(error).__name__
        return "" if answer.status_code < 300 else f"status {answer.status_code} to {kind}"

    def _next(self) -> list[Call]:
        with self._offered:
            return [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]


def wanted(call: Call, share: float) -> bool:
    """Where the caller has a trace it decides, as its own spans would be without ours otherwise; elsewhere the call's unit."""
    parent = parent_of(call.parent)
    return parent.sampled if parent is not None else _sampled(call.unit, share)


def _sampled(unit: str, share: float) -> bool:
    """By the unit, so that a conversation is there whole or not at all."""
    return int(hashlib.sha256(unit.encode()).hexdigest()[:13], 16) < share * (1 << 52)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 1.0
    return min(max(value, 0.0), 1.0)
