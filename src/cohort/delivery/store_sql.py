"""Rollouts, their evidence log and the traffic in the database. Translates between rows and values; decides nothing.

Every method takes the connection of a transaction that the caller began.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Insert, Select, Table, and_, case, delete, func, insert, or_, select, tuple_, update

from cohort.base.errors import CohortError
from cohort.base.ids import ReleaseDigest, RolloutId
from cohort.delivery.evidence import Key, Seen, Unit
from cohort.delivery.lifecycle import Event
from cohort.delivery.model import Rollout, State, Transition
from cohort.delivery.plans import plan_from_json, plan_to_json
from cohort.delivery.traffic import Minute, MinuteKey
from cohort.gateway.contract import Arm, Call, Cursor, Result
from cohort.storage import schema as t
from cohort.storage.database import Database

IN_MAX = 500
"""Values in one IN list."""

_COLUMNS = [column for column in t.rollouts.c if column.name not in ("evidence", "position")]


class RolloutStore:
    def __init__(self, database: Database) -> None:
        self.database = database
        self._upserts: dict[str, Insert] = {}

    # --- rollouts ---

    def insert(self, connection: Connection, rollout: Rollout, evidence: Mapping[str, Any]) -> None:
        connection.execute(insert(t.rollouts).values(**_rollout_row(rollout), evidence=dict(evidence), position=None))

    def save(self, connection: Connection, rollout: Rollout) -> Rollout:
        """Write it over the revision it was read at.

        Raises:
            CohortError ROLLOUT_CHANGED: somebody else was faster; nothing was written.
        """
        following = dataclasses.replace(rollout, revision=rollout.revision + 1)
        where = and_(t.rollouts.c.id == rollout.id, t.rollouts.c.revision == rollout.revision)
        done = connection.execute(update(t.rollouts).where(where).values(**_rollout_row(following)))
        if done.rowcount != 1:
            raise changed(rollout.id)
        return following

    def get(self, connection: Connection, rollout_id: str) -> Rollout | None:
        row = next(iter(_dicts(connection, select(*_COLUMNS).where(t.rollouts.c.id == rollout_id))), None)
        return _rollout(row) if row else None

    def newest_of(self, connection: Connection, service: str) -> Rollout | None:
        query = select(*_COLUMNS).where(t.rollouts.c.service == service).order_by(t.rollouts.c.created_us.desc()).limit(1)
        row = next(iter(_dicts(connection, query)), None)
        return _rollout(row) if row else None

    def active(self, connection: Connection, service: str | None = None) -> list[Rollout]:
        query = select(*_COLUMNS).where(t.rollouts.c.ended_us.is_(None)).order_by(t.rollouts.c.created_us)
        if service is not None:
            query = query.where(t.rollouts.c.service == service)
        return [_rollout(row) for row in _dicts(connection, query)]

    def listed(self, connection: Connection, service: str | None, active: bool | None, limit: int, before_us: int | None) -> list[Rollout]:
        """Newest first."""
        query = select(*_COLUMNS).order_by(t.rollouts.c.created_us.desc()).limit(limit)
        if service is not None:
            query = query.where(t.rollouts.c.service == service)
        if active is not None:
            query = query.where(t.rollouts.c.ended_us.is_(None) if active else t.rollouts.c.ended_us.is_not(None))
        if before_us is not None:
            query = query.where(t.rollouts.c.created_us < before_us)
        return [_rollout(row) for row in _dicts(connection, query)]

    def unsettled(self, connection: Connection) -> list[Rollout]:
        """Ended rollouts whose last calls had not all come in yet; the newest few."""
        query = select(*_COLUMNS).where(t.rollouts.c.ended_us.is_not(None)).order_by(t.rollouts.c.ended_us.desc()).limit(20)
        found = [_rollout(row) for row in _dicts(connection, query)]
        return [rollout for rollout in found if "settled" not in rollout.summary]

    def set_summary(self, connection: Connection, rollout_id: str, summary: Mapping[str, Any]) -> None:
        connection.execute(update(t.rollouts).where(t.rollouts.c.id == rollout_id).values(summary=dict(summary)))

    # --- evidence ---

    def evidence(self, connection: Connection, rollout_id: str) -> tuple[dict[str, Any], Key | None]:
        row = connection.execute(select(t.rollouts.c.evidence, t.rollouts.c.position).where(t.rollouts.c.id == rollout_id)).one()
        place = row.position
        return row.evidence, (place[0], place[1], place[2], place[3]) if place else None

    def save_evidence(self, connection: Connection, rollout_id: str, state: Mapping[str, Any], position: Key | None) -> None:
        values = {"evidence": dict(state), "position": list(position) if position else None}
        connection.execute(update(t.rollouts).where(t.rollouts.c.id == rollout_id).values(**values))

    def put_calls(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
        """Insert or complete rows made by `call_row`; a row that has its result already stays as it is."""
        if not rows:
            return
        statement = self._upserts.get("calls")
        if statement is None:
            statement = self._upserts["calls"] = self._completing()
        connection.execute(statement, list(rows))

    def open_calls(self, connection: Connection, rollout_id: str) -> list[Call]:
        query = select(t.calls).where(t.calls.c.rollout_id == rollout_id, t.calls.c.result.is_(None))
        return [_call(row) for row in _dicts(connection, query)]

    def calls_behind(self, connection: Connection, rollout_id: str, position: Key | None, limit: int | None = None) -> list[Call]:
        """Completed calls after `position`, in the order of evidence; without those that a cache answered."""
        order = (t.calls.c.at_us, t.calls.c.gateway, t.calls.c.epoch, t.calls.c.seq)
        taken = (t.calls.c.result.is_not(None), t.calls.c.kind != "late", t.calls.c.cached.is_not(True))
        query = select(t.calls).where(t.calls.c.rollout_id == rollout_id, *taken)
        if position is not None:
            at_us, *rest = position
            later = or_(t.calls.c.at_us > at_us, and_(t.calls.c.at_us == at_us, tuple_(*order[1:]) > tuple_(*rest)))
            query = query.where(t.calls.c.at_us >= at_us, later)
        query = query.order_by(*order, t.calls.c.kind, t.calls.c.arm)
        return [_call(row) for row in _dicts(connection, query.limit(limit) if limit else query)]

    def candidate_figures(self, connection: Connection, rollout_id: str) -> dict[str, int]:
        """Units and calls of the rollout by arm, over its whole life; `failed_units` met at least one failure."""
        bad = t.calls.c.result.not_in([Result.OK.value, Result.CLIENT_GONE.value])
        per_unit = (
            select(
                t.calls.c.arm,
                t.calls.c.unit,
                func.count().label("calls"),
                func.max(_one_if(bad)).label("failed"),
                func.sum(_one_if(bad)).label("bad"),
            )
            .where(t.calls.c.rollout_id == rollout_id, t.calls.c.kind == "call", t.calls.c.result.is_not(None))
            .where(t.calls.c.cached.is_not(True))
            .group_by(t.calls.c.arm, t.calls.c.unit)
            .subquery()
        )
        query = select(
            per_unit.c.arm, func.count().label("units"), func.sum(per_unit.c.failed), func.sum(per_unit.c.calls), func.sum(per_unit.c.bad)
        ).group_by(per_unit.c.arm)
        figures: dict[str, int] = {}
        for arm, units, failed_units, calls, failed_calls in connection.execute(query):
            figures |= {
                f"{arm}_units": units,
                f"{arm}_units_failed": int(failed_units),
                f"{arm}_calls": int(calls),
                f"{arm}_calls_failed": int(failed_calls),
            }
        return figures

    def units(self, connection: Connection, rollout_id: str, names: Iterable[str]) -> dict[str, Unit]:
        found: dict[str, Unit] = {}
        wanted = list(names)
        for start in range(0, len(wanted), IN_MAX):
            query = select(t.units).where(t.units.c.rollout_id == rollout_id, t.units.c.unit.in_(wanted[start : start + IN_MAX]))
            for row in connection.execute(query):
                found[row.unit] = Unit(row.low, row.high, row.stage_run, Seen(row.seen))
        return found

    def put_units(self, connection: Connection, rollout_id: str, units: Mapping[str, Unit]) -> None:
        if not units:
            return
        rows = [
            {"rollout_id": rollout_id, "unit": name, "low": u.low, "high": u.high, "stage_run": u.stage_run, "seen": int(u.seen)}
            for name, u in units.items()
        ]
        connection.execute(self._replace(t.units), rows)

    # --- curves and traffic ---

    def put_series(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
        if rows:
            connection.execute(self._replace(t.series), list(rows))

    def series(self, connection: Connection, rollout_id: str) -> list[dict[str, Any]]:
        query = select(t.series).where(t.series.c.rollout_id == rollout_id).order_by(t.series.c.bucket_us)
        return _dicts(connection, query)

    def minute(self, connection: Connection, place: MinuteKey) -> Minute | None:
        """What a release of a service did in one minute."""
        service, release, minute_us = place
        where = and_(t.traffic.c.service == service, t.traffic.c.release == release, t.traffic.c.minute_us == minute_us)
        found = next(iter(_dicts(connection, select(t.traffic).where(where))), None)
        return Minute.from_row(found) if found else None

    def put_traffic(self, connection: Connection, minutes: Mapping[MinuteKey, Minute]) -> None:
        rows = [
            {"service": service, "release": release, "minute_us": minute_us, **minute.row()}
            for (service, release, minute_us), minute in minutes.items()
        ]
        if rows:
            connection.execute(self._replace(t.traffic), rows)

    def traffic(self, connection: Connection, service: str, since_us: int) -> list[dict[str, Any]]:
        query = select(t.traffic).where(t.traffic.c.service == service, t.traffic.c.minute_us >= since_us).order_by(t.traffic.c.minute_us)
        return _dicts(connection, query)

    def cost_usd_micro(self, connection: Connection, service: str, since_us: int) -> int | None:
        """What the service's calls cost; None where no call had a known cost."""
        where = and_(t.traffic.c.service == service, t.traffic.c.minute_us >= since_us)
        cost = connection.execute(select(func.sum(t.traffic.c.cost_usd_micro)).where(where)).scalar()
        return int(cost) if cost else None

    # --- the event log ---

    def log(self, connection: Connection, rollout_id: str, at_us: int, events: Sequence[Event], idempotency_key: str | None = None) -> None:
        """Append events; the key, if any, goes with the first. Raises ROLLOUT_CHANGED when another writer logged at the same place."""
        if not events:
            return
        query = select(func.coalesce(func.max(t.transitions.c.seq), 0)).where(t.transitions.c.rollout_id == rollout_id)
        last = connection.execute(query).scalar_one()
        rows = [
            {
                "rollout_id": rollout_id,
                "seq": last + index,
                "at_us": at_us,
                "kind": event.kind,
                "stage": event.stage,
                "actor": event.actor,
                "reason": event.reason,
                "detail": dict(event.detail),
                "idempotency_key": idempotency_key if index == 1 else None,
            }
            for index, event in enumerate(events, start=1)
        ]
        connection.execute(insert(t.transitions), rows)

    def events(self, connection: Connection, rollout_id: str) -> list[Transition]:
        query = select(t.transitions).where(t.transitions.c.rollout_id == rollout_id).order_by(t.transitions.c.seq)
        return [Transition(r.seq, r.at_us, r.kind, r.stage, r.actor, r.reason, r.detail) for r in connection.execute(query)]

    def key_used(self, connection: Connection, rollout_id: str, idempotency_key: str) -> bool:
        where = and_(t.transitions.c.rollout_id == rollout_id, t.transitions.c.idempotency_key == idempotency_key)
        return connection.execute(select(t.transitions.c.seq).where(where)).first() is not None

    def started_with(self, connection: Connection, idempotency_key: str) -> str | None:
        """The rollout that a `start` with this key made."""
        where = and_(t.transitions.c.kind == "started", t.transitions.c.idempotency_key == idempotency_key)
        return connection.execute(select(t.transitions.c.rollout_id).where(where)).scalar()

    # --- services, streams, facts ---

    def stable_of(self, connection: Connection) -> dict[str, str]:
        return {row.name: row.stable for row in connection.execute(select(t.services.c.name, t.services.c.stable))}

    def versions(self, connection: Connection, services: Sequence[str]) -> dict[str, str]:
        """Digest -> version of the releases of these services, newest first."""
        query = select(t.releases.c.digest, t.releases.c.version).where(t.releases.c.service.in_(services))
        return {
            row.digest: row.version
            for row in connection.execute(query.order_by(t.releases.c.created_us.desc(), t.releases.c.version.desc()))
        }

    def rolled_back_with(self, connection: Connection, service: str, idempotency_key: str | None) -> RolloutId | None:
        """The rollout of this service on which an act with this key was recorded."""
        if idempotency_key is None:
            return None
        query = select(t.rollouts.c.id).join(t.transitions, t.transitions.c.rollout_id == t.rollouts.c.id)
        query = query.where(t.rollouts.c.service == service, t.transitions.c.idempotency_key == idempotency_key)
        return connection.execute(query.limit(1)).scalar()

    def service_row(self, connection: Connection, name: str) -> Mapping[str, Any] | None:
        row = connection.execute(select(t.services).where(t.services.c.name == name)).mappings().first()
        return dict(row) if row else None

    def set_stable(self, connection: Connection, service: str, digest: str, now_us: int) -> None:
        """Point the service and its tag `stable` at a release, in one step."""
        values = {"stable": digest, "changed_us": now_us, "revision": t.services.c.revision + 1}
        connection.execute(update(t.services).where(t.services.c.name == service).values(**values))
        connection.execute(delete(t.tags).where(t.tags.c.service == service, t.tags.c.tag == "stable"))
        connection.execute(insert(t.tags).values(service=service, tag="stable", digest=digest, changed_us=now_us))

    def cursor(self, connection: Connection, gateway: str) -> Cursor:
        return self.known_cursor(connection, gateway) or Cursor()

    def known_cursor(self, connection: Connection, gateway: str) -> Cursor | None:
        """None: nothing of this gateway was taken yet."""
        row = connection.execute(select(t.streams).where(t.streams.c.gateway == gateway)).first()
        return Cursor(row.segment, row.offset) if row else None

    def set_cursor(self, connection: Connection, gateway: str, epoch: int, cursor: Cursor, now_us: int) -> None:
        row = {"gateway": gateway, "epoch": epoch, "segment": cursor.segment, "offset": cursor.offset, "taken_us": now_us}
        connection.execute(self._replace(t.streams), [row])

    def killed(self, connection: Connection) -> tuple[str, ...]:
        """The kill list of flags, sorted."""
        return tuple(connection.execute(select(t.flag_kills.c.flag).order_by(t.flag_kills.c.flag)).scalars())

    def fact(self, connection: Connection, name: str) -> Any:
        return connection.execute(select(t.facts.c.value).where(t.facts.c.name == name)).scalar()

    def set_fact(self, connection: Connection, name: str, value: Any) -> None:
        connection.execute(self._replace(t.facts), [{"name": name, "value": value}])

    def _replace(self, table: Table) -> Insert:
        """Insert or overwrite whole rows; built once per table, as building costs more than running."""
        if table.name not in self._upserts:
            statement = self.database.upsert(table)
            keys = [column.name for column in table.primary_key]
            given = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
            self._upserts[table.name] = statement.on_conflict_do_update(index_elements=keys, set_=given)
        return self._upserts[table.name]

    def _completing(self) -> Insert:
        """Insert calls, or complete those that are still open."""
        statement = self.database.upsert(t.calls)
        keys = [column.name for column in t.calls.primary_key]
        given = {column.name: statement.excluded[column.name] for column in t.calls.c if column.name not in keys}
        return statement.on_conflict_do_update(index_elements=keys, set_=given, where=t.calls.c.result.is_(None))


