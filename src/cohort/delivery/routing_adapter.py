"""Moves the wanted share of a strong model as outcomes say, within what its release allows, and says how routing stands."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.delivery.routing_fit import Fit, fit
from cohort.delivery.routing_rules import Sample, rate, suggest, what_if
from cohort.delivery.routing_store import RoutingStore
from cohort.delivery.routing_views import BucketView, RoutingReplay, RoutingView, Target
from cohort.delivery.store_sql import RolloutStore
from cohort.gateway.adaptive.features import Scorer, decode
from cohort.gateway.contract import GatewayState, is_killed
from cohort.gateway.contract_routing import RoutingPolicy

LOOK_EVERY_S = 60.0
MOVE_EVERY_US = 3_600_000_000
"""A wanted share moves at most once in this time: the gateway's boundary and the outcomes must have followed before it moves again."""
HISTORY_SHOWN = 20
BOUNDARIES_MAX = 50
SWITCHES = ("routing.adaptive", "routing.adapt")

_log = logging.getLogger(__name__)


class RoutingAdapter:
    """Thread-safe. `policy_of`: digest -> the release's policy, None without one. `record`: into the audit log, before a share is moved."""

    def __init__(
        self,
        store: RolloutStore,
        policy_of: Callable[[str], RoutingPolicy | None],
        state_of: Callable[[], GatewayState | None],
        clock: Clock,
        record: Callable[[Mapping[str, Any]], object],
    ) -> None:
        self._store = store
        self._samples = RoutingStore(store.database)
        self._policy_of = policy_of
        self._state_of = state_of
        self._clock = clock
        self._record = record

    def run(self, stop: threading.Event) -> None:
        """Look every `LOOK_EVERY_S` until told to stop. What cannot be done is logged and tried again."""
        while not stop.wait(LOOK_EVERY_S):
            try:
                self.tick()
            except CohortError as error:
                _log.error("routing could not be adapted: %s", error)

    def tick(self) -> list[str]:
        """The services whose wanted share was moved. Errors: DATABASE_UNAVAILABLE, AUDIT_UNAVAILABLE (that service was not moved)."""
        with self._store.database.read() as connection:
            services = [name for name, digest in self._store.stable_of(connection).items() if self._policy_of(digest) is not None]
        return [service for service in services if self._move(service)]

    def chooses(self, service: str) -> bool:
        """Whether the service's stable release chooses between two models. Cheap."""
        with self._store.database.read() as connection:
            release = self._store.stable_of(connection).get(service)
        return release is not None and self._policy_of(release) is not None

    def view(self, service: str) -> RoutingView:
        """Errors: NOT_FOUND: no such service, or its stable release has no `routing`."""
        with self._store.database.read() as connection:
            release, policy = self._routed(connection, service)
            target = self._samples.targets(connection).get((service, release))
            everything = self._samples.samples(connection, service, release)
            since_us = target.changed_us if target else 0
            share = target.strong_share if target else policy.strong_share
            state = self._state_of()
            return RoutingView(
                service=service,
                release=release,
                policy=policy,
                state=state.routing.get(service) if state is not None else None,
                target_share=share,
                suggestion=suggest(policy, share, [sample for sample in everything if sample.at_us > since_us]),
                held=self._held(connection, service, policy, since_us),
                buckets=tuple(_bucket(name, everything) for name in ("control", "adaptive")),
                history=tuple(self._samples.history(connection, service, HISTORY_SHOWN)),
                samples=len(everything),
            )

    def replay(self, service: str, boundaries: Sequence[float], weights: Mapping[str, float] | None = None) -> RoutingReplay:
        """What other boundaries, or other weights, would have done. Nothing is changed. Errors: NOT_FOUND, FIELD_INVALID."""
        if not 0 < len(boundaries) <= BOUNDARIES_MAX or not all(0 <= boundary <= 1 for boundary in boundaries):
            hint = f"Give 1 to {BOUNDARIES_MAX} numbers from 0 to 1."
            raise CohortError("FIELD_INVALID", "not boundaries to compare", field="boundary", hint=hint)
        with self._store.database.read() as connection:
            release, policy = self._routed(connection, service)
            samples = self._samples.samples(connection, service, release)
        scorer = Scorer(policy.weights if weights is None else weights)
        rows = what_if(policy, samples, lambda sample: scorer.difficulty(decode(sample.features)), boundaries)
        return RoutingReplay(service, release, len(samples), tuple(rows))

    def fit(self, service: str) -> Fit:
        """Weights that outcomes suggest for the next release. Errors: NOT_FOUND; NOT_ENOUGH_EVIDENCE: too few outcomes of the weak model."""
        with self._store.database.read() as connection:
            release, policy = self._routed(connection, service)
            samples = self._samples.samples(connection, service, release)
        found = fit(samples, dict(policy.weights))
        if found is None:
            weak = [sample for sample in samples if not sample.strong]
            what = f"{len(weak)} outcomes of the weak model, {sum(sample.failed for sample in weak)} of them failures"
            raise CohortError(
                "NOT_ENOUGH_EVIDENCE", what, hint="Wait for 500 outcomes with at least 50 failures; send feedback to /v1/feedback."
            )
        return found

    def _move(self, service: str) -> bool:
        view = self.view(service)
        if view.held or not view.suggestion.moves:
            return False
        share, reason = view.suggestion.share, view.suggestion.reason
        change = {"service": service, "release": view.release, "from": view.target_share, "to": share, "reason": reason}
        self._record({"event": "routing_share_moved", **change})
        with self._store.database.write() as connection:
            if self._held(connection, service, view.policy, view.history[0].changed_us if view.history else 0):
                return False
            self._samples.aim(connection, service, Target(view.release, share, self._clock.now_us(), reason))
        return True

    def _held(self, connection: Connection, service: str, policy: RoutingPolicy, since_us: int) -> str:
        """Why the wanted share stays as it is, whatever outcomes say."""
        if policy.override is not None:
            return f"the release sends everything to {policy.override}"
        if not policy.adapt:
            return "the release does not adapt"
        killed = self._store.killed(connection)
        if any(is_killed(flag, killed) for flag in SWITCHES):
            return "the kill list turns it off"
        if self._store.active(connection, service):
            return "a rollout is running: its evidence must not shift"
        if self._clock.now_us() - since_us < MOVE_EVERY_US:
            return "it was moved less than an hour ago"
        return ""

    def _routed(self, connection: Connection, service: str) -> tuple[str, RoutingPolicy]:
        release = self._store.stable_of(connection).get(service)
        if release is None:
            raise CohortError("NOT_FOUND", f"there is no service {service[:100]}", hint="See `cohort service list`.")
        policy = self._policy_of(release)
        if policy is None:
            what = f"the stable release of {service} has no `routing`"
            raise CohortError("NOT_FOUND", what, hint="Create a release with a `routing` section and roll it out.")
        return release, policy


def _bucket(name: str, samples: Sequence[Sample]) -> BucketView:
    mine = [sample for sample in samples if sample.bucket == name]
    units = {sample.unit: sample.strong for sample in mine}
    sides = [rate(len({s.unit for s in side if s.failed}), len({s.unit for s in side})) for side in _sides(mine)]
    return BucketView(name, len(units), sum(units.values()) / len(units) if units else None, *sides)


def _sides(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    return [sample for sample in samples if not sample.strong], [sample for sample in samples if sample.strong]
