"""What Prometheus reads of the control process (metric names: docs/reference/http-api.md)."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cohort.base.errors import CohortError
from cohort.delivery.face import Rollouts
from cohort.delivery.model import RolloutView, State
from cohort.kernel.face import SafetyCounts
from cohort.kernel.model import AgentState, ApprovalState
from cohort.surfaces.http.ports import ControlFace

ROLLOUTS_COUNTED_MAX = 1000
APPROVALS_COUNTED_MAX = 1000
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Telemetry:
    """One registry per app: what control knows now, and the requests answered here."""

    def __init__(self, control: ControlFace) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("cohort_http_requests", "Requests answered by control.", ("method", "status"), registry=self.registry)
        self.registry.register(_Control(control))

    def count(self, method: str, status: int) -> None:
        self._requests.labels(method if method in METHODS else "OTHER", str(status)).inc()


class _Control(Collector):
    """Asked at every scrape. What cannot be had is left out, and `cohort_collect_ok` says so."""

    def __init__(self, control: ControlFace) -> None:
        self._control = control

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        ok = GaugeMetricFamily("cohort_collect_ok", "1 when every figure could be had at this scrape.")
        try:
            yield from list(_rollouts(self._control.rollouts))
            yield from _ingest(self._control)
            yield from list(_kernel(self._control))
            ok.add_metric((), 1)
        except CohortError:
            ok.add_metric((), 0)
        yield ok
        yield _parts(self._control)


def _rollouts(rollouts: Rollouts) -> Iterator[Metric]:
    states = GaugeMetricFamily("cohort_rollouts", f"Rollouts by state, of the newest {ROLLOUTS_COUNTED_MAX}.", labels=("state",))
    tally = Tally(row.state for row in rollouts.list(limit=ROLLOUTS_COUNTED_MAX))
    for state in State:
        states.add_metric((state.value,), tally[state])
    yield states
    yield from _gates([rollouts.show(row.id) for row in rollouts.list(active=True, limit=ROLLOUTS_COUNTED_MAX)])


def _gates(views: Iterable[RolloutView]) -> Iterator[Metric]:
    labels = ("service", "rollout", "gate", "towards")
    log_e = GaugeMetricFamily("cohort_gate_log_e", "Evidence of a gate: natural logarithm of its e-value.", labels=labels)
    threshold = GaugeMetricFamily("cohort_gate_log_e_threshold", "Where a gate decides.", labels=labels)
    for view in views:
        for gate in view.gates:
            for towards, scale in (("harmful", gate.harmful), ("safe", gate.safe)):
                if scale is not None:
                    log_e.add_metric((view.service, view.id, gate.name, towards), scale.log_e)
                    threshold.add_metric((view.service, view.id, gate.name, towards), scale.threshold)
    yield log_e
    yield threshold


def _ingest(control: ControlFace) -> Iterator[Metric]:
    state = control.ingest()
    taken = CounterMetricFamily("cohort_outcomes_taken", "Records taken from gateways since control started.")
    taken.add_metric((), state.outcomes_taken)
    yield taken
    damages = CounterMetricFamily("cohort_outcomes_damages", "Places of a spool that could not be read, since control started.")
    damages.add_metric((), state.damages)
    yield damages
    waiting = GaugeMetricFamily("cohort_outcomes_waiting_bytes", "Records in a spool that are not taken yet.")
    waiting.add_metric((), state.waiting_bytes)
    yield waiting
    if state.lag_s is not None:
        lag = GaugeMetricFamily("cohort_ingest_lag_seconds", "Age of the newest record taken.")
        lag.add_metric((), state.lag_s)
        yield lag


def _kernel(control: ControlFace) -> Iterator[Metric]:
    kernel = control.kernel
    states = GaugeMetricFamily("cohort_agents", "Agents by state.", labels=("state",))
    tally = Tally(agent.state for agent in kernel.agents.list())
    for state in AgentState:
        states.add_metric((state.value,), tally[state])
    yield states
    pending = len(kernel.approvals.list(ApprovalState.PENDING, APPROVALS_COUNTED_MAX))
    yield GaugeMetricFamily("cohort_approvals_pending", "Questions that wait for a person.", value=pending)
    yield GaugeMetricFamily("cohort_audit_entries", "Entries in the audit log.", value=kernel.audit.size())
    yield from _safety(kernel.safety())
    if (probed := kernel.containment()) is not None:
        yield GaugeMetricFamily("cohort_isolation_level", "0 to 5, as probed by attack.", value=int(probed.level))


def _safety(counts: SafetyCounts) -> Iterator[Metric]:
    """What was not compared yet is left out, never 0."""
    yield CounterMetricFamily("cohort_safety_executions", "Actions executed.", value=counts.executions)
    for name, value, words in (
        ("bypasses", counts.bypasses, "Executions without a decision."),
        ("containment_violations", counts.containment_violations, "Effects outside the sandbox."),
        ("unauthorised", counts.unauthorised, "Executions outside the scopes or without the approval they needed."),
    ):
        if value is not None:
            yield GaugeMetricFamily(f"cohort_safety_{name}", words, value=value)


def _parts(control: ControlFace) -> Metric:
    parts = GaugeMetricFamily("cohort_part_ok", "1 when that part of readiness is well.", labels=("part",))
    for part in control.parts():
        parts.add_metric((part.name,), 1 if part.ok else 0)
    return parts