def changed(rollout_id: str) -> CohortError:
    return CohortError(
        "ROLLOUT_CHANGED",
        f"{rollout_id} changed while you were looking at it",
        hint=f"Look again with `cohort rollout show {rollout_id}`, then repeat.",
    )


def call_row(call: Call, *, late: bool = False, apart: bool = False) -> dict[str, Any]:
    """The row of a record; an `assigned` one has no result yet. `late`, and `apart` of what a cache answered: kept, but in no evidence."""
    opened = call.kind == "assigned"
    kind = "late" if late else "call" if opened else call.kind
    return {
        "rollout_id": call.rollout_id,
        "at_us": call.at_us,
        "gateway": call.gateway,
        "epoch": call.epoch,
        "seq": call.seq,
        "kind": kind,
        "arm": call.arm.value,
        "stage_run": call.stage_run,
        "share": call.share,
        "unit": call.unit,
        "result": None if opened else call.result.value,
        "status": call.status,
        "first_us": call.first_us,
        "total_us": call.total_us,
        "tokens_in": call.tokens_in,
        "tokens_out": call.tokens_out,
        "cost_usd_micro": call.cost_usd_micro,
        "score": call.score,
        "negative": call.negative,
        "cached": apart,
    }


def _call(row: Mapping[str, Any]) -> Call:
    body = {name: row[name] for name in row if name not in ("result", "arm", "kind", "cached")}
    kind = "assigned" if row["result"] is None else row["kind"]
    result = Result(row["result"]) if row["result"] is not None else Result.OK
    return Call(kind=kind, service="", release="", arm=Arm(row["arm"]), result=result, **body)


def _rollout_row(rollout: Rollout) -> dict[str, Any]:
    row = {field.name: getattr(rollout, field.name) for field in dataclasses.fields(rollout)}
    return {**row, "plan": plan_to_json(rollout.plan), "state": rollout.state.value, "summary": dict(rollout.summary)}


def _rollout(row: Mapping[str, Any]) -> Rollout:
    body = {column.name: row[column.name] for column in _COLUMNS}
    parsed = {
        "id": RolloutId(body["id"]),
        "stable": ReleaseDigest(body["stable"]),
        "candidate": ReleaseDigest(body["candidate"]),
        "plan": plan_from_json(body["plan"]),
        "state": State(body["state"]),
    }
    return Rollout(**{**body, **parsed})


def _dicts(connection: Connection, query: Select[Any]) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in connection.execute(query).mappings()]


def _one_if(condition: Any) -> Any:
    return case((condition, 1), else_=0)
