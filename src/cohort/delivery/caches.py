"""The gateway's caches as people ask for them: how a service's do, and forgetting a person in everything that keeps answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cohort.base.errors import CohortError, Retry
from cohort.delivery.cache_state import CacheState, Keeping, Person, together
from cohort.delivery.cache_views import CacheView, Erasure, StoreErased, cache_figures
from cohort.delivery.ports import Answers
from cohort.delivery.store_sql import RolloutStore
from cohort.gateway.contract import is_killed
from cohort.gateway.contract_cache import CachePolicy

SWITCHES = ("cache.exact", "cache.semantic")


class Caches:
    """Thread-safe. `policy_of`: digest -> the release's cache, None without one. `workers`: every worker of the gateway.

    `record`: into the audit log, before anything is erased.
    """

    def __init__(
        self,
        store: RolloutStore,
        policy_of: Callable[[str], CachePolicy | None],
        workers: Sequence[Answers],
        record: Callable[[Mapping[str, Any]], object],
    ) -> None:
        self._store = store
        self._policy_of = policy_of
        self._workers = workers
        self._record = record

    def keeps(self, service: str) -> bool:
        """Whether the service's stable release has a `cache`. Cheap; False also where there is no such service."""
        with self._store.database.read() as connection:
            release = self._store.stable_of(connection).get(service)
        return release is not None and self._policy_of(release) is not None

    def view(self, service: str) -> CacheView:
        """Errors: NOT_FOUND: no such service, or its stable release has no `cache`."""
        with self._store.database.read() as connection:
            release, killed = self._store.stable_of(connection).get(service), self._store.killed(connection)
        if release is None:
            raise CohortError("NOT_FOUND", f"there is no service {service[:100]}", hint="See `cohort service list`.")
        policy = self._policy_of(release)
        if policy is None:
            what = f"the stable release of {service} has no `cache`"
            raise CohortError("NOT_FOUND", what, hint="Create a release with a `cache` section and roll it out.")
        states, silent = self._states()
        figures = cache_figures(service, release, policy, together(states)) if states else None
        switches = tuple(flag for flag in SWITCHES if is_killed(flag, killed))
        return CacheView(service, release, policy, switches, len(states), tuple(silent), figures)

    def erase(self, person: Person, actor: str) -> Erasure:
        """Forget a person in every store of every worker; each is asked, whatever the others say. What is gone stays gone.

        Raises:
            CohortError AUDIT_UNAVAILABLE: nothing was erased. FIELD_INVALID: `person` names nobody, or two.
            CACHE_NOT_ERASED: a store did not confirm it; `stores` in its details says which did. Safe to repeat.
        """
        if (person.unit is None) == (person.subject is None):
            raise CohortError("FIELD_INVALID", "name one person", field="unit", hint="Give `unit` or `subject`, not both.")
        # A subject is a name; what cannot be erased must not hold it.
        self._record(
            {"event": "erasure_asked", "unit": person.unit, "by": "unit" if person.unit is not None else "subject", "actor": actor}
        )
        units: set[str] = set()
        rows = [_erase(number, worker, store, person, units) for number, worker in enumerate(self._workers, 1) for store in Keeping]
        failed = [row for row in rows if row.problem]
        if failed:
            raise _not_erased(rows, failed)
        return Erasure(min(units), tuple(rows))

    def _states(self) -> tuple[list[CacheState], list[str]]:
        states, silent = [], []
        for number, worker in enumerate(self._workers, 1):
            try:
                states.append(worker.cache())
            except CohortError as error:
                if error.code != "DATA_PLANE_UNAVAILABLE":
                    raise
                silent.append(f"worker {number}: {error.message}")
        return states, silent


def _erase(number: int, worker: Answers, store: Keeping, person: Person, units: set[str]) -> StoreErased:
    try:
        forgotten = worker.erase(store, person)
    except CohortError as error:
        return StoreErased(number, store.value, None, error.message)
    units.add(forgotten.unit)
    return StoreErased(number, store.value, forgotten.erased, "")


def _not_erased(rows: Sequence[StoreErased], failed: Sequence[StoreErased]) -> CohortError:
    said = "; ".join(f"{row.store} of worker {row.worker}: {row.problem}" for row in failed)
    what = f"{len(failed)} of {len(rows)} stores did not confirm that they forgot the person: {said}"
    hint = "Ask again once the gateway answers; what is gone stays gone."
    return CohortError("CACHE_NOT_ERASED", what, retry=Retry.SAFE, hint=hint, stores=[asdict(row) for row in rows])
