"""Routed calls and wanted shares in the database. Every method takes the connection of a transaction that the caller began."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select, update

from cohort.delivery.routing_rules import Sample
from cohort.delivery.routing_views import Target
from cohort.gateway.contract import Arm, Call, failed
from cohort.storage import schema as t
from cohort.storage.database import Database

SAMPLES_PER_BATCH_MAX = 100
"""Of one batch of outcomes; with more, those whose pseudonym, a hash, is lowest: that says nothing about how they went."""
SAMPLES_KEPT_MAX = 20_000
"""Of a service; older ones are deleted."""
TRIM_EVERY = 1_000
JUDGED_US = 24 * 3_600_000_000
"""How long after a call feedback still changes how it went."""


class RoutingStore:
    """`database` is needed for its dialect only."""

    def __init__(self, database: Database, kept_max: int = SAMPLES_KEPT_MAX, trim_every: int = TRIM_EVERY) -> None:
        self._database = database
        self._kept_max = kept_max
        self._trim_every = trim_every
        self._put_since_trim: dict[str, int] = {}

    def take(self, connection: Connection, calls: Sequence[Call]) -> None:
        """What a batch of outcomes says of routed calls. Taking one again changes nothing."""
        routed = [call for call in calls if call.kind == "call" and call.difficulty is not None and call.arm is not Arm.SHADOW]
        if len(routed) > SAMPLES_PER_BATCH_MAX:
            routed = sorted(routed, key=lambda call: call.unit)[:SAMPLES_PER_BATCH_MAX]
        if routed:
            statement = self._database.upsert(t.routing_samples).on_conflict_do_nothing()
            connection.execute(statement, [_row(call) for call in routed])
        for call in calls:
            if call.kind == "feedback" and (call.negative or (call.score is not None and call.score < 0.5)):
                self._judge(connection, call)
        self._trim(connection, routed)

    def samples(self, connection: Connection, service: str, release: str, since_us: int = 0) -> list[Sample]:
        """Of one release, oldest first."""
        s = t.routing_samples
        query = select(s).where(s.c.service == service, s.c.release == release, s.c.at_us > since_us).order_by(s.c.at_us, s.c.seq)
        return [_sample(row) for row in connection.execute(query).mappings()]

    def targets(self, connection: Connection) -> dict[tuple[str, str], Target]:
        """The newest of every service and release."""
        query = select(t.routing_targets).order_by(t.routing_targets.c.changed_us)
        return {(row.service, row.release): _target(row) for row in connection.execute(query)}

    def history(self, connection: Connection, service: str, limit: int) -> list[Target]:
        """How the wanted share of a service was moved, newest first."""
        moved = t.routing_targets
        query = select(moved).where(moved.c.service == service).order_by(moved.c.changed_us.desc()).limit(limit)
        return [_target(row) for row in connection.execute(query)]

    def aim(self, connection: Connection, service: str, target: Target) -> None:
        row = {"service": service, "release": target.release, "changed_us": target.changed_us}
        connection.execute(insert(t.routing_targets).values(**row, strong_share=target.strong_share, reason=target.reason))

    def _judge(self, connection: Connection, feedback: Call) -> None:
        s = t.routing_samples
        where = and_(s.c.service == feedback.service, s.c.unit == feedback.unit, s.c.at_us > feedback.at_us - JUDGED_US)
        connection.execute(update(s).where(where, s.c.at_us <= feedback.at_us).values(failed=True))

    def _trim(self, connection: Connection, put: Sequence[Call]) -> None:
        for service in {call.service for call in put}:
            count = self._put_since_trim.get(service, self._trim_every) + sum(call.service == service for call in put)
            if count >= self._trim_every:
                s = t.routing_samples
                newest = select(s.c.at_us).where(s.c.service == service).order_by(s.c.at_us.desc()).offset(self._kept_max).limit(1)
                oldest_us = connection.execute(newest).scalar()
                if oldest_us is not None:
                    connection.execute(delete(s).where(s.c.service == service, s.c.at_us <= oldest_us))
                count = 0
            self._put_since_trim[service] = count


def _row(call: Call) -> dict[str, Any]:
    return {
        "gateway": call.gateway,
        "epoch": call.epoch,
        "seq": call.seq,
        "service": call.service,
        "release": call.release,
        "unit": call.unit,
        "at_us": call.at_us,
        "bucket": call.bucket,
        "strong": call.strong,
        "difficulty": call.difficulty,
        "boundary": call.boundary,
        "features": call.features,
        "failed": failed(call.result),
        "cost_usd_micro": call.cost_usd_micro,
    }


def _sample(row: Any) -> Sample:
    return Sample(**{name: row[name] for name in Sample.__dataclass_fields__})


def _target(row: Any) -> Target:
    return Target(row.release, row.strong_share, row.changed_us, row.reason)
