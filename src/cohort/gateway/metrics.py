"""What /metrics says: counters, gauges and one histogram in Prometheus text, without a registry of objects per label."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from cohort.gateway.contract import Arm, Result
from cohort.gateway.dialects.face import Usage

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOKEN_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304)
"""Those that OpenTelemetry's conventions for generative models ask for."""
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
SERIES_MAX = 10_000

Labels = tuple[tuple[str, str], ...]
CallKey = tuple[str, str, Arm, Result]


class Metrics:
    """Counts of this process. Gauges are read when somebody asks."""

    def __init__(self) -> None:
        self.calls: dict[CallKey, int] = {}
        self._latency: dict[tuple[str, Arm], list[int]] = {}
        self._latency_sum_us: dict[tuple[str, Arm], int] = {}
        self.errors: dict[str, int] = {}
        self.feedback = 0
        self.shadow_dropped = 0
        self.personal: dict[tuple[str, str], int] = {}  # way, kind
        self.labelled: dict[str, tuple[str, list[tuple[Labels, float]]]] = {}  # gauges by name: words, samples
        self.cache: dict[tuple[str, str], int] = {}
        self._tokens: dict[tuple[str, str], list[int]] = {}  # by service and kind: a count per bucket, and the sum

    def called(self, service: str, version: str, arm: Arm, result: Result, total_us: int) -> None:
        """One call ended."""
        calls, key = self.calls, (service, version, arm, result)
        calls[key] = calls.get(key, 0) + 1
        if len(calls) > SERIES_MAX:
            del calls[next(iter(calls))]
        seconds = (service, arm)
        counts = self._latency.get(seconds)
        if counts is None:
            counts = self._latency[seconds] = [0] * (len(BUCKETS_S) + 1)
            self._latency_sum_us[seconds] = 0
        counts[bisect_left(BUCKETS_S, total_us / 1e6)] += 1
        self._latency_sum_us[seconds] += total_us

    def used(self, service: str, usage: Usage) -> None:
        """What a call used, where the upstream said it."""
        tokens_in, tokens_out = usage
        if tokens_in is not None:
            self._count_tokens((service, "input"), tokens_in)
        if tokens_out is not None:
            self._count_tokens((service, "output"), tokens_out)

    def _count_tokens(self, place: tuple[str, str], tokens: int) -> None:
        counts = self._tokens.get(place)
        if counts is None:
            counts = self._tokens[place] = [0] * (len(TOKEN_BUCKETS) + 2)
        counts[bisect_left(TOKEN_BUCKETS, tokens)] += 1
        counts[-1] += tokens

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
            ((("service", s), ("release", v), ("arm", a.value), ("result", r.value)), n) for (s, v, a, r), n in sorted(self.calls.items())
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
        return ("\n".join(lines) + "\n").encode()

    def _histogram(self, lines: list[str]) -> None:
        name = "cohort_gateway_call_seconds"
        _family(lines, name, "histogram", "Assignment to last byte.", [])
        for (service, arm), counts in sorted(self._latency.items()):
            labels: Labels = (("service", service), ("arm", arm.value))
            _buckets(lines, name, labels, BUCKETS_S, counts, self._latency_sum_us[(service, arm)] / 1e6)

    def _genai(self, lines: list[str]) -> None:
        """The names of OpenTelemetry's conventions for generative models: duration and tokens by service."""
        name = "gen_ai_client_operation_duration_seconds"
        _family(lines, name, "histogram", "Assignment to last byte of calls that were not copies.", [])
        for (service, arm), counts in sorted(self._latency.items()):
            if arm is not Arm.SHADOW:
                labels: Labels = (("gen_ai_operation_name", "chat"), ("gen_ai_request_model", service), ("cohort_arm", arm.value))
                _buckets(lines, name, labels, BUCKETS_S, counts, self._latency_sum_us[(service, arm)] / 1e6)
        name = "gen_ai_client_token_usage"
        _family(lines, name, "histogram", "Tokens of one call, where the upstream said them.", [])
        for (service, kind), counts in sorted(self._tokens.items()):
            labels = (("gen_ai_operation_name", "chat"), ("gen_ai_request_model", service), ("gen_ai_token_type", kind))
            _buckets(lines, name, labels, TOKEN_BUCKETS, counts[:-1], counts[-1])


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


def _sample(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels)
    return (
        f"{name}{{{inside}}} {value:g}" if inside and isinstance(value, float) else f"{name}{'{' + inside + '}' if inside else ''} {value}"
    )


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
