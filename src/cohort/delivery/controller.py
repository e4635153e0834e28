"""The loop that moves rollouts: take outcomes, decide, make it durable, make it happen, look whether it did."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.delivery import lifecycle
from cohort.delivery.accounts import Recent
from cohort.delivery.intake import Intake
from cohort.delivery.left_spools import LeftSpools
from cohort.delivery.lifecycle import Event
from cohort.delivery.model import Rollout, State
from cohort.delivery.ports import DataPlane
from cohort.delivery.reconciler import Reconciler
from cohort.delivery.replay import verdict_detail
from cohort.delivery.rules import Step, decide, findings_of
from cohort.delivery.store_sql import RolloutStore
from cohort.delivery.taps import Tap
from cohort.gateway.contract import Batch, Cursor, GatewayState

PULL_WAIT_MS = 100
TICK_EVERY_S = 0.1
"""A round costs some milliseconds however little came in; unless records wait, rounds begin no closer than this."""
PAUSE_AFTER_FAILURE_S = 0.25
RECONCILE_EVERY_S = 0.5
OBSERVE_EVERY_S = 2.0
SETTLE_LIMIT_S = 900.0
"""After this long without the last calls of an ended rollout its figures are final anyway."""

log = logging.getLogger("cohort.delivery")


class Controller:
    """One gateway's outcomes, all rollouts. `damaged` names a damaged object of a release (digest given), or None.

    `on_change` is told after every tick that changed something shown. `others`: further workers of the gateway; `left`: what workers
    that are no more left.
    """

    def __init__(
        self,
        store: RolloutStore,
        plane: DataPlane,
        reconciler: Reconciler,
        clock: Clock,
        damaged: Callable[[str], str | None],
        on_change: Callable[[], None],
        others: Sequence[DataPlane] = (),
        left: LeftSpools | None = None,
    ) -> None:
        self._store = store
        self._planes = (plane, *others)
        self._taps = [Tap(each) for each in self._planes]
        self.left = left or LeftSpools(())
        self._heard = self._taps  # whose records evidence waits for
        self._reconciler = reconciler
        self._clock = clock
        self._damaged = damaged
        self._on_change = on_change
        self._intake = Intake(store)
        self.recent = Recent()
        self._observed_s = self._reconciled_s = -math.inf
        self._moved = True  # something that is served may have changed since the last reconciliation
        self._unsettled = True  # there may be ended rollouts whose figures are not final
        self._mutex = threading.Lock()
        self._remembered: list[tuple[str, str, str]] = []
        self.ticked_us: int | None = None
        self.records_taken = 0
        self.newest_us: int | None = None  # when the newest record taken was assigned
        self.behind_bytes = 0  # records that wait in the gateway's spool
        self.damages = 0  # places of the spool that could not be read, as far as they were passed over since this process began
        self._said_passed_over = (0, 0)
        self.damage: str | None = None  # the newest of them, in the gateway's words
        self.trouble: str | None = None  # what the last tick could not do: its code and, of a foreseen error, the words

    def run(self, stop: threading.Event) -> None:
        """Tick until told to stop. A failing tick is logged once per kind of trouble and tried again."""
        while not stop.is_set():
            begun_s = self._clock.monotonic_s()
            try:
                more = self.tick()
                self._recovered()
                if not more:
                    stop.wait(max(begun_s + TICK_EVERY_S - self._clock.monotonic_s(), 0.0))
            except CohortError as error:
                self._failed(error.code, error)
                stop.wait(PAUSE_AFTER_FAILURE_S)
            except Exception as error:
                self._failed(type(error).__name__, error)
                stop.wait(PAUSE_AFTER_FAILURE_S)

    def tick(self, wait_ms: int = PULL_WAIT_MS) -> bool:
        """One round; True when more records can be had now. Raises what its parts raise: nothing is half done, the next tick goes on from what is stored."""
        pulled = self._pull(wait_ms)
        changed = self._commit(pulled)
        for _, batch in pulled:
            self.recent.take(batch.records)
        changed = self._reconcile() or changed
        for tap, _ in pulled:
            tap.acknowledge()
        changed = self.verify_ended() or changed
        self.ticked_us = self._clock.now_us()
        if changed:
            self._on_change()
        return self.behind_bytes > 0 and any(batch.records for _, batch in pulled)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that moves rollouts; alone in this process, and what is in memory is dropped when it fails."""
        with self._alone() as connection:
            yield connection
        self._moved = self._unsettled = True

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        with self._mutex:
            try:
                with self._store.database.write() as connection:
                    self._record_remembered(connection)
                    yield connection
            except BaseException:
                self._intake.forget()
                self.left.unheard()
                raise
            if self._remembered:
                self._reconciler.recorded({service for service, _, _ in self._remembered})
                self._remembered.clear()
                self._moved = self._unsettled = True

    def decide_now(self, connection: Connection, rollout: Rollout, actor: str, key: str | None = None) -> Rollout:
        """Decide one rollout inside `transaction`: the verb of a person takes effect by the same rules as the loop."""
        live = self._intake.live(connection, rollout)
        now_us = self._clock.now_us()
        findings = findings_of(rollout, live.evidence, self._damaged_of(rollout))
        decision = decide(rollout, findings, live.evidence.split_problem, now_us)
        if decision.step is Step.WAIT:
            return rollout
        detail = verdict_detail(live.evidence, live.position)
        moved, events = lifecycle.follow(rollout, decision, now_us, actor, detail)
        saved = self._store.save(connection, moved)
        self._store.log(connection, rollout.id, now_us, events, key)
        self._moved = self._unsettled = True
        if saved.state is State.PROMOTED:
            self._store.set_stable(connection, saved.service, saved.candidate, now_us)
        return saved

    def make_it_so(self) -> GatewayState:
        """After a person's verb: push and verify now instead of at the next tick.

        Raises:
            CohortError DATA_PLANE_UNAVAILABLE: what was asked is durable and will be pushed as soon as the gateway answers.
        """
        state = self._reconciler.reconcile()
        self.verify_ended()
        self._on_change()
        return state

    def push_soon(self) -> None:
        """What gateways are told changed, and is stored: push now if the gateway answers, else the loop does as soon as it does."""
        try:
            self.make_it_so()
        except CohortError as error:
            if error.retry is not Retry.SAFE and error.code != "DATA_PLANE_UNAVAILABLE":
                raise
            self._on_change()

    def tell_soon(self) -> None:
        """The same for what is done either way: what cannot be pushed now is said by the loop, which tries again."""
        self._moved = True
        try:
            self.push_soon()
        except CohortError as error:
            log.warning("gateways are not told yet: %s", error.message)

    def remember(self, service: str, actor: str, reason: str) -> None:
        """A rollback that was made without the database; recorded in the next transaction that works."""
        with self._mutex:
            self._remembered.append((service, actor, reason))

    # --- parts of a tick ---

    def _pull(self, wait_ms: int) -> list[tuple[Tap, Batch]]:
        """What each worker has; one that does not answer is passed over as long as another does."""
        if any(tap.gateway is None or tap.cursor is None for tap in self._taps):
            self._adopt(self._reconciler.observe())
            self._reconciler.lead()
        pulled: list[tuple[Tap, Batch]] = []
        failure: CohortError | None = None
        for tap, plane in zip(self._taps, self._planes, strict=True):
            try:
                if tap.gateway is None:
                    tap.gateway = plane.state().gateway
                pulled.append((tap, self._pull_one(tap, wait_ms if tap is self._taps[-1] else 0)))
            except CohortError as error:
                failure = error
        if failure is not None and not pulled:
            raise failure
        for tap, batch in pulled:
            if batch.epoch != tap.epoch:
                tap.epoch = batch.epoch
                self._reconciler.recheck()  # another process of the gateway: it may have an older table
        left = self._pull_left()
        self._heard = [*self._taps, *(tap for tap, _ in left)]
        self.behind_bytes = sum(batch.behind for _, batch in [*left, *pulled])
        return [*left, *pulled]

    def _pull_left(self) -> list[tuple[Tap, Batch]]:
        """What workers that are no more left. A spool that cannot be read holds nothing up: it is said."""
        pulled: list[tuple[Tap, Batch]] = []
        for spool, tap in self.left.taps(tap.gateway for tap in self._taps if tap.gateway is not None):
            try:
                pulled.append((tap, self._pull_one(tap, 0)))
            except CohortError:
                if spool.trouble is None:
                    raise
        return pulled

    def _pull_one(self, tap: Tap, wait_ms: int) -> Batch:
        if tap.cursor is None:
            tap.cursor = self._position(tap)
        return tap.pull(wait_ms, self._clock.now_us())

    def _position(self, tap: Tap) -> Cursor:
        """How far a spool was taken, under its name or one that it had before: a name that comes back finds what another has taken since."""
        gateway = str(tap.gateway)
        names = (gateway, *tap.former_names())
        with self._store.database.read() as connection:
            known = {name: cursor for name in names if (cursor := self._store.known_cursor(connection, name)) is not None}
        furthest = max(known.values(), key=lambda cursor: (cursor.segment, cursor.offset), default=None)
        if furthest is None:
            return Cursor()
        if known.get(gateway) != furthest:
            with self._store.database.write() as connection:
                self._store.set_cursor(connection, gateway, 0, furthest, self._clock.now_us())
        return furthest

    def _commit(self, pulled: Sequence[tuple[Tap, Batch]]) -> bool:
        asked_from = [tap.cursor for tap, _ in pulled]
        for tap, _ in pulled:
            tap.cursor = None  # until it is certain that the commit happened, the database knows
        with self._alone() as connection:
            self._take(connection, [batch for _, batch in pulled], asked_from)
            for rollout in self._store.active(connection):
                self.decide_now(connection, rollout, lifecycle.CONTROL)
            settled = self._unsettled and self._settle_ended(connection)
        for tap, batch in pulled:
            tap.cursor = batch.next
            self._say_damaged(batch)
        self.left.heard()
        self._say_passed_over()
        records = [call for _, batch in pulled for call in batch.records]
        if records:
            self.records_taken += len(records)
            self.newest_us = records[-1].at_us
        return bool(settled or records)

    def _say_damaged(self, batch: Batch) -> None:
        for damage in batch.damaged:
            log.error("outcomes could not be read: %s", damage)
            self.damages, self.damage = self.damages + 1, damage

    @property
    def passed_over(self) -> tuple[int, int]:
        """Records in no evidence since this process began: of rollouts the database does not know, and those that came too late."""
        return self._intake.orphaned, self._intake.late

    def _say_passed_over(self) -> None:
        if self.passed_over != self._said_passed_over:
            log.warning("records in no evidence so far: %d of unknown rollouts, %d too late", *self.passed_over)
            self._said_passed_over = self.passed_over

    def _take(self, connection: Connection, batches: Sequence[Batch], asked_from: Sequence[Cursor | None]) -> None:
        stored = [self._store.cursor(connection, batch.gateway) for batch in batches]
        if list(asked_from) != stored:
            raise CohortError(
                "DATABASE_UNAVAILABLE",
                "another control process has taken outcomes of this gateway",
                hint="Run one control process per gateway.",
            )
        complete_us = min(tap.complete_us for tap in self._heard) if len(self._heard) > 1 else None
        self._intake.take(connection, batches, self._clock.now_us(), complete_us)
        for batch, cursor in zip(batches, stored, strict=True):
            if batch.next != cursor:
                self._store.set_cursor(connection, batch.gateway, batch.epoch, batch.next, self._clock.now_us())

    def _reconcile(self) -> bool:
        """Push what has changed; True when the gateway took a new table."""
        now_s = self._clock.monotonic_s()
        if now_s - self._observed_s > OBSERVE_EVERY_S:
            self._reconciler.observe()
            self._observed_s = now_s
        if not self._moved and now_s - self._reconciled_s < RECONCILE_EVERY_S:
            return False
        self._moved, pushed_us = False, self._reconciler.pushed_us
        try:
            self._reconciler.reconcile()
        except BaseException:
            self._moved = True
            raise
        self._reconciled_s = now_s
        return self._reconciler.pushed_us != pushed_us

    def verify_ended(self) -> bool:
        """Ask the data plane whether ended rollouts really ended there, and record what it said."""
        if not self._unsettled:
            return False
        self._unsettled = False  # before looking: a rollout that ends meanwhile sets it again
        try:
            with self._store.database.read() as connection:
                unsettled = self._store.unsettled(connection)
            ended = [rollout for rollout in unsettled if not rollout.summary.get("verified")]
            if ended:
                state = self._reconciler.observe()
                with self._alone() as connection:
                    for rollout in ended:
                        self._verify(connection, rollout.id, state)
        except BaseException:
            self._unsettled = True
            raise
        self._unsettled = self._unsettled or bool(unsettled)
        return bool(ended)

    def _verify(self, connection: Connection, rollout_id: str, state: GatewayState) -> None:
        rollout = self._store.get(connection, rollout_id)
        if rollout is None or rollout.ended_us is None or rollout.summary.get("verified"):
            return
        figures = _verification(rollout, rollout.ended_us, state, self._reconciler.pushed_us)
        self._store.set_summary(connection, rollout.id, {**rollout.summary, **figures})
        text = "the data plane serves it" if figures["verified"] else "the data plane does not serve it yet"
        kind = "verified" if figures["verified"] else "unverified"
        if figures["verified"] or "verified" not in rollout.summary:
            self._store.log(connection, rollout.id, self._clock.now_us(), [Event(kind, rollout.stage, lifecycle.CONTROL, text, figures)])

    def _settle_ended(self, connection: Connection) -> bool:
        """Final figures of ended rollouts whose last calls have come in."""
        settled = False
        for rollout in self._store.unsettled(connection):
            if rollout.ended_us is None or not rollout.summary.get("verified"):
                continue
            waited_s = (self._clock.now_us() - rollout.ended_us) / 1e6
            if self._store.open_calls(connection, rollout.id) and waited_s < SETTLE_LIMIT_S:
                continue
            figures = self._store.candidate_figures(connection, rollout.id)
            self._store.set_summary(connection, rollout.id, {**rollout.summary, **figures, "settled": True})
            event = Event("settled", rollout.stage, lifecycle.CONTROL, _settled_text(figures), figures)
            self._store.log(connection, rollout.id, self._clock.now_us(), [event])
            self._intake.drop(rollout.id)
            settled = True
        return settled

    def _adopt(self, state: GatewayState) -> None:
        """The gateway is ahead of the database: what it was taken off while the database was away stays off."""
        if not self._reconciler.moved_ahead():
            return
        with self.transaction() as connection:
            for rollout in self._store.active(connection):
                stage = rollout.present
                if rollout.id in state.splits.values() or not (stage.traffic_pct or stage.shadow_pct):
                    continue
                reason = "rolled back at the data plane while the database was away"
                ended, events = lifecycle.end(rollout, State.ROLLED_BACK, reason, self._clock.now_us(), lifecycle.CONTROL)
                self._store.save(connection, ended)
                self._store.log(connection, rollout.id, self._clock.now_us(), events)

    def _record_remembered(self, connection: Connection) -> None:
        for service, actor, reason in self._remembered:
            for rollout in self._store.active(connection, service):
                ended, events = lifecycle.end(rollout, State.ROLLED_BACK, reason, self._clock.now_us(), actor)
                self._store.save(connection, ended)
                self._store.log(connection, rollout.id, self._clock.now_us(), events)

    def _damaged_of(self, rollout: Rollout) -> str | None:
        return self._damaged(rollout.candidate) or self._damaged(rollout.stable)

    def _failed(self, kind: str, error: Exception) -> None:
        if self.trouble is None or not self.trouble.startswith(kind):
            log.error("control cannot go on for now (%s): %s", kind, error, exc_info=not isinstance(error, CohortError))
        self.trouble = f"{kind}: {error.message}" if isinstance(error, CohortError) else kind

    def _recovered(self) -> None:
        if self.trouble is not None:
            log.info("control goes on (after %s)", self.trouble)
        self.trouble = None


def _verification(rollout: Rollout, verdict_us: int, state: GatewayState, pushed_us: int | None) -> dict[str, Any]:
    """What the data plane says of an ended rollout. `verdict_to_last_candidate_ms`: how long units still got the candidate; 0 when none did."""
    promoted = rollout.state is State.PROMOTED
    serving = rollout.candidate if promoted else rollout.stable
    last_us = state.last_candidate_us.get(rollout.id)
    return {
        "verified": state.services.get(rollout.service) == serving and state.splits.get(rollout.service) != rollout.id,
        "verdict_us": verdict_us,
        "traffic_moved_ms": round((pushed_us - verdict_us) / 1000, 3) if pushed_us is not None else None,
        "verdict_to_last_candidate_ms": None if promoted or last_us is None else max(round((last_us - verdict_us) / 1000, 3), 0.0),
        "serving": serving,
    }


def _settled_text(figures: dict[str, int]) -> str:
    failed, units = figures.get("candidate_units_failed", 0), figures.get("candidate_units", 0)
    return f"{failed} of {units} units of the candidate met a failure"
