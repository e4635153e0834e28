"""The e-processes behind each gate, fed with what units experienced. Pure: the same feed gives the same numbers, bit for bit.

A gate that alarms watches two things at once: one process over the whole rollout, and a fresh one per stage, so that a long healthy
past does not delay the detection of harm that only a larger share brings out. Their weighted average is an e-process again (gates.md 6.1,
6.8): three quarters of the weight on the whole, the rest shared equally by the stages; a process that has not begun counts as 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from cohort.delivery.model import Certificate, Gate, GateKind, Metric
from cohort.gateway.contract import Call
from cohort.stats import LabelBinary, LabelFailures, LabelOrdered, LabelSign, LimitCertificate, OneSample, SafetyCertificate, Sketch

WHOLE_WEIGHT = 0.75
RATIO_WEIGHT = 0.8
"""Of a certificate that accepts either a ratio or a limit: the ratio's weight (their average is an e-process for "both are exceeded")."""
BINARY_BASE_RATE_MIN = 0.05
"""From this base rate on, successes carry enough evidence to be worth counting (gates.md 6.3)."""
BASELINE_UNITS_MIN = 100
RATE_LIMIT_MAX = 0.5


class Process(Protocol):
    """One e-process. Feeds it does not care about change nothing. `arm`: 1 candidate, 0 stable; `share`: conditional probability of 1."""

    @property
    def log_e(self) -> float: ...
    @property
    def measured(self) -> int | None:
        """Candidate units that the metric was measured of; None where every unit counts."""
        ...

    def first_call(self, arm: int, share: float, failed: bool) -> None: ...
    def first_completed(self, arm: int, share: float, call: Call) -> None: ...
    def first_failure(self, arm: int, share: float) -> None: ...
    def first_negative(self, arm: int, share: float) -> None: ...
    def first_pair(self, candidate: Call, stable: Call) -> None: ...
    def first_discordant(self, arm: int) -> None: ...
    def first_shadow(self, candidate: Call, failed: bool) -> None: ...
    def to_state(self) -> dict[str, Any]: ...
    def load(self, state: dict[str, Any]) -> None: ...


class _Deaf:
    """Ignores every feed; the processes below listen to what concerns them."""

    def first_call(self, arm: int, share: float, failed: bool) -> None: ...
    def first_completed(self, arm: int, share: float, call: Call) -> None: ...
    def first_failure(self, arm: int, share: float) -> None: ...
    def first_negative(self, arm: int, share: float) -> None: ...
    def first_pair(self, candidate: Call, stable: Call) -> None: ...
    def first_discordant(self, arm: int) -> None: ...
    def first_shadow(self, candidate: Call, failed: bool) -> None: ...

    @property
    def measured(self) -> int | None:
        return None


def value_of(metric: Metric, call: Call) -> float | None:
    """What a metric sees of a call: microseconds, millionths of a dollar, tokens; None where it was not measured."""
    match metric:
        case Metric.LATENCY:
            return call.total_us
        case Metric.FIRST_BYTE:
            return call.first_us
        case Metric.COST:
            return call.cost_usd_micro
        case Metric.TOKENS:
            return call.tokens_out
        case Metric.FAILURES | Metric.FEEDBACK | Metric.REGISTRY:
            return None


class _Labels(_Deaf):
    """One test on which arm came to harm (6.2)."""

    def __init__(self, margin: float) -> None:
        self._label = LabelFailures(margin)

    @property
    def log_e(self) -> float:
        return self._label.log_e

    def to_state(self) -> dict[str, Any]:
        return {"label": self._label.to_state()}

    def load(self, state: dict[str, Any]) -> None:
        self._label = LabelFailures.from_state(state["label"])


class FailureComparison(_Labels):
    """Failures against stable (6.2): first failures of units, and discordant shadow pairs (6.7)."""

    def first_failure(self, arm: int, share: float) -> None:
        self._label.update(arm, share)

    def first_discordant(self, arm: int) -> None:
        self._label.update(arm, 0.5)


class BinaryComparison(_Deaf):
    """Failures and successes of first calls against stable (6.3), times the shadow evidence of 6.7."""

    def __init__(self, prior_rate: float) -> None:
        self._binary = LabelBinary(prior_rate=prior_rate)
        self._pairs = LabelFailures(1.0)

    @property
    def log_e(self) -> float:
        return self._binary.log_e + self._pairs.log_e

    def first_call(self, arm: int, share: float, failed: bool) -> None:
        self._binary.update(arm, share, failed)

    def first_discordant(self, arm: int) -> None:
        self._pairs.update(arm, 0.5)

    def to_state(self) -> dict[str, Any]:
        return {"binary": self._binary.to_state(), "pairs": self._pairs.to_state()}

    def load(self, state: dict[str, Any]) -> None:
        self._binary = LabelBinary.from_state(state["binary"])
        self._pairs = LabelFailures.from_state(state["pairs"])


