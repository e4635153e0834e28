"""What delivery asks of its neighbours."""

from __future__ import annotations

from typing import Protocol

from cohort.delivery.cache_state import CacheState, Forgotten, Keeping, Person
from cohort.gateway.contract import Batch, Cursor, GatewayState, RoutingTable


class Serving(Protocol):
    """What serves clients, as control sees it. Every method may raise CohortError DATA_PLANE_UNAVAILABLE (nothing happened, or it is safe to repeat)."""

    def push(self, table: RoutingTable) -> GatewayState:
        """Give it a table; returns its state with the table in force. A table no newer than its own changes nothing."""
        ...

    def state(self) -> GatewayState: ...


class Answers(Protocol):
    """What keeps answers by the person who got them. Every method may raise CohortError DATA_PLANE_UNAVAILABLE."""

    def cache(self) -> CacheState:
        """What its caches hold, and how calls were answered."""
        ...

    def erase(self, store: Keeping, person: Person) -> Forgotten:
        """Forget a person in one of its stores. Errors: CACHE_NOT_ERASED (some may still be there; safe to repeat)."""
        ...


class DataPlane(Serving, Answers, Protocol):
    """One gateway, or one of its workers: it has a spool, and keeps answers."""

    def pull(self, after: Cursor, *, records_max: int, wait_ms: int) -> Batch:
        """Records behind `after`; waits up to `wait_ms` when there are none yet."""
        ...

    def acknowledge(self, upto: Cursor) -> None:
        """Everything before `upto` is durable here and may be deleted there."""
        ...
