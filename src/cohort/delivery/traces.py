"""The newest calls as stored: found again after a restart, by what they were. Bounded in number and age.

Under load the calls that something happened to are stored first: those that failed, were tried again, or were answered by another route.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sqlalchemy import Connection, Select, and_, delete, false, or_, select

from cohort.delivery.model import Release
from cohort.gateway.contract import Call, Result, decode_call, encode_call, failed
from cohort.gateway.contract_trace import SpanIds, span_ids
from cohort.storage import schema as t
from cohort.storage.database import Database

STORED_MAX = 50_000
"""Calls stored; the oldest go first."""
STORED_US = 7 * 86_400_000_000
"""How long a call is stored."""
STORED_PER_BATCH_MAX = 200
"""Of one batch of records; more than some hundred a second are not for people to look through."""
RECORD_BYTES_MAX = 16 << 10
PRUNE_EVERY = 1_000
"""Calls stored between two looks at what is too much."""
PRUNE_US = 3_600_000_000
"""Or this long, where few calls come."""
PLACES_MAX = 64
"""Routes of releases that have one model; the newest."""

Place = tuple[str, str]
"""Digest of a release, and its route."""


class Releases(Protocol):
    """Whose releases there are, newest first."""

    def list(self, service: str | None = None) -> Sequence[Release]: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls to show; empty: any. `trouble`: only those that failed. `places`: of a model, see `places_of`; None: any."""

    service: str = ""
    key: str = ""
    route: str = ""
    cache: str = ""
    trouble: bool = False
    result: str = ""
    run: str = ""
    agent: str = ""
    unit: str = ""
    trace: str = ""
    degraded: bool = False
    places: frozenset[Place] | None = None

    def admits(self, call: Call) -> bool:
        plain = (
            *((self.service, call.service), (self.key, call.key), (self.route, call.route), (self.cache, call.cache)),
            *((self.result, call.result), (self.run, call.run), (self.agent, call.agent), (self.unit, call.unit)),
        )
        if not all(not wanted or wanted == found for wanted, found in plain) or (self.trouble and not failed(call.result)):
            return False
        if (self.degraded and not call.degraded) or (self.places is not None and (call.release, call.route) not in self.places):
            return False
        return not self.trace or self.trace == ids_of(call).trace_id


def places_of(releases: Releases, service: str, model: str) -> frozenset[Place]:
    """The routes that have a model: the newest `PLACES_MAX`."""
    found = [
        (str(release.digest), name)
        for release in releases.list(service or None)
        for name, route in release.manifest["routes"].items()
        if route.get("model") == model
    ]
    return frozenset(found[:PLACES_MAX])


def ids_of(call: Call) -> SpanIds:
    """Of its span."""
    return span_ids(call.gateway, call.epoch, call.seq, call.arm.value, call.parent)


class Traces:
    """Calls in the database."""

    def __init__(self, database: Database, stored_max: int = STORED_MAX, prune_every: int = PRUNE_EVERY) -> None:
        self._database = database
        self._stored_max = stored_max
        self._prune_every = prune_every
        self._since_pruned = prune_every
        self._pruned_us = 0

    def put(self, connection: Connection, records: Iterable[Call], now_us: int) -> None:
        """Calls among the records, inside the transaction that takes them."""
        rows = [_row(call) for call in chosen(call for call in records if call.kind == "call")]
        if rows:
            statement = self._database.upsert(t.traces)
            connection.execute(statement.on_conflict_do_nothing(index_elements=list(t.traces.primary_key)), rows)
            self._since_pruned += len(rows)
        if self._since_pruned >= self._prune_every or not 0 <= now_us - self._pruned_us < PRUNE_US:
            self._since_pruned, self._pruned_us = 0, now_us
            _prune(connection, now_us, self._stored_max)

    def newest(self, wanted: Wanted, limit: int) -> list[Call]:
        """Newest first."""
        query = select(t.traces.c.record).where(*_conditions(wanted)).order_by(t.traces.c.at_us.desc(), t.traces.c.seq.desc())
        return self._calls(query.limit(limit))

    def find(self, gateway: str, epoch: int, seq: int) -> list[Call]:
        """One call and its shadow copy, where they are."""
        c = t.traces.c
        return self._calls(select(c.record).where(c.gateway == gateway, c.epoch == epoch, c.seq == seq))

    def _calls(self, query: Select[Any]) -> list[Call]:
        with self._database.read() as connection:
            return [decode_call(record.encode()) for record in connection.execute(query).scalars()]


def chosen(calls: Iterable[Call]) -> list[Call]:
    """Those of a batch that are stored."""
    found = list(calls)
    if len(found) <= STORED_PER_BATCH_MAX:
        return found
    return sorted(found, key=_ordinary)[:STORED_PER_BATCH_MAX]


def _ordinary(call: Call) -> bool:
    """Nothing happened to it."""
    return call.result is Result.OK and not (call.degraded or call.tries or call.parent)


def _row(call: Call) -> dict[str, Any]:
    record = encode_call(call)
    if len(record) > RECORD_BYTES_MAX:
        record = encode_call(replace(call, tries=(), steps=(), budgets=()))
    names = ("gateway", "epoch", "seq", "at_us", "service", "release", "route", "cache", "degraded", "run", "agent", "unit")
    own: Mapping[str, Any] = {name: getattr(call, name) for name in names}
    plain = {"arm": call.arm.value, "client_key": call.key, "result": call.result.value, "trace_id": ids_of(call).trace_id}
    return {**own, **plain, "record": record.decode()}


def _conditions(wanted: Wanted) -> list[Any]:
    c = t.traces.c
    plain = (
        *((c.service, wanted.service), (c.client_key, wanted.key), (c.route, wanted.route), (c.cache, wanted.cache)),
        *((c.result, wanted.result), (c.run, wanted.run), (c.agent, wanted.agent), (c.unit, wanted.unit), (c.trace_id, wanted.trace)),
    )
    found: list[Any] = [column == value for column, value in plain if value]
    if wanted.trouble:
        found.append(c.result.in_([result.value for result in Result if failed(result)]))
    if wanted.degraded:
        found.append(c.degraded)
    if wanted.places is not None:
        found.append(or_(false(), *(and_(c.release == release, c.route == route) for release, route in sorted(wanted.places))))
    return found


def _prune(connection: Connection, now_us: int, stored_max: int) -> None:
    at_us = t.traces.c.at_us
    connection.execute(delete(t.traces).where(at_us < now_us - STORED_US))
    oldest = connection.execute(select(at_us).order_by(at_us.desc()).offset(stored_max).limit(1)).scalar()
    if oldest is not None:
        connection.execute(delete(t.traces).where(at_us <= oldest))