class FeedbackComparison(_Labels):
    """Negative feedback against stable (6.2), once per unit and stage."""

    def first_negative(self, arm: int, share: float) -> None:
        self._label.update(arm, share)


class OrderedComparison(_Deaf):
    """An ordered metric against stable (6.4), times the sign evidence of shadow pairs (6.7). Ties say nothing."""

    def __init__(self, metric: Metric, margin: float, warm: Sketch | None) -> None:
        self._metric = metric
        self._margin = margin
        self._ordered = LabelOrdered(margin)
        if warm is not None:
            self._ordered.warm_from(warm)
        self._sign = LabelSign()
        self._measured = 0

    @property
    def measured(self) -> int | None:
        return self._measured

    @property
    def log_e(self) -> float:
        return self._ordered.log_e + self._sign.log_e

    def first_completed(self, arm: int, share: float, call: Call) -> None:
        value = value_of(self._metric, call)
        if value is not None:
            self._measured += arm
            self._ordered.update(arm, share, value)

    def first_pair(self, candidate: Call, stable: Call) -> None:
        ours, theirs = value_of(self._metric, candidate), value_of(self._metric, stable)
        if ours is None or theirs is None:
            return
        self._measured += 1
        if ours / self._margin != theirs:
            self._sign.update(ours / self._margin > theirs)

    def to_state(self) -> dict[str, Any]:
        return {"ordered": self._ordered.to_state(), "sign": self._sign.to_state(), "measured": self._measured}

    def load(self, state: dict[str, Any]) -> None:
        self._ordered = LabelOrdered.from_state(state["ordered"])
        self._sign = LabelSign.from_state(state["sign"])
        self._measured = state["measured"]


class FailureLimit(_Deaf):
    """The candidate's failure rate against a limit (6.5): first calls of its units."""

    def __init__(self, limit: float) -> None:
        self._sample = OneSample(limit)

    @property
    def log_e(self) -> float:
        return self._sample.log_e

    def first_call(self, arm: int, share: float, failed: bool) -> None:
        if arm == 1:
            self._sample.update(failed)

    def first_shadow(self, candidate: Call, failed: bool) -> None:
        self._sample.update(failed)

    def to_state(self) -> dict[str, Any]:
        return {"sample": self._sample.to_state()}

    def load(self, state: dict[str, Any]) -> None:
        self._sample = OneSample.from_state(state["sample"])


class ValueLimit(_Deaf):
    """The share of the candidate's units whose value lies over a limit (6.5, quantile form)."""

    def __init__(self, metric: Metric, limit: float, share_over: float) -> None:
        self._metric = metric
        self._limit = limit
        self._sample = OneSample(share_over)

    @property
    def log_e(self) -> float:
        return self._sample.log_e

    @property
    def measured(self) -> int | None:
        return self._sample.units

    def first_completed(self, arm: int, share: float, call: Call) -> None:
        value = value_of(self._metric, call)
        if arm == 1 and value is not None:
            self._sample.update(value > self._limit)

    def first_shadow(self, candidate: Call, failed: bool) -> None:
        if not failed:
            self.first_completed(1, 1.0, candidate)

    def to_state(self) -> dict[str, Any]:
        return {"sample": self._sample.to_state(), "limit": self._limit}

    def load(self, state: dict[str, Any]) -> None:
        self._limit = state["limit"]
        self._sample = OneSample.from_state(state["sample"])


