"""What calls cost, by hour, service, release, route and client's key; and the newest calls themselves.

Costs are added up in the transaction that takes the records, so each call counts once. The newest calls are in memory, for looking at what
happens now; see `traces.py` for those stored.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Insert, func, select

from cohort.base.errors import CohortError
from cohort.delivery.contents import Content, Contents
from cohort.delivery.traces import Traces, Wanted
from cohort.gateway.contract import Arm, Call, Result, failed
from cohort.storage import schema as t
from cohort.storage.database import Database

HOUR_US = 3_600_000_000
RECENT_MAX = 2_000
"""Calls remembered for looking at."""
GROUPS_MAX = 1_000
SHADOW_KEY = "shadow"
"""Stands for the client's key where the call was a copy for a candidate."""

Place = tuple[int, str, str, str, str]
_COUNTS = ("calls", "failed", "unpriced", "tokens_in", "tokens_out", "cost_usd_micro")


@dataclass(frozen=True, slots=True)
class Cost:
    """Calls of one service, release, route and client's key. `unpriced`: those whose cost is not known; they are not in the sum."""

    service: str
    release: str
    route: str
    client_key: str
    calls: int
    failed: int
    unpriced: int
    tokens_in: int
    tokens_out: int
    cost_usd_micro: int


@dataclass(frozen=True, slots=True)
class Balance:
    """A budget as the gateway has it: limit, spent (of a day: today) and held by calls under way, millionths of a dollar."""

    scope: str
    name: str
    limit: int
    spent: int
    held: int


class Recent:
    """The newest calls, newest first. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: deque[Call] = deque(maxlen=RECENT_MAX)
        self.taken = 0
        self.told: Callable[[Sequence[Call]], object] | None = None  # who else wants them; must not block

    def take(self, records: Iterable[Call]) -> None:
        calls = [call for call in records if call.kind == "call"]
        with self._lock:
            self._calls.extend(calls)
            self.taken += len(calls)
        if self.told is not None and calls:
            self.told(calls)

    def after(self, taken: int) -> tuple[list[Call], int]:
        """The calls that came since so many had been taken, oldest first, and how many there are now; the oldest are missing where they are too many."""
        with self._lock:
            new = min(max(self.taken - taken, 0), len(self._calls))
            return list(islice(self._calls, len(self._calls) - new, None)), self.taken

    def newest(self, wanted: Wanted, limit: int) -> list[Call]:
        with self._lock:
            calls = list(self._calls)
        found = (call for call in reversed(calls) if wanted.admits(call))
        return [call for call, _ in zip(found, range(limit), strict=False)]

    def find(self, gateway: str, epoch: int, seq: int) -> list[Call]:
        """One call and its shadow copy, where it has one."""
        with self._lock:
            return [call for call in self._calls if (call.gateway, call.epoch, call.seq) == (gateway, epoch, seq)]


class Accounts:
    """Costs, balances and the newest calls, as surfaces ask for them. `balances_of` asks the gateway."""

    def __init__(
        self, database: Database, recent: Recent, balances_of: Callable[[], Sequence[Balance]], contents: Contents | None = None
    ) -> None:
        self._contents = contents or Contents((), lambda _body: None)
        self._database = database
        self._balances_of = balances_of
        self._traces = Traces(database)
        self.recent = recent

    def costs(self, since_us: int) -> list[Cost]:
        """Since the hour of `since_us`, dearest first; at most `GROUPS_MAX`."""
        c = t.spending.c
        group = (c.service, c.release, c.route, c.client_key)
        sums = [func.sum(c[name]).label(name) for name in _COUNTS]
        query = select(*group, *sums).where(c.hour_us >= since_us // HOUR_US * HOUR_US).group_by(*group)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(func.sum(c.cost_usd_micro).desc(), *group).limit(GROUPS_MAX)).mappings().all()
        return [Cost(**{**row, **{name: int(row[name]) for name in _COUNTS}}) for row in rows]

    def balances(self) -> Sequence[Balance] | None:
        """What budgets have left; None when the gateway does not answer."""
        try:
            return self._balances_of()
        except CohortError as error:
            if error.code != "DATA_PLANE_UNAVAILABLE":
                raise
            return None

    def newest(self, wanted: Wanted, limit: int) -> list[Call]:
        """Newest first: those in memory, and where they are not enough those stored."""
        found = self.recent.newest(wanted, limit)
        if len(found) >= limit:
            return found
        known = {_identity(call): call for call in (*self._traces.newest(wanted, limit), *found)}
        return sorted(known.values(), key=lambda call: (call.at_us, call.seq), reverse=True)[:limit]

    def call(self, gateway: str, epoch: int, seq: int) -> list[Call]:
        """A call and its shadow copy; raises NOT_FOUND when it is not among those kept."""
        found = self.recent.find(gateway, epoch, seq) or self._traces.find(gateway, epoch, seq)
        if not found:
            hint = "The newest calls are kept, for a week at most; under load not every one."
            raise CohortError("NOT_FOUND", f"the call {gateway}/{epoch}/{seq} is not among those kept", hint=hint)
        return sorted(found, key=lambda call: call.arm is Arm.SHADOW)

    def content(self, gateway: str, epoch: int, seq: int, actor: str) -> Content:
        """What a call asked and was answered, where it was drawn. Errors: NOT_FOUND, AUDIT_UNAVAILABLE, DATA_PLANE_UNAVAILABLE."""
        return self._contents.read(self.call(gateway, epoch, seq)[0], actor)


def _identity(call: Call) -> tuple[str, int, int, str]:
    return call.gateway, call.epoch, call.seq, call.arm.value


def add_up(database: Database, connection: Connection, records: Iterable[Call]) -> None:
    """Add calls to what was spent, inside the transaction that takes them."""
    sums: dict[Place, dict[str, int]] = {}
    for call in records:
        if call.kind == "call":
            _add(sums, call)
    if sums:
        connection.execute(_adding(database), [{**_place(place), **counts} for place, counts in sorted(sums.items())])


def _add(sums: dict[Place, dict[str, int]], call: Call) -> None:
    key = SHADOW_KEY if call.arm is Arm.SHADOW else call.key
    counts = sums.setdefault((call.at_us // HOUR_US * HOUR_US, call.service, call.release, call.route, key), dict.fromkeys(_COUNTS, 0))
    counts["calls"] += 1
    counts["failed"] += failed(call.result)
    counts["unpriced"] += call.cost_usd_micro is None and call.result is Result.OK
    for name in ("tokens_in", "tokens_out", "cost_usd_micro"):
        counts[name] += getattr(call, name) or 0


def _place(place: Place) -> dict[str, Any]:
    return dict(zip(("hour_us", "service", "release", "route", "client_key"), place, strict=True))


def _adding(database: Database) -> Insert:
    statement = database.upsert(t.spending)
    keys = [column.name for column in t.spending.primary_key]
    added = {name: t.spending.c[name] + statement.excluded[name] for name in _COUNTS}
    return statement.on_conflict_do_update(index_elements=keys, set_=added)
