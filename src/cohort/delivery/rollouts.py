"""The verbs on rollouts and services, as surfaces call them: one function per verb decides the order of effects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.base.ids import Entropy, ReleaseDigest, RolloutId, new_id, short
from cohort.delivery import lifecycle
from cohort.delivery.controller import Controller
from cohort.delivery.evidence import Evidence
from cohort.delivery.face import Act, Registry, Start
from cohort.delivery.forecast import DEFAULT_FAILURE_RATE, DEFAULT_UNITS_PER_S, cache_notes, forecast
from cohort.delivery.lifecycle import Event, Moved
from cohort.delivery.model import (
    Forecast,
    Plan,
    Release,
    Replay,
    RollbackResult,
    Rollout,
    RolloutRow,
    RolloutView,
    ServiceView,
    State,
)
from cohort.delivery.plans import PRESETS, find_plan
from cohort.delivery.reconciler import Reconciler
from cohort.delivery.replay import replay
from cohort.delivery.services import DAY_US, SHOWN_US, WARM_US, cached_share, service_view, unit_failure_rate, warm_baseline
from cohort.delivery.services import units_per_s as seen_units_per_s
from cohort.delivery.store_sql import RolloutStore, changed
from cohort.delivery.views import ref, rollout_view, row_view
from cohort.gateway.contract import GatewayState

SPEED_MAX = 1_000_000.0
LIST_MAX = 200
HTTP_KIND = "http"
_WITHOUT_DATABASE = ("DATABASE_UNAVAILABLE", "DATABASE_DAMAGED", "DISK_FULL", "OUTCOME_UNKNOWN")
"""With these the emergency verb goes on without the database."""


class SqlRollouts:
    """Implements `face.Rollouts`. Thread-safe; effects on traffic go through the controller and the reconciler."""

    def __init__(
        self,
        store: RolloutStore,
        registry: Registry,
        controller: Controller,
        reconciler: Reconciler,
        clock: Clock,
        entropy: Entropy,
        damaged: Callable[[str], str | None],
    ) -> None:
        self._store = store
        self._registry = registry
        self._controller = controller
        self._reconciler = reconciler
        self._clock = clock
        self._entropy = entropy
        self._damaged = damaged
        self._version = 0

    def changed(self) -> None:
        """Something shown may have changed."""
        self._version += 1

    def version(self) -> int:
        return self._version

    # --- reading ---

    def services(self) -> Sequence[ServiceView]:
        with self._store.database.read() as connection:
            names = sorted(self._store.stable_of(connection))
        return [self.service(name) for name in names]

    def service(self, name: str) -> ServiceView:
        now_us = self._clock.now_us()
        with self._store.database.read() as connection:
            row = self._service_row(connection, name)
            active = next(iter(self._store.active(connection, name)), None)
            traffic = self._store.traffic(connection, name, now_us - SHOWN_US)
            cost = self._store.cost_usd_micro(connection, name, now_us // DAY_US * DAY_US)
            versions = self._store.versions(connection, [name])
        return service_view(row, active, traffic, versions, self._agrees(name, row["stable"]), cost, now_us)

    def plans(self) -> Sequence[Plan]:
        return list(PRESETS.values())

    def forecast(
        self, service: str, plan: str, *, speed: float = 1.0, units_per_s: float | None = None, failure_rate: float | None = None
    ) -> Forecast:
        ladder = find_plan(plan)
        _check_speed(speed)
        now_us = self._clock.now_us()
        with self._store.database.read() as connection:
            stable = str(self._service_row(connection, service)["stable"])
            traffic = self._store.traffic(connection, service, now_us - WARM_US)
        rate = failure_rate if failure_rate is not None else unit_failure_rate(traffic, stable)
        units_seen = units_per_s if units_per_s is not None else seen_units_per_s(traffic, now_us)
        assumed = rate is None or units_seen is None
        seen = (units_seen or DEFAULT_UNITS_PER_S, rate if rate is not None else DEFAULT_FAILURE_RATE)
        return forecast(service, ladder, speed, *seen, assumed, cached_share(traffic, stable))

    def list(
        self, service: str | None = None, active: bool | None = None, limit: int = 50, before_us: int | None = None
    ) -> Sequence[RolloutRow]:
        with self._store.database.read() as connection:
            rollouts = self._store.listed(connection, service, active, min(limit, LIST_MAX), before_us)
        versions = self._versions({rollout.service for rollout in rollouts})
        return [row_view(rollout, versions) for rollout in rollouts]

    def show(self, rollout: str) -> RolloutView:
        with self._store.database.read() as connection:
            found = self._find(connection, rollout)
            state, _ = self._store.evidence(connection, found.id)
            events = self._store.events(connection, found.id)
            series = self._store.series(connection, found.id)
        evidence = Evidence.from_state(found.plan, state, found.speed)
        versions = self._versions({found.service})
        return rollout_view(found, evidence, events, series, versions, self._damage(found), self._clock.now_us())

    def replay(self, rollout: str) -> Replay:
        with self._store.database.read() as connection:
            found = self._find(connection, rollout)
            state, position = self._store.evidence(connection, found.id)
            events = self._store.events(connection, found.id)
            calls = self._store.calls_behind(connection, found.id, None)
        figures = Evidence.from_state(found.plan, state, found.speed).figures()
        return replay(found, events, calls, position, figures)

    # --- changing ---

    def start(self, start: Start) -> RolloutView:
        """Begin a rollout.

        Errors: SERVICE_UNKNOWN, RELEASE_UNKNOWN, PLAN_INVALID, PLAN_UNDERPOWERED, ROLLOUT_ACTIVE (names the one that runs), ROLLOUT_NOT_NEEDED,
            FIELD_INVALID, IDEMPOTENCY_MISMATCH.
        """
        _check_speed(start.speed)
        _check_at(start.at_pct)
        plan = find_plan(start.plan)
        if start.strict:
            self._refuse_underpowered(start)
        candidate = self._registry.find(start.to, start.service)
        self._registry.verify(candidate.digest)
        _refuse_unrouted(candidate)
        made = self._insert(start, plan, candidate)
        self._controller.push_soon()
        return self.show(made)

    def pause(self, rollout: str, act: Act) -> RolloutView:
        return self._do(rollout, act, lambda found: lifecycle.pause(found, self._clock.now_us(), act.actor, act.reason))

    def resume(self, rollout: str, act: Act) -> RolloutView:
        return self._do(rollout, act, lambda found: lifecycle.resume(found, self._clock.now_us(), act.actor, act.reason), decide=True)

    def approve(self, rollout: str, act: Act) -> RolloutView:
        return self._do(rollout, act, lambda found: lifecycle.approve(found, act.actor, act.reason), decide=True)

    def promote(self, rollout: str, act: Act) -> RolloutView:
        reason = act.reason or f"promoted by {act.actor}"
        return self._do(rollout, act, lambda found: (lifecycle.waive(found, self._clock.now_us(), reason), []), decide=True)

    def rollback(self, rollout: str, act: Act) -> RolloutView:
        return self._end(rollout, act, State.ROLLED_BACK, act.reason or f"rolled back by {act.actor}")

    def abort(self, rollout: str, act: Act) -> RolloutView:
        return self._end(rollout, act, State.ABORTED, act.reason or f"aborted by {act.actor}")

    def rollback_service(self, service: str, act: Act, to: str | None = None) -> RollbackResult:
        started_us = self._clock.now_us()
        try:
            rollout, serving, replaced = self._roll_back_stored(service, act, to)
            state = self._controller.make_it_so()
        except CohortError as error:
            if error.code not in _WITHOUT_DATABASE or to is not None or not self._reconciler.splits(service):
                raise
            # Without the database: the last known stable is in the routing table.
            state = self._reconciler.take_off(service, None)
            reason = act.reason or f"rolled back by {act.actor}"
            self._controller.remember(service, act.actor, f"{reason} (while the database was away)")
            rollout, serving, replaced = None, state.services[service], None
        verified = state.services.get(service) == serving and service not in state.splits
        took_ms = (self._clock.now_us() - started_us) / 1000
        versions = self._versions_or_none(service)
        shown = ref(replaced, versions) if replaced else None
        return RollbackResult(service, rollout, ref(serving, versions), shown, verified, took_ms)

    # --- parts ---

    def _insert(self, start: Start, plan: Plan, candidate: Release) -> RolloutId:
        now_us = self._clock.now_us()
        try:
            with self._controller.transaction() as connection:
                self._store.database.lock(connection, f"rollouts of {start.service}")
                made = self._started_before(connection, start, candidate)
                if made is not None:
                    return made
                row = self._service_row(connection, start.service)
                self._refuse_second(connection, start.service)
                if row["stable"] == candidate.digest:
                    raise CohortError(
                        "ROLLOUT_NOT_NEEDED", f"{start.service} already serves {candidate.version}", hint="Choose another release."
                    )
                traffic = self._store.traffic(connection, start.service, now_us - WARM_US)
                warm, notes = warm_baseline(traffic, row["stable"]), cache_notes(plan, cached_share(traffic, row["stable"]))
                planned = self._planned(start, plan, row["stable"], candidate.digest, now_us)
                detail = {"warm": warm.to_state(), "reason": start.act.reason, "notes": list(notes)}
                running, events = lifecycle.begin(planned, now_us, start.act.actor, detail)
                self._store.insert(connection, running, Evidence(plan, warm, start.speed, running.stage).to_state())
                self._store.log(connection, running.id, now_us, events, start.act.idempotency_key)
                return running.id
        except IntegrityError as error:
            raise changed(start.service) from error

    def _started_before(self, connection: Connection, start: Start, candidate: Release) -> RolloutId | None:
        key = start.act.idempotency_key
        made = self._store.started_with(connection, key) if key else None
        before = self._store.get(connection, made) if made else None
        if before is None:
            return None
        if (before.service, before.candidate) != (start.service, candidate.digest):
            what = f"this idempotency key started {before.id} of {before.service}"
            raise CohortError("IDEMPOTENCY_MISMATCH", what, hint="Use a new key for another rollout.", rollout=before.id)
        return before.id

    def _planned(self, start: Start, plan: Plan, stable: str, candidate: str, now_us: int) -> Rollout:
        at = next((i for i, stage in enumerate(plan.stages) if stage.traffic_pct >= start.at_pct), 0) if start.at_pct is not None else 0
        return Rollout(
            id=RolloutId(new_id("ro", self._entropy)),
            service=start.service,
            stable=ReleaseDigest(stable),
            candidate=ReleaseDigest(candidate),
            plan=plan,
            speed=start.speed,
            salt=self._entropy(32).hex(),
            state=State.PLANNED,
            stage=at,
            stage_run=0,
            stage_since_us=now_us,
            held_us=0,
            paused_since_us=None,
            approved=False,
            waived=None,
            revision=1,
            created_us=now_us,
            created_by=start.act.actor,
            ended_us=None,
            reason=None,
            summary={},
        )

    def _refuse_second(self, connection: Connection, service: str) -> None:
        running = next(iter(self._store.active(connection, service)), None)
        if running is not None:
            raise CohortError(
                "ROLLOUT_ACTIVE",
                f"{service} has a rollout already: {running.id} is {running.state.value} at {running.present.name}",
                hint=f"Wait for it, or end it with `cohort rollout abort {running.id}`.",
                rollout=running.id,
            )

    def _refuse_underpowered(self, start: Start) -> None:
        seen = self.forecast(start.service, start.plan, speed=start.speed)
        if seen.warnings:
            hint = "Use a plan with larger shares or longer floors, or start without --strict."
            raise CohortError("PLAN_UNDERPOWERED", f"this traffic cannot earn the plan: {'; '.join(seen.warnings)}", hint=hint)

    def _do(self, rollout: str, act: Act, verb: Callable[[Rollout], Moved], *, decide: bool = False) -> RolloutView:
        """One verb of a person: durable, then decided by the common rules, then pushed."""
        with self._controller.transaction() as connection:
            found = self._for_act(connection, rollout, act)
            if found is None:
                return_id = rollout
            else:
                return_id = found.id
                moved, events = verb(found)
                if moved != found:
                    moved = self._store.save(connection, moved)
                    self._store.log(connection, found.id, self._clock.now_us(), events, act.idempotency_key)
                if decide:
                    self._controller.decide_now(connection, moved, act.actor, None if events else act.idempotency_key)
        self._controller.push_soon()
        return self.show(return_id)

    def _end(self, rollout: str, act: Act, state: State, reason: str) -> RolloutView:
        view = self._do(rollout, act, lambda found: lifecycle.end(found, state, reason, self._clock.now_us(), act.actor))
        return view

    def _for_act(self, connection: Connection, rollout: str, act: Act) -> Rollout | None:
        """The rollout to act on, locked; None when this very act was done before."""
        found = self._find(connection, rollout)
        self._store.database.lock(connection, f"rollouts of {found.service}")
        found = self._store.get(connection, found.id) or found
        if act.idempotency_key and self._store.key_used(connection, found.id, act.idempotency_key):
            return None
        if act.revision is not None and act.revision != found.revision:
            raise changed(found.id)
        return found

    def _roll_back_stored(self, service: str, act: Act, to: str | None) -> tuple[RolloutId | None, str, str | None]:
        reason = act.reason or f"rolled back by {act.actor}"
        target = self._registry.find(to, service).digest if to is not None else None
        now_us = self._clock.now_us()
        with self._controller.transaction() as connection:
            self._store.database.lock(connection, f"rollouts of {service}")
            row = self._service_row(connection, service)
            before = str(row["stable"])
            done = self._store.rolled_back_with(connection, service, act.idempotency_key)
            if done is not None:
                return done, before, None
            active = next(iter(self._store.active(connection, service)), None)
            if active is not None:
                ended, events = lifecycle.end(active, State.ROLLED_BACK, reason, now_us, act.actor)
                self._store.save(connection, ended)
                self._store.log(connection, active.id, now_us, events, act.idempotency_key)
                serving, replaced = str(target or active.stable), str(active.candidate)
            else:
                serving, replaced = self._revert(connection, service, before, target, act, reason), before
            if serving != before:
                self._store.set_stable(connection, service, serving, now_us)
            return (active.id if active else None), serving, replaced if replaced != serving else None

    def _revert(self, connection: Connection, service: str, now: str, target: str | None, act: Act, reason: str) -> str:
        """What shall serve instead of `now`: `target`, or what served before. Logged with the rollout that promoted `now`, if one did."""
        past = self._store.listed(connection, service, False, LIST_MAX, None)
        promoted = next((rollout for rollout in past if rollout.state is State.PROMOTED and rollout.candidate == now), None)
        if promoted is not None:
            serving = target or promoted.stable
            event = Event("reverted", promoted.stage, act.actor, reason, {"serving": serving, "replaced": now})
            self._store.log(connection, promoted.id, self._clock.now_us(), [event], act.idempotency_key)
            return serving
        if target is not None:
            return target
        raise CohortError(
            "ROLLOUT_NOT_NEEDED",
            f"{service} has no rollout to end and no earlier stable release to go back to",
            hint=f"Name a release: `cohort rollback {service} --to VERSION`.",
        )

    def _find(self, connection: Connection, rollout: str) -> Rollout:
        found = self._store.get(connection, rollout) if rollout.startswith("ro_") else self._store.newest_of(connection, rollout)
        if found is None:
            raise CohortError("ROLLOUT_UNKNOWN", f"there is no rollout {rollout!r}", hint="See `cohort rollout list`.")
        return found

    def _service_row(self, connection: Connection, name: str) -> Mapping[str, Any]:
        row = self._store.service_row(connection, name)
        if row is None:
            known = ", ".join(sorted(self._store.stable_of(connection))) or "none yet"
            hint = f"Known services: {known}. A service begins with its first `cohort release create`."
            raise CohortError("SERVICE_UNKNOWN", f"there is no service {name!r}", field="service", hint=hint)
        return row

    def _versions(self, services: set[str]) -> dict[str, str]:
        """Digest -> version, without reading the releases: a damaged one must not hide the page that says so."""
        with self._store.database.read() as connection:
            return self._store.versions(connection, sorted(services))

    def _versions_or_none(self, service: str) -> dict[str, str]:
        try:
            return self._versions({service})
        except CohortError:  # the database is away: digests stand for themselves
            state = self._reconciler.state
            return {digest: short(digest) for digest in (state.services.values() if state else ())}

    def _agrees(self, service: str, stable: str) -> bool | None:
        state: GatewayState | None = self._reconciler.state
        return None if state is None or service not in state.services else state.services[service] == stable

    def _damage(self, rollout: Rollout) -> str | None:
        return self._damaged(rollout.candidate) or self._damaged(rollout.stable)


def _check_at(at_pct: float | None) -> None:
    if at_pct is not None and not 0 <= at_pct <= 100:
        raise CohortError("FIELD_INVALID", f"at {at_pct:g} is not a percentage", field="at_pct", hint="Use a share of the plan, 0 to 100.")


def _refuse_unrouted(candidate: Release) -> None:
    if candidate.kind == HTTP_KIND:
        raise CohortError(
            "ROLLOUT_UNROUTED",
            f"{candidate.service} {candidate.version} is of kind http, whose traffic this version does not route",
            field="kind",
            hint="Roll out services of kind model or agent; http services can be registered, not yet rolled out.",
        )


def _check_speed(speed: float) -> None:
    if not 0 < speed <= SPEED_MAX:
        raise CohortError(
            "FIELD_INVALID", f"speed {speed:g} is not between 0 and {SPEED_MAX:g}", field="speed", hint="Use 1, or more for a rehearsal."
        )