class CertificateProcess(_Deaf):
    """Evidence that a stage's candidate is safe (6.6): its null is "ratio or more, and limit or more"."""

    def __init__(self, ratio: float | None, limit: float | None) -> None:
        self._ratio = SafetyCertificate(ratio) if ratio is not None else None
        self._limit = LimitCertificate(limit) if limit is not None else None
        self._peak = 0.0

    @property
    def log_e(self) -> float:
        if self._ratio is None:
            return self._limit.log_e if self._limit is not None else 0.0
        if self._limit is None:
            return self._ratio.log_e
        return log_average([(RATIO_WEIGHT, self._ratio.log_e), (1 - RATIO_WEIGHT, self._limit.log_e)])

    @property
    def peak_log_e(self) -> float:
        return self._peak

    def first_call(self, arm: int, share: float, failed: bool) -> None:
        if arm == 1 and self._limit is not None:
            self._limit.update(failed)
            self._peak = max(self._peak, self.log_e)

    def first_failure(self, arm: int, share: float) -> None:
        if self._ratio is not None:
            self._ratio.update(arm, share)
            self._peak = max(self._peak, self.log_e)

    def first_discordant(self, arm: int) -> None:
        self.first_failure(arm, 0.5)

    def first_shadow(self, candidate: Call, failed: bool) -> None:
        self.first_call(1, 1.0, failed)

    def to_state(self) -> dict[str, Any]:
        return {
            "ratio": self._ratio.to_state() if self._ratio else None,
            "limit": self._limit.to_state() if self._limit else None,
            "peak": self._peak,
        }

    def load(self, state: dict[str, Any]) -> None:
        self._ratio = SafetyCertificate.from_state(state["ratio"]) if state["ratio"] else None
        self._limit = LimitCertificate.from_state(state["limit"]) if state["limit"] else None
        self._peak = state["peak"]


class Baseline:
    """Stable as it was met so far: first calls, failures and latency. Frozen figures are taken from it when a stage has no stable arm."""

    def __init__(self, calls: int = 0, failed: int = 0, latency: Sketch | None = None) -> None:
        self.calls = calls
        self.failed = failed
        self.latency = latency or Sketch()

    def add(self, failed: bool, total_us: int | None) -> None:
        self.calls += 1
        self.failed += failed
        if not failed and total_us is not None:
            self.latency.add(total_us)

    @property
    def failure_rate(self) -> float | None:
        """Failed share with one failed call added for caution; None with too little seen."""
        return (self.failed + 1) / (self.calls + 1) if self.calls >= BASELINE_UNITS_MIN else None

    @property
    def p95_us(self) -> float | None:
        return self.latency.quantile(0.95) if self.latency.count >= BASELINE_UNITS_MIN else None

    def to_state(self) -> dict[str, Any]:
        return {"calls": self.calls, "failed": self.failed, "latency": self.latency.to_state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Baseline:
        return cls(state["calls"], state["failed"], Sketch.from_state(state["latency"]))


def process_for(gate: Gate, baseline: Baseline) -> Process | None:
    """The process of a gate that can alarm on evidence; None for other kinds, or where a frozen baseline is needed and missing."""
    if gate.kind is GateKind.SLO:
        return _limit_process(gate, baseline)
    if gate.kind is not GateKind.COMPARISON:
        return None
    if gate.metric is Metric.FAILURES:
        rate = baseline.failure_rate
        if gate.margin == 1.0 and rate is not None and BINARY_BASE_RATE_MIN < rate < 1.0:
            return BinaryComparison(rate)
        return FailureComparison(gate.margin)
    if gate.metric is Metric.FEEDBACK:
        return FeedbackComparison(gate.margin)
    warm = baseline.latency if gate.metric is Metric.LATENCY and baseline.latency.count else None
    return OrderedComparison(gate.metric, gate.margin, warm)


def _limit_process(gate: Gate, baseline: Baseline) -> Process | None:
    if gate.metric is Metric.FAILURES:
        limit = gate.limit if gate.limit is not None else _times(baseline.failure_rate, gate.margin)
        return FailureLimit(min(limit, RATE_LIMIT_MAX)) if limit is not None else None
    limit_us = gate.limit_ms * 1000 if gate.limit_ms is not None else baseline.p95_us
    return ValueLimit(gate.metric, limit_us, gate.share_over) if limit_us is not None else None


def certificate_for(certificate: Certificate | None, traffic_pct: float, baseline: Baseline) -> CertificateProcess | None:
    """The certificate process of a stage. Without a stable arm the ratio is taken to the frozen baseline; None: nothing can be certified."""
    if certificate is None:
        return None
    if traffic_pct < 100:
        return CertificateProcess(certificate.ratio, certificate.limit)
    frozen = _times(baseline.failure_rate, certificate.ratio) if certificate.ratio is not None else None
    limits = [limit for limit in (frozen, certificate.limit) if limit is not None]
    return CertificateProcess(None, min(max(limits), RATE_LIMIT_MAX)) if limits else None


def log_average(parts: Sequence[tuple[float, float]]) -> float:
    """ln(sum of weight * exp(log_e)) over (weight, log_e), without overflow. Weights above 0."""
    logs = [math.log(weight) + log_e for weight, log_e in parts]
    top = max(logs)
    return top + math.log(math.fsum(math.exp(value - top) for value in logs))


def _times(rate: float | None, factor: float) -> float | None:
    return None if rate is None else rate * factor
