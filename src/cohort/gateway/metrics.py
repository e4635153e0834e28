"""What /metrics says: counters, gauges and one histogram in Prometheus text, without a registry of objects per label."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from cohort.gateway.contract import Arm, Result
from cohort.gateway.dialects.face import Usage

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BUCKETS_US = tuple(round(bound * 1e6) for bound in BUCKETS_S)
TOKEN_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304)
"""Those that OpenTelemetry's conventions for generative models ask for."""
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
SERIES_MAX = 10_000
ARMS_MAX = 2_000
"""Arms of releases that are counted by themselves; beyond them the oldest is forgotten."""

Labels = tuple[tuple[str, str], ...]
CallPlace = tuple[str, str, Arm]
"""Service, version of the release, arm."""
K = TypeVar("K", tuple[str, Arm], tuple[str, str])


class _Calls:
    """What is counted of the calls of one arm of a release. Of tokens: how many answers were in each bucket, and behind them the sum."""

    __slots__ = ("latency", "results", "sum_us", "tokens_in", "tokens_out")

    def __init__(self) -> None:
        self.results: dict[Result, int] = {}
        self.latency = [0] * (len(BUCKETS_S) + 1)
        self.sum_us = 0
        self.tokens_in = [0] * (len(TOKEN_BUCKETS) + 2)
        self.tokens_out = [0] * (len(TOKEN_BUCKETS) + 2)


class Metrics:
    """Counts of this process. Gauges are read when somebody asks.

    `worker`: its name, where several answer at one address; each then says whose counts these are, or a scraper would take one worker's
    for another's.
    """

    def __init__(self, worker: str = "") -> None:
        self.worker = worker
        self._calls: dict[CallPlace, _Calls] = {}
        self.errors: dict[str, int] = {}
        self.feedback = 0
        self.shadow_dropped = 0
        self.personal: dict[tuple[str, str], int] = {}  # way, kind
        self.labelled: dict[str, tuple[str, list[tuple[Labels, float]]]] = {}  # gauges by name: words, samples
        self.cache: dict[tuple[str, str], int] = {}

    def called(self, place: CallPlace, result: Result, total_us: int, usage: Usage) -> None:
        """One call ended, and used so much where the upstream said it."""
        calls = self._calls.get(place)
        if calls is None:
            calls = self._new(place)
        calls.results[result] = calls.results.get(result, 0) + 1
        calls.latency[bisect_left(BUCKETS_US, total_us)] += 1
        calls.sum_us += total_us
        tokens_in, tokens_out, _ = usage
        if tokens_in is not None:
            calls.tokens_in[bisect_left(TOKEN_BUCKETS, tokens_in)] += 1
            calls.tokens_in[-1] += tokens_in
        if tokens_out is not None:
            calls.tokens_out[bisect_left(TOKEN_BUCKETS, tokens_out)] += 1
            calls.tokens_out[-1] += tokens_out

    def _new(self, place: CallPlace) -> _Calls:
        if len(self._calls) >= ARMS_MAX:
            del self._calls[next(iter(self._calls))]
        calls = self._calls[place] = _Calls()
        return calls

    def cached(self, service: str, what: str) -> None:
        """One call met the caches: the tier that answered, or `miss` or `bypass`."""
        place = (service, what)
        self.cache[place] = self.cache.get(place, 0) + 1
        if len(self.cache) > SERIES_MAX:
            del self.cache[next(iter(self.cache))]

    def personal_found(self, way: str, kind: str, count: int) -> None:
        """Personal data was taken out of a request, or was why it was refused."""
        self.personal[(way, kind)] = self.personal.get((way, kind), 0) + count

    def refused(self, code: str) -> None:
        """One request was answered with an error before assignment."""
        self.errors[code] = self.errors.get(code, 0) + 1

    def text(self, gauges: Mapping[str, tuple[str, Callable[[], float]]], counters: Mapping[str, tuple[str, Callable[[], float]]]) -> bytes:
        """Everything in the Prometheus text format, version 0.0.4."""
        lines: list[str] = []
        calls: list[tuple[Labels, float]] = [
            ((("service", s), ("release", v), ("arm", a.value), ("result", result.value)), count)
            for (s, v, a), counted in sorted(self._calls.items(), key=lambda one: one[0])
            for result, count in sorted(counted.results.items())
        ]
        _family(lines, "cohort_gateway_calls_total", "counter", "Calls that ended, by how the client met them.", calls)
        errors: list[tuple[Labels, float]] = [((("code", code),), n) for code, n in sorted(self.errors.items())]
        _family(lines, "cohort_gateway_refused_total", "counter", "Requests answered with an error before assignment.", errors)
        _family(lines, "cohort_gateway_feedback_total", "counter", "Feedback received.", [((), self.feedback)])
        _family(lines, "cohort_gateway_shadow_dropped_total", "counter", "Shadow copies not made, for load.", [((), self.shadow_dropped)])
        cache: list[tuple[Labels, float]] = [((("service", s), ("answer", w)), n) for (s, w), n in sorted(self.cache.items())]
        _family(lines, "cohort_gateway_cache_total", "counter", "Calls of services with a cache, by what answered.", cache)
        for name, (words, read) in counters.items():
            _family(lines, name, "counter", words, [((), read())])
        for name, (words, read) in gauges.items():
            _family(lines, name, "gauge", words, [((), read())])
        personal: list[tuple[Labels, float]] = [((("way", way), ("kind", kind)), n) for (way, kind), n in sorted(self.personal.items())]
        _family(lines, "cohort_gateway_personal_data_total", "counter", "Personal data and secrets found in requests.", personal)
        for name, (words, samples) in self.labelled.items():
            _family(lines, name, "gauge", words, samples)
        self._histogram(lines)
        self._genai(lines)
        if self.worker:
            lines = [_marked(line, self.worker) for line in lines]
        return ("\n".join(lines) + "\n").encode()

    def _histogram(self, lines: list[str]) -> None:
        name = "cohort_gateway_call_seconds"
        _family(lines, name, "histogram", "Assignment to last byte.", [])
        for (service, arm), counts in self._latency():
            labels: Labels = (("service", service), ("arm", arm.value))
            _buckets(lines, name, labels, BUCKETS_S, counts[:-1], counts[-1] / 1e6)

    def _genai(self, lines: list[str]) -> None:
        """The names of OpenTelemetry's conventions for generative models: duration and tokens by service."""
        name = "gen_ai_client_operation_duration_seconds"
        _family(lines, name, "histogram", "Assignment to last byte of calls that were not copies.", [])
        for (service, arm), counts in self._latency():
            if arm is not Arm.SHADOW:
                labels: Labels = (("gen_ai_operation_name", "chat"), ("gen_ai_request_model", service), ("cohort_arm", arm.value))
                _buckets(lines, name, labels, BUCKETS_S, counts[:-1], counts[-1] / 1e6)
        name = "gen_ai_client_token_usage"
        _family(lines, name, "histogram", "Tokens of one call, where the upstream said them.", [])
        for (service, kind), counts in self._tokens():
            labels = (("gen_ai_operation_name", "chat"), ("gen_ai_request_model", service), ("gen_ai_token_type", kind))
            _buckets(lines, name, labels, TOKEN_BUCKETS, counts[:-1], counts[-1])

    def _latency(self) -> list[tuple[tuple[str, Arm], list[int]]]:
        """By service and arm, whichever release answered; the last number is the sum in microseconds."""
        return _added(((s, arm), [*calls.latency, calls.sum_us]) for (s, _, arm), calls in self._calls.items())

    def _tokens(self) -> list[tuple[tuple[str, str], list[int]]]:
        """By service and kind, of calls that were not copies."""
        told = [(service, calls) for (service, _, arm), calls in self._calls.items() if arm is not Arm.SHADOW]
        found = [((service, "input"), calls.tokens_in) for service, calls in told]
        found += [((service, "output"), calls.tokens_out) for service, calls in told]
        return _added((place, counts) for place, counts in found if any(counts))


