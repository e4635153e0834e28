"""Takes what gateways report into the evidence of rollouts, in the order of assignment, behind a watermark.

A unit's assignment is reported when it happens and its call when it ends. A call is taken into the evidence only when every call that was
assigned before it has ended too: the order of evidence does not depend on which arm is faster (gates.md 6.11.4).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from sqlalchemy import Connection

from cohort.delivery.accounts import add_up
from cohort.delivery.evidence import Evidence, Key, in_evidence, key_of
from cohort.delivery.model import Rollout
from cohort.delivery.routing_store import RoutingStore
from cohort.delivery.store_sql import RolloutStore, call_row
from cohort.delivery.traces import Traces
from cohort.delivery.traffic import MINUTE_US, Minute, MinuteKey, RecentUnits
from cohort.gateway.contract import Arm, Batch, Call, Result, failed
from cohort.stats import Sketch

OPEN_S_MAX = 3900.0
"""No call may last longer than an hour; one still open after this ended without a record (a full disk), and counts as timed out."""
CURVE_POINTS = 240
BUCKET_S_MIN, BUCKET_S_MAX = 1.0, 3600.0

OpenKey = tuple[str, int, int, Arm]
BucketKey = tuple[int, str]


def bucket_us_of(rollout: Rollout) -> int:
    """Width of one point of the rollout's curves: its floors cut into so many, between a second and an hour."""
    planned_s = sum(stage.floor_s for stage in rollout.plan.stages) / rollout.speed
    return int(min(max(planned_s / CURVE_POINTS, BUCKET_S_MIN), BUCKET_S_MAX) * 1e6)


@dataclass(slots=True)
class Bucket:
    calls: int = 0
    failed: int = 0
    latency: Sketch = field(default_factory=Sketch)

    def add(self, call: Call) -> None:
        self.calls += 1
        self.failed += failed(call.result)
        if call.total_us is not None:
            self.latency.add(call.total_us)


