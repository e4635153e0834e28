"""Makes the data plane serve what the database says, and finds out what it really serves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import orjson
from sqlalchemy import Connection

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.delivery.model import Rollout
from cohort.delivery.ports import Serving
from cohort.delivery.routing import Spending, build_table, without
from cohort.delivery.routing_store import RoutingStore
from cohort.delivery.store_sql import RolloutStore
from cohort.gateway.contract import GatewayState, ReleaseRoute, RoutingTable, ServiceRoute, decode_table, encode

VERSION_FACT = "routing_version"
TABLE_FACT = "routing_table"
"""The last table that was pushed, or was about to be."""
Content = tuple[dict[str, ServiceRoute], tuple[ReleaseRoute, ...], tuple[str, ...], Spending]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the database wants served, and who would have to be told that the data plane moved on by itself."""

    stable: dict[str, str]
    active: tuple[Rollout, ...]
    version: int
    killed: tuple[str, ...]
    spending: Spending
    strong_shares: dict[tuple[str, str], float]


class Reconciler:
    """One gateway's table. Thread-safe: the controller and the emergency verb share it.

    `routes_of` turns a digest into what the gateway needs of that release (None: the gateway does not serve its kind);
    `spending_of` reads who may call and what they may spend.
    """

    def __init__(
        self,
        store: RolloutStore,
        plane: Serving,
        routes_of: Callable[[str], ReleaseRoute | None],
        clock: Clock,
        spending_of: Callable[[Connection], Spending] = lambda _connection: Spending(),
    ) -> None:
        self._spending_of = spending_of
        self._store = store
        self._routing = RoutingStore(store.database)
        self._plane = plane
        self._routes_of = routes_of
        self._clock = clock
        self._lock = threading.Lock()
        self._table: RoutingTable | None = None  # the last one the gateway took
        self._acknowledged: Content | None = None
        self._leads = False  # what the gateway did by itself before this process began is recorded
        self._off: set[str] = set()  # services taken off their rollout without the database, which does not know it yet
        self.state: GatewayState | None = None
        self.reached_us: int | None = None
        self.pushed_us: int | None = None  # when the table in force was taken

    def reconcile(self) -> GatewayState:
        """Push a new table when what should be served differs from what was last taken.

        Raises:
            CohortError DATA_PLANE_UNAVAILABLE: not pushed, or its answer was lost, or the gateway is ahead; repeating is safe.
            CohortError DATABASE_UNAVAILABLE: nothing was read.
        """
        with self._lock:
            wanted = self._wanted()
            state = self._observe() if self._table is None else self.state
            if not self._leads and state is not None and state.table_version > wanted.version:
                what = f"the gateway has table {state.table_version}, known is {wanted.version}"
                raise CohortError(
                    "DATA_PLANE_UNAVAILABLE", what, retry=Retry.SAFE, hint="Repeat; control first records what it did meanwhile."
                )
            routes = {digest: route for digest in _digests(wanted) if (route := self._route(digest)) is not None}
            known = (wanted.stable, wanted.active, routes, wanted.killed, wanted.spending, wanted.strong_shares)
            table = build_table(wanted.version, self._clock.now_us(), *known)
            if state is not None and self._acknowledged == _content(table):
                return state
            return self._push(table, max(wanted.version, state.table_version if state else 0) + 1)

    def observe(self) -> GatewayState:
        """Ask the data plane what it serves."""
        with self._lock:
            return self._observe()

    def moved_ahead(self) -> bool:
        """The gateway has a newer table than the database knows of: a rollback made while the database was away."""
        with self._lock:
            return self.state is not None and self._table is None and self.state.table_version > self._wanted().version

    def lead(self) -> None:
        """What the gateway did by itself is recorded: from now on it is told what to serve."""
        with self._lock:
            self._leads = True

    def recheck(self) -> None:
        """After a gateway restart or a lost answer: push again whatever is wanted."""
        with self._lock:
            self._acknowledged = None

    def take_off(self, service: str, stable: str | None) -> GatewayState:
        """Without the database: the last known table with `service` off its rollout, pushed at once.

        Raises:
            CohortError DATA_PLANE_UNAVAILABLE: no table is known, the service is not in it, or the gateway does not answer.
        """
        with self._lock:
            if self._table is None or service not in self._table.services:
                raise CohortError(
                    "DATA_PLANE_UNAVAILABLE", f"no routing table with {service} is known", hint="Wait for the database, then repeat."
                )
            table = without(self._table, service, stable, self._table.version, self._clock.now_us())
            state = self._push(table, table.version + 1, record=False)
            self._off.add(service)
            return state

    def splits(self, service: str) -> bool:
        """Whether the table in force shares this service between two releases, as far as is known."""
        with self._lock:
            found = self._table.services.get(service) if self._table is not None else None
            return found is not None and found.split is not None

    def recorded(self, services: set[str]) -> None:
        """The database now knows of these: what it says holds again."""
        with self._lock:
            self._off -= services

    def _push(self, table: RoutingTable, version: int, *, record: bool = True) -> GatewayState:
        numbered = replace(table, version=version)
        if record:
            with self._store.database.write() as connection:
                self._store.set_fact(connection, VERSION_FACT, version)
                self._store.set_fact(connection, TABLE_FACT, orjson.loads(encode(numbered)))
        # Commit point. From here on the gateway may serve the new table.
        self.state = self._plane.push(numbered)
        self.reached_us = self.pushed_us = self._clock.now_us()
        if self.state.table_version != version:
            self._acknowledged = None
            raise CohortError(
                "DATA_PLANE_UNAVAILABLE",
                f"the gateway has table {self.state.table_version}, pushed was {version}",
                hint="Repeat; it will be numbered higher.",
            )
        self._table, self._acknowledged = numbered, _content(numbered)
        return self.state

    def _route(self, digest: str) -> ReleaseRoute | None:
        """What the gateway needs of a release; of a damaged one what was pushed before, so that it goes on being served and others can change."""
        try:
            return self._routes_of(digest)
        except CohortError as error:
            kept = self._pushed_before() if error.code == "RELEASE_DAMAGED" else None
            if kept is None or digest not in kept.releases:
                raise
            return kept.releases[digest]

    def _pushed_before(self) -> RoutingTable | None:
        if self._table is not None:
            return self._table
        with self._store.database.read() as connection:
            stored = self._store.fact(connection, TABLE_FACT)
        return decode_table(orjson.dumps(stored)) if stored is not None else None

    def _observe(self) -> GatewayState:
        self.state = self._plane.state()
        self.reached_us = self._clock.now_us()
        if self._table is not None and self.state.table_version < self._table.version:
            self._acknowledged = None
        return self.state

    def _wanted(self) -> Wanted:
        with self._store.database.read() as connection:
            version = self._store.fact(connection, VERSION_FACT) or 0
            active = tuple(rollout for rollout in self._store.active(connection) if rollout.service not in self._off)
            killed, spending = self._store.killed(connection), self._spending_of(connection)
            shares = {place: target.strong_share for place, target in self._routing.targets(connection).items()}
            return Wanted(self._store.stable_of(connection), active, version, killed, spending, shares)


def _digests(wanted: Wanted) -> list[str]:
    return sorted({*wanted.stable.values(), *(rollout.candidate for rollout in wanted.active)})


def _content(table: RoutingTable) -> Content:
    return dict(table.services), tuple(table.releases.values()), table.killed, Spending(table.keys, table.keys_required, table.budgets)