def _added(parts: Iterable[tuple[K, list[int]]]) -> list[tuple[K, list[int]]]:
    """The lists of each place added up, in the order of places."""
    sums: dict[K, list[int]] = {}
    for place, counts in parts:
        before = sums.get(place)
        sums[place] = counts if before is None else [one + other for one, other in zip(before, counts, strict=True)]
    return sorted(sums.items(), key=lambda one: one[0])


def _buckets(lines: list[str], name: str, labels: Labels, bounds: Sequence[float], counts: Sequence[int], whole: float) -> None:
    """The samples of one histogram; the last of `counts` is beyond every bound."""
    total = 0
    for bound, count in zip((*map(repr, bounds), "+Inf"), counts, strict=True):
        total += count
        lines.append(_sample(f"{name}_bucket", (*labels, ("le", bound)), total))
    lines.append(_sample(f"{name}_sum", labels, whole))
    lines.append(_sample(f"{name}_count", labels, total))


def _family(lines: list[str], name: str, kind: str, words: str, samples: list[tuple[Labels, float]]) -> None:
    lines.append(f"# HELP {name} {words}")
    lines.append(f"# TYPE {name} {kind}")
    lines.extend(_sample(name, labels, value) for labels, value in samples)


def gauge(name: str, words: str, value: float) -> bytes:
    """A gauge without labels as a page of its own."""
    lines: list[str] = []
    _family(lines, name, "gauge", words, [((), value)])
    return ("\n".join(lines) + "\n").encode()


def _sample(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels)
    return f"{name}{'{' + inside + '}' if inside else ''} {value}"


def _marked(line: str, worker: str) -> str:
    """A line of the text, with one label more where it is a sample."""
    if line.startswith("#"):
        return line
    label = f'worker="{_escape(worker)}"'
    name, brace, rest = line.partition("{")
    if brace:
        return f"{name}{{{label},{rest}"
    name, _, value = line.rpartition(" ")
    return f"{name}{{{label}}} {value}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