class Live:
    """One rollout's evidence in memory, equal to what the database holds; dropped and read again after any failed transaction."""

    def __init__(self, rollout: Rollout, evidence: Evidence, position: Key | None) -> None:
        self.rollout_id = rollout.id
        self.plan = rollout.plan
        self.evidence = evidence
        self.position = position
        self.bucket_us = bucket_us_of(rollout)
        self.open: dict[OpenKey, Call] = {}
        self.waiting: dict[tuple[Key, str, str], Call] = {}
        self.buckets: dict[BucketKey, Bucket] = {}
        self._epochs: dict[str, int] = {}  # gateway -> its newest process that was heard of

    def receive(self, call: Call) -> dict[str, Any] | None:
        """One record; the row to store, or None when there is nothing to store yet.

        What is in no evidence (`in_evidence`) is stored all the same.
        """
        place: OpenKey = (call.gateway, call.epoch, call.seq, call.arm)
        late = self.position is not None and key_of(call) <= self.position
        if call.kind == "assigned":
            if not late and (key_of(call), "call", call.arm.value) not in self.waiting:
                self.open[place] = call
            return None
        self.open.pop(place, None)
        if (key_of(call), call.kind, call.arm.value) in self.waiting:
            return None
        if late:
            return call_row(call, late=True)
        if not in_evidence(call, self.plan):
            return call_row(call, apart=True)
        self.waiting[(key_of(call), call.kind, call.arm.value)] = call
        return call_row(call)

    def lose(self, gateway: str, epoch: int) -> Iterator[Call]:
        """Calls that were in flight when an earlier process of this gateway died: they ended as LOST."""
        if self._epochs.get(gateway) == epoch:
            return
        self._epochs[gateway] = epoch
        for place in [place for place in self.open if place[0] == gateway and place[1] < epoch]:
            yield dataclasses.replace(self.open[place], kind="call", result=Result.LOST)

    def overdue(self, now_us: int) -> Iterator[Call]:
        """Calls whose outcome is missing past any time limit: a missing outcome is an outcome (gates.md 6.11.4)."""
        for place in [place for place, call in self.open.items() if now_us - call.at_us > OPEN_S_MAX * 1e6]:
            yield dataclasses.replace(self.open[place], kind="call", result=Result.TIMEOUT)

    def ready(self, complete_us: int | None = None) -> list[list[Call]]:
        """What may be taken now: groups of one key, in order, none of which has an open call at or before it.

        `complete_us`: the moment up to which every worker's records are here; None where there is one worker, whose records come in order.
        """
        mark = min((key_of(call) for call in self.open.values()), default=None)
        keys = sorted(key for key in self.waiting if (mark is None or key[0] < mark) and (complete_us is None or key[0][0] < complete_us))
        calls = [self.waiting.pop(key) for key in keys]
        return [list(group) for _, group in groupby(calls, key_of)]

    def take(self, groups: Sequence[Sequence[Call]], units: dict[str, Any]) -> set[BucketKey]:
        """Into the evidence; the curve points that changed."""
        touched: set[BucketKey] = set()
        for group in groups:
            self.evidence.take(group, units)
            self.position = key_of(group[0])
            for call in group:
                if call.kind == "call":
                    place = (call.at_us // self.bucket_us * self.bucket_us, call.arm.value)
                    self.buckets.setdefault(place, Bucket()).add(call)
                    touched.add(place)
        return touched

    def forget_old_buckets(self) -> None:
        """Only the newest points can still change."""
        newest = max((place[0] for place in self.buckets), default=0)
        for place in [place for place in self.buckets if place[0] < newest - 10 * self.bucket_us]:
            del self.buckets[place]


class Intake:
    """Applies batches inside the caller's transaction. `lives` is a cache: call `forget` when the transaction failed."""

    def __init__(self, store: RolloutStore) -> None:
        self._store = store
        self._routing = RoutingStore(store.database)
        self._traces = Traces(store.database)
        self._lives: dict[str, Live] = {}
        self._traffic: dict[MinuteKey, Minute] = {}  # the newest minutes as stored
        self._touched: dict[MinuteKey, list[Call]] = {}
        self._recent = RecentUnits()
        self.orphaned = 0  # records of rollouts this database does not know
        self.late = 0  # records that came behind what was taken: stored, in no evidence

    def forget(self) -> None:
        self._lives.clear()
        self._traffic.clear()
        self._touched.clear()
        self._recent.forget()

    def live(self, connection: Connection, rollout: Rollout) -> Live:
        """The rollout's evidence, read from the database where it is not in memory."""
        if rollout.id not in self._lives:
            self._lives[rollout.id] = self._load(connection, rollout)
        return self._lives[rollout.id]

    def drop(self, rollout_id: str) -> None:
        self._lives.pop(rollout_id, None)

    def take(self, connection: Connection, batches: Sequence[Batch], now_us: int, complete_us: int | None = None) -> None:
        """Every record of the batches, whose cursors move in the same transaction. `complete_us`: see `Live.ready`."""
        records = [call for batch in batches for call in batch.records]
        by_rollout: dict[str, list[Call]] = {}
        for call in records:
            if call.kind == "call" and call.arm is not Arm.SHADOW:
                self._count(call)
            if call.rollout_id is not None:
                by_rollout.setdefault(call.rollout_id, []).append(call)
        self._store.put_traffic(connection, self._minutes(connection))
        add_up(self._store.database, connection, records)
        self._routing.take(connection, records)
        self._traces.put(connection, records, now_us)
        for rollout_id in {**by_rollout, **self._lives}:
            self._take_rollout(connection, rollout_id, by_rollout.get(rollout_id, []), batches, now_us, complete_us)

    def _take_rollout(
        self, connection: Connection, rollout_id: str, calls: Sequence[Call], batches: Sequence[Batch], now_us: int, complete_us: int | None
    ) -> None:
        rollout = self._store.get(connection, rollout_id)
        if rollout is None:
            self.orphaned += len(calls)
            return
        live = self.live(connection, rollout)
        before = set(live.open)
        rows = [row for row in self._received(live, calls, batches, now_us) if row is not None]
        self.late += sum(row["kind"] == "late" for row in rows)
        opened = [call_row(call) for place, call in live.open.items() if place not in before]
        self._store.put_calls(connection, [*opened, *rows])
        groups = live.ready(complete_us)
        if not groups:
            return
        units = self._store.units(connection, rollout_id, {group[0].unit for group in groups})
        touched = live.take(groups, units)
        self._store.put_units(connection, rollout_id, units)
        self._store.put_series(connection, [_series_row(rollout_id, place, live.buckets[place]) for place in sorted(touched)])
        self._store.save_evidence(connection, rollout_id, live.evidence.to_state(), live.position)
        live.forget_old_buckets()
        if rollout.summary.get("settled"):
            self.drop(rollout_id)

    def _received(self, live: Live, calls: Sequence[Call], batches: Sequence[Batch], now_us: int) -> Iterator[dict[str, Any] | None]:
        for call in calls:
            for lost in list(live.lose(call.gateway, call.epoch)):
                yield live.receive(lost)
            yield live.receive(call)
        for batch in batches:
            if batch.behind == 0:  # else what ended them may be in what is still to be read
                for gateway in (batch.gateway, *batch.formerly):
                    for lost in list(live.lose(gateway, batch.epoch)):
                        yield live.receive(lost)
        if all(batch.behind == 0 for batch in batches):
            for ended in list(live.overdue(now_us)):
                yield live.receive(ended)

    def _count(self, call: Call) -> None:
        self._touched.setdefault((call.service, call.release, call.at_us // MINUTE_US * MINUTE_US), []).append(call)

    def _minutes(self, connection: Connection) -> dict[MinuteKey, Minute]:
        """The minutes that the batch's calls fall into, with them added; control is their only writer, so they are read once."""
        changed: dict[MinuteKey, Minute] = {}
        for place, calls in self._touched.items():
            minute = self._traffic.get(place) or self._store.minute(connection, place) or Minute()
            for call in calls:
                minute.add(call, self._recent)
            changed[place] = minute
        self._touched.clear()
        newest = max((place[2] for place in changed), default=0)
        kept = {place: minute for place, minute in self._traffic.items() if place[2] > newest - 2 * MINUTE_US}
        self._traffic = kept | changed
        return changed

    def _load(self, connection: Connection, rollout: Rollout) -> Live:
        state, position = self._store.evidence(connection, rollout.id)
        live = Live(rollout, Evidence.from_state(rollout.plan, state, rollout.speed), position)
        for call in self._store.open_calls(connection, rollout.id):
            live.open[(call.gateway, call.epoch, call.seq, call.arm)] = call
        for call in self._store.calls_behind(connection, rollout.id, position):
            live.waiting[(key_of(call), call.kind, call.arm.value)] = call
        newest = self._store.series(connection, rollout.id)[-20:]
        for row in newest:
            bucket = Bucket(row["calls"], row["failed"], Sketch.from_state(row["latency"]))
            live.buckets[(row["bucket_us"], row["arm"])] = bucket
        return live


def _series_row(rollout_id: str, place: BucketKey, bucket: Bucket) -> dict[str, Any]:
    bucket_us, arm = place
    counts = {"calls": bucket.calls, "failed": bucket.failed, "latency": bucket.latency.to_state()}
    return {"rollout_id": rollout_id, "bucket_us": bucket_us, "arm": arm, **counts}
